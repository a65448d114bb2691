"""The address of agents, `/mcp`: the tools of an API key by MCP over HTTP, without sessions and without streams."""

import asyncio
from collections.abc import MutableMapping, Sequence
from functools import partial
from importlib import import_module

from aiohttp import web
from pydantic import BaseModel

from trainer.config.validation import parse
from trainer.contracts.installation import require_extras
from trainer.contracts.operations import Tag
from trainer.contracts.parameters import Query
from trainer.http.api import Api
from trainer.http.operations import read_body
from trainer.lab.requests import MAX_BODY_BYTES, ApiClient

ADDRESS = "/mcp"
_Message = MutableMapping[str, object]


class AgentQuery(Query):
    """Parameters of the address of agents."""

    tags: tuple[Tag, ...] = ()
    """Only tools of these sections."""


class _Start(BaseModel):
    """The message of ASGI that begins an answer."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]


async def answer_agent(api: Api, client: ApiClient, request: web.Request) -> web.StreamResponse:
    """Answer one message of an agent; raises UNSUPPORTED_BACKEND without the extra `agents`."""
    require_extras("agents")
    given = {name: value.split(",") for name, value in request.query.items()}
    query = parse(AgentQuery, given)
    body = await read_body(request, api.timeouts.body_seconds)
    await asyncio.to_thread(import_module, "trainer.mcp.server")  # takes half a second
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from trainer.mcp.installations import LabInstallation
    from trainer.mcp.server import mcp_server

    server = mcp_server(LabInstallation(api.lab, client, partial(api.stream, client)), query.tags)
    sessions = StreamableHTTPSessionManager(
        server, json_response=True, stateless=True, max_request_body_size=MAX_BODY_BYTES
    )
    received: list[_Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[_Message] = []

    async def receive() -> _Message:
        if not received:
            await asyncio.Event().wait()  # the client stays until it has its answer
        return received.pop()

    async def send(message: _Message) -> None:
        sent.append(message)

    async with sessions.run():
        await sessions.handle_request(_scope(request), receive, send)
    start = _Start.model_validate(sent[0])
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start.headers}
    content = b"".join(one for message in sent[1:] if isinstance(one := message.get("body"), bytes))
    return web.Response(status=start.status, body=content, headers=headers)


def _scope(request: web.Request) -> _Message:
    """Return the description of a request for ASGI, whose names of headers are in lower case."""
    headers = [(name.lower(), value) for name, value in request.raw_headers]
    return {"type": "http", "method": request.method, "path": ADDRESS, "headers": headers, "query_string": b""}
