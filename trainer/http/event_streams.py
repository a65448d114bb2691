"""Server-sent events: a growing file on its way to one client."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from aiohttp import web
from aiohttp_sse import EventSourceResponse

from trainer.http.api import Api, ApiClient
from trainer.http.tails import Tail, TailItem

LOG_END = "end"
"""Last id in the stream of an ended run's log; its lines have none."""
_LOOK_SECONDS = 1.0
_MAX_SECONDS = 3600.0
"""After this time a stream ends; a client continues it with Last-Event-ID."""


async def stream_tail(
    api: Api,
    client: ApiClient,
    request: web.Request,
    tail: Tail,
    position: int,
    *,
    earlier: AsyncIterator[list[TailItem]] | None = None,
    end_id: str | None = None,
) -> web.StreamResponse:
    """Send the items of a file from a position on, until the file ends, the client leaves or an hour has passed.

    `earlier` yields the items before those in memory. A comment is sent every 15 seconds. A client that does not read
    is disconnected. `end_id` is sent after the end of a file whose items have no numbers.
    """
    if request.method == "HEAD":
        return web.Response(headers={"Content-Type": "text/event-stream"})
    deadline = asyncio.get_running_loop().time() + _MAX_SECONDS
    with api.stream(client):
        async with (response := await begin_stream(api, request)):
            if earlier is not None:
                async for items in earlier:
                    await _send(response, items)
            while not has_left(request) and asyncio.get_running_loop().time() < deadline:
                has_ended = tail.ended
                items, position = tail.after(position)
                await _send(response, items)
                if has_ended:
                    if end_id is not None:
                        async with asyncio.timeout(api.timeouts.send_seconds):
                            await response.write(f"id: {end_id}\r\n\r\n".encode())  # an id alone is no event
                    break
                await tail.wait(_LOOK_SECONDS)
            return response


async def _send(response: EventSourceResponse, items: Sequence[TailItem]) -> None:
    for item in items:
        await response.send(item.data, id=str(item.number) if item.number else None, event=item.kind)


async def begin_stream(api: Api, request: web.Request) -> EventSourceResponse:
    """Send the header of a stream; raises ConnectionResetError if the client has left."""
    if has_left(request):
        raise ConnectionResetError("The client has left.")
    response = EventSourceResponse(allow_all_methods=True, send_timeout=api.timeouts.send_seconds)
    await response.prepare(request)
    return response


def has_left(request: web.Request) -> bool:
    """Return True if the client of a request has disconnected."""
    return request.transport is None or request.transport.is_closing()
