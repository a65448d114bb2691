"""Supervises a job in a child process: renews its lease, ends a stalled child, publishes the events of a run."""

import asyncio
import math
import time
from functools import partial

import structlog
from arq import Retry

from trainer.artifacts.attempts import LOCKED_EXIT_CODE, ChildEnd, cause_of, record_end, record_timeout
from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import QueueSettings, Settings
from trainer.contracts.errors import AppError
from trainer.queue.enqueue import EventPublisher
from trainer.store.connection import tolerate_outage
from trainer.store.store import Store
from trainer.system.child_environment import memory_kills
from trainer.system.hardware import process_name
from trainer.system.heartbeat import StallDetector, processor_ticks
from trainer.worker.child_process import ChildProcess, Job, start_child
from trainer.worker.starts import Starts

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_PUBLISH_SECONDS = 0.25
_LEASE_SECONDS = 1.0
CHECKPOINT_SECONDS = 8.0
"""Time for the child of a terminated worker to save a checkpoint and end."""
_WATCH_SECONDS = 0.5
_END_SECONDS = 30.0
_LOCKED_SECONDS = 15.0
_MARKS_BYTES = 1 << 16


async def supervise(run: RunDirectory, settings: Settings, store: Store, starts: Starts | None = None) -> None:
    """Train a run until it ends or is paused; raises arq's Retry while another child has the run or the disk fails.

    Raises Retry too if another worker tries a run whose child ended before its first step.

    A run whose child was killed keeps its slot: in the queue, other runs would overtake it. After the time-out of the
    settings, the child saves a checkpoint and the run fails.
    """
    limit = settings.queue.training_timeout_seconds
    supervising = asyncio.create_task(_supervise(run, settings, store, starts or Starts(settings)))
    try:
        await asyncio.wait([supervising], timeout=limit or None)
    finally:
        supervising.cancel()
        await asyncio.wait([supervising])
    if supervising.cancelled():
        await asyncio.to_thread(record_timeout, run, limit)
    else:
        supervising.result()


async def _supervise(run: RunDirectory, settings: Settings, store: Store, starts: Starts) -> None:
    about = log.bind(run_id=run.run_id)
    locked_since = math.inf
    publishing = asyncio.create_task(_publish_new_events(run, store))
    try:
        while not run.is_deleted() and run.manifest() is None and not run.pause_requested():
            child = await supervise_child("train-child", run.run_id, settings, store, starts, about)
            if child.died_at_start and run.has_work() and await starts.leaves(run.run_id, store):
                await _seconds_to_next(run, child._replace(cause="not_started"), settings.queue)
                raise Retry(defer=0)
            seconds = await _seconds_to_next(run, child, settings.queue)
            if seconds is None:
                continue
            at = time.monotonic()
            locked_since = min(locked_since, at) if child.exit_code == LOCKED_EXIT_CODE else math.inf
            if at > locked_since + _LOCKED_SECONDS or seconds > settings.queue.retry_seconds:
                raise Retry(defer=seconds)
            await asyncio.sleep(seconds)
    finally:
        publishing.cancel()


async def _seconds_to_next(run: RunDirectory, child: ChildEnd, queue: QueueSettings) -> float | None:
    """Record the end of an attempt; return the seconds until the next one, None if the run has ended or is deleted."""
    if run.manifest() is not None or run.is_deleted():
        return None
    if child.cause is None:
        return queue.retry_seconds
    log.error("training_child_failed", run_id=run.run_id, **child.description())
    try:
        return await asyncio.to_thread(record_end, run, child.cause, child.last_lines, queue)
    except (AppError, OSError) as error:  # the disk has no room for the record
        log.error("attempt_end_unrecorded", run_id=run.run_id, error=type(error).__name__)
        return queue.max_retry_seconds


async def supervise_child(
    job: Job, job_id: str, settings: Settings, store: Store, starts: Starts, about: structlog.stdlib.BoundLogger
) -> ChildEnd:
    """Run a job in a child process and renew its lease; end the child if it stalls or this task is cancelled."""
    memory_kills_before = memory_kills()
    process = await start_child(job, settings, job_id)
    about.info("child_started", pid=process.pid)
    watch = StallDetector(settings.queue.stall_seconds, partial(processor_ticks, process.pid))
    receiving = asyncio.create_task(_receive(process, watch, starts))
    keeping = asyncio.create_task(_keep_lease(job_id, settings, store))
    watching = asyncio.create_task(_end_when_stalled(process, watch, settings.queue.stall_seconds, about))
    try:
        code = await process.wait()
    except asyncio.CancelledError:  # the worker ends: the child saves a checkpoint for a later worker
        await process.end(CHECKPOINT_SECONDS)
        raise
    finally:
        keeping.cancel()
        await receiving
        watching.cancel()
    about.info("child_ended", exit_code=code)
    kills = memory_kills()
    cause = cause_of(code, stalled=watch.stalled, starved=kills is None or kills != memory_kills_before)
    end = ChildEnd(code, tuple(process.last_lines), cause, has_begun=watch.has_begun)
    starts.child_ended(job_id, end)
    if end.has_begun or code == 0:
        async with tolerate_outage():
            await store.forget_tries(job_id)
    return end


async def _receive(process: ChildProcess, watch: StallDetector, starts: Starts) -> None:
    while marks := await process.stdout.read(_MARKS_BYTES):
        has_begun = watch.has_begun
        watch.receive(marks, time.monotonic())
        if watch.has_begun and not has_begun:
            starts.child_began()


async def _end_when_stalled(
    process: ChildProcess, watch: StallDetector, stall_seconds: float, about: structlog.stdlib.BoundLogger
) -> None:
    while not watch.is_stalled(_WATCH_SECONDS):
        await asyncio.sleep(_WATCH_SECONDS)
    about.error("child_stalled", pid=process.pid, seconds=watch.silent_seconds)
    await process.end(min(_END_SECONDS, stall_seconds))


async def _keep_lease(job_id: str, settings: Settings, store: Store) -> None:
    while True:
        async with tolerate_outage():
            await store.renew_lease(job_id, process_name(), seconds=settings.queue.lease_seconds)
        await asyncio.sleep(_LEASE_SECONDS)


async def _publish_new_events(run: RunDirectory, store: Store) -> None:
    publisher, size = EventPublisher(store, run), -1
    while True:
        grown = run.event_log_bytes()
        if grown != size:
            async with tolerate_outage():
                await publisher.publish()
                size = grown
        await asyncio.sleep(_PUBLISH_SECONDS)
