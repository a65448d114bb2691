"""The connections of the HTTP server: fewer than there are file descriptors for, whatever clients do."""

import asyncio
import os
from contextlib import suppress
from os import strerror
from socket import socket
from time import monotonic

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from trainer.contracts.errors import AppError, ErrorCode
from trainer.http.error_answers import error_answer

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_MAX_URL_BYTES = 8000
"""Below the limit of a header, so that a long URL is not taken for a long header."""
_WAITING = 512
"""Connections that wait in the kernel until they are accepted."""
_BUSY_SECONDS, _PAUSE_SECONDS, _LOG_SECONDS = 0.05, 1.0, 60.0


class Connections:
    """Accepts connections while there are fewer than `most`: a new one takes the place of an idle one, if there is one.

    asyncio's own server accepts hundreds before their protocols can refuse them, and logs each one that finds no free
    file descriptor.
    """

    def __init__(self, runner: web.AppRunner, most: int, idle_seconds: float) -> None:
        self._runner = runner
        self._most = most
        self._idle_seconds = idle_seconds
        """The time to send the complete header of a request."""
        self._sockets: list[socket] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._logged_at = -_LOG_SECONDS

    async def listen(self, host: str, port: int) -> int:
        """Listen, and return the port."""
        loop = asyncio.get_running_loop()
        bound = await loop.create_server(asyncio.Protocol, host, port, backlog=_WAITING, start_serving=False)
        self._sockets = [socket(fileno=os.dup(one.fileno())) for one in bound.sockets]
        bound.close()
        for one in self._sockets:
            one.setblocking(False)
            one.listen(_WAITING)
            self._accept_from(one)
        name: tuple[str, int] = self._sockets[0].getsockname()
        return name[1]

    def stop(self) -> None:
        """Stop listening."""
        for one in self._sockets:
            asyncio.get_running_loop().remove_reader(one)
            one.close()
        self._sockets = []

    def _accept_from(self, listening: socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket) -> None:
        if not self._makes_place_for_one():
            self._pause(listening, _BUSY_SECONDS)  # each connection has a request, whose end makes place
            return
        try:
            with suppress(BlockingIOError, ConnectionError):  # the client has left
                accepted, _ = listening.accept()
                task = asyncio.create_task(self._start(accepted))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
        except OSError as error:  # there is no file descriptor or no memory
            self._log_full(error)
            self._make_place()
            self._pause(listening, _PAUSE_SECONDS)

    def _pause(self, listening: socket, seconds: float) -> None:
        """Leave new connections in the kernel for some time."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        loop.call_later(seconds, self._accept_from, listening)

    async def _start(self, accepted: socket) -> None:
        with suppress(OSError):  # the client has left
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, accepted)

    def _makes_place_for_one(self) -> bool:
        is_full = len(self._starting) + len(self._open()) >= self._most
        if is_full:
            self._log_full(None)
        return not is_full or self._make_place()

    def _open(self) -> list[RequestHandler]:
        server = self._runner.server
        return [] if server is None else server.connections

    def _make_place(self) -> bool:
        """Close the oldest connection without a request; return False if all have one."""
        idle = next((one for one in self._open() if isinstance(one, _Connection) and one.is_idle), None)
        if idle is not None:
            idle.force_close()
        return idle is not None

    def _log_full(self, error: OSError | None) -> None:
        """Log once a minute that connections are closed, or wait, for others."""
        if monotonic() > self._logged_at + _LOG_SECONDS:
            self._logged_at = monotonic()
            reason = "too many connections" if error is None else strerror(error.errno or 0)
            log.warning("http_connections_full", connections=self._most, reason=reason)

    def _protocol(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        return asyncio.Protocol() if server is None else self._connection(server)

    def _connection(self, server: web.Server) -> "_Connection":
        return _Connection(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._idle_seconds,
            lingering_time=self._idle_seconds,
            max_line_size=_MAX_URL_BYTES,
            auto_decompress=False,  # a compressed body could be far larger than it looks
        )


class _Connection(RequestHandler):
    """A connection of a client. aiohttp would log what a malformed request holds, and each client that leaves."""

    __slots__ = ()

    @property
    def is_idle(self) -> bool:
        """True while no complete header of a request has arrived after the last answer."""
        return self._waiter is not None and not self._waiter.done() and not self._force_close

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
