"""Growing files for many readers: one task reads the new items of a file, however many clients follow it."""

import asyncio
import sys
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from trainer.artifacts.event_log import EventReader
from trainer.artifacts.outcome import shown_line
from trainer.artifacts.runs import RunDirectory
from trainer.system.logs import LogReader

_POLL_SECONDS = 0.5
_LAST_SECONDS = 0.2  # the last lines of a log come just after the end of its run
MAX_LINES = 10_000
"""Lines of a log that a feed holds."""


class FeedItem(NamedTuple):
    """An event with its number and type, or a line of a log."""

    data: str
    number: int = 0
    kind: str | None = None


def _number(item: FeedItem) -> int:
    return item.number


class Feed:
    """The items of one file so far; `ended` once the file gets no more."""

    def __init__(self, read: Callable[[], list[FeedItem]], has_ended: Callable[[], bool], max_items: int) -> None:
        self.ended = False
        self.readers = 0
        self._read = read
        self._has_ended = has_ended
        self._max_items = max_items
        self._items: list[FeedItem] = []
        self._dropped = 0
        self._changed = asyncio.Event()
        self._started = asyncio.Event()
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        try:
            is_last = await asyncio.to_thread(self._has_ended)
            while True:
                self._items += await asyncio.to_thread(self._read)
                extra = len(self._items) - self._max_items
                if extra > 0:
                    self._dropped += extra
                    del self._items[:extra]
                self.ended = is_last
                self._started.set()
                if is_last:
                    return
                self._changed.set()
                self._changed = asyncio.Event()
                is_last = await asyncio.to_thread(self._has_ended)
                await asyncio.sleep(_LAST_SECONDS if is_last else _POLL_SECONDS)
        finally:  # nothing follows
            self._started.set()
            self._changed.set()

    async def tail(self, count: int) -> int:
        """Wait for the first items, and return the position of the last `count` of them."""
        await self._begin()
        return self._dropped + max(0, len(self._items) - count)

    async def position_after(self, number: int) -> int:
        """Wait for the first items, and return the position of the first one with a higher number."""
        await self._begin()
        return self._dropped + bisect_right(self._items, number, key=_number)

    def after(self, position: int) -> tuple[list[FeedItem], int]:
        """Return the items from a position on, and the position after them."""
        found = self._items[max(0, position - self._dropped) :]
        return found, self._dropped + len(self._items)

    async def wait(self, seconds: float) -> None:
        """Wait until there are new items or the feed has ended, at most for some time; raises errors of the file."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._raise_failure()

    async def _begin(self) -> None:
        await self._started.wait()
        self._raise_failure()

    def _raise_failure(self) -> None:
        """Raise the error that the reading ended with."""
        if self.task.done():
            self.task.result()


class Feeds:
    """Feeds that have readers."""

    def __init__(self) -> None:
        self._feeds: dict[tuple[str, str], Feed] = {}

    @asynccontextmanager
    async def events(self, run: RunDirectory) -> AsyncIterator[Feed]:
        """Follow the events of a run."""
        reader = run.reader()
        async with self._open(("events", run.run_id), lambda: _events(reader), run, sys.maxsize) as feed:
            yield feed

    @asynccontextmanager
    async def logs(self, run: RunDirectory, *, stored: bool) -> AsyncIterator[Feed]:
        """Follow the log of a run, from its last lines on; `stored`: the lines as stored, one JSON object each."""
        reader = LogReader(run.logs)
        has_begun = False

        def read() -> list[FeedItem]:
            nonlocal has_begun
            lines = reader.read_new() if has_begun else reader.last(MAX_LINES)
            has_begun = True
            return [FeedItem(shown_line(line, stored=stored)) for line in lines]

        async with self._open(("stored logs" if stored else "logs", run.run_id), read, run, MAX_LINES) as feed:
            yield feed

    @asynccontextmanager
    async def _open(
        self, name: tuple[str, str], read: Callable[[], list[FeedItem]], run: RunDirectory, max_items: int
    ) -> AsyncIterator[Feed]:
        feed = self._feeds.get(name)
        if feed is None:
            feed = self._feeds[name] = Feed(read, run.seal.exists, max_items)
        feed.readers += 1
        try:
            yield feed
        finally:
            feed.readers -= 1
            if feed.readers == 0:
                del self._feeds[name]
                feed.task.cancel()
                await asyncio.gather(feed.task, return_exceptions=True)


def _events(reader: EventReader) -> list[FeedItem]:
    return [FeedItem(event.model_dump_json(), event.seq, event.type) for event in reader.read_new()]
