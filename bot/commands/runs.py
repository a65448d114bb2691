"""`/mt status` and `/mt cancel`, and the card's Cancel button."""

import asyncio
from io import BytesIO
from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot.commands.group import answer, answering, request_id
from bot.commands.selection import choose_run, named_run
from bot.delivery import read_ledger
from bot.embeds import CHART_NAME, cancel_answer, chart_alt_text, status_answer
from bot.permissions import Caller

if TYPE_CHECKING:
    from bot.app import Bot


@app_commands.command(description="How a run stands.")
@app_commands.describe(run="The run's id; without one, your newest run")
async def status(interaction: discord.Interaction["Bot"], run: str | None = None) -> None:
    async with answering(interaction, "status") as caller:
        bot = interaction.client
        chosen = await choose_run(bot, "status", caller, run, "newest")
        stands = await bot.queue.status(chosen.record.run_id)
        follower = await asyncio.to_thread(chosen.directory.follow)
        await asyncio.to_thread(follower.refresh)
        ledger = await asyncio.to_thread(read_ledger, chosen.directory)
        embed = status_answer(
            chosen.record,
            stands,
            [loss for _, loss in follower.train_losses],
            request_id=request_id(interaction),
            dm_closed=ledger.dm_closed and chosen.record.user_id == caller.user_id,
        )
        chart = await bot.charts.loss_chart(follower.train_losses, follower.val_losses)
        files = []
        if chart is not None:
            embed.set_image(url=f"attachment://{CHART_NAME}")
            files = [discord.File(BytesIO(chart), CHART_NAME, description=chart_alt_text(stands))]
        await answer(interaction, embed, files)


@app_commands.command(description="Stop a run; what it has saved is kept.")
@app_commands.describe(run="The run's id")
async def cancel(interaction: discord.Interaction["Bot"], run: str) -> None:
    async with answering(interaction, "cancel") as caller:
        await _cancel(interaction, caller, run)


async def cancel_clicked(interaction: discord.Interaction["Bot"], run_id: str) -> None:
    """The Cancel button of a card: the same rights and the same answer as the command."""
    async with answering(interaction, "cancel") as caller:
        await _cancel(interaction, caller, run_id)


async def _cancel(interaction: discord.Interaction["Bot"], caller: Caller, run_id: str) -> None:
    bot = interaction.client
    chosen = await named_run(bot, "cancel", caller, run_id)
    await bot.queue.cancel(chosen.record.run_id)
    await answer(interaction, cancel_answer(chosen.record, request_id=request_id(interaction)))
