"""The states of runs: their statuses with queue and worker, and how a run is cancelled, paused and deleted."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import structlog

from trainer.artifacts.deletion import delete_run
from trainer.artifacts.replicas import WriterChanged
from trainer.artifacts.runs import RunDirectory, cancel_idle_run, in_use, pause_idle_run
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError
from trainer.contracts.runs import AnnotationChange, RunStatus, finished_error
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.queue.cost import UNMET, waiting_for
from trainer.queue.enqueue import publish_events
from trainer.queue.stores import Stores
from trainer.queue.workers import Workers
from trainer.store import keys
from trainer.store.connection import LIMIT_SECONDS, STORE_ERRORS, tolerate_no_redis, value_or
from trainer.store.refusals import log_outage
from trainer.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_EVENT_WAIT_SECONDS = 5.0
_REFRESH_SECONDS = 2.0
_SAME_SECONDS = 0.5
"""Two heartbeats are further apart; the time of one that is read twice is not exactly the same."""
_READING_SHARE = 0.05
_IN_QUEUE = ("queued", "running")
T = TypeVar("T")


class _Heard(NamedTuple):
    """The time of a heartbeat by the clocks of this process, whatever the clock of the worker says."""

    at: float
    """Monotonic time, in seconds."""
    ts: float
    """Unix time."""


_NEVER = _Heard(-math.inf, 0.0)


class RunStates:
    """The states of the runs of one artifacts folder."""

    def __init__(self, settings: Settings, store: Store, stores: Stores, workers: Workers) -> None:
        self._settings = settings
        self._store = store
        self._replication = stores.replication
        self._workers = workers
        self._refreshed_at = -_REFRESH_SECONDS
        self._recent_places = Recent(self._places)
        self._heard: dict[str, _Heard] = {}
        """The last heartbeats of running runs."""
        self.runs = stores.runs

    async def status(self, run_id: str) -> RunStatus:
        """Return the status of a run from its event log and from the queue."""
        follower = await asyncio.to_thread(self.runs.get(run_id).follow)
        return (await self._add_queue_state([follower.refresh()]))[0]

    async def steady_status(self, status: RunStatus) -> RunStatus:
        """Add the state of the queue to the status of a run; `reachable` until a worker was silent for one lease."""
        return self.steady((await self.recent([status]))[0])

    async def recent(self, statuses: Sequence[RunStatus]) -> list[RunStatus]:
        """Add the state of the queue to the statuses of runs; positions may be some milliseconds old."""
        return await self._add_queue_state(statuses, self._recent_places.get)

    def steady(self, status: RunStatus) -> RunStatus:
        """Return a status that is `reachable` until the worker was silent for one lease."""
        heard = self._heard.get(status.run_id)  # a run that moves has no lease for seconds
        is_recent = heard is not None and time.monotonic() - heard.at < self._settings.queue.lease_seconds
        return changed(status, reachable=status.reachable or is_recent)

    async def _add_queue_state(
        self, statuses: Sequence[RunStatus], find_places: Callable[[], Awaitable[Mapping[str, int]]] | None = None
    ) -> list[RunStatus]:
        """Return the statuses of runs with queue position, last heartbeat and whether a worker holds the run."""
        unfinished = [one for one in statuses if one.status in _IN_QUEUE]
        waiting = [one.run_id for one in unfinished if one.status == "queued"]
        if not unfinished:
            return [*statuses]
        names = [key(one.run_id) for one in unfinished for key in (keys.lease, keys.postponed)]
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                worker, *found = await self._store.get_all(keys.WORKER, *names)
                silences = await self._store.silences([one.run_id for one in unfinished if one.status == "running"])
                places = await (find_places or self._places)() if waiting else {}
                if not places.keys() >= set(waiting):  # a new run is not in an older order
                    places = await self._places()
                unmet_needs = await self._workers.unmet(waiting, has_worker=bool(worker))
        except STORE_ERRORS:
            return [changed(one, reachable=False) if one.status in _IN_QUEUE else one for one in statuses]
        self._hear(silences)
        known: dict[str, RunStatus] = {}
        for one, lease, reason in zip(unfinished, found[::2], found[1::2], strict=True):
            state: dict[str, object] = {"reachable": one.status == "queued" or lease is not None}
            if one.run_id in silences:
                state["last_heartbeat_ts"] = self._heard[one.run_id].ts
            if one.status == "queued":
                state["queue_position"] = places.get(one.run_id)
                if reason is not None:
                    state |= {"waits_for": "object_store", "message": reason.decode()}
                elif missing := unmet_needs.get(one.run_id):
                    problem = self._workers.problem() if missing == "worker" else None
                    state |= {"waits_for": missing, "message": problem or WAIT_MESSAGES[missing]}
            known[one.run_id] = changed(one, **state)
        return [known.get(one.run_id, one) for one in statuses]

    def _hear(self, silences: Mapping[str, float]) -> None:
        """Remember for one lease when the workers of runs were heard last; one heartbeat has one time."""
        now, lease_seconds = time.monotonic(), self._settings.queue.lease_seconds
        for run_id, seconds in silences.items():
            if now - seconds > self._heard.get(run_id, _NEVER).at + _SAME_SECONDS:
                self._heard[run_id] = _Heard(now - seconds, time.time() - seconds)
        recent = {run_id for run_id, one in self._heard.items() if now - one.at < lease_seconds}
        self._heard = {run_id: self._heard[run_id] for run_id in recent | silences.keys()}

    async def with_wait(self, status: RunStatus) -> RunStatus:
        """Add what a queued run waits for: the runs that train now, and the others before it."""
        status = await self.steady_status(status)
        if status.waits_for in (*UNMET, "object_store"):
            return status
        if await self._workers.are_paused():
            return changed(status, waits_for="queue", message=WAIT_MESSAGES["queue"])
        order = await self.order()
        ahead = order[: order.index(status.run_id)] if status.run_id in order else []
        training: list[str] = []
        async with tolerate_no_redis("holders_unknown", run_id=status.run_id):
            training = list(await self._store.holders(ahead))
        return changed(status, message=waiting_for(training, len(ahead)))

    async def wait_message(self, job_id: str) -> str | None:
        """Return why a queued job of any kind waits: the object store's refusal, or that its workers are broken."""
        reason = await value_or(None, self._store.get(keys.postponed(job_id)))
        if reason is not None:
            return reason.decode()
        return WAIT_MESSAGES["broken"] if await self._workers.absence() == "broken" else None

    async def order(self) -> list[str]:
        """Return the ids of the runs in the queue, running ones first; empty while Redis is unavailable."""
        return await value_or([], self._store.queue_order(self._settings.queue.name))

    async def _places(self) -> dict[str, int]:
        order = await self._store.queue_order(self._settings.queue.name)
        return {run_id: place for place, run_id in enumerate(order, start=1)}

    async def cancel(self, run_id: str) -> bool:
        """Request the end of a run; return True if it ended at once, False if it ends at its next step.

        Raises RUN_FINISHED for a run that has ended.
        """
        run = self.runs.get(run_id)
        if run.manifest() is not None:
            raise finished_error(run_id)
        await asyncio.to_thread(run.request_cancel)
        await self._replication.request_cancel("models", run_id)
        return await self._stop_idle(run, cancel_idle_run, lambda: run.manifest() is not None)

    async def annotate(self, run_id: str, change: AnnotationChange) -> None:
        """Change note and tags of a run; with an object store, raises SERVICE_UNAVAILABLE while a worker trains it."""
        run = self.runs.get(run_id)
        work = partial(asyncio.to_thread, self.runs.annotate, run, change)
        try:
            if self._replication.is_on and run.is_unfinished() and not await self._is_idle(run_id):
                raise WriterChanged
            await self._replication.write("models", run_id, work)
        except WriterChanged:
            raise in_use(run_id) from None

    async def pause(self, run_id: str) -> None:
        """Let no worker train an unfinished run until it is resumed; a worker that trains it saves a checkpoint."""
        run = self.runs.get(run_id)
        if run.manifest() is None:
            await asyncio.to_thread(run.request_pause)
            await self._stop_idle(run, pause_idle_run, lambda: run.is_paused)

    async def _stop_idle(
        self, run: RunDirectory, stop: Callable[[RunDirectory], bool], has_stopped: Callable[[], bool]
    ) -> bool:
        """Stop a run that no worker trains; return False if a worker trains it, which reads the request itself."""
        if self._replication.is_on and not await self._is_idle(run.run_id):
            return False
        with suppress(WriterChanged):
            await self._replication.write("models", run.run_id, lambda: asyncio.to_thread(stop, run))
        if not has_stopped():
            return False
        async with tolerate_no_redis("run_stopped_without_redis", run_id=run.run_id):
            await publish_events(self._store, run)
            await self._store.dequeue(self._settings.queue.name, run.run_id)
        return True

    async def _is_idle(self, run_id: str) -> bool:
        """Return True if no worker has the lease of a run; False while Redis is unavailable."""
        return not await value_or(True, self._store.exists(keys.lease(run_id)))

    async def delete(self, run_id: str) -> None:
        """Delete an ended run with its files; raises CONFLICT if an experiment or another run needs it."""
        await asyncio.to_thread(delete_run, self.runs.get(run_id), self._settings.app.artifacts_root)
        await self._replication.delete("models", run_id)
        async with tolerate_no_redis("run_deleted_without_redis", run_id=run_id):
            await self._store.delete(keys.status(run_id), keys.run_events(run_id))

    async def next_run_ids(self) -> AsyncIterator[str]:
        """Yield the id of each run that has new events, without end; waits while Redis is unavailable."""
        wait_seconds = _REFRESH_SECONDS if self._replication.is_on else _EVENT_WAIT_SECONDS
        while True:
            try:
                for run_id in await self._store.next_run_ids(wait_seconds=wait_seconds):
                    self._replication.watch("models", run_id)
                    yield run_id
            except STORE_ERRORS as error:
                log_outage(error)
                await asyncio.sleep(1)
            for run_id in await self._refreshed():
                yield run_id

    async def _refreshed(self) -> list[str]:
        """Return the ids of what has changed in the object store since the last call."""
        if time.monotonic() < self._refreshed_at + _REFRESH_SECONDS:
            return []
        try:
            changed_ids = await self._replication.refresh(with_ended=True)
        except (AppError, OSError) as error:
            log.warning("refresh_failed", error=str(error))
            changed_ids = []
        self._refreshed_at = time.monotonic()
        return changed_ids


class Recent(Generic[T]):
    """Reads a value for all callers; reading takes at most a twentieth of the time, however many callers there are."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._held: list[T] = []
        self._fresh_until = 0.0
        self._reading = asyncio.Lock()

    async def get(self) -> T:
        """Return the value of the last reading, or read it again; raises what the reading raises."""
        async with self._reading:
            begin = time.monotonic()
            if begin >= self._fresh_until:
                self._held = [await self._read()]
                end = time.monotonic()
                self._fresh_until = end + (end - begin) / _READING_SHARE
            return self._held[0]
