"""Connections of clients: limited in number, closed while idle, and answered in our form if a request is malformed."""

import asyncio

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from trainer.contracts.errors import AppError, ErrorCode
from trainer.http.error_answers import error_answer

_MAX_URL_BYTES = 8000
"""Below the limit of a header, so that a long URL is not taken for a long header."""


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
        return _Connection(
            server,
            loop=loop,
            keepalive_timeout=self._idle_seconds,
            lingering_time=self._idle_seconds,
            max_line_size=_MAX_URL_BYTES,
            auto_decompress=False,  # a compressed body could be far larger than it looks
        )


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
        """Answer a request that is not HTTP; other errors end the connection."""
        if exc is not None and not isinstance(exc, HttpProcessingError):
            raise exc
        if _has_long_address(exc):
            message = f"The address has more than {_MAX_URL_BYTES:,} bytes. Send a shorter one."
            refused = AppError(ErrorCode.URI_TOO_LONG, message)
        else:
            refused = AppError(ErrorCode.BAD_REQUEST, "This is not a valid HTTP request.")
        answer = error_answer(request, refused)
        answer.force_close()
        return answer


def _has_long_address(error: BaseException | None) -> bool:
    """Return True for a line above the limit of addresses; that of headers is another."""
    if not isinstance(error, LineTooLong):
        return False
    line_and_limit: tuple[object, ...] = error.args
    return _MAX_URL_BYTES in line_and_limit
