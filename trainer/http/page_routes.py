"""Routes of the page, of `/docs` and of the API's description. They need no key, because they hold no data."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path

from aiohttp import web
from pydantic_core import to_json

from trainer.http.artifacts import is_known_etag
from trainer.http.openapi import describe_api
from trainer.http.operations import Operation

CONTENT_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
DOCUMENTS = {"/": "index.html", "/docs": "docs.html"}
MODULES = (
    "api.js",
    "comparison.js",
    "curves.js",
    "docs.js",
    "elements.js",
    "event_stream.js",
    "main.js",
    "numbers.js",
    "run.js",
    "runs.js",
    "scale.js",
    "scored_text.js",
    "surprisal.js",
)
FILES = {**DOCUMENTS, **{f"/page/{name}": name for name in ("icon.svg", "page.css", *MODULES)}}
"""The file of each address."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_FOLDER = Path(__file__).with_name("page")
_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_routes(operations: Sequence[Operation], *, has_keys: bool) -> list[web.RouteDef]:
    """Return the routes; the files are read here, once, so that no request leads to the disk."""
    described: list[Handler] = []

    async def get_openapi(request: web.Request) -> web.StreamResponse:
        if not described:  # it takes half a second
            content = await asyncio.to_thread(lambda: to_json(describe_api(operations, has_keys=has_keys)))
            described.append(_handler(content, "application/json"))
        return await described[0](request)

    files = [
        web.get(address, _handler((_FOLDER / name).read_bytes(), CONTENT_TYPES[Path(name).suffix]))
        for address, name in FILES.items()
    ]
    return [web.get("/openapi.json", get_openapi), *files]


def _handler(content: bytes, content_type: str) -> Handler:
    etag = f'"{sha256(content).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Security-Policy": _SECURITY_POLICY}

    async def get(request: web.Request) -> web.StreamResponse:
        if is_known_etag(request.headers, etag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, content_type=content_type, charset="utf-8", headers=headers)

    return get
