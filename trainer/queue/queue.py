"""The queue of training jobs and tokenizer jobs: check a request, write it to disk, then enqueue it."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Generic, TypeVar

import structlog

from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.experiments import delete_run
from trainer.artifacts.kinds import RUNS, TOKENIZERS
from trainer.artifacts.replicas import WriterChanged
from trainer.artifacts.replication import Replication
from trainer.artifacts.run_groups import create_runs, remove_runs, write_members
from trainer.artifacts.run_ids import id_of_resumed, new_run_id
from trainer.artifacts.runs import (
    Origin,
    RunDirectory,
    RunStore,
    cancel_idle_run,
    pause_idle_run,
    unpause_run,
)
from trainer.artifacts.tokenizers import TokenizerStore, resolve_tokenizer
from trainer.config.presets import request_hash
from trainer.config.settings import Settings
from trainer.contracts.base import changed, now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import (
    Accepted,
    HttpOrigin,
    RunRecord,
    RunStatus,
    Setting,
    TrainRequest,
    run_owner,
)
from trainer.contracts.seeds import RunGroup
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerRecord, TokenizerTrainRequest
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.data.corpora import CorpusStore
from trainer.queue.acceptance import Acceptance, unwritten
from trainer.queue.batteries import Batteries
from trainer.queue.cost import UNMET, needs_of, waiting_for
from trainer.queue.enqueue import Enqueuer, publish_events
from trainer.queue.experiments import Experiments
from trainer.queue.inference_client import InferenceClient
from trainer.queue.resolve import TrainingPreview, preview_training, resolve_origin, with_epochs
from trainer.queue.workers import Workers
from trainer.store import keys
from trainer.store.connection import (
    LIMIT_SECONDS,
    STORE_ERRORS,
    require_redis,
    tolerate_no_redis,
    value_or,
)
from trainer.store.refusals import log_outage
from trainer.store.store import Store, connect

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_EVENT_WAIT_SECONDS = 5.0
_REFRESH_SECONDS = 2.0
_READING_SHARE = 0.05
T = TypeVar("T")
_IN_QUEUE = ("queued", "running")
_SECONDS = re.compile(rb"[0-9]{1,15}(\.[0-9]+)?")


class JobQueue:
    """Queue of one installation, its runs, tokenizers, corpora and experiments, and the client for inference."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._enqueuer = Enqueuer(settings, store)
        self._refreshed_at = -_REFRESH_SECONDS
        self.replication = Replication(settings)
        self.runs = RunStore(settings.app.artifacts_root)
        self.corpora = CorpusStore(settings)
        self.tokenizers = TokenizerStore(settings.app.artifacts_root)
        self.workers = Workers(settings, store, self.runs)
        self.jobs = Acceptance(settings, self._enqueuer, self.corpora, self.replication)
        self.inference = InferenceClient(settings, store, self._enqueuer, self.runs, self.corpora, self.replication)
        self.experiments = Experiments(settings, store, self.jobs, self.runs, self.corpora, self.replication)
        self.batteries = Batteries(settings, store, self.jobs, self.runs, self.replication)
        self._recent_places = Recent(self._places)

    @classmethod
    async def connect(cls, settings: Settings, redis_url: str) -> "JobQueue":
        """Connect to Redis and join the object store; raises SERVICE_UNAVAILABLE if one does not answer."""
        queue = cls(settings, await connect(redis_url))
        await queue.replication.join()
        return queue

    async def close(self) -> None:
        await self._store.close()

    async def train(
        self,
        request: TrainRequest,
        *,
        user_id: int | None,
        http: HttpOrigin | None = None,
        corpora: CorpusStore | None = None,
        requested_paths: tuple[str, ...] | None = None,
        unused_settings: Mapping[str, Setting] = MappingProxyType({}),
    ) -> Accepted:
        """Check, estimate and accept a training (see `preview_training`); raises AppError, having changed nothing."""
        preview = await preview_training(
            request,
            corpora or self.corpora,
            self._settings,
            requested_paths=requested_paths,
            unused_settings=unused_settings,
        )
        return await self.accept(preview, user_id=user_id, http=http)

    async def accept(
        self,
        preview: TrainingPreview,
        *,
        user_id: int | None,
        http: HttpOrigin | None = None,
        experiment_id: str | None = None,
        group: RunGroup | None = None,
    ) -> Accepted:
        """Accept a previewed training: write its run, or a run for each of its seeds, to disk, then enqueue it.

        A request with `resume` resumes the newest run with the same request; raises RUN_NOT_READY while that run has
        not ended. `group` is that of an experiment's run.
        """
        request, effective = preview.request, preview.effective
        await self.workers.check(needs_of(preview.effective, preview.cost))
        await preview.corpora.store_offered()
        if request.resume:
            run = await asyncio.to_thread(self._find_interrupted, preview, run_owner(user_id, http))
            if run is not None and run.pause_requested():
                return await self._unpause(run)
            if run is not None:
                origin = await self._origin(run)
                return await self.accept_resumed(origin, user_id=user_id, http=http, experiment_id=experiment_id)
        created_at = now()
        run_id = new_run_id(request.model_family, created_at)
        if len(preview.seeds) > 1:
            group = RunGroup(group_id=run_id, seeds=preview.seeds)
            run_id = group.member_id(request.seed)
        record = RunRecord(
            run_id=run_id,
            user_id=user_id,
            http=http,
            created_at=created_at,
            request=request,
            effective=effective,
            request_hash=request_hash(effective),
            requested_paths=preview.requested_paths,
            unused_settings=dict(preview.unused_settings),
            cost=preview.cost,
            chosen=preview.chosen,
            leaks=preview.leaks,
            notes=preview.notes,
            experiment_id=experiment_id,
            group=group,
        )
        return await self._accept(record)

    async def resume(
        self, run_id: str, *, user_id: int | None, http: HttpOrigin | None = None, epochs: int | None = None
    ) -> Accepted:
        """Resume a paused run, or a failed or cancelled one as a new run, with other epochs if they are given.

        Raises AppError, having changed nothing.
        """
        run = self.runs.get(run_id)
        if not run.pause_requested():
            origin = await self._origin(run)
            return await self.accept_resumed(origin, user_id=user_id, http=http, epochs=epochs)
        if epochs is not None:
            message = f"The run '{run_id}' is paused: resume it without `epochs`, or cancel it first."
            raise AppError(ErrorCode.RUN_NOT_READY, message)
        return await self._unpause(run)

    async def accept_resumed(
        self,
        origin: Origin,
        *,
        user_id: int | None,
        http: HttpOrigin | None = None,
        experiment_id: str | None = None,
        epochs: int | None = None,
    ) -> Accepted:
        """Accept a run that resumes a checked origin: write it to disk, then enqueue it."""
        created_at, old = now(), with_epochs(await asyncio.to_thread(origin.run.record), origin, epochs)
        if epochs is not None:  # no other run of its group has as many
            old = changed(old, group=None)
        record = changed(
            old,
            run_id=id_of_resumed(old, created_at),
            user_id=user_id,
            http=http,
            created_at=created_at,
            resumed_from_run_id=old.run_id,
            cost=None,
            experiment_id=experiment_id,
        )
        return await self._accept(record, origin)

    def _find_interrupted(self, preview: TrainingPreview, owner: int | str | None) -> RunDirectory | None:
        """Return the newest run of this owner, label and request; None if it completed or has no whole checkpoint.

        The label may have a number after it, as a default label has.
        """
        label = re.compile(re.escape(preview.effective.label or "") + "(-[0-9]+)?")
        for run in self.runs.all():
            record = run.record()
            is_named = label.fullmatch(record.effective.label or "") is not None
            if is_named and record.owner == owner and preview.is_of(record):
                end = run.manifest()
                if end is not None and (end.status == "completed" or newest_whole(run.checkpoints) is None):
                    return None
                return run
        return None

    async def _origin(self, run: RunDirectory) -> Origin:
        await self.replication.fetch("models", run.run_id, with_weights=True)
        return await resolve_origin(run, self.corpora, self._settings)

    async def _accept(self, record: RunRecord, origin: Origin | None = None) -> Accepted:
        await self.replication.store_corpora(self.corpora, record.effective.corpora)
        try:
            runs: list[RunDirectory] = await asyncio.to_thread(create_runs, self.runs, record, origin)
        except OSError as error:
            raise unwritten("run", error) from error
        try:
            return await self._enqueue_all(runs)
        except AppError:  # the object store does not answer
            await asyncio.to_thread(remove_runs, self.runs, await asyncio.to_thread(runs[0].record))
            raise

    async def accepted_before(self, run: RunDirectory) -> Accepted:
        """Return the answer to the request that started a run; complete a group whose acceptance was interrupted."""
        accepted = Accepted.of(await asyncio.to_thread(run.record))
        first = self.runs.directory(accepted.run_id)
        if first.has_open_group():
            runs: list[RunDirectory] = await asyncio.to_thread(write_members, self.runs, first)
            await self._enqueue_all(runs)
        return accepted

    async def _enqueue_all(self, runs: Sequence[RunDirectory]) -> Accepted:
        for run in runs:
            await self.replication.publish("models", run.run_id)
        for run in runs:
            await self._enqueue(run, await asyncio.to_thread(run.record), "run_accepted_without_redis")
        return Accepted.of(await asyncio.to_thread(runs[0].record))

    async def _enqueue(self, run: RunDirectory, record: RunRecord, without_redis: str) -> Accepted:
        """Enqueue a run; without Redis, log `without_redis`: the reconciler of a worker enqueues it from the disk."""
        async with tolerate_no_redis(without_redis, run_id=run.run_id):
            await publish_events(self._store, run)
            await self._enqueuer.enqueue_job(RUNS, run.run_id, record)
        return Accepted(run_id=run.run_id, job_id=run.run_id, status="queued")

    async def resume_unfinished(self, run: RunDirectory) -> Accepted:
        """Resume a run that has not ended if it is paused."""
        if run.pause_requested():
            return await self._unpause(run)
        return Accepted(run_id=run.run_id, job_id=run.run_id, status="queued")

    async def _unpause(self, run: RunDirectory) -> Accepted:
        await self.replication.write("models", run.run_id, lambda: asyncio.to_thread(unpause_run, run))
        return await self._enqueue(run, await asyncio.to_thread(run.record), "run_unpaused_without_redis")

    async def train_tokenizer(self, request: TokenizerTrainRequest) -> TokenizerAccepted:
        """Check and accept the training of a tokenizer; raises AppError, having changed nothing."""
        return await self.accept_tokenizer(await resolve_tokenizer(request, self.corpora))

    async def accept_tokenizer(self, record: TokenizerRecord) -> TokenizerAccepted:
        """Accept a checked tokenizer; one that is finished or being trained is not trained again."""
        tokenizer = await self.jobs.accept(TOKENIZERS, lambda: self.tokenizers.create(record), record.corpora)
        status = tokenizer.status()
        return TokenizerAccepted(tokenizer_id=status.tokenizer_id, job_id=status.tokenizer_id, status=status.status)

    async def cancel(self, run_id: str) -> bool:
        """Request the end of a run; return True if it ended at once, False if it ends at its next step.

        Raises RUN_FINISHED for a run that has ended.
        """
        run = self.runs.get(run_id)
        if run.manifest() is not None:
            raise AppError(ErrorCode.RUN_FINISHED, f"The run '{run_id}' has already ended.")
        await asyncio.to_thread(run.request_cancel)
        await self.replication.request_cancel("models", run_id)
        return await self._stop_idle(run, cancel_idle_run, lambda: run.manifest() is not None)

    async def pause_run(self, run_id: str) -> None:
        """Let no worker train an unfinished run until it is resumed; a worker that trains it saves a checkpoint."""
        run = self.runs.get(run_id)
        if run.manifest() is None:
            await asyncio.to_thread(run.request_pause)
            await self._stop_idle(run, pause_idle_run, lambda: run.is_paused)

    async def _stop_idle(
        self, run: RunDirectory, stop: Callable[[RunDirectory], bool], has_stopped: Callable[[], bool]
    ) -> bool:
        """Stop a run that no worker trains; return False if a worker trains it, which reads the request itself."""
        if self.replication.is_on and not await self._is_idle(run.run_id):
            return False
        with suppress(WriterChanged):
            await self.replication.write("models", run.run_id, lambda: asyncio.to_thread(stop, run))
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
        await asyncio.to_thread(delete_run, self.runs.get(run_id), self.runs, self.experiments.stored)
        await self.replication.delete("models", run_id)
        async with tolerate_no_redis("run_deleted_without_redis", run_id=run_id):
            await self._store.delete(keys.status(run_id), keys.run_events(run_id))

    async def with_wait(self, status: RunStatus) -> RunStatus:
        """Add what a queued run waits for: the runs that train now, and the others before it."""
        status = await self.steady_status(status)
        if status.waits_for in UNMET:
            return status
        if await self.workers.are_paused():
            return changed(status, waits_for="queue", message=WAIT_MESSAGES["queue"])
        order = await self.order()
        ahead = order[: order.index(status.run_id)] if status.run_id in order else []
        training: list[str] = []
        async with tolerate_no_redis("holders_unknown", run_id=status.run_id):
            training = list(await self._store.holders(ahead))
        return changed(status, message=waiting_for(training, len(ahead)))

    async def order(self) -> list[str]:
        """Return the ids of the runs in the queue, running ones first; empty while Redis is unavailable."""
        return await value_or([], self._store.queue_order(self._settings.queue.name))

    async def first_value(self, idempotency: str, value: str) -> str:
        """Return the first value that was given for an Idempotency-Key; raises SERVICE_UNAVAILABLE without Redis."""
        key = keys.idempotency(idempotency)
        async with require_redis():
            await self._store.put_new(key, value, ttl_seconds=self._settings.queue.result_ttl_seconds)
            stored = await self._store.get(key)
        return value if stored is None else stored.decode()

    async def status(self, run_id: str) -> RunStatus:
        """Return the status of a run from its event log and from the queue."""
        follower = await asyncio.to_thread(self.runs.get(run_id).follow)
        return (await self.add_queue_state([follower.refresh()]))[0]

    async def steady_status(self, status: RunStatus) -> RunStatus:
        """Add the state of the queue to the status of a run; `reachable` until a worker was silent for one lease."""
        return self.steady((await self.recent_states([status]))[0])

    async def recent_states(self, statuses: Sequence[RunStatus]) -> list[RunStatus]:
        """Add the state of the queue to the statuses of runs; positions may be some milliseconds old."""
        return await self.add_queue_state(statuses, self._recent_places.get)

    def steady(self, status: RunStatus) -> RunStatus:
        """Return a status that is `reachable` until the worker was silent for one lease."""
        silence_seconds = time.time() - (status.last_heartbeat_ts or 0.0)  # a run that moves has no lease for seconds
        return changed(status, reachable=status.reachable or silence_seconds < self._settings.queue.lease_seconds)

    async def add_queue_state(
        self, statuses: Sequence[RunStatus], find_places: Callable[[], Awaitable[Mapping[str, int]]] | None = None
    ) -> list[RunStatus]:
        """Return the statuses of runs with queue position, last heartbeat and whether a worker holds the run."""
        unfinished = [one for one in statuses if one.status in _IN_QUEUE]
        waiting = [one.run_id for one in unfinished if one.status == "queued"]
        if not unfinished:
            return [*statuses]
        names = [key(one.run_id) for one in unfinished for key in (keys.lease, keys.heartbeat)]
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                worker, *found = await self._store.get_all(keys.WORKER, *names)
                places = await (find_places or self._places)() if waiting else {}
                if not places.keys() >= set(waiting):  # a new run is not in an older order
                    places = await self._places()
                unmet_needs = await self.workers.unmet(waiting, has_worker=bool(worker))
        except STORE_ERRORS:
            return [changed(one, reachable=False) if one.status in _IN_QUEUE else one for one in statuses]
        known: dict[str, RunStatus] = {}
        for one, lease, heartbeat in zip(unfinished, found[::2], found[1::2], strict=True):
            state: dict[str, object] = {"reachable": one.status == "queued" or lease is not None}
            if heartbeat is not None and _SECONDS.fullmatch(heartbeat):
                state["last_heartbeat_ts"] = float(heartbeat)
            if one.status == "queued":
                state["queue_position"] = places.get(one.run_id)
                if missing := unmet_needs.get(one.run_id):
                    state |= {"waits_for": missing, "message": WAIT_MESSAGES[missing]}
            known[one.run_id] = changed(one, **state)
        return [known.get(one.run_id, one) for one in statuses]

    async def _places(self) -> dict[str, int]:
        order = await self._store.queue_order(self._settings.queue.name)
        return {run_id: place for place, run_id in enumerate(order, start=1)}

    async def next_run_ids(self) -> AsyncIterator[str]:
        """Yield the id of each run that has new events, without end; waits while Redis is unavailable."""
        wait_seconds = _REFRESH_SECONDS if self.replication.is_on else _EVENT_WAIT_SECONDS
        while True:
            try:
                for run_id in await self._store.next_run_ids(wait_seconds=wait_seconds):
                    self.replication.watch("models", run_id)
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
            changed_ids = await self.replication.refresh(with_ended=True)
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
