"""Growing files for many readers: one task reads the new items of a file, however many clients follow it."""

import asyncio
import sys
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from trainer.artifacts.outcome import shown_line
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.events import Event
from trainer.contracts.parameters import MAX_LINES
from trainer.queue.run_feeds import RunFeeds
from trainer.system.logs import LogReader

_POLL_SECONDS = 0.5
_LAST_SECONDS = 0.2  # the last lines of a log come just after the end of its run


class TailItem(NamedTuple):
    """An event with its number and type, or a line of a log."""

    data: str
    number: int = 0
    kind: str | None = None


def _number(item: TailItem) -> int:
    return item.number


def _event_item(event: Event) -> TailItem:
    return TailItem(event.model_dump_json(), event.seq, event.type)


async def stored_events(run: RunDirectory, after: int, before: int) -> AsyncIterator[list[TailItem]]:
    """Yield the events with numbers between two others, some thousands at a time: a run may have a million."""
    reader = run.reader()
    pieces = (
        [_event_item(event) for event in reader.parsed(lines) if after < event.seq < before] for lines in reader.lines()
    )
    while after + 1 < before and (items := await asyncio.to_thread(next, pieces, None)) is not None:
        yield items
        after = items[-1].number if items else after


class Tail:
    """The items of one file so far; `ended` once the file gets no more."""

    def __init__(self, read: Callable[[], list[TailItem]], has_ended: Callable[[], bool], max_items: int) -> None:
        self.ended = False
        self.readers = 0
        self._read = read
        self._has_ended = has_ended
        self._max_items = max_items
        self._items: list[TailItem] = []
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

    async def last(self, count: int) -> int:
        """Wait for the first items, and return the position of the last `count` of them."""
        await self._begin()
        return self._dropped + max(0, len(self._items) - count)

    async def position_after(self, number: int) -> int:
        """Wait for the first items, and return the position of the first one with a higher number."""
        await self._begin()
        return self._dropped + bisect_right(self._items, number, key=_number)

    def first_number(self) -> int:
        """Return the number of the first item in memory; 0 without items."""
        return self._items[0].number if self._items else 0

    def after(self, position: int) -> tuple[list[TailItem], int]:
        """Return the items from a position on, and the position after them."""
        found = self._items[max(0, position - self._dropped) :]
        return found, self._dropped + len(self._items)

    async def wait(self, seconds: float) -> None:
        """Wait until there are new items or the file has ended, at most for some time; raises errors of the file."""
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


class Tails:
    """The files that clients follow now."""

    def __init__(self, feeds: RunFeeds) -> None:
        self._feeds = feeds
        self._tails: dict[tuple[str, str], Tail] = {}

    @asynccontextmanager
    async def events(self, run: RunDirectory) -> AsyncIterator[Tail]:
        """Follow the events of a run, from its last events on; `stored_events` has those before."""
        feed, seen = await asyncio.to_thread(self._feeds.of, run), 0

        def read() -> list[TailItem]:
            nonlocal seen
            events = feed.events_after(seen) if seen else feed.recent_events()
            seen = events[-1].seq if events else seen
            return [*map(_event_item, events)]

        async with self._open(("events", run.run_id), read, run, sys.maxsize) as tail:
            yield tail

    @asynccontextmanager
    async def logs(self, run: RunDirectory, *, stored: bool) -> AsyncIterator[Tail]:
        """Follow the log of a run, from its last lines on; `stored`: the lines as stored, one JSON object each."""
        reader = LogReader(run.logs)
        has_begun = False

        def read() -> list[TailItem]:
            nonlocal has_begun
            lines = reader.read_new() if has_begun else reader.last(MAX_LINES)
            has_begun = True
            return [TailItem(shown_line(line, stored=stored)) for line in lines]

        async with self._open(("stored logs" if stored else "logs", run.run_id), read, run, MAX_LINES) as tail:
            yield tail

    @asynccontextmanager
    async def _open(
        self, name: tuple[str, str], read: Callable[[], list[TailItem]], run: RunDirectory, max_items: int
    ) -> AsyncIterator[Tail]:
        tail = self._tails.get(name)
        if tail is None:
            tail = self._tails[name] = Tail(read, run.seal.exists, max_items)
        tail.readers += 1
        try:
            yield tail
        finally:
            tail.readers -= 1
            if tail.readers == 0:
                del self._tails[name]
                tail.task.cancel()
                await asyncio.gather(tail.task, return_exceptions=True)
