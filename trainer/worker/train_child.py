"""The training child: the one writer of a run, from its lock to its exit code."""

import faulthandler
import os
import signal
import sys
import threading

import structlog

from trainer.artifacts.event_log import EventLog
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode, transient_code
from trainer.contracts.events import JobStarted, stamp
from trainer.system.logs import add_log_file, setup_logging
from trainer.worker.attempts import DISK_FAILED_EXIT_CODE, DISK_FULL_EXIT_CODE, LOCKED_EXIT_CODE
from trainer.worker.train_run import TrainingAttempt

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

NICENESS = 10
"""A training takes what is left of the processors: whoever waits for an answer comes first."""


def train_run(settings: Settings, run_id: str) -> int:
    """Train a run as its only writer; return 0 when it has ended or was paused, 75 where another child has it.

    Where the disk is full, or fails otherwise, return 73 or 74: the run may go on later.
    """
    faulthandler.enable(all_threads=False)
    run = RunStore(settings.app.artifacts_root).get(run_id)
    try:
        return _train(settings, run)
    except (AppError, OSError) as error:
        code = transient_code(error)
        if code is None:
            raise
        log.warning("attempt_postponed", run_id=run_id, error_code=code, error=str(error))
        return DISK_FULL_EXIT_CODE if code is ErrorCode.INSUFFICIENT_STORAGE else DISK_FAILED_EXIT_CODE


def _train(settings: Settings, run: RunDirectory) -> int:
    lock = run.lock()
    if lock is None:
        return LOCKED_EXIT_CODE
    os.nice(NICENESS)
    with lock, run.open_log() as events:
        setup_logging(settings, "model-trainer-worker", sys.stderr)
        add_log_file(run.logs, "model-trainer-worker", run.record().effective.logging.level)
        structlog.contextvars.bind_contextvars(run_id=run.run_id)
        end = run.manifest()
        if end is not None or run.cancel_requested():
            finish_run(run, events, end or manifest_of(run.record(), "cancelled"))
            return 0
        started = _tell_started(settings, run, events)
        TrainingAttempt(settings, run, events, started, _pause_requests()).run()
    return 0


def _tell_started(settings: Settings, run: RunDirectory, events: EventLog) -> list[JobStarted]:
    """Tell that one more attempt begins; return the beginnings of all."""
    started = [event for event in run.reader().read_new() if isinstance(event, JobStarted)]
    number = len(started) + 1
    told = stamp(run.run_id, run.record().user_id, f"started:{number}")
    events.append(event := JobStarted(**told, queue=settings.queue.name, attempt=number))
    log.info("attempt_started", attempt=number)
    return [*started, event]


def _pause_requests() -> threading.Event:
    """Return an event that SIGTERM sets."""
    pause = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: pause.set())
    return pause
