"""`/mt score`, `/mt generate` and `/mt chat`, the buttons and forms that ask the same: questions to a finished run."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, TypeAlias

import discord
from discord import app_commands
from pydantic import Field as Bounds

from bot.attachments import read_attachment
from bot.buttons import Pressed, button, row
from bot.client import Bot
from bot.commands.responses import Answer, Call, open_form, respond
from bot.commands.run_options import (
    ChosenRun,
    can_generate,
    completed_run,
    generating_run,
    is_completed,
    named_run,
    suggested_runs,
)
from bot.embeds import chat_answer, clamp, display_name, generate_answer, report_answer, report_files, score_answer
from bot.forms import FORM_TITLE, LONGEST_TEXT, Field, form
from bot.report import MAX_REPORT_CHARACTERS
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import ChatRequest, GenerateRequest, GenerateResponse, ScoreRequest, Seed
from trainer.contracts.validation import parse, takes_any_text
from trainer.reports.score_table import Unit

Detail = Literal["summary", "per_char"]
Clicked: TypeAlias = Callable[[discord.Interaction[Bot], Pressed], Awaitable[None]]
Submitted: TypeAlias = Callable[[discord.Interaction[Bot], Pressed, dict[str, str]], Awaitable[None]]

_MAX_NEW = 64
_HOTTEST, _WARMER = 2.0, 0.2
_BOM = "\ufeff"
_DETAIL = "score detail:per_char"
_WORKER_START_SECONDS, _LOOK_SECONDS = 30.0, 0.2
_CODE = re.compile(r"(?P<detail>summary|per_char)-(?P<base>bits|nats)-(?P<top_k>\d\d?)")


class ScoreOptions(Frozen):
    """How `/mt score` answers."""

    detail: Detail = "summary"
    top_k: Annotated[int, Bounds(ge=0, le=10)] = 5
    base: Unit = "bits"

    @property
    def code(self) -> str:
        """As they stand in a custom id."""
        return f"{self.detail}-{self.base}-{self.top_k}"

    @classmethod
    def of_code(cls, code: str | None) -> "ScoreOptions":
        found = _CODE.fullmatch(code or "")
        return cls() if found is None else parse(cls, {**found.groupdict(), "top_k": int(found["top_k"])})


class GenerateOptions(Frozen):
    """`/mt generate` as the chat bounds it; the fields are the command's options."""

    prompt: Annotated[str, Bounds(max_length=LONGEST_TEXT)] = ""
    max_new: Annotated[int, Bounds(ge=1, le=512)] = _MAX_NEW
    temperature: Annotated[float, Bounds(ge=0, le=_HOTTEST)] = 1.0
    top_k: Annotated[int, Bounds(ge=0, le=1000)] = 0
    top_p: Annotated[float, Bounds(gt=0, le=1)] = 1.0
    samples: Annotated[int, Bounds(ge=1, le=4)] = 1
    stop: Annotated[str, Bounds(min_length=1, max_length=100)] | None = None
    seed: Seed | None = None

    def request(self) -> GenerateRequest:
        return GenerateRequest(
            prompt_text=self.prompt,
            max_new_tokens=self.max_new,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            num_return_sequences=self.samples,
            stop_sequences=() if self.stop is None else (self.stop,),
            seed=self.seed,
        )

    @classmethod
    def of_lines(cls, prompt: str, settings: str) -> "GenerateOptions":
        """Read settings as a form holds them, one a line; an empty one, or none, is the default."""
        values: dict[str, object] = {"prompt": prompt}
        for line in filter(str.strip, settings.splitlines()):
            name, colon, value = (part.strip() for part in line.partition(":"))
            if not colon:
                raise AppError(ErrorCode.INVALID_INPUT, "Write each setting on a line of its own: `temperature: 0.8`.")
            if name == "prompt":
                raise AppError(ErrorCode.INVALID_INPUT, "Write the prompt in its own field, not among the settings.")
            if value:
                values[name] = value if takes_any_text(cls, name) else _number(value)
        return parse(cls, values)


@app_commands.command(description="How well a model predicts a text: loss, bits per character, perplexity.")
@app_commands.describe(
    text="The text to score; without text and file, a form opens",
    file="A text file (.txt, UTF-8) to score",
    run="The run's id; without it, your newest finished run, or else the newest of all",
    detail="per_char, for admins: every character with its surprisal, as a picture, CSV and JSON",
    top_k="With per_char: how many likelier characters to name at each place; 5 without it",
    base="The unit of losses",
)
@app_commands.autocomplete(run=suggested_runs("score", is_completed))
async def score(
    interaction: discord.Interaction[Bot],
    text: app_commands.Range[str, 1, 2000] | None = None,
    file: discord.Attachment | None = None,
    run: str | None = None,
    detail: Detail = "summary",
    top_k: app_commands.Range[int, 0, 10] = 5,
    base: Unit = "bits",
) -> None:
    options = ScoreOptions(detail=detail, top_k=top_k, base=base)
    if text is None and file is None:
        await open_form(interaction, "score", lambda call: _score_form(call, run, options))
    else:
        await respond(interaction, "score", lambda call: _score_given(call, run, text, file, options))


@app_commands.command(description="Let a model write.")
@app_commands.describe(
    prompt="What the text begins with; without one, the model begins by itself",
    run="The run's id; without it, your newest run that can generate, or else the newest of all",
    max_new="The most tokens to write; 64 without it",
    temperature="0 is always the likeliest, 1 as learned, above 1 wilder",
    top_k="Choose among the k likeliest tokens only; 0 is off",
    top_p="Choose among the likeliest tokens that make up this share",
    samples="How many texts",
    stop="End before this text",
    seed="The same seed writes the same text again",
)
@app_commands.autocomplete(run=suggested_runs("generate", can_generate))
async def generate(
    interaction: discord.Interaction[Bot],
    prompt: app_commands.Range[str, 0, 1000] = "",
    run: str | None = None,
    max_new: app_commands.Range[int, 1, 512] | None = None,
    temperature: app_commands.Range[float, 0, 2] = 1.0,
    top_k: app_commands.Range[int, 0, 1000] = 0,
    top_p: app_commands.Range[float, 0.01, 1.0] = 1.0,
    samples: app_commands.Range[int, 1, 4] = 1,
    stop: str | None = None,
    seed: app_commands.Range[int, 0, 4294967295] | None = None,
) -> None:
    values: dict[str, object] = {
        "prompt": prompt,
        "max_new": _default_length(interaction.client) if max_new is None else max_new,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "samples": samples,
        "stop": stop,
        "seed": seed,
    }
    await respond(interaction, "generate", lambda call: _generate(call, run, lambda: parse(GenerateOptions, values)))


@app_commands.command(description="Talk with a model; nobody else sees it.")
@app_commands.describe(
    message="What you say; the model goes on from all that was said",
    run="The run's id; without it, your newest run that can generate, or else the newest of all",
)
@app_commands.autocomplete(run=suggested_runs("chat", can_generate))
async def chat(
    interaction: discord.Interaction[Bot], message: app_commands.Range[str, 1, 2000], run: str | None = None
) -> None:
    await respond(interaction, "chat", lambda call: _say(call, run, message, None))


async def _chat_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    """Reply…: a form for what is said next."""

    async def work(call: Call) -> discord.ui.Modal:
        chosen = await named_run(call, "chat", pressed.run_id)
        await call.bot.queue.inference.get_chat(pressed.run_id, pressed.detail or "")
        title = clamp(f"Reply to {display_name(chosen.record)}", FORM_TITLE)
        return form("chat", pressed.run_id, title, Field("message", "Message"), detail=pressed.detail)

    await open_form(interaction, "chat", work)


async def _chat_sent(interaction: discord.Interaction[Bot], sent: Pressed, fields: dict[str, str]) -> None:
    await respond(interaction, "chat", lambda call: _say(call, sent.run_id, fields["message"], sent.detail))


async def _say(call: Call, run_id: str | None, message: str, session_id: str | None) -> Answer:
    chosen = await generating_run(call, "chat", run_id)
    values: dict[str, object] = {
        "message": message,
        "session_id": session_id,
        "max_new_tokens": _default_length(call.bot),
    }
    request = parse(ChatRequest, values)
    await _require_worker(call, chosen)
    made = await call.bot.queue.inference.chat(chosen.record.run_id, request, user_id=call.caller.user_id)
    reply = row(button("chat", chosen.record.run_id, "Reply…", detail=made.session_id))
    return Answer(chat_answer(chosen.record, message, made, request_id=call.request_id), view=reply)


async def _score_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    """Score…: a form for a text."""
    options = ScoreOptions.of_code(pressed.detail)
    await open_form(interaction, "score", lambda call: _score_form(call, pressed.run_id, options))


async def _score_sent(interaction: discord.Interaction[Bot], sent: Pressed, fields: dict[str, str]) -> None:
    options = ScoreOptions.of_code(sent.detail)
    await respond(interaction, "score", lambda call: _score_given(call, sent.run_id, fields["text"], None, options))


async def _score_this_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    """Score this: what was written, with its prompt."""

    async def work(call: Call) -> Answer:
        chosen = await named_run(call, "score", pressed.run_id)
        written = await call.bot.queue.inference.get_generate(pressed.run_id, pressed.detail or "")
        prompt = written.request.prompt_text or ""
        text = "\n".join(prompt + output for output in written.response.outputs or ())
        return await _score(call, chosen, text, ScoreOptions())

    await respond(interaction, "score", work)


async def _detail_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    """Detail: the report of a text that was scored."""

    async def work(call: Call) -> Answer:
        chosen = await named_run(call, _DETAIL, pressed.run_id)
        scored = await call.bot.queue.inference.get_score(pressed.run_id, pressed.detail or "")
        return await _report(call, chosen, scored.request.text or "", ScoreOptions())

    await respond(interaction, _DETAIL, work)


async def _generate_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    """Generate: as the command does without options."""
    options = GenerateOptions(max_new=_default_length(interaction.client))
    await respond(interaction, "generate", lambda call: _generate(call, pressed.run_id, lambda: options))


def _generate_changed(change: Callable[[GenerateRequest, GenerateResponse], dict[str, object]]) -> Clicked:
    """A button that asks what was asked before, changed a little."""

    async def clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
        async def work(call: Call) -> Answer:
            chosen = await named_run(call, "generate", pressed.run_id)
            before = await call.bot.queue.inference.get_generate(pressed.run_id, pressed.detail or "")
            request = before.request.model_copy(update=change(before.request, before.response))
            _check_length(call.bot, request)
            return await _write(call, chosen, request)

        await respond(interaction, "generate", work)

    return clicked


async def _edit_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    """Edit…: a form with the prompt and the settings."""

    async def work(call: Call) -> discord.ui.Modal:
        await named_run(call, "generate", pressed.run_id)
        before = await call.bot.queue.inference.get_generate(pressed.run_id, pressed.detail or "")
        prompt = Field("prompt", "Prompt", before.request.prompt_text or "", is_required=False)
        settings = Field("settings", "Settings, one a line", _lines(before.request, before.response), is_required=False)
        return form("edit", pressed.run_id, "Edit and write again", prompt, settings)

    await open_form(interaction, "generate", work)


async def _edit_sent(interaction: discord.Interaction[Bot], sent: Pressed, fields: dict[str, str]) -> None:
    await respond(
        interaction,
        "generate",
        lambda call: _generate(
            call, sent.run_id, lambda: GenerateOptions.of_lines(fields["prompt"], fields["settings"])
        ),
    )


def _again(asked: GenerateRequest, made: GenerateResponse) -> dict[str, object]:
    return {"seed": None}


def _hotter(asked: GenerateRequest, made: GenerateResponse) -> dict[str, object]:
    return {"temperature": min(_HOTTEST, round(asked.temperature + _WARMER, 2)), "seed": made.seed_used}


def _cooler(asked: GenerateRequest, made: GenerateResponse) -> dict[str, object]:
    return {"temperature": max(0.0, round(asked.temperature - _WARMER, 2)), "seed": made.seed_used}


QUESTION_BUTTONS: dict[str, Clicked] = {
    "score": _score_clicked,
    "scorethis": _score_this_clicked,
    "detail": _detail_clicked,
    "generate": _generate_clicked,
    "again": _generate_changed(_again),
    "hotter": _generate_changed(_hotter),
    "cooler": _generate_changed(_cooler),
    "edit": _edit_clicked,
    "chat": _chat_clicked,
}
"""What the buttons of questions do."""
QUESTION_FORMS: dict[str, Submitted] = {
    "score": _score_sent,
    "edit": _edit_sent,
    "chat": _chat_sent,
}
"""What is done with what their forms were filled with."""


async def _score_form(call: Call, run_id: str | None, options: ScoreOptions) -> discord.ui.Modal:
    chosen = await completed_run(call, "score", run_id)
    await asyncio.to_thread(chosen.directory.completed_manifest)
    title = clamp(f"Score with {display_name(chosen.record)}", FORM_TITLE)
    return form("score", chosen.record.run_id, title, Field("text", "Text"), detail=options.code)


async def _score_given(
    call: Call, run_id: str | None, text: str | None, file: discord.Attachment | None, options: ScoreOptions
) -> Answer:
    chosen = await completed_run(call, "score", run_id)
    if file is not None:
        if text is not None:
            raise AppError(ErrorCode.INVALID_INPUT, "Give one of `text` and `file`, not both.")
        text = _decoded(await read_attachment(file, call.bot.settings))
    return await _score(call, chosen, text or "", options)


async def _score(call: Call, chosen: ChosenRun, text: str, options: ScoreOptions) -> Answer:
    """Answer with the report where it is asked for by one who may have it, else with the summary."""
    request = parse(ScoreRequest, {"text": text})
    await _require_worker(call, chosen)
    refused: str | None = None
    if options.detail == "per_char":
        try:
            call.bot.permissions.check_run(_DETAIL, call.caller, chosen.record)
        except AppError as error:
            refused = error.message
        else:
            return await _report(call, chosen, text, options)
    run_id = chosen.record.run_id
    response = await call.bot.queue.inference.score(run_id, request, user_id=call.caller.user_id)
    manifest = await asyncio.to_thread(chosen.directory.completed_manifest)
    embed = score_answer(
        chosen.record,
        text,
        response,
        options.base,
        request_id=call.request_id,
        own_bits_per_char=manifest.metrics.bits_per_char,
        refused=refused,
    )
    buttons = [button("score", run_id, "Score another…", detail=options.code)]
    if call.bot.permissions.may_give(_DETAIL, call.caller, chosen.record):
        buttons.append(button("detail", run_id, "Detail", detail=response.request_id))
    return Answer(embed, view=row(*buttons))


async def _report(call: Call, chosen: ChosenRun, text: str, options: ScoreOptions) -> Answer:
    """Score every character; a text that is too long for that is cut, and the answer says so."""
    run_id = chosen.record.run_id
    whole = await asyncio.to_thread(call.bot.queue.inference.normalize_input, run_id, text)
    read = whole[:MAX_REPORT_CHARACTERS]
    asked: dict[str, object] = {"text": read, "detail_level": "per_char", "top_k": options.top_k or None}
    scored = await call.bot.queue.inference.score_json(run_id, parse(ScoreRequest, asked), user_id=call.caller.user_id)
    made = await call.bot.charts.report(scored, read, options.base)
    if made is None:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "The report could not be made: try again in a minute.")
    embed = report_answer(chosen.record, made, left_out=len(whole) - len(read), request_id=call.request_id)
    buttons = row(button("score", run_id, "Score another…", detail=options.code))
    return Answer(embed, report_files(made), buttons)


async def _generate(call: Call, run_id: str | None, options: Callable[[], GenerateOptions]) -> Answer:
    request = options().request()
    _check_length(call.bot, request)
    chosen = await generating_run(call, "generate", run_id)
    return await _write(call, chosen, request)


async def _write(call: Call, chosen: ChosenRun, request: GenerateRequest) -> Answer:
    run_id = chosen.record.run_id
    await _require_worker(call, chosen)
    made = await call.bot.queue.inference.generate(run_id, request, user_id=call.caller.user_id)
    asked = made.request_id
    buttons = row(
        button("again", run_id, "Again", detail=asked),
        button("edit", run_id, "Edit…", detail=asked),
        button("hotter", run_id, "Hotter", detail=asked, disabled=request.temperature >= _HOTTEST),
        button("cooler", run_id, "Cooler", detail=asked, disabled=request.temperature <= 0),
        button("scorethis", run_id, "Score this", detail=asked),
    )
    return Answer(generate_answer(chosen.record, request, made, request_id=call.request_id), view=buttons)


async def _require_worker(call: Call, chosen: ChosenRun) -> None:
    """Raise an error for an unfinished run, and SERVICE_UNAVAILABLE without a worker; an embedded one may start."""
    await asyncio.to_thread(chosen.directory.completed_manifest)
    starts = call.bot.settings.queue.embedded_workers > 0
    deadline = time.monotonic() + (_WORKER_START_SECONDS if starts else 0.0)
    while not await call.bot.queue.has_worker():
        if time.monotonic() >= deadline:
            raise AppError(
                ErrorCode.SERVICE_UNAVAILABLE,
                "No worker is running, so no model can answer. Ask whoever runs this bot to start one.",
            )
        await asyncio.sleep(_LOOK_SECONDS)


def _check_length(bot: "Bot", request: GenerateRequest) -> None:
    most = bot.settings.limits.generate_max_new_tokens
    if request.max_new_tokens > most:
        raise AppError(
            ErrorCode.INVALID_INPUT, f"`max_new` may be at most {most} here, you gave {request.max_new_tokens}."
        )


def _default_length(bot: "Bot") -> int:
    return min(_MAX_NEW, bot.settings.limits.generate_max_new_tokens)


def _lines(asked: GenerateRequest, made: GenerateResponse) -> str:
    """The settings of a generation as a form shows them; `GenerateOptions.of_lines` reads them back."""
    values: dict[str, object] = {
        "max_new": asked.max_new_tokens,
        "temperature": f"{asked.temperature:g}",
        "top_k": asked.top_k,
        "top_p": f"{asked.top_p:g}",
        "samples": asked.num_return_sequences,
        "stop": "".join(asked.stop_sequences),
        "seed": "" if made.seed_used is None else made.seed_used,
    }
    return "\n".join(f"{name}: {value}" for name, value in values.items())


def _number(text: str) -> object:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _decoded(data: bytes) -> str:
    try:
        return data.decode().removeprefix(_BOM)
    except UnicodeDecodeError as error:
        raise AppError(
            ErrorCode.INVALID_INPUT, f"`file` is not UTF-8: byte {error.start:,} cannot be decoded."
        ) from None
