"""Sends run updates to Discord: one supervised task per run and watcher, woken by the event stream."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

import discord
import structlog

from bot.chart_process import ChartProcess
from bot.delivery import Delivery, RunNotifications
from bot.ledger import Watcher, read_ledger
from bot.pacing import Pace
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.errors import AppError
from trainer.contracts.runs import RunRecord, RunStatus

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_MAX_RETRY_SECONDS = 600.0
_STEADY_SECONDS = 60.0
"""The back-off starts again after a task has run this long."""
_MAX_RESULTS = 4
_FIRST_MESSAGE_SECONDS = 5.0


class EventSource(Protocol):
    """Yields the ids of runs whose event log has grown, and adds queue state to a status; the job queue is one."""

    def next_run_ids(self) -> AsyncIterator[str]: ...

    async def steady_status(self, status: RunStatus) -> RunStatus: ...


class UndeliveredResult(NamedTuple):
    """An ended run whose final message a watcher's channel has refused."""

    run: RunNotifications
    watcher: Watcher
    status: RunStatus


class RunNotifier:
    """Runs one delivery per run and watcher; a failed delivery is logged and restarted, and affects no other.

    `listeners` are called with the id of each run that has new events.
    """

    def __init__(
        self,
        runs: RunStore,
        events: EventSource,
        client: discord.Client,
        charts: ChartProcess,
        can_receive: Callable[[int, RunRecord], bool],
        *,
        edit_interval_seconds: float,
        listeners: Sequence[Callable[[str], None]] = (),
        poll_seconds: float = 3.0,
        retry_seconds: float = 5.0,
        steady_seconds: float = _STEADY_SECONDS,
    ) -> None:
        self._runs = runs
        self._events = events
        self._client = client
        self._charts = charts
        self._can_receive = can_receive
        self._edit_interval_seconds = edit_interval_seconds
        self._listeners = listeners
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._steady_seconds = steady_seconds
        self._pace = Pace(edit_interval_seconds)
        # all deliveries of a run share one ledger while any of them uses it
        self._notifications: WeakValueDictionary[str, RunNotifications] = WeakValueDictionary()
        self._deliveries: dict[str, Delivery] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._undelivered: defaultdict[int, set[str]] = defaultdict(set)
        """Run ids by user id."""

    async def start(self) -> None:
        """Continue the deliveries of every run with pending messages, and listen for events."""
        for run_id in await asyncio.to_thread(self._pending_runs):
            self.follow(run_id)
        self._tasks["events"] = asyncio.create_task(self._supervise("events", self._listen))

    async def stop(self) -> None:
        """Stop all deliveries; they continue from their ledgers after a restart."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def follow(self, run_id: str) -> None:
        """Start or wake a delivery for every watcher of the run."""
        try:
            run = self._run(self._runs.get(run_id))
        except AppError:
            log.warning("run_unknown", run_id=run_id)
        except ValueError:
            log.error("run_unreadable", run_id=run_id)
        else:
            self._deliver(run)

    async def watch(self, directory: RunDirectory, user_id: int, channel_id: int | None) -> Watcher:
        """Add a watcher of a run, in a channel or (None) in direct messages; durable on return.

        Waits up to five seconds for the first message, to report whether the channel accepts messages.
        """
        run, name = self._run(directory), _name(directory.run_id, user_id)
        self._stop_delivery(name)
        watcher = await run.ledger.watch(user_id, channel_id)
        self._deliver(run)
        if name in self._deliveries:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_MESSAGE_SECONDS):
                    await self._deliveries[name].tried.wait()
        return run.ledger.current.of(user_id) or watcher

    async def unwatch(self, directory: RunDirectory, user_id: int) -> None:
        """Remove a watcher of a run; durable on return."""
        run = self._run(directory)
        self._stop_delivery(_name(directory.run_id, user_id))
        watcher = run.ledger.current.of(user_id)
        if watcher is not None:
            await run.ledger.update(watcher, watches=False)

    def watched_by(self, user_id: int) -> list[str]:
        """Return the ids of runs with messages left to send to a user."""
        return sorted(delivery.run.run_id for delivery in self._deliveries.values() if delivery.user_id == user_id)

    @asynccontextmanager
    async def deliver_pending(self, user_id: int) -> AsyncIterator[Sequence[UndeliveredResult]]:
        """Yield a few undelivered results of a user; they are marked as delivered if the block succeeds."""
        waiting = self._undelivered.pop(user_id, set())
        try:
            results = await self._results(user_id, sorted(waiting))
            yield results
            for result in results:
                await result.run.ledger.update(result.watcher, acknowledged=True)
                waiting.discard(result.run.run_id)
        finally:
            self._undelivered[user_id] |= waiting

    async def _results(self, user_id: int, run_ids: Sequence[str]) -> list[UndeliveredResult]:
        results: list[UndeliveredResult] = []
        for run_id in run_ids:
            try:
                run = self._run(self._runs.get(run_id))
                status = await run.logged_status()
            except (AppError, ValueError, OSError):  # deleted or broken, which `follow` logs
                continue
            watcher = run.ledger.current.of(user_id)
            is_wanted = status.has_ended and self._can_receive(user_id, run.record)
            if watcher is not None and watcher.is_undelivered and is_wanted:
                results.append(UndeliveredResult(run, watcher, status))
        return results[:_MAX_RESULTS]

    def _run(self, directory: RunDirectory) -> RunNotifications:
        run = self._notifications.get(directory.run_id)
        if run is None:
            interval = self._edit_interval_seconds
            run = RunNotifications(directory, self._charts, self._events.steady_status, interval_seconds=interval)
            self._notifications[directory.run_id] = run
        return run

    def _deliver(self, run: RunNotifications) -> None:
        """Start missing deliveries and wake the others; a run that has become private is not delivered."""
        self._collect_undelivered(run)
        for watcher in run.ledger.current.pending:
            name = _name(run.run_id, watcher.user_id)
            if name in self._deliveries:
                self._deliveries[name].wake_up.set()
            elif self._can_receive(watcher.user_id, run.record):
                delivery = Delivery(run, watcher, self._client, self._pace, poll_seconds=self._poll_seconds)
                self._deliveries[name] = delivery
                self._tasks[name] = asyncio.create_task(self._run_delivery(name, delivery))

    async def _run_delivery(self, name: str, delivery: Delivery) -> None:
        await self._supervise(name, delivery.deliver)
        self._collect_undelivered(delivery.run)
        del self._tasks[name], self._deliveries[name]

    def _collect_undelivered(self, run: RunNotifications) -> None:
        for watcher in run.ledger.current.watchers:
            if watcher.is_undelivered:
                self._undelivered[watcher.user_id].add(run.run_id)

    async def _listen(self) -> None:
        async for run_id in self._events.next_run_ids():
            for notify in self._listeners:
                notify(run_id)
            self.follow(run_id)

    def _pending_runs(self) -> list[str]:
        return [run.run_id for run in self._runs.all() if _is_pending(run)]

    async def _supervise(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run a task to its end; restart it after a failure, with exponential back-off."""
        failures = 0
        while True:
            started = time.monotonic()
            [error] = await asyncio.gather(work(), return_exceptions=True)
            if error is None:
                return
            failures = 1 if time.monotonic() - started > self._steady_seconds else failures + 1
            seconds = min(_MAX_RETRY_SECONDS, self._retry_seconds * 2.0 ** (failures - 1))
            log.error("task_failed", task=name, retry_seconds=seconds, exc_info=error)
            await asyncio.sleep(seconds)

    def _stop_delivery(self, name: str) -> None:
        self._deliveries.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()


def _name(run_id: str, user_id: int) -> str:
    return f"{run_id} for {user_id}"


def _is_pending(run: RunDirectory) -> bool:
    try:
        ledger = read_ledger(run)
        return bool(ledger.pending) or any(watcher.is_undelivered for watcher in ledger.watchers)
    except ValueError:
        log.error("run_unreadable", run_id=run.run_id)
        return False
