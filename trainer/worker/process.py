"""The worker process: one arq worker for each kind of job, and one for inference requests."""

import asyncio
import contextlib
import math
import os
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Sequence
from pathlib import Path

import structlog
from arq.worker import Function, Worker, func
from redis.exceptions import NoPermissionError, ResponseError

from trainer.artifacts.artifacts_id import artifacts_id
from trainer.artifacts.kinds import JOB_KINDS
from trainer.artifacts.replication import Replication
from trainer.artifacts.runs import RunStore
from trainer.config.settings import Settings, child_environment, object_store_environment
from trainer.contracts.errors import AppError
from trainer.queue.queue import JobQueue
from trainer.services.embedded import note_worker_ready
from trainer.store import keys
from trainer.store.connection import (
    STORE_ERRORS,
    LogState,
    dumps,
    loads,
    open_redis,
    tolerate_no_redis,
    tolerate_outage,
)
from trainer.store.refusals import log_outage, refusal
from trainer.store.store import Store, connect
from trainer.system.hardware import process_name
from trainer.system.python import python_command
from trainer.system.signals import stop_signals
from trainer.worker.child_process import child_server
from trainer.worker.inference_jobs import InferenceJobs
from trainer.worker.inference_process import MAX_BATCH_REQUESTS, InferenceChild
from trainer.worker.jobs import JobFunction, Jobs
from trainer.worker.presence import Presence, own_info
from trainer.worker.reconciler import reconcile
from trainer.worker.starts import Starts

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_STDIN = 0
_POLL_SECONDS = 0.5
_RENEW_SECONDS = 0.5
_RECONCILE_SECONDS = 5.0
_DROP_SECONDS, _REFUSED_DROP_SECONDS = 10.0, 600.0
_CLEANUP_SECONDS, _CLEANUP_NICENESS = 3600.0, 10
_FOR_EVER_SECONDS = 10 * 365 * 24 * 3600
_INTERACTIVE_SLOTS = 2 * MAX_BATCH_REQUESTS  # one batch is answered while the next one gathers


class WakingWorker(Worker):
    """An arq worker of one queue that polls when it is woken and at least every half second, also without Redis.

    `heart_beat` is the last call of each of arq's polls; with a poll delay of 0 it is the one place to wait, and
    then to claim jobs. A claim expires one lease after its last renewal.
    """

    tasks: dict[str, asyncio.Task[None]]
    job_tasks: dict[str, asyncio.Task[None]]

    def __init__(
        self,
        redis_url: str,
        functions: Sequence[Function],
        *,
        queue: str,
        artifacts_root: Path,
        slots: int,
        lease_seconds: float,
        presence: Presence,
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
        self.had_job_at = time.monotonic()
        """The end of the last job, or the start of this worker."""
        self._may_claim = True
        self._claiming = asyncio.Lock()
        self.in_progress_timeout_s = self._lease_seconds = lease_seconds
        self._queue = queue
        self._artifacts_root = artifacts_root
        self._presence = presence
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
                log_outage(error)
            await asyncio.sleep(_POLL_SECONDS)

    async def heart_beat(self) -> None:
        await super().heart_beat()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await self.wake.wait()
        self.wake.clear()
        running = self.running
        if running:
            self.had_job_at = time.monotonic()
        if running and time.monotonic() > self._renewed_at + _RENEW_SECONDS:
            await self._store.renew_claims(running, seconds=self._lease_seconds)
            self._renewed_at = time.monotonic()
        if len(running) < self.max_jobs:
            async with self._claiming:
                if self._may_claim and self._presence.takes_jobs:
                    await self._start_jobs(self.max_jobs - len(running))

    @property
    def running(self) -> list[str]:
        """The ids of the jobs that have not ended."""
        return [job_id for job_id, task in self.tasks.items() if not task.done()]

    def hand_back(self) -> None:
        """Give the running jobs back to the queue, for other workers; leaves a job alone that is ending already."""
        for task in self.job_tasks.values():
            if not task.cancelling():
                task.cancel()

    async def set_claiming(self, *, may_claim: bool) -> None:
        """Let this worker claim jobs or not; waits until a claim that has been sent is answered."""
        self._may_claim = may_claim
        async with self._claiming:
            pass

    async def _start_jobs(self, room: int) -> None:
        """Start at most `room` jobs of this artifacts folder."""
        artifacts = await asyncio.to_thread(artifacts_id, self._artifacts_root)  # it may appear, or go, at any time
        for job_id, score in await self._store.claim_jobs(
            self._queue,
            room,
            process_name(),
            lease_seconds=self._lease_seconds,
            artifacts=artifacts,
            worker=self._presence.info,
        ):
            if job_id in self.running:  # its claim has expired, because this process stood still
                continue
            self.tasks[job_id] = asyncio.create_task(self.run_job(job_id, score))

    async def _wake_after_job(self, ctx: dict[str, object]) -> None:
        self.had_job_at = time.monotonic()
        self.wake.set()


async def run_worker(
    settings: Settings, redis_url: str, *, embedded: bool, idle_seconds: float | None = None, answers_only: bool = False
) -> int:
    """Work until a signal to stop or (embedded) the end of standard input; return the exit code.

    With `idle_seconds`, the worker also ends once it has had no job for that time. It exits with 1 if one of its loops
    fails: a supervisor restarts the worker, and runs resume from their checkpoints. With `answers_only`, where the
    artifacts folder may only be read, it takes inference requests and writes nothing there.
    """
    stopping = asyncio.create_task(_stop_event(embedded=embedded).wait())
    working = asyncio.create_task(_work(settings, redis_url, idle_seconds, answers_only=answers_only))
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        if not await working:
            return 1
    else:
        working.cancel()
        await asyncio.wait([working])
    log.info("worker_ended")
    return 0


async def _work(settings: Settings, redis_url: str, idle_seconds: float | None, *, answers_only: bool) -> bool:
    """Work until cancelled; return True if there was no job for some seconds, False if one of the loops fails."""
    async with contextlib.AsyncExitStack() as undo:
        undo.enter_context(child_server(settings))
        store = await connect(redis_url)
        undo.push_async_callback(store.close)
        await warn_of_loss(store)
        queue = JobQueue(settings, store)
        replication = queue.replication
        await replication.check()
        await replication.join()
        starts = Starts(settings)
        children = InferenceChild(settings, starts=starts), InferenceChild(settings, starts=starts)
        for child in children:
            undo.push_async_callback(child.stop)
        jobs, inference = Jobs(queue, settings, store, starts), InferenceJobs(settings, store, *children, starts)
        if answers_only:
            log.warning("artifacts_read_only")
        else:  # first, so that no run overtakes a run of the previous worker
            await _reconcile(settings, store, replication)
        presence = Presence(settings, store, await own_info(settings), starts)
        undo.push_async_callback(presence.end)
        workers = _workers(settings, redis_url, jobs, inference, presence)
        of_jobs = [] if answers_only else workers[: len(JOB_KINDS)]
        workers = [*of_jobs, *workers[len(JOB_KINDS) :]]
        undo.push_async_callback(_close, workers, store)
        reports = (lambda: _has_jobs(workers), lambda: _hand_back(of_jobs))
        await presence.renew(*reports)  # before the log says that it is ready: commands find it from here on
        tasks = [
            *(asyncio.create_task(worker.async_run()) for worker in workers),
            asyncio.create_task(listen(store, workers)),
            asyncio.create_task(presence.show(*reports)),
            asyncio.create_task(drop_expired_for_ever(store)),
        ]
        if not answers_only:
            tasks.append(asyncio.create_task(_reconcile_for_ever(settings, store, replication)))
            tasks.append(asyncio.create_task(clean_for_ever(settings)))
        idle = asyncio.create_task(wait_until_idle(workers, idle_seconds, presence))
        undo.push_async_callback(_cancel, [*tasks, idle])
        await asyncio.to_thread(note_worker_ready, settings)
        log.info("worker_ready", slots=settings.queue.training_slots, pid=os.getpid())
        ended, _ = await asyncio.wait([*tasks, idle], return_when=asyncio.FIRST_COMPLETED)
        if idle in ended:
            log.info("worker_idle", seconds=idle_seconds)
            return True
        for task in ended:
            error = task.exception()
            log.error("worker_loop_failed", reason=None if error is None else refusal(error), exc_info=error)
        return False


async def wait_until_idle(workers: Sequence[WakingWorker], idle_seconds: float | None, presence: Presence) -> None:
    """Return when no worker has had a job for some seconds, or at once when drained; they claim none from then on."""
    while True:
        if idle_seconds is None:
            seconds = math.inf
        else:
            seconds = 0.0 if presence.is_draining else idle_seconds
        now = time.monotonic()
        left = max(now if worker.running else worker.had_job_at for worker in workers) + seconds - now
        if left > 0:
            await asyncio.sleep(min(left, _POLL_SECONDS))
            continue
        for worker in workers:
            await worker.set_claiming(may_claim=False)
        if not _has_jobs(workers):
            return
        for worker in workers:
            await worker.set_claiming(may_claim=True)


def _has_jobs(workers: Sequence[WakingWorker]) -> bool:
    return any(worker.running for worker in workers)


def _hand_back(workers: Sequence[WakingWorker]) -> None:
    """Give back the jobs that only wait; the workers are those of the kinds of jobs, or none."""
    for kind, worker in zip(JOB_KINDS, workers, strict=bool(workers)):
        if kind.only_waits:
            worker.hand_back()


async def _close(workers: Sequence[WakingWorker], store: Store) -> None:
    """End all jobs concurrently, since each child needs time to save a checkpoint; release them for other workers."""

    async def close(worker: WakingWorker) -> None:
        async with tolerate_no_redis("worker_closed_without_redis", seconds=math.inf):
            running = worker.running
            await worker.close()
            await store.release_own(running, process_name())

    await asyncio.gather(*map(close, workers))


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _workers(
    settings: Settings, redis_url: str, jobs: Jobs, inference: InferenceJobs, presence: Presence
) -> list[WakingWorker]:
    """Return one worker per kind of job: tokenizers neither wait for a training nor delay inference requests."""
    functions, options = jobs.functions(), settings.queue
    queues: list[tuple[str, JobFunction, str, int]] = [
        *((kind.function, functions[kind.function], kind.queue(options), kind.slots(options)) for kind in JOB_KINDS),
        ("infer", inference.infer, keys.INTERACTIVE_QUEUE, _INTERACTIVE_SLOTS),
    ]
    return [
        WakingWorker(
            redis_url,
            [func(job, name=name, timeout=_FOR_EVER_SECONDS, max_tries=_FOR_EVER_SECONDS)],
            queue=queue,
            artifacts_root=settings.app.artifacts_root,
            slots=slots,
            lease_seconds=settings.queue.lease_seconds,
            presence=presence,
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
            log_outage(error)
            await asyncio.sleep(1)
        for worker in workers:
            worker.wake.set()


async def _reconcile_for_ever(settings: Settings, store: Store, replication: Replication) -> None:
    while True:
        await asyncio.sleep(_RECONCILE_SECONDS)
        await _reconcile(settings, store, replication)


async def _reconcile(settings: Settings, store: Store, replication: Replication) -> None:
    try:
        await replication.refresh()
    except (AppError, OSError) as error:
        log.warning("refresh_failed", error=str(error))
    async with tolerate_outage():
        await restore_pause(settings, store)
        await reconcile(settings, store)


async def restore_pause(settings: Settings, store: Store) -> None:
    """Pause the queue again if Redis has lost that it is paused."""
    runs = RunStore(settings.app.artifacts_root)
    if runs.is_marked_paused():
        await store.set_paused(settings.queue.name, is_paused=True)
        if not runs.is_marked_paused():  # an admin has resumed it at this moment
            await store.set_paused(settings.queue.name, is_paused=False)


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
            log_outage(error)
        await asyncio.sleep(seconds)


async def clean_for_ever(settings: Settings) -> None:
    """Run `mt gc` every hour if the settings enable it; several workers of an artifacts folder take turns."""
    while True:
        if settings.app.cleanup.enabled:
            try:
                await _clean(settings)
            except OSError as error:  # no memory for another process
                log.error("cleanup_not_started", reason=error.strerror)
        await asyncio.sleep(_CLEANUP_SECONDS)


async def _clean(settings: Settings) -> None:
    process = await asyncio.create_subprocess_exec(
        *python_command("-m", "trainer", "gc"),
        stdin=DEVNULL,
        stdout=DEVNULL,
        env=child_environment(settings) | object_store_environment(settings),
        start_new_session=True,  # Ctrl-C reaches the worker only, which ends the cleanup
    )
    try:
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process.pid, max(_CLEANUP_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def warn_of_loss(store: Store) -> None:
    """Log what the server can lose; a hosted server may not report its settings."""
    try:
        troubles = (await store.durability()).troubles()
    except ResponseError:
        troubles = ["it does not tell its settings: see that AOF is on and eviction off"]
    for trouble in troubles:
        log.warning("redis_durability_weak", reason=trouble)


def _stop_event(*, embedded: bool) -> asyncio.Event:
    """Return an event that the signals to stop set, and for an embedded worker the end of its standard input."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, stop.set)

    def pipe_closed() -> None:
        loop.remove_reader(_STDIN)
        stop.set()

    if embedded:
        loop.add_reader(_STDIN, pipe_closed)
    return stop
