"""Pace of messages in each channel, which Discord's rate limit counts together for all runs."""

import asyncio
import itertools
import math
import time
from bisect import insort
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_Ticket = tuple[bool, int]
"""True for an edit, and a number that keeps the order of equal tickets."""
_SLOW_SECONDS = 5.0
"""Time after which an edit is slow, and the next turn starts before its end."""


class Pace:
    """Gives turns to write: one at a time in each channel, `interval_seconds` apart, new messages before edits."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        # an earlier process may have edited a message a moment ago
        self._edits_from = time.monotonic() + interval_seconds
        self._lanes: defaultdict[int, _Lane] = defaultdict(_Lane)
        self._numbers = itertools.count()

    @asynccontextmanager
    async def turn(self, channel_id: int, *, is_new: bool) -> AsyncIterator[None]:
        """Wait for a turn to write into a channel; the next turn starts `interval_seconds` after the block.

        It does not wait longer than some seconds for an edit.
        """
        lane = self._lanes[channel_id]
        ticket = not is_new, next(self._numbers)
        insort(lane.waiting, ticket)
        lane.wake()
        try:
            while (seconds := lane.seconds_until(ticket, 0.0 if is_new else self._edits_from)) > 0:
                await lane.wait(seconds)
        finally:
            lane.waiting.remove(ticket)
            lane.wake()
        slow_seconds = math.inf if is_new else max(_SLOW_SECONDS, self._interval_seconds)
        lane.newest, lane.free_at = ticket, time.monotonic() + slow_seconds
        try:
            yield
        finally:
            if lane.newest == ticket:
                lane.free_at = time.monotonic() + self._interval_seconds
                lane.wake()


class _Lane:
    """The turns of one channel."""

    def __init__(self) -> None:
        self.waiting: list[_Ticket] = []
        self.free_at = 0.0
        self.newest: _Ticket | None = None
        """The last turn that has started."""
        self._changed = asyncio.Event()

    def seconds_until(self, ticket: _Ticket, earliest: float) -> float:
        if self.waiting[0] != ticket:
            return math.inf
        return max(self.free_at, earliest) - time.monotonic()

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait until the tickets change, at most this long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
