"""Subjects of notifications: what a delivery needs of a run, an experiment, a tokenizer or a digest."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import NamedTuple, Protocol

import discord

from bot.people.user_settings import current_unit
from bot.people.watchers import Ledger, OwnerWatch, Watcher
from bot.processes.chart_process import ChartProcess
from trainer.contracts.units import Unit
from trainer.lab.permissions import Owned
from trainer.queue.run_feeds import RunFeeds
from trainer.system.shared_calls import SharedCalls

HEARTBEAT_SECONDS = 300.0
"""Seconds between two edits of a card that has no other news."""


class Message(NamedTuple):
    """A message of the bot; its files are new for each try, since a try reads them."""

    embed: discord.Embed
    files: Callable[[], list[discord.File]]
    buttons: discord.ui.View


class Sources(NamedTuple):
    """Charts, feeds of runs and rights of watchers, which all subjects use."""

    charts: ChartProcess
    feeds: RunFeeds
    can_receive: Callable[[int, Owned], bool]
    interval_seconds: float
    """Shortest time between two views of a subject that has not ended."""
    owner: OwnerWatch | None = None


class State(Protocol):
    """The state of a subject, compared by value; a card is edited when it has become unequal."""

    @property
    def has_ended(self) -> bool: ...


class View(NamedTuple):
    """A state of a subject as messages show it."""

    state: State
    card: Callable[[int], Message]
    """Returns the card for a watcher by user id."""
    final: Callable[[Watcher], Awaitable[Message]] | None = None
    """Returns the message that notifies a watcher of the end; None for a subject without one."""


class Reading(NamedTuple):
    """A state that was read, and how to draw it."""

    state: State
    draw: Callable[[], Awaitable[View]]


class Subject(ABC):
    """State that all deliveries of one subject share: its ledger, and its current view, drawn once for all."""

    id_name = "run_id"
    """Name of the subject's id in the log."""
    has_line = False
    """True for a subject that can be a line of a digest."""

    def __init__(
        self,
        subject_id: str,
        ledger: Ledger,
        may_receive: Callable[[int], bool],
        interval_seconds: float,
        began_at: datetime | None = None,
    ) -> None:
        self.subject_id = subject_id
        self.may_receive = may_receive
        """Returns whether a user may see the subject."""
        self.began_at = began_at
        """Begin of this attempt, of a subject whose id an earlier attempt had as well."""
        self.ledger = ledger
        self._interval_seconds = interval_seconds
        self._readings: SharedCalls[Reading] = SharedCalls()
        self._drawing = asyncio.Lock()
        self._views: dict[Unit, View] = {}
        """The current view in each unit, whose charts differ."""
        self._fresh_until: dict[Unit, float] = {}

    def line(self, state: State) -> str | None:
        """Return the line of a state in a digest; None for a subject that always has a card."""
        return None

    @abstractmethod
    async def _read(self) -> Reading:
        """Read the current state."""

    async def state(self) -> State:
        """Return the current state."""
        return (await self._readings.result(self._read)).state

    async def view(self, shown: View | None) -> View:
        """Return the current view for a watcher who has seen `shown`.

        All watchers with one unit share a view for `interval_seconds`, so that a chart is drawn once; the end is shown
        at once.
        """
        unit = current_unit()
        async with self._drawing:
            state, draw = await self._readings.result(self._read)
            view = self._views.get(unit)
            is_fresh = time.monotonic() < self._fresh_until.get(unit, 0.0) and view is not shown and not state.has_ended
            if view is None or (state != view.state and not is_fresh):
                view = self._views[unit] = await draw()
                self._fresh_until[unit] = time.monotonic() + self._interval_seconds
            return view
