"""Connections of clients: limited in number, closed while idle, and answered in our form if a request is malformed."""

import asyncio

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from bot.http.error_answers import FAILED, error_answer
from trainer.contracts.errors import AppError, ErrorCode

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class Connections:
    """Makes the protocol of each new connection."""

    def __init__(self, runner: web.AppRunner, max_connections: int, idle_seconds: float) -> None:
        self._runner = runner
        self._max_connections = max_connections
        self._idle_seconds = idle_seconds
        """The time to send the complete header of a request."""

    def __call__(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        if server is None or len(server.connections) >= self._max_connections:
            return _Refusal()
        loop = asyncio.get_running_loop()
        # a compressed body could be far larger than it looks
        return _Connection(server, loop=loop, keepalive_timeout=self._idle_seconds, auto_decompress=False)


class _Refusal(asyncio.Protocol):
    """A connection above the limit, which is closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Connection(RequestHandler):
    """A connection of a client. aiohttp would log what a malformed request holds, and each client that leaves."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is no HTTP, or whose answer could not be sent."""
        if isinstance(exc, ConnectionError):
            raise exc
        if status == ErrorCode.INTERNAL_ERROR.http_status:
            log.error("http_answer_failed", exc_info=exc)
            error = AppError(ErrorCode.INTERNAL_ERROR, FAILED)
        else:
            error = AppError(ErrorCode.INVALID_INPUT, "This is not a valid HTTP request.")
        answer = error_answer(request, error, status)
        answer.force_close()
        return answer
