"""`/mt watch`, `/mt unwatch` and their buttons."""

import asyncio
from typing import Literal

import discord
from discord import app_commands

from bot.buttons import ButtonPress, button, button_row
from bot.client import Bot
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import is_unfinished, named_run, suggested_runs
from bot.embeds.answers import unwatch_all_answer, unwatch_answer, watch_answer
from bot.ledger import Watcher
from trainer.contracts.errors import AppError, ErrorCode

ALL = "all"
Where = Literal["dm", "here"]


@app_commands.command(description="Follow a run: receive a card with its progress and a final message.")
@app_commands.describe(run="Id of the run", where="Direct messages or this channel; default: dm")
@app_commands.autocomplete(run=suggested_runs("watch"))
async def watch(interaction: discord.Interaction[Bot], run: str, where: Where = "dm") -> None:
    channel = interaction if where == "here" else None
    await respond(interaction, "watch", lambda context: _watch(context, run, channel))


@app_commands.command(description="Stop notifications for a run.")
@app_commands.describe(run="Id of the run, or all")
@app_commands.autocomplete(run=suggested_runs("unwatch", is_unfinished))
async def unwatch(interaction: discord.Interaction[Bot], run: str) -> None:
    await respond(
        interaction, "unwatch", lambda context: _unwatch_all(context) if run == ALL else _unwatch(context, run)
    )


async def watch_clicked(interaction: discord.Interaction[Bot], press: ButtonPress) -> None:
    await respond(interaction, "watch", lambda context: _watch(context, press.run_id, None))


async def unwatch_clicked(interaction: discord.Interaction[Bot], press: ButtonPress) -> None:
    await respond(interaction, "unwatch", lambda context: _unwatch(context, press.run_id))


def watch_button(run_id: str, watcher: Watcher | None) -> discord.ui.Button[discord.ui.View]:
    """Return Watch, or Unwatch for a person with messages left to receive."""
    if watcher is None or watcher.is_done:
        return button("watch", run_id, "Watch")
    return button("unwatch", run_id, "Unwatch")


async def _watch(context: CommandContext, run_id: str, here: discord.Interaction[Bot] | None) -> Answer:
    run = await named_run(context, "watch", run_id)
    channel_id = None if here is None else _channel_id(here)
    watcher = await context.bot.notifier.watch(run.directory, context.caller.user_id, channel_id)
    has_ended = await asyncio.to_thread(run.directory.manifest) is not None
    embed = watch_answer(
        run.record,
        "by direct message" if channel_id is None else f"to <#{channel_id}>",
        has_ended=has_ended,
        has_final=watcher.has_final,
        closed=watcher.closed_place,
        request_id=context.request_id,
    )
    return Answer(embed, view=None if has_ended else button_row(watch_button(run.record.run_id, watcher)))


async def _unwatch(context: CommandContext, run_id: str) -> Answer:
    run = await named_run(context, "unwatch", run_id)
    await context.bot.notifier.unwatch(run.directory, context.caller.user_id)
    embed = unwatch_answer(run.record, request_id=context.request_id)
    return Answer(embed, view=button_row(watch_button(run.record.run_id, None)))


async def _unwatch_all(context: CommandContext) -> Answer:
    bot, user_id = context.bot, context.caller.user_id
    run_ids = bot.notifier.watched_by(user_id)
    for run_id in run_ids:
        await bot.notifier.unwatch(bot.queue.runs.get(run_id), user_id)
    return Answer(unwatch_all_answer(run_ids, request_id=context.request_id))


def _channel_id(interaction: discord.Interaction[Bot]) -> int | None:
    """Return the channel of a command, or None for direct messages; raises FORBIDDEN if the bot may not post there.

    The bot needs the history, too, to find out after a crash whether a message has arrived.
    """
    if interaction.context.dm_channel:
        return None
    rights = interaction.app_permissions
    is_thread = isinstance(interaction.channel, discord.Thread)
    may_send = rights.send_messages_in_threads if is_thread else rights.send_messages
    needed = (rights.view_channel, may_send, rights.embed_links, rights.attach_files, rights.read_message_history)
    if not interaction.is_guild_integration() or not all(needed):
        raise AppError(
            ErrorCode.FORBIDDEN,
            "The bot may not post in this channel. Use `where:dm`, or let the bot view the channel, send messages,"
            " embed links, attach files and read the history.",
        )
    return interaction.channel_id
