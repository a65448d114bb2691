"""Waiting for the end of a job, and what a repeated request finds."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from hashlib import sha256
from time import monotonic
from typing import Protocol, TypeVar, runtime_checkable

from trainer.artifacts.command_jobs import CommandT, ShortLivedStore
from trainer.artifacts.job_folder import FolderT, JobStore
from trainer.artifacts.kinds import JobKind
from trainer.contracts.base import JobRecord, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.job_status import JobPage
from trainer.contracts.parameters import JobsQuery
from trainer.contracts.wording import SAME_KEY
from trainer.lab.calls import BodyT, PathT, QueryT
from trainer.lab.lab import Asked, Lab
from trainer.lab.permissions import Caller

_LOOK_SECONDS = 0.25
_MAX_JOBS = 1000


@runtime_checkable
class Status(Protocol):
    """The status of a job."""

    @property
    def has_ended(self) -> bool: ...


StatusT = TypeVar("StatusT", bound=Status)
PageT = TypeVar("PageT", bound=JobPage)


async def at_end(read: Callable[[], Awaitable[StatusT]], wait_seconds: float) -> StatusT:
    """Return the status of a job when it has ended, or after some time."""
    deadline, status = monotonic() + wait_seconds, await read()
    while not status.has_ended and (left := deadline - monotonic()) > 0:
        await asyncio.sleep(min(_LOOK_SECONDS, left))
        status = await read()
    return status


async def asked_to_end(ask: Callable[[], Awaitable[StatusT]]) -> StatusT:
    """Return the status of a job that has ended, by a request that itself waits for some time."""
    while not (status := await ask()).has_ended:
        pass
    return status


async def all_pages(read: Callable[[JobsQuery], Awaitable[PageT]]) -> PageT:
    """Return all jobs of a kind as one page, newest first."""
    page = await read(JobsQuery(limit=_MAX_JOBS))
    while page.next_offset is not None:
        following = await read(JobsQuery(limit=_MAX_JOBS, offset=page.next_offset))
        page = page.with_next(following)
    return page


async def own_id(lab: Lab, caller: Caller, store: JobStore[FolderT], job_id: str) -> str:
    """Return the id of a job for the caller: another one than that of an equal job of somebody else."""
    own = f"{job_id}-{sha256(str(caller.owner).encode()).hexdigest()[:8]}"
    job = store.find(job_id)
    if store.find(own) is not None:
        return own
    is_other = job is not None and not lab.permissions.owns(caller, await asyncio.to_thread(job.record))
    return own if is_other else job_id


async def check_first(lab: Lab, asked: Asked[PathT, QueryT, BodyT], job_id: str) -> None:
    """Raise CONFLICT if the request's Idempotency-Key stands for another job already."""
    if asked.key is not None and await (await lab.live()).first_value(asked.key, job_id) != job_id:
        raise AppError(ErrorCode.CONFLICT, SAME_KEY)


async def accept_keyed(
    lab: Lab,
    asked: Asked[PathT, QueryT, BodyT],
    kind: JobKind[CommandT],
    store: ShortLivedStore[CommandT],
    record: JobRecord,
) -> CommandT:
    """Accept a job of the caller under the id that the Idempotency-Key stands for, or under a new one.

    Raises CONFLICT if the key stands for another request.
    """
    record = changed(record, user_id=asked.caller.discord_id, http=asked.origin)
    job_id = asked.request_id or secrets.token_hex(16)
    job = await (await lab.live()).jobs.accept(kind, lambda: store.create(job_id, record))
    first: JobRecord = await asyncio.to_thread(job.record)
    if changed(first, created_at=record.created_at) != record:
        raise AppError(ErrorCode.CONFLICT, SAME_KEY)
    return job
