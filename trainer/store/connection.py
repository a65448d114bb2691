"""Typed connection to Redis with its basic commands."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import structlog
from arq.connections import ArqRedis
from pydantic import BaseModel, TypeAdapter
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection as TcpConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from trainer.contracts.errors import AppError, ErrorCode
from trainer.store import keys
from trainer.store.address import parse_address
from trainer.store.refusals import log_outage, refusal

CONNECTION_ERRORS = (RedisConnectionError, RedisTimeoutError, InvalidResponse, OSError)
"""Errors of a command if no server answers, or another program answers in its place."""
STORE_ERRORS = (*CONNECTION_ERRORS, ResponseError)
"""Errors of a command if Redis is unavailable or refuses it: no memory, no disk space, no permission, wrong type."""

RETRIES = 5
LIMIT_SECONDS = 5.0
"""Time for the Redis commands of one request while Redis is down; the reconciler repeats what has to be repeated."""
_CONNECT_TIMEOUT_SECONDS = 1.0
_RESPONSE_TIMEOUT_SECONDS = 10.0  # longer than any command blocks, which is 5 s at most

Entries = list[tuple[bytes, dict[bytes, bytes] | None]]
entries_adapter: TypeAdapter[Entries] = TypeAdapter(Entries)
_streams_adapter: TypeAdapter[list[tuple[bytes, Entries]]] = TypeAdapter(list[tuple[bytes, Entries]])
_job_adapter = TypeAdapter(dict[str, object])
T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


@asynccontextmanager
async def require_redis() -> AsyncIterator[None]:
    """Limit the time of Redis commands, and raise SERVICE_UNAVAILABLE with the reason in place of an error of Redis."""
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            yield
    except STORE_ERRORS as error:
        reason = refusal(error) or "Redis is unavailable; try again in a minute."
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, reason) from error


@asynccontextmanager
async def tolerate_no_redis(event: str, *, seconds: float | None = None, **names: str) -> AsyncIterator[None]:
    """Limit the time of Redis commands, and log an error of Redis as `event` instead of raising it."""
    try:
        async with asyncio.timeout(LIMIT_SECONDS if seconds is None else seconds):
            yield
    except STORE_ERRORS as error:
        log.warning(event, error=type(error).__name__, reason=refusal(error), **names)


@asynccontextmanager
async def tolerate_outage(*, seconds: float | None = None) -> AsyncIterator[None]:
    """Let a loop that repeats its Redis commands continue after an error of Redis, which is logged once a minute."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except STORE_ERRORS as error:
        log_outage(error)


async def value_or(fallback: T, commands: Awaitable[T], *, seconds: float | None = None) -> T:
    """Return the value of Redis commands, or the fallback if Redis does not give it in time."""
    try:
        async with asyncio.timeout(LIMIT_SECONDS if seconds is None else seconds):
            return await commands
    except STORE_ERRORS:
        return fallback


class Script(Protocol):
    def __call__(self, *, keys: Sequence[str], args: Sequence[str | int]) -> Awaitable[object]: ...


class _Connection(AbstractConnection):
    """A connection whose commands can be cancelled, and whose end raises no error."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Send a command, in place of redis-py's way by `asyncio.wait_for`.

        That loses a cancellation that arrives at its end before Python 3.12. A task that reads a stream in a loop would
        then never stop.
        """
        limit_seconds, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(limit_seconds):
                await super().send_packed_command(command, check_health)
        finally:
            self.socket_timeout = limit_seconds

    async def disconnect(self, nowait: bool = False) -> None:
        """Close the connection; a server that does not confirm its end changes nothing in the commands before."""
        try:
            await super().disconnect(nowait)
        except CONNECTION_ERRORS as error:
            log.debug("redis_end_unconfirmed", error=type(error).__name__)


class _OwnTcp(_Connection, TcpConnection): ...


class _OwnTls(_Connection, SSLConnection): ...


class _OwnUnix(_Connection, UnixDomainSocketConnection): ...


_TCP: type[AbstractConnection] = _OwnTcp
_TLS: type[AbstractConnection] = _OwnTls
_UNIX: type[AbstractConnection] = _OwnUnix
_OWN = (_TCP, _TLS, _UNIX)  # TLS is a kind of TCP, too


def dumps(value: object) -> bytes:
    """Serialize a job as JSON, not as a pickle; values without a JSON form become the name of their type."""
    return json.dumps(value, default=_type_name).encode()


def _type_name(value: object) -> str:
    return type(value).__name__


def loads(data: bytes) -> dict[str, object]:
    """Parse a job; raises ValueError for anything but a JSON object."""
    return _job_adapter.validate_json(data)


def open_redis(url: str, *, retries: int = RETRIES) -> ArqRedis:
    """Return a pool of connections, none of them open yet, that reconnects after a restart of the server.

    Unlike arq's own pool it has a response timeout. A command is repeated `retries` times while Redis is unavailable:
    5 retries take 1.7 seconds, 3 take 0.7. Raises CONFIG_INVALID for an address that cannot be used.
    """
    address = parse_address(url)
    retried: list[type[Exception]] = [*CONNECTION_ERRORS]
    redis = ArqRedis(
        job_serializer=dumps,
        job_deserializer=loads,
        host=address.host,
        port=address.port,
        unix_socket_path=address.path,
        db=address.db,
        username=address.username,
        password=None if address.password is None else address.password.get_secret_value(),
        ssl=address.is_tls,
        ssl_ca_certs=address.ssl_ca_certs,
        ssl_certfile=address.ssl_certfile,
        ssl_keyfile=address.ssl_keyfile or address.ssl_certfile,
        ssl_cert_reqs=address.ssl_cert_reqs,
        ssl_check_hostname=address.checks_hostname,
        socket_connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        socket_timeout=_RESPONSE_TIMEOUT_SECONDS,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries),
        retry_on_error=retried,
    )
    pool = redis.connection_pool
    pool.connection_class = next(own for own in _OWN if issubclass(own, pool.connection_class))
    return redis


class Durability(BaseModel):
    """Settings of a server that decide whether it can lose data."""

    aof_enabled: bool
    maxmemory_policy: str
    appendfsync: str | None = None
    """None if the server does not report it."""

    def troubles(self) -> list[str]:
        """List what the server can lose, each as the end of a sentence whose subject is the server."""
        troubles = [] if self.aof_enabled else ["it keeps nothing over a restart (`appendonly yes` would)"]
        if self.maxmemory_policy != "noeviction":
            policy = self.maxmemory_policy
            troubles.append(f"it may drop queued jobs (`maxmemory-policy` is {policy}, not noeviction)")
        return troubles


class LogState(BaseModel):
    """State of a server's append-only file (AOF)."""

    aof_enabled: bool
    aof_rewrite_in_progress: bool
    aof_last_rewrite_time_sec: int
    """-1 before the first rewrite."""
    expired_keys: int
    """Number of keys that expired since the server's start."""


def read_streams(reply: object) -> list[tuple[bytes, Entries]]:
    """Return the names and entries of the streams in a reply."""
    return [] if reply is None else _streams_adapter.validate_python(reply)


class Connection:
    """A connected Redis."""

    def __init__(self, redis: ArqRedis) -> None:
        self.redis = redis

    async def close(self) -> None:
        await self.redis.aclose()

    async def is_cluster(self) -> bool:
        """Return whether the server is a node of a Redis Cluster; False if it does not report it."""
        try:
            about: Awaitable[dict[str, object]] = self.redis.info("cluster")
            return (await about).get("cluster_enabled") == 1
        except ResponseError:
            return False

    async def durability(self) -> Durability:
        """Return the server's durability settings; raises ResponseError if the server does not report them."""
        about: Awaitable[dict[str, object]] = self.redis.info()
        info = await about
        try:
            configured: Awaitable[dict[str, str]] = self.redis.config_get("appendfsync")
            info |= await configured
        except ResponseError:  # many hosted servers do not allow CONFIG
            pass
        return Durability.model_validate(info)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Pipeline]:
        """Collect commands, and execute them together at the end of the block."""
        async with self.redis.pipeline(transaction=True) as pipe:
            yield pipe
            executed: Awaitable[object] = pipe.execute()
            await executed

    async def get(self, key: str) -> bytes | None:
        reply: Awaitable[bytes | None] = self.redis.get(key)
        return await reply

    async def get_all(self, *names: str) -> list[bytes | None]:
        """Return the values of keys, in one round trip."""
        reply: Awaitable[list[bytes | None]] = self.redis.mget(names)
        return await reply

    async def put(self, key: str, value: str | bytes, *, ttl_seconds: float) -> None:
        reply: Awaitable[object] = self.redis.set(key, value, px=int(ttl_seconds * 1000))
        await reply

    async def put_new(self, key: str, value: str | bytes, *, ttl_seconds: float) -> bool:
        """Store a value unless the key exists; return False if it does."""
        reply: Awaitable[bytes | None] = self.redis.set(key, value, px=int(ttl_seconds * 1000), nx=True)
        return await reply is not None

    async def exists(self, key: str) -> bool:
        reply: Awaitable[int] = self.redis.exists(key)
        return bool(await reply)

    async def delete(self, *names: str) -> None:
        """Delete keys that may hold texts; `drop_expired` removes the texts from the server's file, too."""
        async with self.transaction() as pipe:
            pipe.delete(*names)
            pipe.set(keys.DELETED, 1, px=1)

    async def drop_expired(self, last: LogState | None) -> LogState | None:
        """Rewrite the server's append-only file if keys have expired since the given state; return the new state.

        The file contains deleted values until it is rewritten. Raises ResponseError if the server forbids a rewrite.
        """
        about: Awaitable[dict[str, object]] = self.redis.info()
        state = LogState.model_validate(await about)
        if state.aof_rewrite_in_progress:
            return last
        if state.aof_enabled and (last is None or last.expired_keys != state.expired_keys):
            rewrite: Callable[[], Awaitable[object]] = self.redis.bgrewriteaof
            await rewrite()
        return state
