"""Answers that wait for the end of a run or of a tokenizer's training."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from bot.http.event_streams import has_left
from bot.http.operations import BodyT, Call, PathT, WaitQuery, reply

_LOOK_SECONDS = 0.25
_BLANK_SECONDS = 3.0
RecordT = TypeVar("RecordT", bound=BaseModel)


async def reply_at_end(
    call: Call[PathT, WaitQuery, BodyT],
    read: Callable[[], Awaitable[RecordT]],
    has_ended: Callable[[RecordT], bool],
    headers: Mapping[str, str],
) -> web.StreamResponse:
    """Answer with a record when it has ended, or when the client's time is up.

    From the third second on, the answer begins with blanks, which JSON allows: many clients give up where nothing
    arrives for some seconds.
    """
    record = await read()
    if has_ended(record) or not call.query.wait:
        return reply(record, headers=headers)
    now = monotonic()
    deadline, blank_at = now + call.query.wait, now + _BLANK_SECONDS
    response: web.StreamResponse | None = None
    with call.api.stream(call.client):
        while not has_ended(record) and (now := monotonic()) < deadline and not has_left(call.request):
            if now >= blank_at:
                if response is None:
                    response = web.StreamResponse(headers={**headers, "Content-Type": "application/json"})
                    await response.prepare(call.request)
                await response.write(b" ")
                blank_at = now + _BLANK_SECONDS
            await asyncio.sleep(min(_LOOK_SECONDS, deadline - now))
            record = await read()
    if response is None:
        return reply(record, headers=headers)
    await response.write_eof(record.model_dump_json().encode())
    return response
