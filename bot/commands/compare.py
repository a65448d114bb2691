"""`/mt compare`: what was measured of one run beside the same of another."""

import asyncio

import discord
from discord import app_commands

from bot.client import Bot
from bot.commands.responses import Answer, Call, respond
from bot.commands.run_options import is_completed, named_run, suggested_runs, text_name
from bot.embeds import compare_answer
from trainer.contracts.comparison import Measurement, check_different, summary_on
from trainer.contracts.comparison import compare as compared
from trainer.contracts.errors import AppError
from trainer.contracts.inference import EvalSplit

_SUGGESTED = suggested_runs("compare", is_completed)


@app_commands.command(description="Compare the results and settings of two runs.")
@app_commands.describe(
    run="The run that is judged",
    other="The run to judge it by",
    split="The split on which both were measured; default test",
)
@app_commands.autocomplete(run=_SUGGESTED, other=_SUGGESTED)
async def compare(interaction: discord.Interaction[Bot], run: str, other: str, split: EvalSplit = "test") -> None:
    await respond(interaction, "compare", lambda call: _compare(call, run.strip(), other.strip(), split))


async def _compare(call: Call, run: str, other: str, split: EvalSplit) -> Answer:
    measured = [await _measured(call, run_id, split) for run_id in (run, other)]
    check_different([run, other])
    await call.bot.index.refresh()
    found = compared(measured, split=split)
    return Answer(compare_answer(found, lambda corpus: text_name(call, corpus), request_id=call.request_id))


async def _measured(call: Call, run_id: str, split: EvalSplit) -> Measurement:
    directory = (await named_run(call, "compare", run_id)).directory
    manifest = await asyncio.to_thread(directory.completed_manifest)
    follower = await asyncio.to_thread(directory.follow)
    status = await asyncio.to_thread(follower.refresh)
    try:
        summary = summary_on(manifest, split)
    except AppError as error:
        message = f"`{manifest.run_id}` has no results on its {split} split. Try another `split`, or another run."
        raise AppError(error.code, message) from None
    return Measurement(manifest, summary, status.tokens_per_second)
