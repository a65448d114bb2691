"""Runs a job in a child process, keeps its lease, ends it where it stands still, and tells a training's events."""

import asyncio
import math
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Mapping
from functools import partial

import structlog
from arq import Retry

from trainer.artifacts.run_events import publish_events
from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError
from trainer.jobs.services import end, pipe
from trainer.store.connection import STORE_ERRORS
from trainer.store.store import Store
from trainer.system.child_environment import TRAIN_CHILD, make_first_to_go, memory_kills, tuned_environment
from trainer.system.hardware import process_name
from trainer.worker.attempts import (
    LOCKED_EXIT_CODE,
    MOST_RETRY_SECONDS,
    RETRY_SECONDS,
    ChildEnd,
    cause_of,
    record_end,
)
from trainer.worker.heartbeat import Watch, processor_ticks

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_TELL_SECONDS = 0.25
_LEASE_SECONDS = 1.0
_CHECKPOINT_SECONDS = 8.0
_WATCH_SECONDS = 0.5
_END_SECONDS = 30.0
_LOCKED_SECONDS = 15.0
"""So long the child of a worker that is gone may take to save and end."""
_KEPT_ERROR_LINES = 120
_MARKS_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 26
"""Of a child's error output, where a traceback is one line."""


async def supervise(run: RunDirectory, settings: Settings, store: Store) -> None:
    """Try until the run has ended; raises arq's Retry where it has to wait for another child, or for the disk.

    A run whose child was killed, or whose last child is about to end, keeps its slot: in the queue, others that may
    take days would overtake it.
    """
    about = log.bind(run_id=run.run_id)
    locked_since = math.inf
    telling = asyncio.create_task(_tell(run, store))
    try:
        while run.manifest() is None:
            child = await run_child(TRAIN_CHILD, run.run_id, tuned_environment(settings), settings, store, about)
            seconds = await _seconds_to_next(run, child)
            if seconds is None:
                continue
            at = time.monotonic()
            locked_since = min(locked_since, at) if child.exit_code == LOCKED_EXIT_CODE else math.inf
            if at > locked_since + _LOCKED_SECONDS or seconds > RETRY_SECONDS:
                raise Retry(defer=seconds)
            await asyncio.sleep(seconds)
    finally:
        telling.cancel()


async def _seconds_to_next(run: RunDirectory, child: ChildEnd) -> float | None:
    """Write down how an attempt has failed; return the seconds until the next one, None where the run has ended."""
    if run.manifest() is not None:
        return None
    if child.cause is None:
        return RETRY_SECONDS
    last_lines = "".join(child.last_lines)
    log.error(
        "training child failed", run_id=run.run_id, exit_code=child.exit_code, reason=child.cause, last_lines=last_lines
    )
    try:
        return await asyncio.to_thread(record_end, run, child.cause, child.last_lines)
    except (AppError, OSError) as error:  # so full is the disk that not even this can be written
        log.error("end of an attempt not recorded", run_id=run.run_id, error=type(error).__name__)
        return MOST_RETRY_SECONDS


async def run_child(
    command: str,
    job_id: str,
    environment: Mapping[str, str],
    settings: Settings,
    store: Store,
    about: structlog.stdlib.BoundLogger,
) -> ChildEnd:
    """Do a job in a child process and keep its lease meanwhile.

    Where we are cancelled, the child is ended; where it makes no progress for too long (R5), it is ended too.
    """
    memory_kills_before = memory_kills()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trainer.worker", command, job_id),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=environment,
        limit=_LONGEST_LINE_BYTES,
    )
    about.info("child started", pid=process.pid)
    make_first_to_go(process.pid)
    error_lines: deque[str] = deque(maxlen=_KEPT_ERROR_LINES)
    watch = Watch(settings.queue.stall_seconds, partial(processor_ticks, process.pid))
    reading = asyncio.gather(_relay_errors(process, error_lines), _hear(process, watch))
    keeping = asyncio.create_task(_keep_lease(job_id, settings, store, about))
    watching = asyncio.create_task(_end_when_stalled(process, watch, settings.queue.stall_seconds, about))
    try:
        code = await process.wait()
    except asyncio.CancelledError:  # the worker ends: the child saves a checkpoint, a later worker goes on from it
        await end(process, _CHECKPOINT_SECONDS)
        raise
    finally:
        keeping.cancel()
        await reading
        watching.cancel()
    about.info("child ended", exit_code=code)
    kills = memory_kills()
    cause = cause_of(code, stalled=watch.stalled, starved=kills is None or kills != memory_kills_before)
    return ChildEnd(code, tuple(error_lines), cause)


async def _hear(process: Process, watch: Watch) -> None:
    while marks := await pipe(process.stdout).read(_MARKS_BYTES):
        watch.hear(marks, time.monotonic())


async def _end_when_stalled(
    process: Process, watch: Watch, stall_seconds: float, about: structlog.stdlib.BoundLogger
) -> None:
    while not watch.stands_still(_WATCH_SECONDS):
        await asyncio.sleep(_WATCH_SECONDS)
    about.error("child stands still", pid=process.pid, seconds=watch.silent_seconds)
    await end(process, min(_END_SECONDS, stall_seconds))


async def _relay_errors(process: Process, kept: deque[str]) -> None:
    """Pass the child's error output on, and keep its last lines."""
    async for line in pipe(process.stderr):
        text = line.decode(errors="replace")
        kept.append(text)
        sys.stderr.write(text)


async def _keep_lease(job_id: str, settings: Settings, store: Store, about: structlog.stdlib.BoundLogger) -> None:
    while True:
        try:
            await store.renew_lease(job_id, process_name(), seconds=settings.queue.lease_seconds, heartbeat=time.time())
        except STORE_ERRORS as error:
            about.warning("lease not renewed: the queue is away", error=type(error).__name__)
        await asyncio.sleep(_LEASE_SECONDS)


async def _tell(run: RunDirectory, store: Store) -> None:
    """Ring for what the child has written to the event log since the last look (R7)."""
    size = -1
    while True:
        grown = run.event_log_bytes()
        if grown != size:
            try:
                await publish_events(store, run)
                size = grown
            except STORE_ERRORS as error:
                log.warning("events wait: the queue is away", run_id=run.run_id, error=type(error).__name__)
        await asyncio.sleep(_TELL_SECONDS)
