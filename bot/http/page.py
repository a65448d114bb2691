"""The page and the description of the API, which need no key: they hold no data."""

from collections.abc import Sequence

from aiohttp import web
from pydantic_core import to_json

from bot.http.openapi import describe_api
from bot.http.operations import Operation


def page_routes(operations: Sequence[Operation], *, has_keys: bool) -> list[web.RouteDef]:
    """Return the routes of the page, of `/docs` and of `/openapi.json`."""
    description = to_json(describe_api(operations, has_keys=has_keys))

    async def get_openapi(request: web.Request) -> web.StreamResponse:
        return web.Response(body=description, content_type="application/json")

    return [web.get("/openapi.json", get_openapi)]
