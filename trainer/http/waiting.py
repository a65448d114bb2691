"""Answers that wait for the end of a job."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from types import MappingProxyType

from aiohttp import web
from pydantic import BaseModel

from trainer.contracts.batteries import BatteryStatus
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import ExperimentStatus
from trainer.contracts.exports import ExportStatus
from trainer.contracts.groups import GroupStatus
from trainer.contracts.runs import RunStatus
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.contracts.verification import VerificationStatus
from trainer.http.event_streams import has_left
from trainer.http.operations import ApiRequest, BodyT, PathT, QueryT, WaitQuery, located, reply
from trainer.queue.inference_client import SAME_KEY

_BLANK_SECONDS = 3.0
_LOOK_SECONDS = 0.25


class WaitingAnswer(web.StreamResponse):
    """An answer that begins with blanks, which JSON allows, while its record is awaited.

    Many clients give up where nothing arrives for some seconds. From the first blank on its status is 200.
    """

    def __init__(self, request: web.Request, headers: Mapping[str, str], wait_seconds: float) -> None:
        super().__init__(headers={**headers, "Content-Type": "application/json"})
        self._request = request
        self._given_headers = headers
        now = monotonic()
        self._deadline, self._blank_at = now + wait_seconds, now + _BLANK_SECONDS

    async def seconds_left(self) -> float:
        """Return the time left to wait, and send a blank if it is due; 0 when the time is up or the client has left."""
        now = monotonic()
        if now >= self._deadline or has_left(self._request):
            return 0.0
        if now >= self._blank_at:
            await self.prepare(self._request)
            await self.write(b" ")
            self._blank_at = now + _BLANK_SECONDS
        return self._deadline - now

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Close the connection in place of an error after the first blank."""
        try:
            yield
        except AppError as error:
            if not self.prepared:
                raise
            raise ConnectionResetError(error.message) from None

    async def end(self, record: BaseModel, status: int = 200) -> web.StreamResponse:
        """Send the record; an answer without a blank has this status."""
        if not self.prepared:
            return reply(record, status, self._given_headers)
        await self.write_eof(record.model_dump_json().encode())
        return self


JobStatus = (
    RunStatus | GroupStatus | TokenizerStatus | ExperimentStatus | BatteryStatus | ExportStatus | VerificationStatus
)


async def check_first(call: ApiRequest[PathT, QueryT, BodyT], job_id: str) -> None:
    """Raise CONFLICT if the request's Idempotency-Key stands for another job already."""
    key = call.idempotency
    if key is not None and await call.api.queue.first_value(key, job_id) != job_id:
        raise AppError(ErrorCode.CONFLICT, SAME_KEY)


async def reply_accepted(
    call: ApiRequest[PathT, WaitQuery, BodyT],
    accepted: BaseModel,
    address: str,
    read: Callable[[], Awaitable[JobStatus]],
) -> web.StreamResponse:
    """Answer with what was accepted and its address; with `wait`, with its status as `reply_at_end` does."""
    headers = located(call.request, address)
    return await reply_at_end(call, read, headers) if call.query.wait else reply(accepted, 202, headers)


async def reply_cancelled(
    call: ApiRequest[PathT, QueryT, BodyT],
    cancel: Callable[[], Awaitable[JobStatus]],
    read: Callable[[], Awaitable[JobStatus]],
) -> web.StreamResponse:
    """Cancel a job and answer with its status, also where the answer to the first request with this key was lost."""
    try:
        return reply(await cancel())
    except AppError:
        status = await read()
        if call.idempotency is not None and status.status == "cancelled":
            return reply(status)
        raise


async def reply_at_end(
    call: ApiRequest[PathT, WaitQuery, BodyT],
    read: Callable[[], Awaitable[JobStatus]],
    headers: Mapping[str, str] = MappingProxyType({}),
) -> web.StreamResponse:
    """Answer with the status of a job when it has ended, or when the client's time is up."""
    answer, status = WaitingAnswer(call.request, headers, call.query.wait), await read()
    is_final = status.has_ended or not call.query.wait
    if is_final:
        return await answer.end(status)
    with call.api.stream(call.client), answer.errors():
        while not status.has_ended and (left := await answer.seconds_left()):
            await asyncio.sleep(min(_LOOK_SECONDS, left))
            status = await read()
    return await answer.end(status)
