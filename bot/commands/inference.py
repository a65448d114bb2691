"""Requests of commands to completed runs, and `/mt predict`: the likeliest next tokens of a text."""

import asyncio

import discord
from discord import app_commands

from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import Run, find_run, suggested_runs
from bot.messages.inference import predict_answer
from bot.session.client import Bot
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.contracts.predictions import PredictRequest
from trainer.contracts.runs import RunManifest
from trainer.lab.language import _

DEFAULT_NEW_TOKENS = 64
RUN_HELP = "Run; default: your newest completed one, or anybody's"


async def infer(context: CommandContext, run: Run, request: Asks[ResponseT]) -> ResponseT:
    """Send a request to a model and wait for its response, if a worker runs."""
    await require_worker(context, run)
    return await context.lab.ask(context.caller, run.model, request)


async def require_worker(context: CommandContext, run: Run) -> RunManifest | None:
    """Return the manifest of a completed run, None for a checkpoint; raises SERVICE_UNAVAILABLE without a worker."""
    manifest = None if run.is_checkpoint else await asyncio.to_thread(run.directory.completed_manifest)
    absence = await context.lab.queue.workers.absence()
    if absence is not None:
        message = _("No worker is running. Ask the operator of this bot to start one.")
        if absence == "broken":
            message = _("Each worker is broken. Ask the operator of this bot to mend one.")
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message)
    return manifest


def default_length(bot: Bot) -> int:
    """Return the number of new tokens that a request has without a given one."""
    return min(DEFAULT_NEW_TOKENS, bot.settings.limits.generate_max_new_tokens)


@app_commands.command(description="Predict the next token of a text.")
@app_commands.describe(text="Text that the model continues", run=RUN_HELP, k="Number of tokens to show; default: 5")
@app_commands.autocomplete(run=suggested_runs("predict"))
async def predict(
    interaction: discord.Interaction[Bot],
    text: app_commands.Range[str, 1, 2000],
    run: str | None = None,
    k: app_commands.Range[int, 1, 10] = 5,
) -> None:
    await respond(interaction, "predict", lambda context: _predict(context, run, PredictRequest(text=text, k=k)))


async def _predict(context: CommandContext, run_id: str | None, request: PredictRequest) -> Answer:
    run = await find_run(context, "predict", run_id)
    if not request.text.strip():
        raise AppError(ErrorCode.INVALID_INPUT, _("`text` has no token for this model. Give at least one word."))
    return Answer(predict_answer(run.record, request.text, await infer(context, run, request)))
