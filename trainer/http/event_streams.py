"""Server-sent events: a growing file on its way to one client."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from aiohttp import web
from aiohttp_sse import EventSourceResponse

from trainer.contracts.parameters import LogsQuery, NoBody, NoQuery, RunPath
from trainer.http.api import Api
from trainer.http.operations import ApiRequest
from trainer.http.tails import Tail, TailItem, stored_events
from trainer.http.waiting import has_left
from trainer.lab.requests import ApiClient

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


async def stream_logs(call: ApiRequest[RunPath, LogsQuery, NoBody]) -> web.StreamResponse:
    """Follow a run's log as server-sent events: its last lines, then each new line until the run ends."""
    run = call.api.lab.queue.runs.get(call.path.run_id)
    async with call.api.tails.logs(run, stored=call.query.stored) as tail:
        position = await tail.last(call.query.tail)
        if tail.ended and call.request.headers.get("Last-Event-ID") == LOG_END:
            return web.Response(status=204)
        return await stream_tail(call.api, call.client, call.request, tail, position, end_id=LOG_END)


async def stream_events(call: ApiRequest[RunPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Follow a run's events as server-sent events, from the one after the header Last-Event-ID, until the run ends."""
    run = call.api.lab.queue.runs.get(call.path.run_id)
    last = call.request.headers.get("Last-Event-ID", "")
    seen = int(last) if last.isascii() and last.isdecimal() and len(last) < 16 else 0
    async with call.api.tails.events(run) as tail:
        position = await tail.position_after(seen)
        if seen and tail.ended and not tail.after(position)[0]:
            return web.Response(status=204)
        earlier = stored_events(run, seen, tail.first_number())
        return await stream_tail(call.api, call.client, call.request, tail, position, earlier=earlier)
