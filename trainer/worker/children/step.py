"""A step of a job in a child process: its log, and the error that ends the job."""

import sys
from collections.abc import Callable

import structlog

from trainer.artifacts.job_folder import AnyStatusJob
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError
from trainer.system.files import to_app_error
from trainer.system.logs import add_log_file, setup_logging

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


def run_step(job: AnyStatusJob, settings: Settings, work: Callable[[], None]) -> int:
    """Do a step of a job and return 0; an error ends the job. The process can be killed at any time."""
    setup_logging(settings, "model-trainer-worker", sys.stderr)
    add_log_file(job.logs, "model-trainer-worker")
    structlog.contextvars.bind_contextvars(**job.log_id)
    try:
        work()
    except (AppError, OSError) as error:
        reason = to_app_error(error, settings.app.folders())
        log.error(f"{job.word}_step_failed", error_code=reason.code, reason=reason.message)
        job.fail(reason)
    return 0
