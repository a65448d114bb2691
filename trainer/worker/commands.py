"""Runs jobs that are commands of `mt`, in processes of their own."""

import asyncio
from contextlib import suppress

import structlog
from pydantic import ValidationError

from trainer.artifacts.attempts import ChildEnd, cause_of
from trainer.artifacts.command_jobs import AnyCommand
from trainer.artifacts.outcome import without_paths
from trainer.config.settings import child_environment
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode
from trainer.services.child_commands import CommandResult, run_command
from trainer.system.child_environment import tuned_environment
from trainer.worker.steps import Steps

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


async def run_job_command(job: AnyCommand, steps: Steps) -> None:
    """Run the command of a job until the job ends; a command that crashes starts again, some times in a row."""
    settings, attempts = steps.settings, steps.settings.queue.max_attempts
    environment = child_environment(settings) if job.needs_network else tuned_environment(settings)
    job.logs.touch()
    for _ in range(attempts):
        steps.check_cancelled()
        words = await asyncio.to_thread(job.start, settings)
        command = run_command(words, environment, job.receive, settings.queue.stall_seconds)
        result = await steps.wait_for(asyncio.create_task(command))
        if await asyncio.to_thread(_end, job, result):
            steps.starts.child_began()
            return
        steps.log.error(f"{job.word}_command_failed", exit_code=result.exit_code, last_lines=result.last_lines)
        end = ChildEnd(result.exit_code, tuple(result.last_lines), cause_of(result.exit_code), has_begun=False)
        steps.starts.child_ended(job.job_id, end)
        await steps.leave_if_others_try(end)
    message = f"The {job.word} crashed {attempts} times. See the worker's log for its last lines."
    raise AppError(ErrorCode.INTERNAL_ERROR, message)


def _end(job: AnyCommand, result: CommandResult) -> bool:
    """Write the result or the error of a command; return False if it has neither."""
    if result.exit_code in job.result_codes:
        with suppress(ValidationError):
            job.complete(result.output)
            return True
    try:
        body = ErrorBody.model_validate_json(result.output)
    except ValidationError:
        return False
    job.fail(AppError(body.code, without_paths(body.message)))
    return True
