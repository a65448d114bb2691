"""`/mt status` and `/mt cancel`, and the card's Cancel button."""

import asyncio
from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot.commands.group import Answer, Call, respond
from bot.commands.selection import named_or_newest_run, named_run
from bot.delivery import read_ledger
from bot.embeds import attach_chart, cancel_answer, status_answer

if TYPE_CHECKING:
    from bot.app import Bot


@app_commands.command(description="How a run stands.")
@app_commands.describe(run="The run's id; without one, your newest run")
async def status(interaction: discord.Interaction["Bot"], run: str | None = None) -> None:
    await respond(interaction, "status", lambda call: _status(call, run))


@app_commands.command(description="Stop a run; what it has saved is kept.")
@app_commands.describe(run="The run's id")
async def cancel(interaction: discord.Interaction["Bot"], run: str) -> None:
    await respond(interaction, "cancel", lambda call: _cancel(call, run))


async def cancel_clicked(interaction: discord.Interaction["Bot"], run_id: str) -> None:
    """The Cancel button of a card: the same rights and the same answer as the command."""
    await respond(interaction, "cancel", lambda call: _cancel(call, run_id))


async def _status(call: Call, run_id: str | None) -> Answer:
    chosen = await named_or_newest_run(call, "status", run_id, "newest")
    status = await call.bot.queue.status(chosen.record.run_id)
    follower = await asyncio.to_thread(chosen.directory.follow)
    await asyncio.to_thread(follower.refresh)
    ledger = await asyncio.to_thread(read_ledger, chosen.directory)
    embed = status_answer(
        chosen.record,
        status,
        [loss for _, loss in follower.train_losses],
        request_id=call.request_id,
        dm_closed=ledger.dm_closed and chosen.record.user_id == call.caller.user_id,
    )
    chart = await call.bot.charts.loss_chart(follower.train_losses, follower.val_losses)
    return Answer(embed, attach_chart(embed, chart, status))


async def _cancel(call: Call, run_id: str) -> Answer:
    chosen = await named_run(call, "cancel", run_id)
    await call.bot.queue.cancel(chosen.record.run_id)
    return Answer(cancel_answer(chosen.record, request_id=call.request_id))
