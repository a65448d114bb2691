"""A run as a subject of notifications."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from bot.messages.buttons import button_row
from bot.messages.digest_card import run_line
from bot.messages.run_buttons import card_buttons, final_buttons
from bot.messages.run_card import attach_chart, final_message, run_card
from bot.messages.text import relative_time
from bot.notifications.subjects import HEARTBEAT_SECONDS, Message, Reading, Sources, State, Subject, View
from bot.people.user_settings import current_unit
from bot.people.watchers import Ledger, Watcher
from trainer.artifacts.outcome import read_outcome
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import changed
from trainer.contracts.runs import RunRecord, RunStatus
from trainer.lab.language import _


class RunState(NamedTuple):
    record: RunRecord
    status: RunStatus
    heartbeat: int | None
    """Number of the interval of the last heartbeat of a run with a worker."""

    @property
    def has_ended(self) -> bool:
        return self.status.has_ended


class RunSubject(Subject):
    has_line = True

    def __init__(self, run: RunDirectory, sources: Sources) -> None:
        self._run = run
        self._sources = sources
        self._feed = feed = sources.feeds.of(run)
        super().__init__(
            run.run_id,
            Ledger(run, sources.owner),
            lambda user_id: sources.can_receive(user_id, feed.follower.record),
            sources.interval_seconds,
        )

    def line(self, state: State) -> str | None:
        return run_line(state.record, state.status) if isinstance(state, RunState) else None

    async def _read(self) -> Reading:
        feeds = self._sources.feeds
        live = feeds.states.steady(await feeds.status(self.subject_id))
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
        chart = await self._sources.charts.loss_chart(
            curves["train"],
            curves["validation"],
            current_unit(),
            state.status.bits_per_nat,
            state.status.counted_val_loss,
        )
        card = partial(self._card, state, losses, chart, heartbeat_ts)
        return View(state, card, partial(self._final, state, chart))

    def _card(
        self, state: RunState, losses: Sequence[float], chart: bytes | None, heartbeat_ts: float | None, user_id: int
    ) -> Message:
        record, status = state.record, state.status
        embed = run_card(record, status, losses, is_brief=True)
        if heartbeat_ts is not None:
            embed.description = f"{embed.description}\n{_('Heartbeat {time}', time=relative_time(heartbeat_ts))}"
        buttons = button_row(*card_buttons(record, status, is_owner=user_id == record.user_id))
        return Message(embed, partial(attach_chart, embed, chart, status), buttons)

    async def _final(self, state: RunState, chart: bytes | None, watcher: Watcher) -> Message:
        """Return the final message, which has the chart if no card has it; only the owner may read the log."""
        record, status = state.record, state.status
        is_owner = watcher.user_id == record.user_id
        outcome = await asyncio.to_thread(read_outcome, self._run)
        if not (is_owner and watcher.in_dm):
            outcome = outcome._replace(last_lines=())
        status = changed(status, test_looks=await asyncio.to_thread(self._feed.count_looks))
        embed = final_message(record, status, outcome)
        files = partial(attach_chart, embed, chart if watcher.card is None else None, status)
        return Message(embed, files, button_row(*final_buttons(record, status, is_owner=is_owner)))
