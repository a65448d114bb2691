"""The training child: the only writer of a run."""

import faulthandler
import os
import signal
import sys

import structlog

from trainer.artifacts.attempts import DISK_FAILED_EXIT_CODE, DISK_FULL_EXIT_CODE, LOCKED_EXIT_CODE
from trainer.artifacts.event_log import EventLog, TakenOver
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode, transient_code
from trainer.contracts.events import JobStarted, stamp
from trainer.system.logs import add_log_file, setup_logging
from trainer.system.signals import StopFlag
from trainer.training.processes import ONE_PROCESS, Processes
from trainer.worker.children.train_run import TrainingAttempt

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

NICENESS = 10
"""A training leaves the processors to jobs that somebody waits for."""


def train_run(settings: Settings, run_id: str) -> int:
    """Train a run in as many processes as it has devices; return the exit code, as `train_in_process` does."""
    run = RunStore(settings.app.artifacts_root).get(run_id)
    devices = run.record().effective.devices
    if devices == 1 or run.manifest() is not None or run.cancel_requested():
        return train_in_process(settings, run_id)
    from trainer.worker.children.ranks import launch_ranks  # torch.distributed is for several processes only

    return launch_ranks(settings, run, devices)


def train_in_process(settings: Settings, run_id: str, processes: Processes = ONE_PROCESS) -> int:
    """Train a run; return 0 when it has ended or was paused, and 75 if another child has it or takes it over.

    Return 73 if the disk is full, 74 if it fails: the run can resume later.
    """
    faulthandler.enable(all_threads=False)
    run = RunStore(settings.app.artifacts_root).get(run_id)
    try:
        return _train(settings, run, processes)
    except TakenOver as error:
        log.warning("run_taken_over", run_id=run_id, reason=error.message)
        return LOCKED_EXIT_CODE
    except (AppError, OSError) as error:
        code = transient_code(error)
        if code is None:
            raise
        log.warning("attempt_postponed", run_id=run_id, error_code=code, error=str(error))
        return DISK_FULL_EXIT_CODE if code is ErrorCode.INSUFFICIENT_STORAGE else DISK_FAILED_EXIT_CODE


def _train(settings: Settings, run: RunDirectory, processes: Processes) -> int:
    lock = run.lock()
    if lock is None:
        return LOCKED_EXIT_CODE
    os.nice(NICENESS)
    with lock, run.running(), run.open_log() as events:
        setup_logging(settings, "model-trainer-worker", sys.stderr)
        add_log_file(run.logs, "model-trainer-worker", run.record().effective.logging.level)
        structlog.contextvars.bind_contextvars(run_id=run.run_id)
        end = run.manifest()
        if end is not None or run.cancel_requested():
            finish_run(run, events, end or manifest_of(run.record(), "cancelled"))
            return 0
        started = _log_start(settings, run, events)
        pause = StopFlag()
        signal.signal(signal.SIGTERM, pause.set)
        TrainingAttempt(settings, run, events, started, pause, processes).run()
    return 0


def _log_start(settings: Settings, run: RunDirectory, events: EventLog) -> list[JobStarted]:
    """Log the start of an attempt; return the starts of all attempts."""
    history = run.reader().read_new(has_progress=False)
    started = [event for event in history if isinstance(event, JobStarted)]
    number = len(started) + 1
    stamped = stamp(run.run_id, run.record().user_id, f"started:{number}")
    started.append(events.append(JobStarted(**stamped, queue=settings.queue.name, attempt=number)))
    log.info("attempt_started", attempt=number)
    return started
