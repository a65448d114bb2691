"""`/mt score`, `/mt generate` and `/mt chat`, their buttons and forms: inference requests to completed runs."""

import asyncio
import re
import time
from collections.abc import Iterable
from typing import Annotated, Literal

import discord
from discord import app_commands
from pydantic import ConfigDict
from pydantic import Field as Bounds

from bot.attachments import read_attachment
from bot.buttons import MAX_FORM_TITLE, MAX_TEXT, ButtonPress, Field, button, button_row, form
from bot.client import Bot
from bot.commands.responses import Answer, ButtonAnswer, ButtonForm, CommandContext, open_form, respond
from bot.commands.run_options import Run, find_run, suggested_runs
from bot.embeds.inference import chat_answer, generate_answer, report_answer, report_files, score_answer
from bot.embeds.text import clamp, display_name
from bot.report import MAX_REPORT_CHARACTERS, ReportFiles
from trainer.contracts.base import Frozen, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import ChatRequest, GenerateRequest, GenerateResponse, ScoreRequest
from trainer.contracts.inference_fields import Seed
from trainer.contracts.validation import decoded, parse
from trainer.reports.score_table import Unit

Detail = Literal["summary", "per_char"]

_DEFAULT_NEW_TOKENS = 64
_MAX_TEMPERATURE, _TEMPERATURE_STEP = 2.0, 0.2
_BOM = "\ufeff"
_DETAIL = "score detail:per_char"
_WORKER_START_SECONDS, _POLL_SECONDS = 30.0, 0.2
_SCORE_CODE = re.compile(r"(?P<detail>summary|per_char)-(?P<unit>bits|nats)-(?P<top_k>\d\d?)")
_RUN_HELP = "Id of the run; default: your newest completed run, or the newest of all"


class ScoreOptions(Frozen):
    """Options of `/mt score`."""

    detail: Detail = "summary"
    top_k: Annotated[int, Bounds(ge=0, le=10)] = 5
    unit: Unit = "bits"

    @property
    def code(self) -> str:
        """Return the options as part of a custom id."""
        return f"{self.detail}-{self.unit}-{self.top_k}"

    @classmethod
    def of_code(cls, code: str | None) -> "ScoreOptions":
        found = _SCORE_CODE.fullmatch(code or "")
        return cls() if found is None else parse(cls, {**found.groupdict(), "top_k": int(found["top_k"])})


class GenerateOptions(Frozen):
    """Options of `/mt generate`, with the bounds of the chat."""

    model_config = ConfigDict(strict=False)  # a form has text for numbers

    prompt: Annotated[str, Bounds(max_length=MAX_TEXT)] = ""
    max_new_tokens: Annotated[int, Bounds(ge=1, le=512)] = _DEFAULT_NEW_TOKENS
    temperature: Annotated[float, Bounds(ge=0, le=_MAX_TEMPERATURE)] = 1.0
    top_k: Annotated[int, Bounds(ge=0, le=1000)] = 0
    top_p: Annotated[float, Bounds(gt=0, le=1)] = 1.0
    samples: Annotated[int, Bounds(ge=1, le=4)] = 1
    stop: Annotated[str, Bounds(min_length=1, max_length=100)] | None = None
    seed: Seed | None = None

    def request(self) -> GenerateRequest:
        values: dict[str, object] = self.model_dump(exclude={"prompt", "samples", "stop"})
        values |= {"prompt_text": self.prompt, "num_return_sequences": self.samples}
        return parse(GenerateRequest, values | {"stop_sequences": [] if self.stop is None else [self.stop]})

    @classmethod
    def of_lines(cls, prompt: str, settings: str) -> "GenerateOptions":
        """Read settings from a form, one per line; an empty or missing one has its default."""
        values: dict[str, object] = {"prompt": prompt}
        for line in filter(str.strip, settings.splitlines()):
            name, colon, value = (part.strip() for part in line.partition(":"))
            if not colon:
                raise AppError(ErrorCode.INVALID_INPUT, "Write each setting on its own line: `temperature: 0.8`.")
            if name == "prompt":
                raise AppError(ErrorCode.INVALID_INPUT, "Write the prompt in its own field, not into the settings.")
            if value:
                values[name] = value
        return parse(cls, values)


@app_commands.command(description="Score a text: loss, bits per character and perplexity.")
@app_commands.describe(
    text="Text to score; without text and file, a form opens",
    file="Text file to score (.txt, UTF-8)",
    run=_RUN_HELP,
    detail="per_char (admins only): surprisal of every character as picture, CSV and JSON; default: summary",
    top_k="With per_char: number of likelier characters to list per position; default: 5",
    unit="Unit of losses and surprisals; default: bits",
)
@app_commands.autocomplete(run=suggested_runs("score"))
async def score(
    interaction: discord.Interaction[Bot],
    text: app_commands.Range[str, 1, 2000] | None = None,
    file: discord.Attachment | None = None,
    run: str | None = None,
    detail: Detail = "summary",
    top_k: app_commands.Range[int, 0, 10] = 5,
    unit: Unit = "bits",
) -> None:
    options = ScoreOptions(detail=detail, top_k=top_k, unit=unit)
    if text is None and file is None:
        await open_form(interaction, "score", lambda context: _score_form(context, run, options))
    else:
        await respond(interaction, "score", lambda context: _score_input(context, run, text, file, options))


@app_commands.command(description="Generate text with a model.")
@app_commands.describe(
    prompt="Start of the text; default: empty",
    run=_RUN_HELP,
    max_new_tokens=f"Maximum number of tokens to generate; default: {_DEFAULT_NEW_TOKENS}",
    temperature="0: always the likeliest token; 1: as learned; above 1: more random; default: 1",
    top_k="Sample only from the k likeliest tokens; default: 0 (off)",
    top_p="Sample only from the likeliest tokens with this total probability; default: 1 (off)",
    samples="Number of texts; default: 1",
    stop="Stop before this text",
    seed="Seed of the sampling; the same seed generates the same text",
)
@app_commands.autocomplete(run=suggested_runs("generate"))
async def generate(
    interaction: discord.Interaction[Bot],
    prompt: app_commands.Range[str, 0, 1000] = "",
    run: str | None = None,
    max_new_tokens: app_commands.Range[int, 1, 512] | None = None,
    temperature: app_commands.Range[float, 0, 2] = 1.0,
    top_k: app_commands.Range[int, 0, 1000] = 0,
    top_p: app_commands.Range[float, 0.01, 1.0] = 1.0,
    samples: app_commands.Range[int, 1, 4] = 1,
    stop: str | None = None,
    seed: app_commands.Range[int, 0, 4294967295] | None = None,
) -> None:
    options: Iterable[tuple[str, object]] = interaction.namespace  # the values of the parameters by name
    values = {"max_new_tokens": _default_length(interaction.client)} | {k: v for k, v in options if k != "run"}
    await respond(interaction, "generate", lambda context: _generate(context, run, parse(GenerateOptions, values)))


@app_commands.command(description="Chat with a model; only you see the messages.")
@app_commands.describe(message="Your message; the model continues the chat", run=_RUN_HELP)
@app_commands.autocomplete(run=suggested_runs("chat"))
async def chat(
    interaction: discord.Interaction[Bot], message: app_commands.Range[str, 1, 2000], run: str | None = None
) -> None:
    await respond(interaction, "chat", lambda context: _chat(context, run, message, None))


async def _chat_form(context: CommandContext, press: ButtonPress) -> discord.ui.Modal:
    run = await find_run(context, "chat", press.run_id)
    await context.bot.queue.inference.get_chat(press.run_id, press.detail or "")
    title = clamp(f"Reply to {display_name(run.record)}", MAX_FORM_TITLE)
    return form("chat", press.run_id, title, Field("message", "Message"), detail=press.detail)


async def _chat(context: CommandContext, run_id: str | None, message: str, session_id: str | None) -> Answer:
    run = await find_run(context, "chat", run_id)
    values: dict[str, object] = {"message": message, "session_id": session_id}
    request = parse(ChatRequest, values | {"max_new_tokens": _default_length(context.bot)})
    await _require_worker(context, run)
    response = await context.bot.queue.inference.chat(run.record.run_id, request, user_id=context.caller.user_id)
    reply = button_row(button("chat", run.record.run_id, "Reply…", detail=response.session_id))
    return Answer(chat_answer(run.record, message, response), view=reply)


async def _score_generated(context: CommandContext, press: ButtonPress) -> Answer:
    run = await find_run(context, "score", press.run_id)
    generated = await context.bot.queue.inference.get_generate(press.run_id, press.detail or "")
    prompt = generated.request.prompt_text or ""
    text = "\n".join(prompt + output for output in generated.response.outputs or ())
    return await _score(context, run, text, ScoreOptions())


async def _report_scored(context: CommandContext, press: ButtonPress) -> Answer:
    run = await find_run(context, _DETAIL, press.run_id)
    scored = await context.bot.queue.inference.get_score(press.run_id, press.detail or "")
    return await _report(context, run, scored.request.text or "", ScoreOptions())


async def _generate_again(context: CommandContext, press: ButtonPress) -> Answer:
    """Repeat a request with another seed or temperature."""
    run = await find_run(context, "generate", press.run_id)
    earlier = await context.bot.queue.inference.get_generate(press.run_id, press.detail or "")
    request = changed(earlier.request, seed=None)
    if press.action != "again":
        step = _TEMPERATURE_STEP if press.action == "hotter" else -_TEMPERATURE_STEP
        temperature = max(0.0, min(_MAX_TEMPERATURE, round(request.temperature + step, 2)))
        request = changed(request, temperature=temperature, seed=earlier.response.seed_used)
    _check_length(context, request)
    return await _generate_on(context, run, request)


async def _edit_form(context: CommandContext, press: ButtonPress) -> discord.ui.Modal:
    """Return a form with the prompt and the settings of a request."""
    await find_run(context, "generate", press.run_id)
    earlier = await context.bot.queue.inference.get_generate(press.run_id, press.detail or "")
    prompt = Field("prompt", "Prompt", earlier.request.prompt_text or "", is_required=False)
    lines = _setting_lines(earlier.request, earlier.response)
    settings = Field("settings", "Settings, one per line", lines, is_required=False)
    return form("edit", press.run_id, "Edit and generate again", prompt, settings)


async def _generate_edited(context: CommandContext, form: ButtonPress) -> Answer:
    options = GenerateOptions.of_lines(form.fields["prompt"], form.fields["settings"])
    return await _generate(context, form.run_id, options)


async def _score_form(context: CommandContext, run_id: str | None, options: ScoreOptions) -> discord.ui.Modal:
    run = await find_run(context, "score", run_id)
    await asyncio.to_thread(run.directory.completed_manifest)
    title = clamp(f"Score with {display_name(run.record)}", MAX_FORM_TITLE)
    return form("score", run.record.run_id, title, Field("text", "Text"), detail=options.code)


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
            raise AppError(ErrorCode.INVALID_INPUT, "Give either `text` or `file`, not both.")
        text = decoded(await read_attachment(file, context.bot.settings), "`file`").removeprefix(_BOM)
    return await _score(context, run, text or "", options)


async def _score(context: CommandContext, run: Run, text: str, options: ScoreOptions) -> Answer:
    """Answer with the report if it is requested and permitted, or else with the summary."""
    bot, run_id = context.bot, run.record.run_id
    request = parse(ScoreRequest, {"text": text})
    await _require_worker(context, run)
    refusal: str | None = None
    if options.detail == "per_char":
        try:
            bot.permissions.check_run(_DETAIL, context.caller, run.record)
        except AppError as error:
            refusal = error.message
        else:
            return await _report(context, run, text, options)
    response = await bot.queue.inference.score(run_id, request, user_id=context.caller.user_id)
    manifest = await asyncio.to_thread(run.directory.completed_manifest)
    own_bits_per_char = manifest.metrics.bits_per_char
    embed = score_answer(run.record, text, response, options.unit, own_bits_per_char, refusal)
    buttons = [button("score", run_id, "Score another…", detail=options.code)]
    if bot.permissions.can_run(_DETAIL, context.caller, run.record):
        buttons.append(button("detail", run_id, "Detail", detail=response.request_id))
    return Answer(embed, view=button_row(*buttons))


async def _report(context: CommandContext, run: Run, text: str, options: ScoreOptions) -> Answer:
    """Score every character of a text, or of its first part if it is too long."""
    inference, run_id = context.bot.queue.inference, run.record.run_id
    normalized = await asyncio.to_thread(inference.normalize_input, run_id, text)
    scored_text = normalized[:MAX_REPORT_CHARACTERS]
    values: dict[str, object] = {"text": scored_text, "detail_level": "per_char", "top_k": options.top_k or None}
    scored = await inference.score_json(run_id, parse(ScoreRequest, values), user_id=context.caller.user_id)
    report = await context.bot.charts.report(scored, scored_text, options.unit)
    return _report_answer(run, report, options, left_out=len(normalized) - len(scored_text))


def _report_answer(run: Run, report: ReportFiles | None, options: ScoreOptions, *, left_out: int) -> Answer:
    if report is None:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "The report could not be created. Try again in a minute.")
    another = button_row(button("score", run.record.run_id, "Score another…", detail=options.code))
    return Answer(report_answer(run.record, report, left_out=left_out), report_files(report), another)


async def _generate(context: CommandContext, run_id: str | None, options: GenerateOptions) -> Answer:
    request = options.request()
    _check_length(context, request)
    return await _generate_on(context, await find_run(context, "generate", run_id), request)


async def _generate_on(context: CommandContext, run: Run, request: GenerateRequest) -> Answer:
    run_id = run.record.run_id
    await _require_worker(context, run)
    response = await context.bot.queue.inference.generate(run_id, request, user_id=context.caller.user_id)
    detail = response.request_id
    buttons = button_row(
        button("again", run_id, "Again", detail=detail),
        button("edit", run_id, "Edit…", detail=detail),
        button("hotter", run_id, "Hotter", detail=detail, disabled=request.temperature >= _MAX_TEMPERATURE),
        button("cooler", run_id, "Cooler", detail=detail, disabled=request.temperature <= 0),
        button("scorethis", run_id, "Score this", detail=detail),
    )
    return Answer(generate_answer(run.record, request, response), view=buttons)


def _check_length(context: CommandContext, request: GenerateRequest) -> None:
    limit = context.bot.settings.limits.generate_max_new_tokens
    if request.max_new_tokens > limit:
        message = f"`max_new_tokens` may be at most {limit} here, you gave {request.max_new_tokens}."
        raise AppError(ErrorCode.INVALID_INPUT, message)


async def _require_worker(context: CommandContext, run: Run) -> None:
    """Raise an error for an unfinished run, and SERVICE_UNAVAILABLE without a worker; waits for an embedded one."""
    await asyncio.to_thread(run.directory.completed_manifest)
    is_embedded = context.bot.settings.queue.embedded_workers > 0
    deadline = time.monotonic() + (_WORKER_START_SECONDS if is_embedded else 0.0)
    while not await context.bot.queue.has_worker():
        if time.monotonic() >= deadline:
            raise AppError(
                ErrorCode.SERVICE_UNAVAILABLE, "No worker is running. Ask the operator of this bot to start one."
            )
        await asyncio.sleep(_POLL_SECONDS)


def _default_length(bot: Bot) -> int:
    return min(_DEFAULT_NEW_TOKENS, bot.settings.limits.generate_max_new_tokens)


def _setting_lines(request: GenerateRequest, response: GenerateResponse) -> str:
    """Return the settings of a request as lines of a form, which `GenerateOptions.of_lines` reads."""
    lines = [
        f"max_new_tokens: {request.max_new_tokens}",
        f"temperature: {request.temperature:g}",
        f"top_k: {request.top_k}",
        f"top_p: {request.top_p:g}",
        f"samples: {request.num_return_sequences}",
        f"stop: {''.join(request.stop_sequences)}",
        f"seed: {'' if response.seed_used is None else response.seed_used}",
    ]
    return "\n".join(lines)


INFERENCE_BUTTONS: dict[str, ButtonAnswer | ButtonForm] = {
    "score": ButtonForm(
        "score", lambda context, press: _score_form(context, press.run_id, ScoreOptions.of_code(press.detail))
    ),
    "scorethis": ButtonAnswer("score", _score_generated),
    "detail": ButtonAnswer(_DETAIL, _report_scored),
    "generate": ButtonAnswer(
        "generate",
        lambda context, press: _generate(
            context, press.run_id, GenerateOptions(max_new_tokens=_default_length(context.bot))
        ),
    ),
    "again": ButtonAnswer("generate", _generate_again),
    "hotter": ButtonAnswer("generate", _generate_again),
    "cooler": ButtonAnswer("generate", _generate_again),
    "edit": ButtonForm("generate", _edit_form),
    "chat": ButtonForm("chat", _chat_form),
}
INFERENCE_FORMS = {
    "score": ButtonAnswer(
        "score",
        lambda context, form: _score_input(
            context, form.run_id, form.fields["text"], None, ScoreOptions.of_code(form.detail)
        ),
    ),
    "edit": ButtonAnswer("generate", _generate_edited),
    "chat": ButtonAnswer(
        "chat", lambda context, form: _chat(context, form.run_id, form.fields["message"], form.detail)
    ),
}
