"""The gateway: sessions that receive events over a websocket and can resume after a drop."""

import asyncio
import secrets
from contextlib import suppress
from typing import Literal

from aiohttp import web

from local_discord.state import World
from local_discord.wire import Json, decode, encode, mapping, number, text

HEARTBEAT_MS = 41_250

Drop = Literal["abort", "reconnect", "invalidate"]


class GatewayConnection:
    """One websocket; frames leave in order through a queue, so that sending never waits."""

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self._frames: asyncio.Queue[str | int] = asyncio.Queue()
        self.is_open = True

    def send(self, frame: str) -> None:
        self._frames.put_nowait(frame)

    def close(self, code: int) -> None:
        """Close with `code` after the queued frames."""
        self.is_open = False
        self._frames.put_nowait(code)

    async def write(self, socket: web.WebSocketResponse) -> None:
        """Send queued frames until the connection closes; the session stores events for replay."""
        with suppress(ConnectionError):
            while isinstance(frame := await self._frames.get(), str):
                await socket.send_str(frame)
            await socket.close(code=frame)


class Session:
    """A session from its IDENTIFY on, with all its events for replay."""

    def __init__(self, connection: GatewayConnection) -> None:
        self.id = secrets.token_hex(16)
        self.connection: GatewayConnection | None = connection
        self.events: list[str] = []

    def dispatch(self, event: str, data: Json) -> None:
        self.events.append(_frame(0, data, event, len(self.events) + 1))
        if self.connection is not None:
            self.connection.send(self.events[-1])


class Gateway:
    """Accepts connections and hands events to every session."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sessions: dict[str, Session] = {}
        self._connections: set[GatewayConnection] = set()

    @property
    def is_connected(self) -> bool:
        return any(session.connection is not None for session in self._sessions.values())

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one websocket, in plain text frames also for a client that can decompress."""
        socket: web.WebSocketResponse = web.WebSocketResponse(max_msg_size=0, timeout=1.0)
        await socket.prepare(request)
        connection = GatewayConnection(request)
        writer = asyncio.create_task(connection.write(socket))
        self._connections.add(connection)
        connection.send(_frame(10, {"heartbeat_interval": HEARTBEAT_MS, "_trace": []}))
        try:
            while connection.is_open:
                frame = mapping(decode(await socket.receive_str()))
                self._receive(connection, number(frame.get("op"), -1), mapping(frame.get("d")))
        except TypeError:
            pass  # raised by aiohttp after the client has closed
        finally:
            self._connections.remove(connection)
            self._detach(connection, ended=socket.close_code in (1000, 1001))
            if connection.is_open:
                writer.cancel()
            await asyncio.wait([writer], timeout=2.0)
        return socket

    def dispatch(self, event: str, data: Json) -> None:
        """Send an event to all sessions."""
        for session in self._sessions.values():
            session.dispatch(event, data)

    def drop(self, how: Drop | int) -> None:
        """Break every connection: `abort` the TCP stream, ask to `reconnect`, `invalidate` the session, or close
        with a code. All but `invalidate` leave the session resumable."""
        for connection in list(self._connections):
            self._detach(connection, ended=False)
            if how == "abort":
                if connection.request.transport is not None:
                    connection.request.transport.abort()
            elif how == "reconnect":
                connection.send(_frame(7, None))
            elif how == "invalidate":
                self._sessions.clear()
                connection.send(_frame(9, False))
            else:
                connection.close(how)

    def close(self) -> None:
        for connection in self._connections:
            connection.close(1001)

    def _receive(self, connection: GatewayConnection, op: int, data: Json) -> None:
        if op == 1:
            connection.send(_frame(11, None))
        elif op in (2, 6) and text(data.get("token")).removeprefix("Bot ") != self._world.token:
            connection.close(4004)
        elif op == 2:
            self._identify(connection)
        elif op == 6:
            self._resume(connection, data)

    def _identify(self, connection: GatewayConnection) -> None:
        session = Session(connection)
        self._sessions[session.id] = session
        bot = self._world.bot.payload()
        self._world.check("UserResponse", bot)
        guilds = [guild for guild in self._world.guilds.values() if guild.bot_present]
        ready: Json = {
            **{"v": 10, "user": bot, "session_id": session.id, "resume_gateway_url": self._world.gateway_url},
            **{"guilds": [{"id": str(guild.id), "unavailable": True} for guild in guilds], "private_channels": []},
            **{"shard": [0, 1], "application": {"id": str(self._world.application_id), "flags": 0}},
        }
        session.dispatch("READY", ready)
        for guild in guilds:
            session.dispatch("GUILD_CREATE", guild.created_payload(self._world.bot))
        self._world.changes.notify()

    def _resume(self, connection: GatewayConnection, data: Json) -> None:
        session = self._sessions.get(text(data.get("session_id")))
        if session is None:
            connection.send(_frame(9, False))
            return
        session.connection = connection
        for frame in session.events[number(data.get("seq")) :]:
            connection.send(frame)
        session.dispatch("RESUMED", {"_trace": []})
        self._world.changes.notify()

    def _detach(self, connection: GatewayConnection, *, ended: bool) -> None:
        """Remove a connection; a session that its client closed (1000, 1001) cannot be resumed."""
        for session in [found for found in self._sessions.values() if found.connection is connection]:
            session.connection = None
            if ended:
                del self._sessions[session.id]
        self._world.changes.notify()


def _frame(op: int, data: Json | bool | None, event: str | None = None, sequence: int | None = None) -> str:
    return encode({"op": op, "d": data, "s": sequence, "t": event}).decode()
