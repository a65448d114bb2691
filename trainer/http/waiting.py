"""Answers that wait for the end of a job."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from trainer.contracts.errors import AppError
from trainer.http.event_streams import has_left
from trainer.http.operations import BodyT, Call, PathT, WaitQuery, reply

_BLANK_SECONDS = 3.0
_LOOK_SECONDS = 0.25
RecordT = TypeVar("RecordT", bound=BaseModel)


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


async def reply_at_end(
    call: Call[PathT, WaitQuery, BodyT],
    read: Callable[[], Awaitable[RecordT]],
    has_ended: Callable[[RecordT], bool],
    headers: Mapping[str, str],
) -> web.StreamResponse:
    """Answer with a record when it has ended, or when the client's time is up."""
    answer, record = WaitingAnswer(call.request, headers, call.query.wait), await read()
    if has_ended(record) or not call.query.wait:
        return await answer.end(record)
    with call.api.stream(call.client), answer.errors():
        while not has_ended(record) and (left := await answer.seconds_left()):
            await asyncio.sleep(min(_LOOK_SECONDS, left))
            record = await read()
    return await answer.end(record)
