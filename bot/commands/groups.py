"""Groups of runs over seeds in commands: the one of a name, and its status."""

import asyncio
from functools import partial
from typing import NamedTuple

from bot.commands.responses import Answer, CommandContext
from bot.commands.run_options import Run, find_run
from bot.messages.group_card import group_buttons, group_card
from bot.notifications.group_subject import attach_group_chart, draw_group
from bot.people.watchers import GroupMessages, read_ledger
from trainer.contracts.base import changed
from trainer.contracts.groups import GroupStatus
from trainer.contracts.operations import CHAT_COMMANDS, Role
from trainer.contracts.runs import RunRecord


class Group(NamedTuple):
    status: GroupStatus
    record: RunRecord
    """The record of the first run, under the id of the group."""
    messages: GroupMessages

    def has_ended(self) -> bool:
        return self.status.has_ended


async def find_run_or_group(context: CommandContext, command: str, name: str | None) -> Run | Group:
    """Return the group of a name, or the run that `find_run` finds.

    Raises FORBIDDEN if the caller may not run the command on one of the group's runs, and the errors of `find_run`.
    """
    lab = context.lab
    if name is not None:
        name = await lab.run_name(context.caller, name.strip(), or_group=True)
    entries = [run for run in lab.index.runs if name is not None and run.group_id == name != run.run_id]
    if name is None or not entries:
        return await find_run(context, command, name)
    await lab.check_group(context.caller, name, CHAT_COMMANDS[command].role)
    first = lab.queue.runs.get(min(entry.run_id for entry in entries))
    record = changed(await asyncio.to_thread(first.record), run_id=name)
    return Group(await lab.feeds.group(name), record, GroupMessages(name, first))


async def show_group(context: CommandContext, group: Group) -> Answer:
    """Answer with the card of a group."""
    embed = group_card(group.record, group.status)
    chart = await draw_group(group.status, context.bot.charts, context.lab.feeds)
    watcher = (await asyncio.to_thread(read_ledger, group.messages)).of(context.caller.user_id)
    is_owner = context.lab.permissions.permits(Role.OWNER, context.caller, group.record)
    is_watching = watcher is not None and not watcher.is_done
    buttons = group_buttons(group.status, is_owner=is_owner, is_watching=is_watching)
    return Answer(embed, partial(attach_group_chart, embed, chart, group.status), buttons)
