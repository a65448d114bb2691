"""`/mt watch` and `/mt unwatch`, and the buttons of the same names: who is told of a run."""

import asyncio
from typing import Literal

import discord
from discord import app_commands

from bot.buttons import Pressed, button, row
from bot.client import Bot
from bot.commands.responses import Answer, Call, respond
from bot.commands.run_options import is_unfinished, named_run, suggested_runs
from bot.embeds import unwatch_all_answer, unwatch_answer, watch_answer
from bot.ledger import Watcher
from trainer.contracts.errors import AppError, ErrorCode

ALL = "all"
Where = Literal["dm", "here"]


@app_commands.command(description="Be told of a run: a card that is kept up to date, and a message at its end.")
@app_commands.describe(run="The run's id", where="By direct message, or here in this channel")
@app_commands.autocomplete(run=suggested_runs("watch"))
async def watch(interaction: discord.Interaction[Bot], run: str, where: Where = "dm") -> None:
    await respond(interaction, "watch", lambda call: _watch(call, run, interaction if where == "here" else None))


@app_commands.command(description="Be told no more of a run, your own ones too.")
@app_commands.describe(run="The run's id; or all")
@app_commands.autocomplete(run=suggested_runs("unwatch", is_unfinished))
async def unwatch(interaction: discord.Interaction[Bot], run: str) -> None:
    await respond(interaction, "unwatch", lambda call: _unwatch_all(call) if run == ALL else _unwatch(call, run))


async def watch_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    await respond(interaction, "watch", lambda call: _watch(call, pressed.run_id, None))


async def unwatch_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    await respond(interaction, "unwatch", lambda call: _unwatch(call, pressed.run_id))


def watch_button(run_id: str, watcher: Watcher | None) -> discord.ui.Button[discord.ui.View]:
    """What is left to somebody to do: to watch a run, or to do so no more."""
    if watcher is None or watcher.is_settled:
        return button("watch", run_id, "Watch")
    return button("unwatch", run_id, "Unwatch")


async def _watch(call: Call, run_id: str, here: discord.Interaction[Bot] | None) -> Answer:
    chosen = await named_run(call, "watch", run_id)
    channel_id = None if here is None else _channel_to_post_in(here)
    watcher = await call.bot.listener.watch(chosen.directory, call.caller.user_id, channel_id)
    has_ended = await asyncio.to_thread(chosen.directory.manifest) is not None
    place = "by direct message" if channel_id is None else f"here in <#{channel_id}>"
    embed = watch_answer(
        chosen.record,
        place,
        has_ended=has_ended,
        has_final=watcher.has_final,
        closed=watcher.closed_place,
        request_id=call.request_id,
    )
    return Answer(embed, view=None if has_ended else row(watch_button(chosen.record.run_id, watcher)))


async def _unwatch(call: Call, run_id: str) -> Answer:
    chosen = await named_run(call, "unwatch", run_id)
    await call.bot.listener.unwatch(chosen.directory, call.caller.user_id)
    embed = unwatch_answer(chosen.record, request_id=call.request_id)
    return Answer(embed, view=row(watch_button(chosen.record.run_id, None)))


async def _unwatch_all(call: Call) -> Answer:
    run_ids = call.bot.listener.watched_by(call.caller.user_id)
    for run_id in run_ids:
        await call.bot.listener.unwatch(call.bot.queue.runs.get(run_id), call.caller.user_id)
    return Answer(unwatch_all_answer(run_ids, request_id=call.request_id))


def _channel_to_post_in(interaction: discord.Interaction[Bot]) -> int | None:
    """The channel of a command, None for the bot's own direct messages; raises FORBIDDEN where it may not post.

    It needs to look at what was posted, too: so it knows after a crash whether a message has arrived.
    """
    if interaction.context.dm_channel:
        return None
    rights = interaction.app_permissions
    may_send = (
        rights.send_messages_in_threads if isinstance(interaction.channel, discord.Thread) else rights.send_messages
    )
    needed = (rights.view_channel, may_send, rights.embed_links, rights.attach_files, rights.read_message_history)
    if not interaction.is_guild_integration() or not all(needed):
        raise AppError(
            ErrorCode.FORBIDDEN,
            "The bot may not post in this channel: use `where:dm`, or ask for its rights here to view the channel,"
            " send messages, embed links, attach files and read the history.",
        )
    return interaction.channel_id
