"""The few Redis commands that the program uses, typed: redis-py leaves their replies open."""

import json
from collections.abc import Awaitable, Callable, Sequence

from arq.connections import ArqRedis, RedisSettings, create_pool
from pydantic import TypeAdapter
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError, WatchError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.typing import EncodableT, FieldT

from trainer.contracts import keys
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import Event
from trainer.contracts.jobs import JobPayload

STORE_ERRORS = (RedisConnectionError, RedisTimeoutError, OSError)
"""What a command raises while the server is away."""

_EVENT_STREAM_LENGTH = 10_000
_RUN_STREAM_LENGTH = 2_000
_JOB_EXPIRY_MS = 10 * 365 * 24 * 3600 * 1000  # arq drops jobs that waited longer: never

_Entries = list[tuple[bytes, dict[bytes, bytes] | None]]
_entries_adapter: TypeAdapter[_Entries] = TypeAdapter(_Entries)
_streams_adapter: TypeAdapter[list[tuple[bytes, _Entries]]] = TypeAdapter(list[tuple[bytes, _Entries]])


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
    settings.conn_retries = 0  # the connection itself tries again
    settings.retry = Retry(ExponentialBackoff(cap=1.0, base=0.05), 6)
    settings.retry_on_error = [*STORE_ERRORS]
    return settings


async def connect(url: str) -> "Store":
    """Open a pool of connections; raises SERVICE_UNAVAILABLE where no server answers."""
    try:
        redis = await create_pool(
            redis_settings(url), job_serializer=dumps, job_deserializer=loads, expires_extra_ms=_JOB_EXPIRY_MS
        )
    except STORE_ERRORS:
        raise AppError(
            ErrorCode.SERVICE_UNAVAILABLE, "No Redis answers at `REDIS__URL`: start it, or leave the setting empty."
        ) from None
    return Store(redis)


def _streams(reply: object) -> list[tuple[bytes, _Entries]]:
    return [] if reply is None else _streams_adapter.validate_python(reply)


class Store:
    """A connected Redis."""

    def __init__(self, redis: ArqRedis) -> None:
        self.redis = redis

    async def close(self) -> None:
        await self.redis.aclose()

    async def get(self, key: str) -> bytes | None:
        reply: Awaitable[bytes | None] = self.redis.get(key)
        return await reply

    async def put(self, key: str, value: str | bytes, *, ttl_seconds: float) -> None:
        reply: Awaitable[object] = self.redis.set(key, value, px=int(ttl_seconds * 1000))
        await reply

    async def enqueue(self, queue: str, function: str, job_id: str, payload: JobPayload) -> None:
        """Queue a job by id, unless it is there already, and ring the workers' bell."""
        fields: dict[str, str] = payload.model_dump()
        await self.redis.enqueue_job(function, fields, _job_id=job_id, _queue_name=queue)
        rung: Awaitable[object] = self.redis.xadd(keys.JOB_BELL, {"queue": queue}, maxlen=100)
        await rung

    async def dequeue(self, queue: str, job_id: str) -> None:
        """Forget a job that has not started."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.zrem(queue, job_id)
            pipe.delete(f"arq:job:{job_id}", f"arq:retry:{job_id}")
            executed: Awaitable[object] = pipe.execute()
            await executed

    async def is_queued(self, job_id: str) -> bool:
        """Whether a job is waiting or in progress."""
        return await self.get(f"arq:job:{job_id}") is not None

    async def queue_position(self, queue: str, job_id: str) -> int | None:
        """1 for the job that is next (or running); None for one that is not in the queue."""
        reply: Awaitable[int | None] = self.redis.zrank(queue, job_id)
        rank = await reply
        return None if rank is None else rank + 1

    async def renew_lease(self, job_id: str, run_id: str, holder: str, *, seconds: float, heartbeat: float) -> None:
        """Keep a job in progress for a little longer, and its definition and tries for ever (R3)."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.pexpire(f"arq:in-progress:{job_id}", int(seconds * 1000))
            pipe.pexpire(f"arq:job:{job_id}", _JOB_EXPIRY_MS)
            pipe.delete(f"arq:retry:{job_id}")
            pipe.set(keys.run_lease(run_id), holder, px=int(seconds * 1000))
            pipe.set(keys.run_heartbeat(run_id), f"{heartbeat:.3f}", px=int(seconds * 1000))
            executed: Awaitable[object] = pipe.execute()
            await executed

    async def tell(self, run_id: str, events: Sequence[Event]) -> None:
        """Put those of a run's events that have not been told on its own stream and on the common one (R7).

        The ids of a run's stream are the sequence numbers, so it knows what has been told; whoever tells watches it,
        so of several who do at once only one tells each event.
        """
        key = keys.run_events(run_id)
        while True:
            async with self.redis.pipeline(transaction=True) as pipe:
                watched: Awaitable[object] = pipe.watch(key)
                await watched
                last: Awaitable[object] = pipe.xrevrange(key, count=1)
                told = [int(entry_id.split(b"-")[0]) for entry_id, _ in _entries_adapter.validate_python(await last)]
                begin: Callable[[], None] = pipe.multi
                begin()
                for event in events:
                    if event.seq > max(told, default=0):
                        body = event.model_dump_json()
                        pipe.xadd(key, {"event": body}, id=f"{event.seq}-0", maxlen=_RUN_STREAM_LENGTH)
                        fields: dict[FieldT, EncodableT] = {"run_id": run_id, "seq": event.seq, "event": body}
                        pipe.xadd(keys.EVENT_STREAM, fields, maxlen=_EVENT_STREAM_LENGTH)
                try:
                    executed: Awaitable[object] = pipe.execute()
                    await executed
                except WatchError:
                    continue
                return

    async def next_rings(self, consumer: str, *, wait_seconds: float) -> list[str]:
        """Wait for events, acknowledge them, and return the ids of their runs."""
        try:
            reply: Awaitable[object] = self.redis.xreadgroup(
                keys.EVENT_GROUP, consumer, {keys.EVENT_STREAM: ">"}, count=100, block=int(wait_seconds * 1000)
            )
            streams = _streams(await reply)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            created: Awaitable[object] = self.redis.xgroup_create(
                keys.EVENT_STREAM, keys.EVENT_GROUP, id="0", mkstream=True
            )
            await created
            return []
        entries = [entry for _, entries in streams for entry in entries]
        if entries:
            acknowledged: Awaitable[object] = self.redis.xack(
                keys.EVENT_STREAM, keys.EVENT_GROUP, *(entry_id for entry_id, _ in entries)
            )
            await acknowledged
        # an entry that was trimmed while it waited has no body: the runs on disk still have it
        return [fields[b"run_id"].decode() for _, fields in entries if fields and b"run_id" in fields]

    async def wait_for_job(self, after: str, *, wait_seconds: float) -> str:
        """Wait until the workers' bell has rung after an entry ('0-0' for the first); return the one to go on from."""
        reply: Awaitable[object] = self.redis.xread({keys.JOB_BELL: after}, block=int(wait_seconds * 1000))
        streams = _streams(await reply)
        return streams[0][1][-1][0].decode() if streams else after
