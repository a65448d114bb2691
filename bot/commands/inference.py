"""`/mt score` and `/mt generate`: asking a finished run."""

from typing import TYPE_CHECKING, Annotated

import discord
from discord import app_commands
from pydantic import Field

from bot.commands.group import Answer, Call, respond
from bot.commands.selection import named_or_newest_run
from bot.embeds import generate_answer, score_answer
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import GenerateRequest, ScoreRequest, Seed
from trainer.contracts.validation import parse

if TYPE_CHECKING:
    from bot.app import Bot


_MAX_NEW = 64


class ScoreOptions(Frozen):
    """`/mt score` as the chat bounds it."""

    text: Annotated[str, Field(min_length=1, max_length=2000)]


class GenerateOptions(Frozen):
    """`/mt generate` as the chat bounds it; the fields are the command's options."""

    prompt: Annotated[str, Field(max_length=1000)]
    max_new: Annotated[int, Field(ge=1, le=512)]
    temperature: Annotated[float, Field(ge=0, le=2)]
    top_k: Annotated[int, Field(ge=0, le=1000)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    samples: Annotated[int, Field(ge=1, le=4)]
    stop: Annotated[str, Field(min_length=1, max_length=100)] | None
    seed: Seed | None

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


@app_commands.command(description="How well a model predicts a text: loss, bits per character, perplexity.")
@app_commands.describe(text="The text to score", run="The run's id; without one, the newest finished run")
async def score(
    interaction: discord.Interaction["Bot"], text: app_commands.Range[str, 1, 2000], run: str | None = None
) -> None:
    await respond(interaction, "score", lambda call: _score(call, text, run))


@app_commands.command(description="Let a model write.")
@app_commands.describe(
    prompt="What the text begins with; without one, the model begins by itself",
    run="The run's id; without one, the newest finished run",
    max_new="The most tokens to write; 64 without it",
    temperature="0 is always the likeliest, 1 as learned, above 1 wilder",
    top_k="Choose among the k likeliest tokens only; 0 is off",
    top_p="Choose among the likeliest tokens that make up this share",
    samples="How many texts",
    stop="End before this text",
    seed="The same seed writes the same text again",
)
async def generate(
    interaction: discord.Interaction["Bot"],
    prompt: app_commands.Range[str, 0, 1000] = "",
    run: str | None = None,
    max_new: app_commands.Range[int, 1, 512] | None = None,
    temperature: app_commands.Range[float, 0, 2] = 1.0,
    top_k: app_commands.Range[int, 0, 1000] = 0,
    top_p: app_commands.Range[float, 0, 1] = 1.0,
    samples: app_commands.Range[int, 1, 4] = 1,
    stop: str | None = None,
    seed: app_commands.Range[int, 0, 4294967295] | None = None,
) -> None:
    most = interaction.client.settings.limits.generate_max_new_tokens
    values: dict[str, object] = {
        "prompt": prompt,
        "max_new": min(_MAX_NEW, most) if max_new is None else max_new,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "samples": samples,
        "stop": stop,
        "seed": seed,
    }
    await respond(interaction, "generate", lambda call: _generate(call, values, run))


async def _score(call: Call, text: str, run_id: str | None) -> Answer:
    options = parse(ScoreOptions, {"text": text})
    chosen = await named_or_newest_run(call, "score", run_id, "newest_completed")
    response = await call.bot.queue.score(chosen.record.run_id, ScoreRequest(text=options.text))
    return Answer(score_answer(chosen.record, options.text, response, request_id=call.request_id))


async def _generate(call: Call, values: dict[str, object], run_id: str | None) -> Answer:
    request = parse(GenerateOptions, values).request()
    most = call.bot.settings.limits.generate_max_new_tokens
    if request.max_new_tokens > most:
        raise AppError(
            ErrorCode.INVALID_INPUT, f"`max_new` may be at most {most} here, you gave {request.max_new_tokens}."
        )
    chosen = await named_or_newest_run(call, "generate", run_id, "newest_completed")
    response = await call.bot.queue.generate(chosen.record.run_id, request)
    return Answer(generate_answer(chosen.record, request, response, request_id=call.request_id))
