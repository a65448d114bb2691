"""The gateway: sessions that receive events over a websocket and can resume after a drop."""

import asyncio
import secrets
import zlib
from contextlib import suppress
from typing import Literal

from aiohttp import web
from pydantic import JsonValue

from local_discord.state import Guild, World
from local_discord.wire import Json, copy, decode, encode, mapping, number, text

GUILDS = 1 << 0
HEARTBEAT_MS = 41_250

Drop = Literal["abort", "reconnect", "invalidate"]


class GatewayConnection:
    """One websocket; frames leave in order through a queue, so that sending never waits."""

    def __init__(self, socket: web.WebSocketResponse, *, compressed: bool) -> None:
        self._socket = socket
        self._zlib = zlib.compressobj() if compressed else None
        self._frames: asyncio.Queue[Json | int] = asyncio.Queue()
        self.is_open = True

    def send(self, op: int, data: Json | bool | None, *, event: str | None = None, sequence: int | None = None) -> None:
        self._frames.put_nowait({"op": op, "d": data, "s": sequence, "t": event})

    def close(self, code: int) -> None:
        """Close with `code` after the queued frames."""
        self.is_open = False
        self._frames.put_nowait(code)

    async def write(self) -> None:
        """Send queued frames until the connection closes; the session stores events for replay."""
        with suppress(ConnectionError):
            while not isinstance(frame := await self._frames.get(), int):
                data = encode(frame)
                if self._zlib is None:
                    await self._socket.send_str(data.decode())
                else:
                    # zlib-stream: one context per connection, each message ends in a sync flush.
                    await self._socket.send_bytes(self._zlib.compress(data) + self._zlib.flush(zlib.Z_SYNC_FLUSH))
            await self._socket.close(code=frame)


class Session:
    """A session from its IDENTIFY on: its intents, and all events for replay."""

    def __init__(self, intents: int) -> None:
        self.id = secrets.token_hex(16)
        self.intents = intents
        self.events: list[tuple[str, Json]] = []
        self.connection: GatewayConnection | None = None

    def dispatch(self, event: str, data: Json) -> None:
        self.events.append((event, copy(data)))
        if self.connection is not None:
            self.connection.send(0, data, event=event, sequence=len(self.events))

    def replay(self, after: int) -> None:
        if self.connection is not None:
            for index, (event, data) in enumerate(self.events[after:]):
                self.connection.send(0, data, event=event, sequence=after + index + 1)


class Gateway:
    """Accepts connections and hands events to every session."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sessions: dict[str, Session] = {}
        self._connections: dict[GatewayConnection, web.Request] = {}
        self.url = ""

    @property
    def is_connected(self) -> bool:
        return any(session.connection is not None for session in self._sessions.values())

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one websocket. Unknown compressions are answered in plain text frames."""
        socket: web.WebSocketResponse = web.WebSocketResponse(max_msg_size=0, timeout=1.0)
        await socket.prepare(request)
        connection = GatewayConnection(socket, compressed=request.query.get("compress") == "zlib-stream")
        writer = asyncio.create_task(connection.write())
        self._connections[connection] = request
        connection.send(10, {"heartbeat_interval": HEARTBEAT_MS, "_trace": []})
        try:
            while connection.is_open:
                frame = mapping(decode(await socket.receive_str()))
                self._receive(connection, number(frame.get("op"), -1), frame)
        except TypeError:
            pass  # raised by aiohttp after the client has closed
        finally:
            del self._connections[connection]
            self._detach(connection, ended=socket.close_code in (1000, 1001))
            if connection.is_open:
                writer.cancel()
            await asyncio.wait([writer], timeout=2.0)
        return socket

    def dispatch(self, event: str, data: Json, *, intents: int = 0) -> None:
        """Send an event to the sessions with any of `intents` (0: to all)."""
        for session in self._sessions.values():
            if not intents or session.intents & intents:
                session.dispatch(event, data)

    def introduce(self, guild: Guild) -> None:
        """Announce a guild to the sessions."""
        channels: list[JsonValue] = [channel.payload() for channel in guild.channels]
        more: Json = {
            **{"joined_at": guild.joined_at, "large": False, "unavailable": False, "threads": [], "presences": []},
            **{"member_count": len(guild.members), "channels": channels, "voice_states": []},
            **{"members": [guild.member_payload(self._world.bot)], "stage_instances": [], "soundboard_sounds": []},
            "guild_scheduled_events": [],
        }
        self.dispatch("GUILD_CREATE", {**guild.payload(), **more}, intents=GUILDS)

    def drop(self, how: Drop | int) -> None:
        """Break every connection: `abort` the TCP stream, ask to `reconnect`, `invalidate` the session, or close
        with a code. All but `invalidate` leave the session resumable."""
        for connection, request in list(self._connections.items()):
            self._detach(connection, ended=False)
            if how == "abort":
                if request.transport is not None:
                    request.transport.abort()
            elif how == "reconnect":
                connection.send(7, None)
            elif how == "invalidate":
                self._sessions.clear()
                connection.send(9, False)
            else:
                connection.close(how)

    def close(self) -> None:
        for connection in list(self._connections):
            connection.close(1001)

    def _receive(self, connection: GatewayConnection, op: int, frame: Json) -> None:
        data = mapping(frame.get("d"))
        if op == 1:
            connection.send(11, None)
        elif op in (2, 6) and text(data.get("token")).removeprefix("Bot ") != self._world.token:
            connection.close(4004)
        elif op == 2:
            self._identify(connection, data)
        elif op == 6:
            self._resume(connection, data)
        elif op not in (3, 4):
            self._world.violate("gateway", f"op {op}", "local_discord does not know this opcode.")
            connection.close(4001)

    def _identify(self, connection: GatewayConnection, data: Json) -> None:
        if not isinstance(data.get("intents"), int) or not mapping(data.get("properties")):
            self._world.violate("gateway", "IDENTIFY", "intents and properties are required.")
            connection.close(4002)
            return
        session = Session(number(data["intents"]))
        session.connection = connection
        self._sessions[session.id] = session
        bot = self._world.bot.payload()
        self._world.check("UserResponse", bot)
        guilds = [guild for guild in self._world.guilds.values() if guild.bot_present]
        ready: Json = {
            **{"v": 10, "user": bot, "session_id": session.id, "resume_gateway_url": self.url, "shard": [0, 1]},
            **{"guilds": [{"id": str(guild.id), "unavailable": True} for guild in guilds], "private_channels": []},
            "application": {"id": str(self._world.application_id), "flags": 0},
        }
        session.dispatch("READY", ready)
        for guild in guilds:
            self.introduce(guild)
        self._world.changes.notify()

    def _resume(self, connection: GatewayConnection, data: Json) -> None:
        session = self._sessions.get(text(data.get("session_id")))
        if session is None:
            connection.send(9, False)
            return
        session.connection = connection
        session.replay(number(data.get("seq")))
        session.dispatch("RESUMED", {"_trace": []})
        self._world.changes.notify()

    def _detach(self, connection: GatewayConnection, *, ended: bool) -> None:
        """Remove a connection; a session that its client closed (1000, 1001) cannot be resumed."""
        for session in [found for found in self._sessions.values() if found.connection is connection]:
            session.connection = None
            if ended:
                del self._sessions[session.id]
        self._world.changes.notify()
