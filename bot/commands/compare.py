"""`/mt compare`: metrics and settings of a run beside those of a baseline."""

import asyncio

import discord
from discord import app_commands

from bot.client import Bot
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import corpus_name, find_run, suggested_runs
from bot.embeds.answers import compare_answer
from trainer.contracts.comparison import Measurement, check_different, summary_on
from trainer.contracts.comparison import compare as compare_measurements
from trainer.contracts.errors import AppError
from trainer.contracts.inference import EvalSplit


@app_commands.command(description="Compare metrics and settings of two runs.")
@app_commands.describe(
    run="Id of the run to judge",
    other="Id of the baseline run",
    split="Split on which both runs were evaluated; default: test",
)
@app_commands.autocomplete(run=suggested_runs("compare"), other=suggested_runs("compare"))
async def compare(interaction: discord.Interaction[Bot], run: str, other: str, split: EvalSplit = "test") -> None:
    await respond(interaction, "compare", lambda context: _compare(context, run.strip(), other.strip(), split))


async def _compare(context: CommandContext, run: str, other: str, split: EvalSplit) -> Answer:
    measurements = [await _measurement(context, run_id, split) for run_id in (run, other)]
    check_different([run, other])
    await context.bot.index.refresh()
    comparison = compare_measurements(measurements, split=split)
    return Answer(compare_answer(comparison, lambda corpus: corpus_name(context, corpus)))


async def _measurement(context: CommandContext, run_id: str, split: EvalSplit) -> Measurement:
    directory = (await find_run(context, "compare", run_id)).directory
    manifest = await asyncio.to_thread(directory.completed_manifest)
    follower = await asyncio.to_thread(directory.follow)
    status = await asyncio.to_thread(follower.refresh)
    try:
        summary = summary_on(manifest, split)
    except AppError as error:
        message = f"`{manifest.run_id}` has no results on its {split} split. Try another `split`, or another run."
        raise AppError(error.code, message) from None
    return Measurement(manifest, summary, status.tokens_per_second)
