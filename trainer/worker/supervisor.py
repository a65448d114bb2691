"""Runs a training in a child process: keeps its lease, tells its events, and decides what its death means."""

import asyncio
import os
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque

import structlog
from arq import Retry

from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.events import CheckpointSaved, JobProgress, stamp
from trainer.contracts.settings import Settings
from trainer.contracts.store import STORE_ERRORS, Store
from trainer.queue import tell_events
from trainer.runs import RunDirectory, finish_run, manifest_of
from trainer.services import end, pipe
from trainer.worker.environment import TRAIN_CHILD, tuned_environment

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

LOCKED_EXIT_CODE = 75
"""EX_TEMPFAIL: another child has the run."""

_TELL_SECONDS = 0.25
_LEASE_SECONDS = 1.0
_CHECKPOINT_SECONDS = 8.0
_RETRY_SECONDS = 1.0
_CRASHES_WITHOUT_CHECKPOINT = 3
_KEPT_ERROR_LINES = 20
_CRASHED = "crashed"


async def supervise(run: RunDirectory, settings: Settings, store: Store) -> None:
    """Run one attempt; returns when the run has ended, raises arq's Retry when it has to go on later."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "trainer",
        TRAIN_CHILD,
        run.run_id,
        stdin=PIPE,
        stderr=PIPE,
        env=tuned_environment(settings),
    )
    log.info("training child started", run_id=run.run_id, pid=process.pid)
    error_lines: deque[str] = deque(maxlen=_KEPT_ERROR_LINES)
    reading = asyncio.create_task(_relay_errors(process, error_lines))
    keeping = asyncio.create_task(_keep_lease(run, settings, store))
    telling = asyncio.create_task(_tell(run, store))
    try:
        code = await process.wait()
    except asyncio.CancelledError:  # the worker ends: the child saves a checkpoint, a later worker goes on from it
        await end(process, _CHECKPOINT_SECONDS)
        raise
    finally:
        keeping.cancel()
        telling.cancel()
        await reading
    log.info("training child ended", run_id=run.run_id, exit_code=code)
    if run.manifest() is not None:
        return
    if code not in (0, LOCKED_EXIT_CODE):
        log.error("training child crashed", run_id=run.run_id, exit_code=code, last_lines="".join(error_lines))
        if await asyncio.to_thread(record_crash, run):
            return
    raise Retry(defer=_RETRY_SECONDS)


async def _relay_errors(process: Process, kept: deque[str]) -> None:
    """Pass the child's error output on, and keep its last lines."""
    async for line in pipe(process.stderr):
        text = line.decode(errors="replace")
        kept.append(text)
        sys.stderr.write(text)


async def _keep_lease(run: RunDirectory, settings: Settings, store: Store) -> None:
    holder = f"{socket.gethostname()}:{os.getpid()}"
    while True:
        try:
            await store.renew_lease(
                run.run_id, run.run_id, holder, seconds=settings.queue.lease_seconds, heartbeat=time.time()
            )
        except STORE_ERRORS as error:
            log.warning("lease not renewed: the queue is away", run_id=run.run_id, error=type(error).__name__)
        await asyncio.sleep(_LEASE_SECONDS)


async def _tell(run: RunDirectory, store: Store) -> None:
    """Ring for what the child has written to the event log since the last look (R7)."""
    size = -1
    while True:
        grown = run.event_log_bytes()
        if grown != size:
            try:
                await tell_events(store, run)
                size = grown
            except STORE_ERRORS as error:
                log.warning("events wait: the queue is away", run_id=run.run_id, error=type(error).__name__)
        await asyncio.sleep(_TELL_SECONDS)


def record_crash(run: RunDirectory) -> bool:
    """Write a crash to the run's log; after three in a row without a checkpoint, its end too (R4): then True.

    A crash while another child has the run counts for nothing.
    """
    lock = run.lock()
    if lock is None:
        return False
    with lock, run.open_log() as events:
        crashes = in_vain = 0
        for event in run.reader().read_new():
            if isinstance(event, CheckpointSaved):
                in_vain = 0
            elif isinstance(event, JobProgress) and _CRASHED in event.event_id:
                crashes, in_vain = crashes + 1, in_vain + 1
        record = run.record()
        crash = stamp(record.run_id, record.user_id, f"{_CRASHED}:{crashes + 1}")
        events.append(JobProgress(**crash, progress=0.0, message="The training crashed; it starts again."))
        if in_vain + 1 < _CRASHES_WITHOUT_CHECKPOINT:
            return False
        error = AppError(
            ErrorCode.CRASH_LOOP,
            f"The training crashed {_CRASHES_WITHOUT_CHECKPOINT} times without getting further;"
            " its last lines are in the worker's log.",
        )
        finish_run(run, events, manifest_of(record, "failed", error=RunError.of(error)))
    return True
