"""Starts the processes of a training on several devices by torchrun's launcher, in the training child."""

import os
import signal
import threading
import time
from collections.abc import Mapping

import structlog
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from trainer.artifacts.attempts import LOCKED_EXIT_CODE, SIGNAL_EXIT_CODE
from trainer.artifacts.runs import RunDirectory, finish_run, manifest_of
from trainer.config.settings import Settings
from trainer.config.validation import parse_json
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.system.child_environment import tuned_environment
from trainer.system.python import python_command
from trainer.training.device import check_devices

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_POLL_SECONDS = 0.5
_TEARDOWN_SECONDS = 5.0
"""Time for the processes to end after the first one has written the run's end."""
_SHUTDOWN_SECONDS = 10
"""Time for the processes to end after SIGTERM."""


def launch_ranks(settings: Settings, run: RunDirectory, devices: int) -> int:
    """Train a run in several processes of this machine; return the exit code of the training child.

    If the run has ended or was paused, the exit code is 0, whatever the processes returned. Otherwise it is the exit
    code of the process that failed, or 128 plus the signal that killed one.
    """
    lock = run.lock()
    if lock is None:
        return LOCKED_EXIT_CODE
    lock.close()  # the first process takes it
    try:
        check_devices(run.record().effective.device, devices)
    except AppError as error:
        return _record(run, RunError.of(error))
    threading.Thread(target=end_after, args=(run,), daemon=True).start()
    os.environ |= tuned_environment(settings)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=run.run_id,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,  # the supervisor restarts the run
        local_addr="localhost",
        logs_specs=DefaultLogsSpecs(),
        virtual_local_rank=True,  # each process sees its own GPU only
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    program, *options = python_command("-m", "trainer.worker.children.rank", run.run_id, str(os.getpid()))
    try:
        elastic_launch(config, program)(*options)
    except SignalException:
        return 0  # the first process has saved a checkpoint
    except ChildFailedError as error:
        return 0 if run.manifest() is not None else end_of(run, error.failures)
    return 0


def end_of(run: RunDirectory, failures: Mapping[int, ProcessFailure]) -> int:
    """Record the error that a process has reported, or return the exit code of one that has not."""
    for failure in failures.values():
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # which torchrun has sent
            return SIGNAL_EXIT_CODE - failure.exitcode
    for rank, failure in failures.items():
        if rank and os.path.exists(failure.error_file):
            return _record(run, parse_json(RunError, failure.message, ErrorCode.INTERNAL_ERROR))
    return max(failure.exitcode for failure in failures.values())


def _record(run: RunDirectory, error: RunError) -> int:
    with run.wait_for_lock(_SHUTDOWN_SECONDS), run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "failed", error=error))
    return 0


def end_after(run: RunDirectory) -> None:
    """End all processes some seconds after the end of the run."""
    while run.manifest() is None:
        time.sleep(_POLL_SECONDS)
    time.sleep(_TEARDOWN_SECONDS)
    log.warning("ranks_ended", run_id=run.run_id)
    os.kill(os.getpid(), signal.SIGTERM)
