"""`/mt score`, its buttons and its form: the summary of a score, and the report for admins."""

import asyncio
import re
from collections import Counter
from functools import partial
from typing import Annotated, Literal

import discord
from discord import app_commands
from pydantic import Field as Bounds

from bot.commands.inference import RUN_HELP, require_worker
from bot.commands.responses import Answer, ButtonAnswer, ButtonForm, CommandContext, Reactions, open_form, respond
from bot.commands.run_options import Run, find_run, run_for_form, suggested_runs
from bot.messages.buttons import ButtonPress, Field, button, button_row, form
from bot.messages.files import one_file
from bot.messages.inference import report_answer, report_files, score_answer, table_answer
from bot.messages.text import plain, said
from bot.people.user_settings import current_unit, use_unit
from bot.rest.attachments import attached_text
from bot.session.client import Bot
from trainer.config.validation import parse
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateRecord
from trainer.contracts.operations import CHAT_COMMANDS
from trainer.contracts.runs import has_unknown_text
from trainer.contracts.scores import ScoreRecord, ScoreRequest
from trainer.contracts.units import Unit
from trainer.lab.language import _
from trainer.reports.surprisal_report import MAX_REPORT_CHARACTERS, TABLE_NAME, unknown_signs

Detail = Literal["summary", "per_char"]

_DETAIL = "score detail:per_char"
_SCORE_CODE = re.compile(r"(?P<detail>summary|per_char)-(?P<unit>bits|nats)-(?P<top_k>\d\d?)")


class ScoreOptions(Frozen):
    """Options of `/mt score`."""

    detail: Detail = "summary"
    top_k: Annotated[int, Bounds(ge=0, le=10)] = 5
    unit: Unit = Bounds(default_factory=current_unit)

    @property
    def code(self) -> str:
        """Return the options as part of a custom id."""
        return f"{self.detail}-{self.unit}-{self.top_k}"

    @classmethod
    def of_code(cls, code: str | None) -> "ScoreOptions":
        found = _SCORE_CODE.fullmatch(code or "")
        return cls() if found is None else parse(cls, {**found.groupdict(), "top_k": int(found["top_k"])})


@app_commands.command(description="Score a text: loss and perplexity.")
@app_commands.describe(
    text="Text to score; without text and file, a form opens",
    file="Text to score: .txt, or .jsonl, .csv or .tsv with a field `text`",
    run=RUN_HELP,
    detail="per_char (admins only): surprisal of every character as picture, CSV and JSON; default: summary",
    top_k="With per_char: number of likelier characters to list per position; default: 5",
    unit="Unit of losses and surprisals; default: that of your settings",
)
@app_commands.autocomplete(run=suggested_runs("score"))
async def score(
    interaction: discord.Interaction[Bot],
    text: app_commands.Range[str, 1, 2000] | None = None,
    file: discord.Attachment | None = None,
    run: str | None = None,
    detail: Detail = "summary",
    top_k: app_commands.Range[int, 0, 10] = 5,
    unit: Unit | None = None,
) -> None:
    unit = unit or interaction.client.user_settings.unit_of(interaction.user.id)
    options = ScoreOptions(detail=detail, top_k=top_k, unit=unit)
    if text is None and file is None:
        await open_form(interaction, "score", lambda context: _score_form(context, run, options))
    else:
        await respond(interaction, "score", lambda context: _score_input(context, run, text, file, options))


async def _score_generated(context: CommandContext, press: ButtonPress) -> Answer:
    run = await find_run(context, "score", press.run_id)
    generated = await context.lab.queue.inference.get(GenerateRecord, run.record.run_id, press.detail or "")
    prompt = generated.request.prompt_text or ""
    text = "\n".join(prompt + output for output in generated.response.outputs or ())
    return await score_text(context, run, text, ScoreOptions())


async def _report_scored(context: CommandContext, press: ButtonPress) -> Answer:
    """Answer with the report of a scored text, or with its table alone."""
    run = await find_run(context, _DETAIL, press.run_id)
    scored = await context.lab.queue.inference.get(ScoreRecord, run.record.run_id, press.detail or "")
    return await _report(context, run, scored.request.text or "", ScoreOptions(), is_table=press.action == "csv")


async def _score_form(context: CommandContext, run_id: str | None, options: ScoreOptions) -> discord.ui.Modal:
    run = await run_for_form(context, "score", run_id)
    title = _("Score with {name}", name=run.name)
    return form("score", run.model, title, Field("text", _("Text")), detail=options.code)


async def _score_input(
    context: CommandContext,
    run_id: str | None,
    text: str | None,
    file: discord.Attachment | None,
    options: ScoreOptions,
) -> Answer:
    run = await find_run(context, "score", run_id)
    if file is not None:
        if text is not None:
            raise AppError(ErrorCode.INVALID_INPUT, _("Give either `text` or `file`, not both."))
        given = await attached_text(file, context.bot.settings)
        answer = await score_text(context, run, given.text, options)
        notes = [plain(said(note)) for note in given.notes]
        answer.embed.description = "\n".join([answer.embed.description or "", *notes])
        return answer
    return await score_text(context, run, text or "", options)


async def score_text(context: CommandContext, run: Run, text: str, options: ScoreOptions) -> Answer:
    """Answer with the report if it is requested and permitted, or else with the summary."""
    bot = context.bot
    use_unit(options.unit)
    request = parse(ScoreRequest, {"text": text})
    manifest = await require_worker(context, run)
    permissions, refusal = context.lab.permissions, None
    try:
        permissions.check(CHAT_COMMANDS[_DETAIL].role, context.caller)
    except AppError as error:
        refusal = permissions.worded(error, _DETAIL).message
    has_detail = options.detail == "per_char"
    if has_detail and refusal is None:
        return await _report(context, run, text, options)
    response = await bot.lab.ask(context.caller, run.model, request)
    own_bits_per_char: float | None = None
    if manifest is not None and not has_unknown_text(manifest.unknown_char_share):
        own_bits_per_char = manifest.metrics.bits_per_char
    unknown = await _unknown_signs(context, run, text) if response.unknown_chars else Counter[str]()
    embed = score_answer(run.record, text, response, own_bits_per_char, unknown, refusal if has_detail else None)
    buttons = [button("score", run.model, _("Score another…"), detail=options.code)]
    if refusal is None:
        buttons.append(button("detail", run.model, _("Detail"), detail=response.request_id))
        buttons.append(button("csv", run.model, "CSV", detail=response.request_id))
    return Answer(embed, view=button_row(*buttons))


async def _unknown_signs(context: CommandContext, run: Run, text: str) -> Counter[str]:
    """Return the unknown signs of a text with their counts; of a long text, none are named."""
    inference, model = context.lab.queue.inference, run.model
    normalized = await asyncio.to_thread(inference.normalize_input, model, text)
    if len(normalized) > MAX_REPORT_CHARACTERS:
        return Counter()
    request = ScoreRequest(text=normalized, detail_level="per_char", has_counts=False)
    response = await inference.ask(model, request, user_id=context.caller.user_id, is_kept=False)
    return unknown_signs(response, normalized)


async def _report(
    context: CommandContext, run: Run, text: str, options: ScoreOptions, *, is_table: bool = False
) -> Answer:
    """Score every character of a text, or of its first part if it is too long."""
    use_unit(options.unit)
    inference, model = context.lab.queue.inference, run.model
    normalized = await asyncio.to_thread(inference.normalize_input, model, text)
    scored_text = normalized[:MAX_REPORT_CHARACTERS]
    values: dict[str, object] = {"text": scored_text, "detail_level": "per_char", "top_k": options.top_k or None}
    scored = await inference.ask_json(model, parse(ScoreRequest, values), user_id=context.caller.user_id)
    report = await context.bot.charts.report(scored, scored_text, options.unit)
    if report is None:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _("The report could not be created. Try again in a minute."))
    another = button_row(button("score", model, _("Score another…"), detail=options.code))
    if is_table:
        table = one_file(TABLE_NAME, report.files[TABLE_NAME])
        return Answer(table_answer(run.record, report, model), table, another)
    embed = report_answer(run.record, report, model, left_out=len(normalized) - len(scored_text))
    return Answer(embed, partial(report_files, report), another)


BUTTONS: Reactions = {
    "score": ButtonForm(
        "score", lambda context, press: _score_form(context, press.run_id, ScoreOptions.of_code(press.detail))
    ),
    "scorethis": ButtonAnswer("score", _score_generated),
    "detail": ButtonAnswer(_DETAIL, _report_scored),
    "csv": ButtonAnswer(_DETAIL, _report_scored),
}
FORMS = {
    "score": ButtonAnswer(
        "score",
        lambda context, form: _score_input(
            context, form.run_id, form.fields["text"], None, ScoreOptions.of_code(form.detail)
        ),
    ),
}
