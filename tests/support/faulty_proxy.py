"""A way to a server that can be cut: refused, reset, or silent without a word."""

import asyncio
import contextlib
import secrets
import select
import socket
import ssl
import struct
from collections.abc import Iterator
from threading import Event, Thread
from typing import Literal

Fault = Literal["refused", "reset", "silent"]
_POLL_SECONDS = 0.1
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


class HalfOpenProxy:
    """Passes bytes on between a port with TLS and a server's, and answers everything but the end of a connection."""

    def __init__(self, server_port: int, tls: ssl.SSLContext) -> None:
        self._server_port = server_port
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        address: tuple[str, int] = self._listener.getsockname()
        self.port = address[1]
        self.ends = 0
        """Connections that their clients have begun to close."""
        self._stopping = Event()
        self._threads = [Thread(target=self._accept)]

    def __enter__(self) -> "HalfOpenProxy":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with self._listener:
            while not self._stopping.is_set():
                if select.select([self._listener], [], [], _POLL_SECONDS)[0]:
                    thread = Thread(target=self._serve, args=(self._listener.accept()[0],))
                    self._threads.append(thread)
                    thread.start()

    def _serve(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError), self._tls.wrap_socket(accepted, server_side=True) as client:
            with socket.create_connection(("127.0.0.1", self._server_port)) as server:
                for data in self._read(client, server):
                    server.sendall(data)
                self.ends += 1
                self._stopping.wait()

    def _read(self, client: ssl.SSLSocket, server: socket.socket) -> Iterator[bytes]:
        """Yield what the client sends, and pass on what the server answers, until the client closes."""
        while not self._stopping.is_set():
            readable = select.select([client, server], [], [], 0 if client.pending() else _POLL_SECONDS)[0]
            if server in readable:
                client.sendall(server.recv(1 << 16))
            if client in readable or client.pending():
                data = client.recv(1 << 16)
                if not data:
                    return
                yield data


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
