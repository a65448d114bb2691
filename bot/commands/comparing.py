"""`/mt compare`: what was measured of one run beside the same of another."""

import asyncio
from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot.commands.group import Answer, Call, respond
from bot.commands.selection import is_completed, named_run, suggested_runs
from bot.embeds import compare_answer
from trainer.contracts.comparison import Measurement, check_different, summary_on
from trainer.contracts.comparison import compare as compared
from trainer.contracts.inference import EvalSplit

if TYPE_CHECKING:
    from bot.app import Bot

_SUGGESTED = suggested_runs("compare", is_completed)


@app_commands.command(description="What one run does better or worse than another.")
@app_commands.describe(
    run="The id of the run that is judged",
    other="The id of the run that it is judged by",
    split="The split on which both were measured; test without it",
)
@app_commands.autocomplete(run=_SUGGESTED, other=_SUGGESTED)
async def compare(interaction: discord.Interaction["Bot"], run: str, other: str, split: EvalSplit = "test") -> None:
    await respond(interaction, "compare", lambda call: _compare(call, run.strip(), other.strip(), split))


async def _compare(call: Call, run: str, other: str, split: EvalSplit) -> Answer:
    measured = [await _measured(call, run_id, split) for run_id in (run, other)]
    check_different([run, other])
    return Answer(compare_answer(compared(measured, split=split), request_id=call.request_id))


async def _measured(call: Call, run_id: str, split: EvalSplit) -> Measurement:
    directory = (await named_run(call, "compare", run_id)).directory
    manifest = await asyncio.to_thread(directory.completed_manifest)
    follower = await asyncio.to_thread(directory.follow)
    status = await asyncio.to_thread(follower.refresh)
    return Measurement(manifest, summary_on(manifest, split), status.tokens_per_second)
