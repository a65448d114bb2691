"""A way to a server that can be cut: refused, reset, or silent without a word."""

import asyncio
import contextlib
import secrets
import socket
import ssl
import struct
from typing import Literal

Fault = Literal["refused", "reset", "silent"]
_LINGER = struct.pack("ii", 1, 0)  # closing sends a reset


class FaultyProxy:
    """Passes bytes on between its own port, with TLS if it is given, and a server's, as long as nothing is wrong."""

    def __init__(self, server_port: int, tls: ssl.SSLContext | None = None) -> None:
        self._server_port = server_port
        self._tls = tls
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._resets = False
        self._listener: asyncio.Server | None = None
        self.port = free_port()

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._reset_all()

    async def break_for(self, fault: Fault, seconds: float) -> None:
        """Be faulty for some seconds."""
        match fault:
            case "refused":
                await self.stop()
            case "reset":
                self._resets = True
                self._reset_all()
            case "silent":
                self._passing.clear()
        await asyncio.sleep(seconds)
        self._resets = False
        self._passing.set()
        if fault == "refused":
            await self.start()

    def _reset_all(self) -> None:
        for writer in self._writers:
            _reset(writer)
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._resets:
            _reset(writer)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except ConnectionError:  # the server itself is away
            _reset(writer)
            return
        self._writers |= {writer, server_writer}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pass_on(reader, server_writer), self._pass_on(server_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._passing.wait()
            writer.write(data)
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    if writer.is_closing():
        writer.transport.abort()
        return
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() != -1:  # it may have ended by itself
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    writer.transport.abort()


def free_port() -> int:
    """A port below those that the system gives out, so that nobody gets it while its server is away for a moment."""
    while True:
        port = secrets.randbelow(12_000) + 20_000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
