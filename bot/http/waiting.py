"""Answers that wait for the end of a job."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from bot.http.event_streams import has_left
from bot.http.operations import BodyT, Call, PathT, WaitQuery, reply
from trainer.contracts.errors import AppError

BLANK_SECONDS = 3.0
_LOOK_SECONDS = 0.25
RecordT = TypeVar("RecordT", bound=BaseModel)


class WaitingAnswer(web.StreamResponse):
    """An answer that begins with blanks, which JSON allows, while its record is awaited.

    Many clients give up where nothing arrives for some seconds. From the first blank on its status is 200.
    """

    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "Content-Type": "application/json"})
        self._request = request
        self._given_headers = headers

    async def blank(self) -> None:
        """Send a blank."""
        await self.prepare(self._request)
        await self.write(b" ")

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
    answer, record = WaitingAnswer(call.request, headers), await read()
    if has_ended(record) or not call.query.wait:
        return await answer.end(record)
    now = monotonic()
    deadline, blank_at = now + call.query.wait, now + BLANK_SECONDS
    with call.api.stream(call.client), answer.errors():
        while not has_ended(record) and (now := monotonic()) < deadline and not has_left(call.request):
            if now >= blank_at:
                await answer.blank()
                blank_at = now + BLANK_SECONDS
            await asyncio.sleep(min(_LOOK_SECONDS, deadline - now))
            record = await read()
    return await answer.end(record)
