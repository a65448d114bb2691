"""The HTTP server: its connections, routes from the table of operations, and what every request passes through."""

import asyncio
import re
from collections.abc import Sequence
from errno import EADDRINUSE
from hashlib import sha256
from html import escape
from os import strerror
from pathlib import Path
from socket import gaierror
from time import monotonic

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler
from pydantic_core import to_json

from trainer.artifacts.export_links import linked_file
from trainer.contracts.errors import AppError, ErrorCode
from trainer.http import agents
from trainer.http.api import Api, ApiKeys
from trainer.http.connections import Connections
from trainer.http.downloads import is_known_etag, requested_range
from trainer.http.error_answers import SERVER, HttpError, error_answer, request_id_of
from trainer.http.openapi import describe_api
from trainer.http.operations import HttpOperation
from trainer.http.page_tables import PageTables
from trainer.http.routes import OPERATIONS
from trainer.lab.requests import MAX_BODY_BYTES, ApiClient, as_app_error
from trainer.system.logs import say

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_CLIENT_HAS_LEFT = 499  # as nginx counts it
_LOOPBACK_HOST = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_FORWARDED = re.compile(
    r"forwarded|via|x-(forwarded|original|real|remote|envoy|amzn|azure|appengine)-.+|x-forwarded|x-scheme"
    r"|(.+-)?(client|connecting|proxyuser)-ip|(cf|cdn|proxy|remote|tailscale)-.+",
    re.IGNORECASE,
)
"""Headers that proxies, load balancers and tunnels add."""
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_FOLDER = Path(__file__).with_name("page")
CONTENT_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
DOCUMENTS = {"/": "index.html", "/docs": "docs.html"}
TABLES = "tables.js"
_PARTS = sorted(file.name for file in _FOLDER.iterdir() if file.suffix in (".css", ".js", ".svg"))
FILES = DOCUMENTS | {f"/page/{name}": name for name in _PARTS}
"""The file of each address of the page, of `/docs` and of what they load. They need no key: they hold no data."""
_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_IS_STARTED = web.RequestKey("is_started", bool)
"""Set when the header of the answer is sent: from then on, no other answer can be sent."""


class HttpServer:
    """The API of one bot process."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._keys = ApiKeys(api.settings.security.keys)
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._middleware])
        app.on_response_prepare.append(_start_answer)
        address = str(api.settings.http.public_url or ".").rstrip("/")
        pages = page_routes(OPERATIONS, has_keys=not self._keys.is_open, address=address)
        app.add_routes([*pages, *map(self._route, OPERATIONS)])
        app.add_routes(
            [web.post(agents.ADDRESS, self._answer_agent), web.route("*", agents.ADDRESS, _wrong_method(["POST"]))]
        )
        app.add_routes([_export_route(api.settings.app.artifacts_root)])
        app.add_routes([web.route("*", path, _wrong_method(methods)) for path, methods in _methods().items()])
        self._runner = web.AppRunner(app, shutdown_timeout=api.timeouts.stop_seconds)
        self._connections = Connections(self._runner, api.max_connections, api.timeouts.idle_seconds)

    async def start(self) -> int:
        """Listen, and return the port.

        Raises CONFIG_INVALID for an address that other machines reach while there are no API keys, and for an address
        that cannot be used.
        """
        http = self._api.settings.http
        if self._keys.is_open and not http.is_loopback:
            raise AppError(
                ErrorCode.CONFIG_INVALID,
                f"HTTP__HOST is '{http.host}', which other machines can reach: set SECURITY__API_KEYS as well.",
            )
        await self._runner.setup()
        try:
            port = await self._connections.listen(http.host, http.port or 0)
        except OSError as error:
            await self._runner.cleanup()
            reason = error.strerror if isinstance(error, gaierror) else strerror(error.errno or 0)
            problem = f"HTTP__HOST and HTTP__PORT cannot be used ({reason})"
            if error.errno == EADDRINUSE:
                problem = f"Another program uses port {http.port} of {http.host}"
            remedy = "Set another port with `mt up --port PORT` or HTTP__PORT, or 0 for any."
            raise AppError(ErrorCode.CONFIG_INVALID, f"{problem}. {remedy}") from None
        shown = "127.0.0.1" if http.host in ("0.0.0.0", "::") else f"[{http.host}]" if ":" in http.host else http.host  # noqa: S104
        page = str(http.public_url or f"http://{shown}:{port}").rstrip("/") + "/"
        say(self._api.settings, f"The page is at {page}.")
        log.info("http_started", port=port, page=page, artifacts=str(self._api.settings.app.artifacts_root.absolute()))
        return port

    async def stop(self) -> None:
        """Stop listening and end all requests."""
        self._connections.stop()
        await self._runner.cleanup()

    def _route(self, operation: HttpOperation) -> web.RouteDef:
        async def handle(request: web.Request) -> web.StreamResponse:
            client = ApiClient(None, is_admin=False)
            if not operation.row.is_open:
                client = self._keys.client(request.headers)
            return await operation.run(self._api, client, request)

        if operation.row.method == "GET":
            return web.get(operation.row.path, handle)  # and HEAD
        return web.route(operation.row.method, operation.row.path, handle)

    async def _answer_agent(self, request: web.Request) -> web.StreamResponse:
        return await agents.answer_agent(self._api, self._keys.client(request.headers), request)

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check where a request comes from, turn errors into answers, and record the request."""
        started = monotonic()
        try:
            response = await self._answer(request, handler)
        except ConnectionError:
            self._record(request, _CLIENT_HAS_LEFT, monotonic() - started)
            raise
        seconds = monotonic() - started
        route = self._record(request, response.status, seconds)
        if response.content_type != "text/event-stream":
            self._api.metrics.seconds.labels(*route).observe(seconds)
        return response

    def _record(self, request: web.Request, status: int, seconds: float) -> tuple[str, str]:
        """Count and log a request; return its method and its route."""
        resource = request.match_info.route.resource
        # clients choose the methods and addresses that do not exist: one figure counts them all
        is_known = resource is not None and status != ErrorCode.METHOD_NOT_ALLOWED.http_status
        method, route = (request.method, resource.canonical) if resource and is_known else ("other", "unknown")
        self._api.metrics.requests.labels(method, route, str(status)).inc()
        log.info(
            "http_request",
            request_id=request_id_of(request),
            method=method,
            route=route,
            http_status=status,
            seconds=round(seconds, 4),
        )
        return method, route

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check_source(request)
            _check_route(request)
            return await handler(request)
        except AppError as error:
            failure = error
        except Exception as error:
            is_stalled = isinstance(error, TimeoutError) and _IS_STARTED in request
            if isinstance(error, ConnectionError) or is_stalled:
                _disconnect(request)
                raise ConnectionResetError("The client has left, or does not read.") from None
            log.error("http_request_failed", request_id=request_id_of(request), exc_info=error)
            failure = as_app_error(error)
        if _IS_STARTED in request:
            _disconnect(request)  # the client sees that its answer is incomplete
            raise ConnectionResetError("An answer could not be completed.")
        return error_answer(request, failure)

    def _check_source(self, request: web.Request) -> None:
        """Refuse requests of others to a server without keys, whose clients are all admins; raises FORBIDDEN.

        Another site's page knows no key: its requests have a foreign Host (after DNS rebinding), or a foreign Origin.
        A proxy on this machine passes on requests of strangers: it adds a header, or speaks HTTP/1.0 as nginx does.
        """
        if self._keys.is_open:
            host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
            is_foreign = origin is not None and origin.rpartition("/")[2] != host
            if is_foreign or not _LOOPBACK_HOST.fullmatch(host):
                raise AppError(ErrorCode.FORBIDDEN, "Without API keys, only programs of this machine may connect.")
            if request.version < HttpVersion11 or any(map(_FORWARDED.fullmatch, request.headers)):
                message = "This request came through a proxy: set SECURITY__API_KEYS, as without keys all are admins."
                raise AppError(ErrorCode.FORBIDDEN, message)


def _check_route(request: web.Request) -> None:
    """Raise NOT_FOUND for an unknown address, and METHOD_NOT_ALLOWED for a method that an address does not take."""
    refused = request.match_info.http_exception
    if refused is not None:
        allowed = refused.headers.get("Allow")
        if allowed is None:
            raise AppError(ErrorCode.NOT_FOUND, "There is no such address. See /docs for all of them.")
        raise _method_error(request, allowed)


def _method_error(request: web.Request, allowed: str) -> HttpError:
    message = f"This address does not take {request.method[:16]}: use {allowed}."
    return HttpError(ErrorCode.METHOD_NOT_ALLOWED, message, {"Allow": allowed})


def _methods() -> dict[str, list[str]]:
    """Return the methods of each path."""
    methods: dict[str, list[str]] = {}
    for one in OPERATIONS:
        methods.setdefault(one.row.path, []).extend(["GET", "HEAD"] if one.row.method == "GET" else [one.row.method])
    return methods


def _wrong_method(allowed: Sequence[str]) -> Handler:
    """Return a handler that refuses a method of this path, even where another path with a parameter takes it."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        raise _method_error(request, ", ".join(sorted(allowed)))

    return refuse


async def _start_answer(request: web.Request, response: web.StreamResponse) -> None:
    request[_IS_STARTED] = True
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.update(SERVER)
    response.headers["X-Request-ID"] = request_id_of(request)


def _disconnect(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _export_route(artifacts_root: Path) -> web.RouteDef:
    """Return the route of the signed links to exports, which need no key."""

    async def download(request: web.Request) -> web.StreamResponse:
        """Send a file; ranges of it too. Raises RANGE_NOT_SATISFIABLE."""
        path = f"{request.match_info['folder']}/{request.match_info['name']}"
        expires, signature = (request.query.get(name, "") for name in ("expires", "signature"))
        file = await asyncio.to_thread(linked_file, artifacts_root, path, expires, signature)
        if request.method == "GET":
            requested_range(request.headers, "", (await asyncio.to_thread(file.stat)).st_size)
        return web.FileResponse(file, headers={"Content-Disposition": f'attachment; filename="{file.name}"'})

    return web.get("/exports/{folder}/{name}", download)


def page_routes(operations: Sequence[HttpOperation], *, has_keys: bool, address: str) -> list[web.RouteDef]:
    """Return the routes; the files are read here, once, so that no request leads to the disk."""
    described: list[Handler] = []

    async def get_openapi(request: web.Request) -> web.StreamResponse:
        if not described:  # it takes half a second
            content = await asyncio.to_thread(
                lambda: to_json(describe_api(operations, has_keys=has_keys, address=address))
            )
            described.append(_handler(content, "application/json"))
        return await described[0](request)

    files = [
        web.get(address, _handler(page_file(name, operations), CONTENT_TYPES[Path(name).suffix]))
        for address, name in FILES.items()
    ]
    return [web.get("/openapi.json", get_openapi), *files]


def page_file(name: str, operations: Sequence[HttpOperation]) -> bytes:
    """Return the content of a file of the page.

    The page of the API lists the operations, so that it shows them at once; `tables.js` gets the tables of the program.
    """
    content = (_FOLDER / name).read_bytes()
    if name == TABLES:
        return content.replace(b'JSON.parse("null")', PageTables().model_dump_json().encode())
    if name != DOCUMENTS["/docs"]:
        return content
    parts: list[str] = []
    for tag in {one.row.tag: None for one in operations}:
        parts.append(f'<section aria-labelledby="about-{tag}"><h2 id="about-{tag}">{tag}</h2>')
        for one in operations:
            if one.row.tag == tag:
                title = f"<code><b>{one.row.method}</b> {one.row.path}</code> {escape(one.summary.splitlines()[0])}"
                parts.append(f'<details id="{one.row.name}"><summary>{title}</summary></details>')
        parts.append("</section>")
    return content.replace(b"OPERATIONS", "\n".join(parts).encode())


def _handler(content: bytes, content_type: str) -> Handler:
    etag = f'"{sha256(content).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Security-Policy": _SECURITY_POLICY}

    async def get(request: web.Request) -> web.StreamResponse:
        if is_known_etag(request.headers, etag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, content_type=content_type, charset="utf-8", headers=headers)

    return get
