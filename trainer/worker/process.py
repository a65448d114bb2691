"""The worker process: one arq worker each for training, tokenizers, experiments and inference requests."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
from arq.worker import Function, Worker, func
from redis.exceptions import NoPermissionError, ResponseError

from trainer.artifacts.artifacts_id import artifacts_id
from trainer.config.settings import Settings
from trainer.contracts.jobs import WorkerInfo
from trainer.store import keys
from trainer.store.connection import STORE_ERRORS, LogState, dumps, loads, open_redis
from trainer.store.store import Store, connect
from trainer.system.hardware import package_version, process_name
from trainer.worker.child_process import child_server
from trainer.worker.cleanup_loop import clean_for_ever
from trainer.worker.inference_process import MAX_BATCH_REQUESTS, InferenceChild
from trainer.worker.jobs import Jobs
from trainer.worker.reconciler import reconcile

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_STDIN = 0
_POLL_SECONDS = 0.5
_RENEW_SECONDS = 0.5
_RECONCILE_SECONDS = 5.0
_DROP_SECONDS, _REFUSED_DROP_SECONDS = 10.0, 600.0
_PRESENCE_SHARE = 0.2
"""Interval of the worker's presence record, as a share of a lease."""
_FOR_EVER_SECONDS = 10 * 365 * 24 * 3600
_EXPERIMENT_SLOTS = 4  # an experiment only waits for its runs, which have slots of their own
_INTERACTIVE_SLOTS = 2 * MAX_BATCH_REQUESTS  # one batch is answered while the next one gathers


class WakingWorker(Worker):
    """An arq worker of one queue that polls when it is woken and at least every half second, also without Redis.

    `heart_beat` is the last call of each of arq's polls; with a poll delay of 0 it is the one place to wait, and
    then to claim jobs. A claim expires one lease after its last renewal.
    """

    tasks: dict[str, asyncio.Task[None]]

    def __init__(
        self,
        redis_url: str,
        functions: Sequence[Function],
        *,
        queue: str,
        artifacts_root: Path,
        slots: int,
        lease_seconds: float,
    ) -> None:
        redis = open_redis(redis_url)
        super().__init__(
            functions=functions,
            queue_name=queue,
            redis_pool=redis,
            max_jobs=slots,
            poll_delay=0,
            keep_result=0,  # results are records of our own, and a kept one would refuse the id for a later attempt
            handle_signals=False,
            job_serializer=dumps,
            job_deserializer=loads,
            log_results=False,
            after_job_end=self._wake_after_job,
        )
        self.allow_pick_jobs = False  # else arq looks at the queue before each claim, which would cost a round trip
        self.wake = asyncio.Event()
        self.in_progress_timeout_s = self._lease_seconds = lease_seconds
        self._queue = queue
        self._artifacts_root = artifacts_root
        self._store = Store(redis)
        self._renewed_at = 0.0

    async def main(self) -> None:
        """Poll until cancelled, also while Redis is unavailable; raises NoPermissionError, which no retry can help."""
        while True:
            try:
                await super().main()
            except NoPermissionError:
                raise
            except STORE_ERRORS as error:
                log.warning("redis_unavailable", error=type(error).__name__)
            await asyncio.sleep(_POLL_SECONDS)

    async def heart_beat(self) -> None:
        await super().heart_beat()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await self.wake.wait()
        self.wake.clear()
        running = self._running()
        if running and time.monotonic() > self._renewed_at + _RENEW_SECONDS:
            await self._store.renew_claims(running, seconds=self._lease_seconds)
            self._renewed_at = time.monotonic()
        if len(running) < self.max_jobs:
            await self._start_jobs(self.max_jobs - len(running))

    async def _start_jobs(self, room: int) -> None:
        """Start at most `room` jobs of this artifacts folder."""
        artifacts = await asyncio.to_thread(artifacts_id, self._artifacts_root)  # it may appear, or go, at any time
        for job_id, score in await self._store.claim_jobs(
            self._queue, room, process_name(), lease_seconds=self._lease_seconds, artifacts=artifacts
        ):
            self.tasks[job_id] = asyncio.create_task(self.run_job(job_id, score))

    def _running(self) -> list[str]:
        return [job_id for job_id, task in self.tasks.items() if not task.done()]

    async def _wake_after_job(self, ctx: dict[str, object]) -> None:
        self.wake.set()


async def run_worker(settings: Settings, redis_url: str, *, embedded: bool) -> int:
    """Work until SIGTERM, SIGINT or (embedded) the end of standard input; return the exit code.

    Exits with 1 if one of its loops fails: a supervisor restarts the worker, and runs resume from their checkpoints.
    """
    stopping = asyncio.create_task(_stop_event(embedded=embedded).wait())
    working = asyncio.create_task(_work(settings, redis_url))
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        await working
        return 1
    working.cancel()
    await asyncio.wait([working])
    log.info("worker_ended")
    return 0


async def _work(settings: Settings, redis_url: str) -> None:
    """Work until cancelled; returns if one of the loops fails."""
    async with contextlib.AsyncExitStack() as undo:
        undo.enter_context(child_server(settings))
        store = await connect(redis_url)
        undo.push_async_callback(store.close)
        await warn_of_loss(store)
        children = InferenceChild(settings), InferenceChild(settings)
        for child in children:
            undo.push_async_callback(child.stop)
        jobs = Jobs(settings, store, *children)
        await _reconcile(settings, store)  # first, so that no run overtakes a run of the previous worker
        workers = _workers(settings, redis_url, jobs)
        undo.push_async_callback(_close, workers)
        tasks = [
            *(asyncio.create_task(worker.async_run()) for worker in workers),
            asyncio.create_task(listen(store, workers)),
            asyncio.create_task(_reconcile_for_ever(settings, store)),
            asyncio.create_task(show_presence(settings, store)),
            asyncio.create_task(drop_expired_for_ever(store)),
            asyncio.create_task(clean_for_ever(settings)),
        ]
        undo.push_async_callback(_cancel, tasks)
        log.info("worker_ready", slots=settings.queue.training_slots, pid=os.getpid())
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            log.error("worker_loop_failed", exc_info=task.exception())


async def _close(workers: Sequence[WakingWorker]) -> None:
    """End all jobs concurrently: each child needs time to save a checkpoint."""

    async def close(worker: WakingWorker) -> None:
        try:
            await worker.close()
        except STORE_ERRORS as error:
            log.warning("worker_closed_without_redis", error=type(error).__name__)

    await asyncio.gather(*map(close, workers))


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _workers(settings: Settings, redis_url: str, jobs: Jobs) -> list[WakingWorker]:
    """Return one worker per kind of job: tokenizers neither wait for a training nor delay inference requests."""
    queues = (
        ("train", jobs.train, settings.queue.name, settings.queue.training_slots),
        ("train_tokenizer", jobs.train_tokenizer, keys.TOKENIZER_QUEUE, 1),
        ("run_experiment", jobs.run_experiment, keys.EXPERIMENT_QUEUE, _EXPERIMENT_SLOTS),
        ("infer", jobs.infer, keys.INTERACTIVE_QUEUE, _INTERACTIVE_SLOTS),
    )
    return [
        WakingWorker(
            redis_url,
            [func(job, name=name, timeout=_FOR_EVER_SECONDS, max_tries=_FOR_EVER_SECONDS)],
            queue=queue,
            artifacts_root=settings.app.artifacts_root,
            slots=slots,
            lease_seconds=settings.queue.lease_seconds,
        )
        for name, job, queue, slots in queues
    ]


async def listen(store: Store, workers: Sequence[WakingWorker]) -> None:
    """Wake the workers when a job is enqueued; they poll while Redis is unavailable."""
    position = "0-0"
    while True:
        try:
            position = await store.wait_for_job(position, wait_seconds=5)
        except STORE_ERRORS as error:
            log.warning("job_notifications_unavailable", error=type(error).__name__)
            await asyncio.sleep(1)
        for worker in workers:
            worker.wake.set()


async def _reconcile_for_ever(settings: Settings, store: Store) -> None:
    while True:
        await asyncio.sleep(_RECONCILE_SECONDS)
        await _reconcile(settings, store)


async def _reconcile(settings: Settings, store: Store) -> None:
    try:
        await reconcile(settings, store)
    except STORE_ERRORS as error:
        log.warning("reconciliation_failed", error=type(error).__name__)


async def drop_expired_for_ever(store: Store) -> None:
    """Remove expired texts from the server's file, which takes a twentieth of the server's time at most."""
    state: LogState | None = None
    while True:
        seconds = _DROP_SECONDS
        try:
            state = await store.drop_expired(state)
            seconds = max(seconds, 20.0 * state.aof_last_rewrite_time_sec) if state else seconds
        except ResponseError as error:
            log.warning("aof_rewrite_forbidden", error=str(error))
            seconds = _REFUSED_DROP_SECONDS
        except STORE_ERRORS as error:
            log.warning("aof_rewrite_failed", error=type(error).__name__)
        await asyncio.sleep(seconds)


async def show_presence(settings: Settings, store: Store) -> None:
    """Renew the record of a running worker while this artifacts folder has the queued runs; log when that changes."""
    had_runs = True
    while True:
        try:
            queued = await store.recent_artifacts_ids()
            has_runs = not queued or await asyncio.to_thread(artifacts_id, settings.app.artifacts_root) in queued
            if had_runs and not has_runs:
                log.error("artifacts_folder_mismatch", reason=_OTHER_FOLDER)
            elif has_runs and not had_runs:
                log.info("artifacts_folder_matched")
            had_runs = has_runs
            if has_runs:
                await store.renew_worker(seconds=settings.queue.lease_seconds, worker=_own_info(settings))
        except STORE_ERRORS as error:
            log.warning("worker_presence_failed", error=type(error).__name__)
        await asyncio.sleep(settings.queue.lease_seconds * _PRESENCE_SHARE)


def _own_info(settings: Settings) -> WorkerInfo:
    slots = settings.queue.training_slots
    return WorkerInfo(name=process_name(), version=package_version("model-trainer"), slots=slots, seen_at=time.time())


_OTHER_FOLDER = (
    "APP__ARTIFACTS_ROOT is another folder than that of the bot or `mt` that queued them: mount theirs, or set it to"
    " theirs. The jobs wait for a worker that has it."
)


async def warn_of_loss(store: Store) -> None:
    """Log what the server can lose; a hosted server may not report its settings."""
    try:
        troubles = (await store.durability()).troubles()
    except ResponseError:
        troubles = ["it does not tell its settings: see that AOF is on and eviction off"]
    for trouble in troubles:
        log.warning("redis_durability_weak", reason=trouble)


def _stop_event(*, embedded: bool) -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set, and for an embedded worker the end of its standard input."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def pipe_closed() -> None:
        loop.remove_reader(_STDIN)
        stop.set()

    if embedded:
        loop.add_reader(_STDIN, pipe_closed)
    return stop
