"""A run as a subject of notifications."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from bot.messages.digest_card import run_line
from bot.messages.run_buttons import card_buttons, final_buttons
from bot.messages.run_card import attach_chart, final_message, run_card
from bot.messages.text import relative_time
from bot.notifications.subjects import HEARTBEAT_SECONDS, Message, Reading, State, Subject, View
from bot.people.user_settings import current_unit
from bot.people.watchers import Ledger, OwnerWatch, Watcher
from bot.processes.chart_process import ChartProcess
from trainer.artifacts.outcome import read_outcome
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import changed
from trainer.contracts.runs import RunRecord, RunStatus
from trainer.lab.language import _
from trainer.queue.run_feeds import RunFeeds


class RunState(NamedTuple):
    record: RunRecord
    status: RunStatus
    heartbeat: int | None
    """Number of the interval of the last heartbeat of a run with a worker."""

    @property
    def has_ended(self) -> bool:
        return self.status.has_ended


class RunView(View):
    """A run's status, its training losses, and its chart as PNG."""

    def __init__(
        self,
        state: RunState,
        run: RunDirectory,
        losses: Sequence[float],
        chart: bytes | None,
        heartbeat_ts: float | None,
    ) -> None:
        super().__init__(state, self._card_for)
        self._run = run
        self._record, self._status = state.record, state.status
        self._losses, self._chart = losses, chart
        self._heartbeat_ts = heartbeat_ts if state.heartbeat is not None else None

    def _card_for(self, user_id: int) -> Message:
        embed = run_card(self._record, self._status, self._losses)
        if self._heartbeat_ts is not None:
            embed.description = f"{embed.description}\n{_('Heartbeat {time}', time=relative_time(self._heartbeat_ts))}"
        buttons = card_buttons(self._record, self._status, is_owner=user_id == self._record.user_id)
        return Message(embed, partial(attach_chart, embed, self._chart, self._status), buttons)

    async def final(self, watcher: Watcher) -> Message:
        """Return the final message, which has the chart if no card has it; only the owner may read the log."""
        is_owner = watcher.user_id == self._record.user_id
        outcome = await asyncio.to_thread(read_outcome, self._run)
        if not (is_owner and watcher.in_dm):
            outcome = outcome._replace(last_lines=())
        embed = final_message(self._record, self._status, outcome)
        chart = self._chart if watcher.card is None else None
        buttons = final_buttons(self._record, self._status, is_owner=is_owner)
        return Message(embed, partial(attach_chart, embed, chart, self._status), buttons)


class RunSubject(Subject):
    has_line = True

    def __init__(
        self,
        run: RunDirectory,
        charts: ChartProcess,
        feeds: RunFeeds,
        can_receive: Callable[[int, RunRecord], bool],
        *,
        interval_seconds: float,
        owner: OwnerWatch | None = None,
    ) -> None:
        super().__init__(run.run_id, Ledger(run, owner), interval_seconds)
        self._run = run
        self._feeds = feeds
        self._feed = feeds.of(run)
        self._charts = charts
        self._can_receive = can_receive

    def may_receive(self, user_id: int) -> bool:
        return self._can_receive(user_id, self._feed.follower.record)

    def line(self, state: State) -> str | None:
        return run_line(state.record, state.status) if isinstance(state, RunState) else None

    async def _read(self) -> Reading:
        live = self._feeds.states.steady(await self._feeds.status(self.subject_id))
        heartbeat_ts = live.last_heartbeat_ts if live.status == "running" and live.reachable else None
        heartbeat = None if heartbeat_ts is None else int(heartbeat_ts // HEARTBEAT_SECONDS)
        # the heartbeat of a worker would edit the card every time; that of the last event is as old as the event
        status = changed(live, last_heartbeat_ts=self._feed.follower.status.last_heartbeat_ts)
        state = RunState(record=self._feed.follower.record, status=status, heartbeat=heartbeat)
        return Reading(state, partial(self._draw, state, heartbeat_ts))

    async def _draw(self, state: RunState, heartbeat_ts: float | None) -> View:
        """Draw the newest losses, which can be newer than the state."""
        curves = (await asyncio.to_thread(self._feed.read_curves)).by_name
        losses = [loss for _, loss in curves["train"]]
        bits = state.status.bits_per_nat
        chart = await self._charts.loss_chart(curves["train"], curves["validation"], current_unit(), bits)
        return RunView(state, self._run, losses, chart, heartbeat_ts)
