"""The page and the description of the API, which need no key: they hold no data."""

import asyncio
from collections.abc import Sequence

from aiohttp import web
from pydantic_core import to_json

from bot.http.openapi import describe_api
from bot.http.operations import Operation


def page_routes(operations: Sequence[Operation]) -> list[web.RouteDef]:
    """Return the routes of the page, of `/docs` and of `/openapi.json`."""
    described: list[bytes] = []

    async def get_openapi(request: web.Request) -> web.StreamResponse:
        if not described:  # it takes half a second
            described.append(await asyncio.to_thread(lambda: to_json(describe_api(operations))))
        return web.Response(body=described[0], content_type="application/json")

    return [web.get("/openapi.json", get_openapi)]
