"""Work on jobs of any kind but runs: list them, follow one, cancel it, delete it. Their results are artifacts."""

import asyncio
from contextlib import suppress

import structlog

from trainer.artifacts.job_folder import AnyStatusJob, unreadable
from trainer.artifacts.kinds import STATUS_KINDS, StatusKind
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError
from trainer.contracts.job_status import JobPage, JobStatus
from trainer.contracts.operations import JOB_ROWS, JobRow
from trainer.contracts.parameters import JobsQuery, NoBody, NoQuery, Query, WaitQuery
from trainer.lab.calls import JOB_CALLS, QueryT
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import at_end
from trainer.queue.run_feeds import LiveStates
from trainer.system.files import BrokenFile

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


async def list_jobs(lab: Lab, asked: Asked[NoQuery, JobsQuery, NoBody]) -> JobPage:
    """List the jobs of a kind that the caller may see, newest first, without their details."""
    row, query = _row(asked), asked.query
    store, is_visible = lab.store(row), await lab.visible(asked.caller, row)
    sees_unreadable = lab.permissions.sees_unreadable(asked.caller)
    end = query.offset + query.limit

    def read() -> JobPage:
        found, statuses = store.all(), list[JobStatus]()
        known, jobs = {job.job_id for job in found}, [job for job in found if is_visible(job)]
        others = [store.directory(job_id) for job_id in sorted(store.ids()) if sees_unreadable and job_id not in known]
        hidden = [one for job in others if (one := unreadable(job)) is not None]
        total = len(jobs) + len(hidden)
        hidden = hidden if query.offset == 0 else []
        for job in jobs[query.offset : end]:
            try:
                statuses.append(job.listed())
            except (OSError, BrokenFile):
                hidden += [one for one in [unreadable(job)] if one is not None]  # None: it was just deleted
        following = end if end < len(jobs) else None
        fields: dict[str, object] = {row.words: tuple(statuses), "total": total, "next_offset": following}
        fields["unreadable"] = tuple(hidden)
        return JOB_CALLS[row.kind].list.answer.model_validate(fields)

    return await asyncio.to_thread(read)


async def get_job(lab: Lab, asked: Asked[Query, WaitQuery, NoBody]) -> JobStatus:
    """Read the status of a job; with `wait`, after its end or after this time."""
    _, job = _job(lab, asked)
    status = await at_end(lambda: asyncio.to_thread(job.status), asked.query.wait)
    return await with_wait(lab.feeds.states, job.job_id, status)


async def with_wait(states: LiveStates, job_id: str, status: JobStatus) -> JobStatus:
    """Add to the status of a queued job why it waits; without an answer of Redis, return it unchanged."""
    with suppress(AppError):  # the object store or a server does not answer here either
        if status.status == "queued":
            return changed(status, wait_message=await states.wait_message(job_id))
    return status


async def cancel_job(lab: Lab, asked: Asked[Query, NoQuery, NoBody]) -> JobStatus:
    """Cancel a job; return its status, also where the answer to the first request with this key was lost."""
    kind, job = _job(lab, asked)
    try:
        await (await lab.live()).jobs.cancel(kind, job.job_id)
    except AppError:
        if asked.key is None or job.state() != "cancelled":
            raise
    return await asyncio.to_thread(job.status)


async def delete_job(lab: Lab, asked: Asked[Query, NoQuery, NoBody]) -> None:
    """Delete a job that has ended, with its files."""
    kind, job = _job(lab, asked)
    await (await lab.live()).jobs.delete(kind, job.job_id)
    caller = asked.caller
    log.info(f"{job.word}_deleted", user_id=caller.discord_id, api_key=caller.key_name, **job.log_id)


def _row(asked: Asked[Query, QueryT, NoBody]) -> JobRow:
    kind = asked.operation.kind
    assert kind is not None  # noqa: S101
    return JOB_ROWS[kind]


def _job(lab: Lab, asked: Asked[Query, QueryT, NoBody]) -> tuple[StatusKind, AnyStatusJob]:
    """Return the job that a path names, with its kind."""
    row = _row(asked)
    named: dict[str, str] = asked.path.model_dump()
    return STATUS_KINDS[row.kind], lab.store(row).get(named[row.id_field])
