"""Commands on groups of runs over seeds: their status, their cancellation, and their watchers."""

import asyncio
from datetime import timedelta
from typing import NamedTuple

import discord

from bot.commands.channels import channel_id_of
from bot.commands.responses import Answer, CommandContext
from bot.commands.run_options import full_run_name
from bot.messages.answers import cancel_question, watch_answer
from bot.messages.buttons import button, button_row
from bot.messages.group_card import group_buttons, group_card
from bot.messages.run_buttons import watch_button
from bot.notifications.group_subject import attach_group_chart, draw_group, read_group
from bot.people.watchers import GroupMessages, read_ledger
from bot.session.client import Bot
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import changed, now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.groups import GroupStatus, cancel_unfinished
from trainer.contracts.runs import RunRecord
from trainer.lab.language import _

CONFIRMED = "sure"
CONFIRM_AFTER = timedelta(minutes=10)


class Group(NamedTuple):
    status: GroupStatus
    first: RunDirectory
    record: RunRecord
    """The record of the first run, under the id of the group."""

    @property
    def messages(self) -> GroupMessages:
        return GroupMessages(self.status.group_id, self.first)


async def find_group(context: CommandContext, command: str, name: str | None) -> Group | None:
    """Return the group of a name; None for the name of a run, of nothing, or without one.

    Raises FORBIDDEN if the caller may not run the command on one of its runs, and the errors of `one_run_id`.
    """
    bot = context.bot
    if name is None or bot.queue.runs.find(name.strip()) is not None:
        return None
    await bot.index.refresh()
    entries = [run for run in bot.index.runs if run.group_id == name.strip()]
    if not entries and "@" not in name:
        try:
            found = await full_run_name(context, name, or_group=True)
        except AppError as error:
            if error.code is not ErrorCode.RUN_NOT_FOUND:  # `find_run` says so
                raise
            return None
        entries = [run for run in bot.index.runs if run.group_id == found != run.run_id]
    if not entries:
        return None
    for entry in entries:
        bot.permissions.check_run(command, context.caller, entry)
    first = bot.queue.runs.get(min(entry.run_id for entry in entries))
    record = changed(await asyncio.to_thread(first.record), run_id=entries[0].group_id)
    return Group(await read_group(record.run_id, bot.queue.runs, bot.backend.feeds), first, record)


async def show_group(context: CommandContext, group: Group) -> Answer:
    """Answer with the card of a group."""
    embed = group_card(group.record, group.status)
    chart = await draw_group(group.status, context.bot.charts, context.bot.backend.feeds)
    watcher = (await asyncio.to_thread(read_ledger, group.messages)).of(context.caller.user_id)
    is_owner = context.bot.permissions.can_run("cancel", context.caller, group.record)
    is_watching = watcher is not None and not watcher.is_done
    buttons = group_buttons(group.status, is_owner=is_owner, is_watching=is_watching)
    return Answer(embed, attach_group_chart(embed, chart, group.status), buttons)


async def cancel_group(context: CommandContext, group: Group, *, is_confirmed: bool) -> Answer:
    """Cancel the unfinished runs of a group; the caller confirms that of a group older than ten minutes."""
    record = group.record
    if not is_confirmed and now() - record.created_at > CONFIRM_AFTER and not group.status.has_ended:
        confirm = button("cancel", record.run_id, _("Cancel it"), style=discord.ButtonStyle.danger, detail=CONFIRMED)
        return Answer(cancel_question(record), view=button_row(confirm))
    await cancel_unfinished(group.status, context.bot.queue.states.cancel)
    bot = context.bot
    status = await read_group(record.run_id, bot.queue.runs, bot.backend.feeds)
    return Answer(group_card(record, status), view=group_buttons(status, is_owner=True))


async def watch_group(context: CommandContext, group: Group, here: discord.Interaction[Bot] | None) -> Answer:
    """Send the caller a card and a final message of a group."""
    channel_id = None if here is None else channel_id_of(here, "where:dm")
    place = _("by direct message") if channel_id is None else _("to {channel}", channel=f"<#{channel_id}>")
    watcher = await context.bot.notifier.watch(
        group.messages, context.caller.user_id, channel_id, context.caller.channel_id
    )
    ended = group.status.has_ended
    embed = watch_answer(group.record, place, has_ended=ended, has_final=watcher.has_final, closed=watcher.closed_place)
    view = None if ended else button_row(watch_button(group.record.run_id, is_watching=not watcher.is_done))
    return Answer(embed, view=view)
