"""The HTTP server: routes from the table of operations, and what every request passes through."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog
from aiohttp import web

from bot.http.api import Api
from bot.http.api_keys import ApiClient, ApiKeys
from bot.http.artifacts import RangeError
from bot.http.connections import Connections
from bot.http.operations import Operation
from bot.http.page_routes import page_routes
from bot.http.table import OPERATIONS
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode, http_status, new_request_id
from trainer.system.files import to_app_error

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

MAX_BODY_BYTES = 16 << 20
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STOP_SECONDS = 2.0
_LOOPBACK_HOST = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_ID = web.RequestKey("id", str)
_HTTP_ERROR: type[Exception] = web.HTTPException
_RESPONSE: type[web.Response] = web.Response


class HttpServer:
    """The API of one bot process."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._keys = ApiKeys(api.settings.security.keys)
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._middleware])
        app.on_response_prepare.append(_add_headers)
        app.add_routes([*page_routes(OPERATIONS), *(self._route(one) for one in OPERATIONS)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_SECONDS)
        self._server: asyncio.Server | None = None
        self._connections: Connections | None = None

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
        server = self._runner.server
        if server is None:
            raise RuntimeError("The runner was not set up.")
        self._connections = Connections(server, http.max_connections)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._connections, http.host, http.port, backlog=512
            )
        except OSError as error:
            await self._runner.cleanup()
            raise AppError(
                ErrorCode.CONFIG_INVALID,
                f"HTTP__HOST and HTTP__PORT cannot be used ({error.strerror}). Set another port, or 0 for any free one.",
            ) from None
        port: int = self._server.sockets[0].getsockname()[1]
        log.info("http_started", port=port)
        return port

    async def stop(self) -> None:
        """Stop listening and end all requests."""
        if self._server is not None and self._connections is not None:
            self._server.close()
            self._connections.close()
            await self._runner.cleanup()

    def _route(self, operation: Operation) -> web.RouteDef:
        async def handle(request: web.Request) -> web.StreamResponse:
            client = ApiClient(None, is_admin=False)
            if operation.access != "open":
                client = self._keys.client(request.headers, request.remote or "")
            return await operation.run(self._api, client, request)

        return web.route(operation.method, operation.path, handle)

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check where a request comes from, turn errors into answers, and record the request."""
        given = request.headers.get("X-Request-ID", "")
        request[_ID] = given if _REQUEST_ID.fullmatch(given) else new_request_id()
        if self._connections is not None:
            self._connections.request_arrived(request.protocol)
        started = monotonic()
        response = await self._answered(request, handler)
        resource = request.match_info.route.resource
        route = "unknown" if resource is None else resource.canonical
        seconds = monotonic() - started
        self._api.metrics.requests.labels(request.method, route, str(response.status)).inc()
        if response.content_type != "text/event-stream":
            self._api.metrics.seconds.labels(request.method, route).observe(seconds)
        log.info(
            "http_request",
            request_id=request[_ID],
            method=request.method,
            route=route,
            http_status=response.status,
            seconds=round(seconds, 4),
        )
        return response

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check_source(request)
            return await handler(request)
        except AppError as error:
            return _error_answer(request, error)
        except _HTTP_ERROR as error:
            if not isinstance(error, _RESPONSE):
                raise
            return _answer_of_aiohttp(request, error)
        except ConnectionError:
            raise  # the client has left
        except Exception as error:
            log.error("http_request_failed", request_id=request[_ID], exc_info=error)
            return _error_answer(request, _as_app_error(error, self._api))

    def _check_source(self, request: web.Request) -> None:
        """Refuse what a page of another site sends to a server without keys through a browser; raises FORBIDDEN.

        Such a page knows no key. Its requests have a foreign Host (after DNS rebinding), or a foreign Origin.
        """
        if self._keys.is_open:
            origin = request.headers.get("Origin")
            is_foreign = origin is not None and origin.rpartition("/")[2] != request.host
            if is_foreign or not _LOOPBACK_HOST.fullmatch(request.host):
                raise AppError(ErrorCode.FORBIDDEN, "Without API keys, only programs of this machine may connect.")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-ID"] = request[_ID]


def _error_answer(request: web.Request, error: AppError, status: int | None = None) -> web.Response:
    body = ErrorBody.of(error, request[_ID]).model_dump_json().encode()
    status = http_status(error) if status is None else status
    response = web.Response(body=body, status=status, content_type="application/json")
    if error.code is ErrorCode.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.code is ErrorCode.RATE_LIMIT_EXCEEDED:
        response.headers["Retry-After"] = "10"
    if isinstance(error, RangeError):
        response.headers["Content-Range"] = f"bytes */{error.size}"
    return response


def _answer_of_aiohttp(request: web.Request, refused: web.Response) -> web.Response:
    """Return a refusal of aiohttp, such as an unknown address, in our form."""
    if refused.status == ErrorCode.PAYLOAD_TOO_LARGE.http_status:
        message = f"The body has more than {MAX_BODY_BYTES:,} bytes. Send less at a time."
        return _error_answer(request, AppError(ErrorCode.PAYLOAD_TOO_LARGE, message))
    allowed = refused.headers.get("Allow")
    if allowed is not None:
        message = f"This address does not take {request.method[:16]}: use {allowed}."
        answer = _error_answer(request, AppError(ErrorCode.NOT_FOUND, message), refused.status)
        answer.headers["Allow"] = allowed
        return answer
    return _error_answer(request, AppError(ErrorCode.NOT_FOUND, "There is no such address. See /docs for all of them."))


def _as_app_error(error: Exception, api: Api) -> AppError:
    if isinstance(error, OSError):
        try:
            return to_app_error(error, api.settings.app.folders())
        except OSError:
            pass
    return AppError(ErrorCode.INTERNAL_ERROR, "The server failed to answer this request.")
