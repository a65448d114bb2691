"""Waiting for the end of a job, and what a repeated request finds."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Protocol, TypeVar, runtime_checkable

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.wording import SAME_KEY
from trainer.lab.calls import BodyT, PathT, QueryT
from trainer.lab.lab import Asked, Lab

_LOOK_SECONDS = 0.25


@runtime_checkable
class Status(Protocol):
    """The status of a job."""

    @property
    def has_ended(self) -> bool: ...


class EndedStatus(Status, Protocol):
    """The status of a job that can be cancelled."""

    @property
    def status(self) -> str: ...


StatusT = TypeVar("StatusT", bound=Status)
EndedT = TypeVar("EndedT", bound=EndedStatus)


async def at_end(read: Callable[[], Awaitable[StatusT]], wait_seconds: float) -> StatusT:
    """Return the status of a job when it has ended, or after some time."""
    deadline, status = monotonic() + wait_seconds, await read()
    while not status.has_ended and (left := deadline - monotonic()) > 0:
        await asyncio.sleep(min(_LOOK_SECONDS, left))
        status = await read()
    return status


async def cancelled(
    asked: Asked[PathT, QueryT, BodyT],
    cancel: Callable[[], Awaitable[EndedT]],
    read: Callable[[], Awaitable[EndedT]],
) -> EndedT:
    """Cancel a job and return its status, also where the answer to the first request with this key was lost."""
    try:
        return await cancel()
    except AppError:
        status = await read()
        if asked.key is not None and status.status == "cancelled":
            return status
        raise


async def check_first(lab: Lab, asked: Asked[PathT, QueryT, BodyT], job_id: str) -> None:
    """Raise CONFLICT if the request's Idempotency-Key stands for another job already."""
    if asked.key is not None and await (await lab.live()).first_value(asked.key, job_id) != job_id:
        raise AppError(ErrorCode.CONFLICT, SAME_KEY)
