"""`/mt generate`, its buttons and its form: a prompt is continued, and continued again with other settings."""

from collections.abc import Iterable
from typing import Annotated

import discord
from discord import app_commands
from pydantic import ConfigDict
from pydantic import Field as Bounds

from bot.commands.inference import DEFAULT_NEW_TOKENS, RUN_HELP, default_length, infer
from bot.commands.responses import Answer, ButtonAnswer, ButtonForm, CommandContext, Reactions, open_form, respond
from bot.commands.run_options import Run, find_run, run_for_form, suggested_runs
from bot.messages.buttons import MAX_TEXT, ButtonPress, Field, button, button_row, form
from bot.messages.inference import generate_answer
from bot.session.client import Bot
from trainer.config.validation import parse
from trainer.contracts.base import Frozen, Seed, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateRecord, GenerateRequest
from trainer.lab.language import _

_MAX_TEMPERATURE, _TEMPERATURE_STEP = 2.0, 0.2


class GenerateOptions(Frozen):
    """Options of `/mt generate`, with the bounds of the chat."""

    model_config = ConfigDict(strict=False)  # a form has text for numbers

    prompt: Annotated[str, Bounds(max_length=MAX_TEXT)] = ""
    max_new_tokens: Annotated[int, Bounds(ge=1, le=512)] = DEFAULT_NEW_TOKENS
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
                raise AppError(ErrorCode.INVALID_INPUT, _("Write each setting on its own line: `temperature: 0.8`."))
            if name == "prompt":
                raise AppError(ErrorCode.INVALID_INPUT, _("Write the prompt in its own field, not into the settings."))
            if value:
                values[name] = value
        return parse(cls, values)


@app_commands.command(description="Generate text with a model.")
@app_commands.describe(
    prompt="Start of the text; without it, a form opens",
    run=RUN_HELP,
    max_new_tokens=f"Maximum number of tokens to generate; default: {DEFAULT_NEW_TOKENS}",
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
    values = {"max_new_tokens": default_length(interaction.client)} | {k: v for k, v in options if k != "run"}
    if prompt:
        await respond(interaction, "generate", lambda context: _generate(context, run, parse(GenerateOptions, values)))
    else:
        await open_form(interaction, "generate", lambda context: _form(context, run, parse(GenerateOptions, values)))


async def _form(context: CommandContext, run_id: str | None, options: GenerateOptions) -> discord.ui.Modal:
    run = await run_for_form(context, "generate", run_id)
    request = options.request()
    _check_length(context, request)
    title = _("Generate with {name}", name=run.name)
    return _generate_form(run.model, title, request, options.seed)


def _generate_form(model: str, title: str, request: GenerateRequest, seed: int | None) -> discord.ui.Modal:
    """Return a form with the prompt and the settings of a request."""
    prompt = Field("prompt", _("Prompt"), request.prompt_text or "", is_required=False)
    settings = Field("settings", _("Settings, one per line"), _setting_lines(request, seed), is_required=False)
    return form("edit", model, title, prompt, settings)


async def _generate_again(context: CommandContext, press: ButtonPress) -> Answer:
    """Repeat a request with another seed or temperature."""
    run = await find_run(context, "generate", press.run_id)
    earlier = await context.lab.queue.inference.get(GenerateRecord, run.record.run_id, press.detail or "")
    request = changed(earlier.request, seed=None)
    if press.action != "again":
        step = _TEMPERATURE_STEP if press.action == "hotter" else -_TEMPERATURE_STEP
        temperature = max(0.0, min(_MAX_TEMPERATURE, round(request.temperature + step, 2)))
        request = changed(request, temperature=temperature, seed=earlier.response.seed_used)
    _check_length(context, request)
    return await _generate_on(context, run, request)


async def _edit_form(context: CommandContext, press: ButtonPress) -> discord.ui.Modal:
    """Return a form with the prompt and the settings of an earlier request."""
    run = await run_for_form(context, "generate", press.run_id)
    earlier = await context.lab.queue.inference.get(GenerateRecord, run.run_id, press.detail or "")
    title = _("Edit and generate again")
    return _generate_form(press.run_id, title, earlier.request, earlier.response.seed_used)


async def _generate_edited(context: CommandContext, form: ButtonPress) -> Answer:
    options = GenerateOptions.of_lines(form.fields["prompt"], form.fields["settings"])
    return await _generate(context, form.run_id, options)


async def _generate(context: CommandContext, run_id: str | None, options: GenerateOptions) -> Answer:
    request = options.request()
    _check_length(context, request)
    return await _generate_on(context, await find_run(context, "generate", run_id), request)


async def _generate_on(context: CommandContext, run: Run, request: GenerateRequest) -> Answer:
    model = run.model
    response = await infer(context, run, request)
    detail = response.request_id
    buttons = button_row(
        button("again", model, _("Again"), detail=detail),
        button("edit", model, _("Edit…"), detail=detail),
        button("hotter", model, _("Hotter"), detail=detail, disabled=request.temperature >= _MAX_TEMPERATURE),
        button("cooler", model, _("Cooler"), detail=detail, disabled=request.temperature <= 0),
        button("scorethis", model, _("Score this"), detail=detail),
    )
    return Answer(generate_answer(run.record, request, response), view=buttons)


def _check_length(context: CommandContext, request: GenerateRequest) -> None:
    limit = context.bot.settings.limits.generate_max_new_tokens
    if request.max_new_tokens > limit:
        message = _(
            "`max_new_tokens` may be at most {limit} here, you gave {number}.",
            limit=limit,
            number=request.max_new_tokens,
        )
        raise AppError(ErrorCode.INVALID_INPUT, message)


def _setting_lines(request: GenerateRequest, seed: int | None) -> str:
    """Return the settings of a request as lines of a form, which `GenerateOptions.of_lines` reads."""
    lines = [
        f"max_new_tokens: {request.max_new_tokens}",
        f"temperature: {request.temperature:g}",
        f"top_k: {request.top_k}",
        f"top_p: {request.top_p:g}",
        f"samples: {request.num_return_sequences}",
        f"stop: {''.join(request.stop_sequences)}",
        f"seed: {'' if seed is None else seed}",
    ]
    return "\n".join(lines)


BUTTONS: Reactions = {
    "generate": ButtonAnswer(
        "generate",
        lambda context, press: _generate(
            context, press.run_id, GenerateOptions(max_new_tokens=default_length(context.bot))
        ),
    ),
    "again": ButtonAnswer("generate", _generate_again),
    "hotter": ButtonAnswer("generate", _generate_again),
    "cooler": ButtonAnswer("generate", _generate_again),
    "edit": ButtonForm("generate", _edit_form),
}
FORMS = {"edit": ButtonAnswer("generate", _generate_edited)}
