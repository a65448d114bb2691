"""A connection to Redis, and its plain commands, typed: redis-py leaves their replies open."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypeVar

import structlog
from arq.connections import ArqRedis, RedisSettings
from pydantic import BaseModel, TypeAdapter
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection as TcpConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from trainer.contracts.errors import AppError, ErrorCode
from trainer.store import keys

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

AWAY_ERRORS = (RedisConnectionError, RedisTimeoutError, InvalidResponse, OSError)
"""What a command raises while no server answers, or something else does in its place."""
STORE_ERRORS = (*AWAY_ERRORS, ResponseError)
"""What a command raises while the server is away, or refuses it (its memory or disk is full, a right is missing)."""

Reply = TypeVar("Reply")
Kind = Literal["string", "stream", "zset", "list", ""]

RETRIES = 5
_SILENCE_SECONDS = 10.0  # a server that says nothing for so long is gone; no command blocks for longer than 5 s

Entries = list[tuple[bytes, dict[bytes, bytes] | None]]
entries_adapter: TypeAdapter[Entries] = TypeAdapter(Entries)
_keys_adapter: TypeAdapter[list[bytes]] = TypeAdapter(list[bytes])
_streams_adapter: TypeAdapter[list[tuple[bytes, Entries]]] = TypeAdapter(list[tuple[bytes, Entries]])

_MEND = """
local wrong = {}
for place, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key)['ok']
  if found ~= ARGV[place] and found ~= 'none' then
    redis.call('DEL', key)
    table.insert(wrong, key)
  end
end
return wrong
"""
"""In one go: what somebody else has mended meanwhile, and filled again, is not deleted."""


class Script(Protocol):
    def __call__(self, *, keys: Sequence[str], args: Sequence[str | int]) -> Awaitable[object]: ...


class _Cancellable(AbstractConnection):
    """A connection whose commands end when they are cancelled.

    redis-py waits for what it sends by `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes as
    it ends: whoever reads a stream for ever would never be stopped.
    """

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        limit_seconds, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(limit_seconds):
                await super().send_packed_command(command, check_health)
        finally:
            self.socket_timeout = limit_seconds


class _CancellableTcp(_Cancellable, TcpConnection):
    pass


class _CancellableTls(_Cancellable, SSLConnection):
    pass


class _CancellableUnix(_Cancellable, UnixDomainSocketConnection):
    pass


_TLS: type[AbstractConnection] = SSLConnection
_UNIX: type[AbstractConnection] = UnixDomainSocketConnection
_TCP_CANCELLABLE: type[AbstractConnection] = _CancellableTcp
_TLS_CANCELLABLE: type[AbstractConnection] = _CancellableTls
_UNIX_CANCELLABLE: type[AbstractConnection] = _CancellableUnix
_CANCELLABLE = {_TLS: _TLS_CANCELLABLE, _UNIX: _UNIX_CANCELLABLE}


def dumps(value: object) -> bytes:
    """Write a job as JSON, never as a pickle; what JSON has no form for (an exception) as its type's name."""
    return json.dumps(value, default=_type_name).encode()


def _type_name(value: object) -> str:
    return type(value).__name__


def loads(data: bytes) -> dict[str, object]:
    """Read a job; raises ValueError on whatever is not a JSON object."""
    value: object = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("a job must be a JSON object")
    job: dict[str, object] = value
    return job


def redis_settings(url: str) -> RedisSettings:
    """Connection settings that outlive a restart of the server; raises CONFIG_INVALID for a wrong address."""
    try:
        settings = RedisSettings.from_dsn(url)
    except (RuntimeError, ValueError):
        raise AppError(
            ErrorCode.CONFIG_INVALID, "`REDIS__URL` must look like redis://host:6379/0, rediss://… or unix:///path."
        ) from None
    return settings


def open_redis(url: str, *, retries: int = RETRIES) -> ArqRedis:
    """A pool of connections that outlive a restart of the server, none of them open yet.

    Not arq's own, whose connections wait for ever for a server that falls silent. `retries` is how often a command is
    tried again while the server is away: 5 take 1.7 seconds, 3 take 0.7.
    """
    settings = redis_settings(url)
    retried: list[type[Exception]] = [*AWAY_ERRORS]
    redis = ArqRedis(
        job_serializer=dumps,
        job_deserializer=loads,
        host=settings.host,
        port=settings.port,
        unix_socket_path=settings.unix_socket_path,
        db=settings.database,
        username=settings.username,
        password=settings.password,
        ssl=settings.ssl,
        socket_connect_timeout=settings.conn_timeout,
        socket_timeout=_SILENCE_SECONDS,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries),
        retry_on_error=retried,
    )
    pool = redis.connection_pool
    pool.connection_class = _CANCELLABLE.get(pool.connection_class, _TCP_CANCELLABLE)
    return redis


class Durability(BaseModel):
    """What a server does to keep what it was told."""

    aof_enabled: bool
    maxmemory_policy: str
    appendfsync: str | None = None
    """None where the server does not tell it to us."""

    def troubles(self) -> list[str]:
        """What it could lose, each as the end of a sentence that begins with the server."""
        troubles = [] if self.aof_enabled else ["it keeps nothing over a restart (`appendonly yes` would)"]
        if self.maxmemory_policy != "noeviction":
            policy = self.maxmemory_policy
            troubles.append(f"it may drop what is queued (`maxmemory-policy` is {policy}, not noeviction)")
        return troubles


class LogState(BaseModel):
    """What a server says of the file that it keeps its data in."""

    aof_enabled: bool
    aof_rewrite_in_progress: bool
    aof_last_rewrite_time_sec: int
    """-1: it was not rewritten yet."""
    expired_keys: int
    """How many keys have expired since the server's start."""


def read_streams(reply: object) -> list[tuple[bytes, Entries]]:
    """The names and the entries of the streams that a reply holds."""
    return [] if reply is None else _streams_adapter.validate_python(reply)


class Connection:
    """A connected Redis."""

    def __init__(self, redis: ArqRedis) -> None:
        self.redis = redis

    async def close(self) -> None:
        await self.redis.aclose()

    async def durability(self) -> Durability:
        """What the server does to keep what it was told; raises ResponseError where it does not say."""
        about: Awaitable[dict[str, object]] = self.redis.info()
        info = await about
        try:
            configured: Awaitable[dict[str, str]] = self.redis.config_get("appendfsync")
            info |= await configured
        except ResponseError:  # many a hosted server allows no CONFIG
            pass
        return Durability.model_validate(info)

    async def mend(self, kinds: Mapping[str, Kind]) -> list[str]:
        """Delete those of these keys that hold something else than they should; return them."""
        script: Script = self.redis.register_script(_MEND)
        wrong = [
            key.decode() for key in _keys_adapter.validate_python(await script(keys=[*kinds], args=[*kinds.values()]))
        ]
        if wrong:
            log.error("keys that held something else deleted", names=", ".join(wrong))
        return wrong

    async def _with(self, kinds: Mapping[str, Kind], command: Callable[[], Awaitable[Reply]]) -> Reply:
        """Give a command; where its keys hold something else than they should, mend them and give it once more."""
        try:
            return await command()
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
        await self.mend(kinds)
        return await command()

    async def get(self, key: str) -> bytes | None:
        async def command() -> bytes | None:
            reply: Awaitable[bytes | None] = self.redis.get(key)
            return await reply

        return await self._with({key: "string"}, command)

    async def put(self, key: str, value: str | bytes, *, ttl_seconds: float) -> None:
        reply: Awaitable[object] = self.redis.set(key, value, px=int(ttl_seconds * 1000))
        await reply

    async def has(self, key: str) -> bool:
        reply: Awaitable[int] = self.redis.exists(key)
        return bool(await reply)

    async def forget(self, *names: str) -> None:
        """Delete what may hold a text; `drop_expired` takes it out of the server's file, too."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.delete(*names)
            pipe.set(keys.FORGOTTEN, 1, px=1)
            executed: Awaitable[object] = pipe.execute()
            await executed

    async def drop_expired(self, last: LogState | None) -> LogState | None:
        """Have the server write its file anew if anything has expired since this was returned.

        A server that writes each command to a file (AOF) keeps deleted values there until then. Raises ResponseError
        where it does not let us.
        """
        about: Awaitable[dict[str, object]] = self.redis.info()
        state = LogState.model_validate(await about)
        if state.aof_rewrite_in_progress:
            return last
        if state.aof_enabled and (last is None or last.expired_keys != state.expired_keys):
            rewrite: Callable[[], Awaitable[object]] = self.redis.bgrewriteaof
            await rewrite()
        return state
