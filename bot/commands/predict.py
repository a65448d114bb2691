"""`/mt predict`: the likeliest next tokens of a text."""

import discord
from discord import app_commands

from bot.commands.inference import RUN_HELP, require_worker
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import find_run, suggested_runs
from bot.messages.inference import predict_answer
from bot.session.client import Bot
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import PredictRequest
from trainer.people.language import _


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
    await require_worker(context, run)
    inference, user_id = context.bot.queue.inference, context.caller.user_id
    response = await inference.ask(run.record.run_id, request, user_id=user_id)
    return Answer(predict_answer(run.record, request.text, response))
