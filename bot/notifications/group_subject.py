"""A group of runs over seeds as a subject of notifications: one card and one final message for all of its runs."""

from functools import partial

import discord

from bot.messages.group_card import group_alt_text, group_buttons, group_card
from bot.messages.text import attach_picture
from bot.notifications.subjects import Message, Reading, Sources, Subject, View
from bot.people.user_settings import current_unit
from bot.people.watchers import GroupMessages, Ledger, Watcher
from bot.processes.chart_process import ChartProcess
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.base import changed
from trainer.contracts.groups import GroupStatus
from trainer.contracts.seeds import group_id_of
from trainer.queue.run_feeds import RunFeeds

_CHART_NAME = "losses.png"


def find_groups(runs: RunStore, group_id: str | None = None) -> list[GroupMessages]:
    """Return the groups that users have started, or one of them, with the first of their runs."""
    first: dict[str, RunDirectory] = {}
    for run_id in sorted(runs.ids()):
        name = group_id_of(run_id)
        if name is not None and group_id in (None, name):
            first.setdefault(name, runs.directory(run_id))
    return [GroupMessages(name, run) for name, run in first.items()]


def attach_group_chart(embed: discord.Embed, png: bytes | None, group: GroupStatus) -> list[discord.File]:
    """Show the chart of a group in its embed; return the file to send with it."""
    return attach_picture(embed, png, _CHART_NAME, group_alt_text(group))


class GroupSubject(Subject):
    id_name = "group_id"

    def __init__(self, messages: GroupMessages, sources: Sources) -> None:
        self._record = record = messages.record()
        self._sources = sources
        super().__init__(
            messages.job_id,
            Ledger(messages, sources.owner),
            lambda user_id: sources.can_receive(user_id, record),
            sources.interval_seconds,
        )

    async def _read(self) -> Reading:
        group = await self._sources.feeds.group(self.subject_id)
        # heartbeats would edit the card every time
        members = tuple(changed(one, last_heartbeat_ts=None, eta_seconds=None) for one in group.members)
        state = changed(group, members=members)
        return Reading(state, partial(self._draw, state))

    async def _draw(self, group: GroupStatus) -> View:
        chart = await draw_group(group, self._sources.charts, self._sources.feeds)
        return View(group, partial(self._message, group, chart), partial(self._final, group, chart))

    def _message(self, group: GroupStatus, chart: bytes | None, user_id: int) -> Message:
        embed = group_card(self._record, group)
        buttons = group_buttons(group, is_owner=user_id == self._record.user_id)
        return Message(embed, partial(attach_group_chart, embed, chart, group), buttons)

    async def _final(self, group: GroupStatus, chart: bytes | None, watcher: Watcher) -> Message:
        """Return the final message, which has the chart if no card has it."""
        return self._message(group, chart if watcher.card is None else None, watcher.user_id)


async def draw_group(group: GroupStatus, charts: ChartProcess, feeds: RunFeeds) -> bytes | None:
    """Return the chart of the runs of a group that have not failed; None without a curve."""
    shown = group.of_state("queued", "running", "paused", "completed") or group.members
    curves = [(await feeds.curves(run.run_id)).by_name for run in shown]
    bits_per_nat = next((run.bits_per_nat for run in shown if run.bits_per_nat is not None), None)
    train, validation = [one["train"] for one in curves], [one["validation"] for one in curves]
    return await charts.group_chart(train, validation, current_unit(), bits_per_nat)
