"""Connections of clients: limited in number, and closed if no complete request arrives."""

import asyncio

from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

_FIRST_REQUEST_SECONDS = 20.0


class _Refusal(asyncio.Protocol):
    """A connection above the limit, which is closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Connections:
    """Makes the protocol of each new connection."""

    def __init__(self, server: Server, max_connections: int) -> None:
        self._server = server
        self._max_connections = max_connections
        self._silent: dict[RequestHandler, asyncio.TimerHandle] = {}
        """Connections without a request so far, with the timer that closes them."""

    def __call__(self) -> asyncio.BaseProtocol:
        if len(self._server.connections) >= self._max_connections:
            return _Refusal()
        handler = self._server()
        timer = asyncio.get_running_loop().call_later(_FIRST_REQUEST_SECONDS, self._close, handler)
        self._silent[handler] = timer
        return handler

    def request_arrived(self, handler: RequestHandler) -> None:
        """Keep a connection that has sent a complete header; aiohttp closes it when it is idle."""
        timer = self._silent.pop(handler, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        for timer in self._silent.values():
            timer.cancel()

    def _close(self, handler: RequestHandler) -> None:
        del self._silent[handler]
        handler.force_close()
