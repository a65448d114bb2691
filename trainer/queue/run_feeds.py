"""Runs as this process follows them: one reader of each event log, whoever shows or sends something of the run."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

import structlog

from trainer.artifacts.curves import RunCurves
from trainer.artifacts.job_folder import REQUEST_FILE
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.run_groups import runs_of_group
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.base import RunState, changed
from trainer.contracts.errors import AppError
from trainer.contracts.events import Event
from trainer.contracts.groups import GroupStatus, group_status
from trainer.contracts.looks import LookCount
from trainer.contracts.runs import RunStatus
from trainer.system.files import changed_ns
from trainer.system.shared_calls import SharedCalls

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_RECENT_EVENTS = 64
"""Events of a run that stay in memory; whoever is further behind reads the log."""
_PATIENCE_SECONDS = 0.05
"""Time to wait for a newer state of the queue where an older one is known: Redis may be waiting for its disk."""


class LiveStates(Protocol):
    """The states of runs that feeds need; `RunStates` has them."""

    runs: RunStore

    async def recent(self, statuses: Sequence[RunStatus]) -> list[RunStatus]:
        """Return statuses with the state of the queue."""

    def steady(self, status: RunStatus) -> RunStatus:
        """Return a status that is `reachable` until the worker was silent for one lease."""

    async def wait_message(self, job_id: str) -> str | None:
        """Return why a queued job of any kind waits."""


class RunFeed:
    """The events of one run, its curves, and its status after them; any thread may read."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._version = _version(run)
        self.follower = run.follow()
        self._curves = run.curves()
        self._reading, self._reading_curves = Lock(), Lock()
        self._shared: SharedCalls[RunStatus] = SharedCalls()
        self._recent: deque[Event] = deque(maxlen=_RECENT_EVENTS)
        self._queue_state: dict[str, object] | None = None
        """The fields that the queue has changed in the last status, in the state `_asked`, that it was asked about."""
        self._asked: RunState | None = None

    @property
    def has_ended(self) -> bool:
        return self.follower.ended

    @property
    def test_id(self) -> str | None:
        """Stands for the text of the run's test split; None without one."""
        return self.follower.record.effective.test_id

    def count_looks(self) -> LookCount | None:
        """Return the looks so far at the test split of the run."""
        return LookLedger(self.run.path.parent.parent).count(self.follower.record.effective)

    def is_current(self) -> bool:
        """Return False if the run was annotated, unlocked, or deleted and created again since this feed was opened."""
        before, now = self._version, _version(self.run)
        if self.follower.record.effective.test == "open":  # its end changes nothing that was read at the beginning
            return before.opened == now.opened
        return before == now

    @property
    def has_queue_state(self) -> bool:
        return self._queue_state is not None

    def read(self) -> RunStatus:
        """Read the new events, and return the status after them."""
        with self._reading:
            last: deque[bytes] = deque(maxlen=_RECENT_EVENTS)
            for lines in self.follower.read_lines():
                last.extend(lines)
            self._recent += self.run.reader().parsed(last)
            return self.follower.status

    def read_curves(self) -> RunCurves:
        """Read the new numbers, and return the curves."""
        with self._reading_curves:
            self._curves.read_new()
            return self._curves

    async def read_shared(self) -> RunStatus:
        """Read the new events in a thread, once for all who wait."""
        return await self._shared.result(lambda: asyncio.to_thread(self.read))

    def recent_events(self) -> list[Event]:
        """Read the new events, and return the last ones."""
        self.read()
        with self._reading:
            return [*self._recent]

    def events_after(self, seq: int) -> list[Event]:
        """Read the new events, and return those with a higher number."""
        events = self.recent_events()
        if not events or events[0].seq <= seq + 1:
            return [event for event in events if event.seq > seq]
        reader = self.run.reader()
        return [event for lines in reader.lines() for event in reader.parsed(lines) if event.seq > seq]

    def take_queue_state(self, asked: RunStatus, answered: RunStatus) -> None:
        """Remember what the queue adds to a status."""
        before: dict[str, object] = asked.model_dump()
        after: dict[str, object] = answered.model_dump()
        self._asked = asked.status
        self._queue_state = {name: value for name, value in after.items() if value != before[name]}

    def live(self) -> RunStatus:
        """Return the status after the events that were read, with the last known state of the queue."""
        status, state = self.follower.status, self._queue_state
        if state is None or self._asked != status.status:
            return status
        live = changed(status, **state)
        beats = (status.last_heartbeat_ts or 0.0, live.last_heartbeat_ts or 0.0)
        return changed(live, last_heartbeat_ts=max(beats) or None)


class RunFeeds:
    """The feeds of a process: one for each run that something follows, and for the runs that were asked for last."""

    def __init__(self, states: LiveStates, max_runs: int = 512) -> None:
        self.states = states
        self._max_runs = max_runs
        self._feeds: WeakValueDictionary[str, RunFeed] = WeakValueDictionary()
        self._last: OrderedDict[str, RunFeed] = OrderedDict()
        self._opening = Lock()
        self._due: dict[str, RunFeed] = {}
        """Feeds whose state the next request to Redis asks for."""
        self._asking: SharedCalls[None] = SharedCalls()

    def of(self, run: RunDirectory) -> RunFeed:
        """Return the feed of a run; any thread may call this. Raises OSError, or ValueError for a damaged request."""
        with self._opening:
            feed = self._feeds.get(run.run_id)
            if feed is None or not feed.is_current():
                feed = self._feeds[run.run_id] = RunFeed(run)
            return feed

    async def read(self, run_id: str) -> RunFeed:
        """Return the feed of a run, with all its events read; raises RUN_NOT_FOUND."""
        feed = await asyncio.to_thread(self.of, self.states.runs.get(run_id))
        if not feed.has_ended:
            await feed.read_shared()
        self._keep(run_id, feed)
        return feed

    async def curves(self, run_id: str) -> RunCurves:
        """Return the curves of a run, with all its events read; raises RUN_NOT_FOUND."""
        feed = await asyncio.to_thread(self.of, self.states.runs.get(run_id))
        self._keep(run_id, feed)
        return await asyncio.to_thread(feed.read_curves)

    def _keep(self, run_id: str, feed: RunFeed) -> None:
        self._last[run_id] = feed
        self._last.move_to_end(run_id)
        while len(self._last) > self._max_runs:
            self._last.popitem(last=False)

    async def status(self, run_id: str) -> RunStatus:
        """Return the status of a run with the state of the queue, at its end with the looks at its test split.

        Raises RUN_NOT_FOUND.
        """
        feed = await self.read(run_id)
        [status] = await _with_looks([feed], [await self._live_status(feed)])
        return status

    async def group(self, group_id: str) -> GroupStatus:
        """Return the status of a group with the state of the queue; raises RUN_NOT_FOUND."""
        runs: list[RunDirectory] = await asyncio.to_thread(runs_of_group, self.states.runs, group_id)
        return group_status(group_id, await asyncio.gather(*(self.status(run.run_id) for run in runs)))

    async def statuses(self, run_ids: Sequence[str]) -> list[RunStatus]:
        """Return the statuses of runs with the state of the queue, without those deleted or damaged."""
        feeds = await asyncio.to_thread(self._read_all, run_ids)
        for feed in feeds:
            self._keep(feed.run.run_id, feed)
        return await _with_looks(feeds, await asyncio.gather(*map(self._live_status, feeds)))

    def _read_all(self, run_ids: Sequence[str]) -> list[RunFeed]:
        """Return the feeds of the runs that can be read, with all their events read."""
        feeds: list[RunFeed] = []
        for run_id in run_ids:
            try:
                feed = self.of(self.states.runs.get(run_id))
                if not feed.has_ended:
                    feed.read()
                feeds.append(feed)
            except (AppError, OSError, ValueError) as error:
                log.error("run_unreadable", run_id=run_id, error=type(error).__name__)
        return feeds

    async def _live_status(self, feed: RunFeed) -> RunStatus:
        if not feed.has_ended:
            self._due[feed.run.run_id] = feed
            asking = self._asking.start(self._ask)
            await asyncio.wait([asking], timeout=_PATIENCE_SECONDS if feed.has_queue_state else None)
            if asking.done():
                asking.result()
        return feed.live()

    async def stop(self) -> None:
        """End the requests to Redis."""
        await self._asking.stop()

    async def _ask(self) -> None:
        """Ask Redis for the state of the queue, once for all runs and readers."""
        due, self._due = [*self._due.values()], {}
        asked = [feed.follower.status for feed in due]
        answered = await self.states.recent(asked)
        for feed, before, after in zip(due, asked, answered, strict=True):
            feed.take_queue_state(before, after)


async def _with_looks(feeds: Sequence[RunFeed], statuses: Sequence[RunStatus]) -> list[RunStatus]:
    """Return the statuses of feeds, of completed runs with the looks at their test splits, each counted once."""
    ended = {feed.test_id: feed for feed, one in zip(feeds, statuses, strict=True) if one.status == "completed"}
    counts = await asyncio.to_thread(lambda: {test_id: feed.count_looks() for test_id, feed in ended.items()})
    return [
        changed(one, test_looks=counts[feed.test_id]) if one.status == "completed" else one
        for feed, one in zip(feeds, statuses, strict=True)
    ]


class _Version(NamedTuple):
    """The times of the files of a run: other ones after an annotation or an unlock, or if it was created again."""

    opened: tuple[int, int, int | None]
    ended_ns: int | None


def _version(run: RunDirectory) -> _Version:
    request = (run.path / REQUEST_FILE).stat()
    return _Version((request.st_ino, request.st_ctime_ns, changed_ns(run.annotations_file)), changed_ns(run.result))
