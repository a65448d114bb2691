"""The few Redis commands that the program uses, typed: redis-py leaves their replies open."""

import json
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeVar

import structlog
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import serialize_job
from pydantic import BaseModel, TypeAdapter, ValidationError
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, ResponseError, WatchError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.typing import EncodableT, FieldT

from trainer.contracts import keys
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import Event, InferenceEvent, event_adapter
from trainer.contracts.jobs import JobDefinition, JobPayload, job_id_adapter

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_AWAY_ERRORS = (RedisConnectionError, RedisTimeoutError, OSError)
STORE_ERRORS = (*_AWAY_ERRORS, ResponseError)
"""What a command raises while the server is away, or refuses it (its memory or disk is full, a right is missing)."""

Reply = TypeVar("Reply")
_Kind = Literal["string", "stream", "zset", ""]

_EVENT_STREAM_LENGTH = 10_000
_RUN_STREAM_LENGTH = 2_000
_JOB_EXPIRY_MS = 10 * 365 * 24 * 3600 * 1000  # arq drops jobs that waited longer: never
_ANSWER_BELL_MS = 10_000
_RETRIES = 5
_SILENCE_SECONDS = 10.0  # a server that says nothing for so long is gone; no command blocks for longer than 5 s
_LONGEST_DEFERRAL_SECONDS = 600.0
_FIRST_MS = 1e11  # queue positions above are times in milliseconds, below in seconds
_MOST_TRIES_DIGITS = 9

_Entries = list[tuple[bytes, dict[bytes, bytes] | None]]
_entries_adapter: TypeAdapter[_Entries] = TypeAdapter(_Entries)
_Place = tuple[float | None, tuple[bytes | None, bytes | None, bytes | None], int]
_place_adapter: TypeAdapter[_Place] = TypeAdapter(_Place)
_full_adapter: TypeAdapter[tuple[int, int]] = TypeAdapter(tuple[int, int])
_begun_adapter: TypeAdapter[list[tuple[bytes, float, bytes | None]]] = TypeAdapter(
    list[tuple[bytes, float, bytes | None]]
)
_streams_adapter: TypeAdapter[list[tuple[bytes, _Entries]]] = TypeAdapter(list[tuple[bytes, _Entries]])


_CLAIM = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limits = cjson.decode(ARGV[2])
for place, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  local count = redis.call('ZCARD', key)
  for _, member in ipairs(limits[place].held) do
    if not redis.call('ZSCORE', key, member) then count = count + 1 end
  end
  if count >= limits[place].most then
    local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
    return {place, oldest and oldest - now or 0}
  end
end
for place, key in ipairs(KEYS) do
  local milliseconds = limits[place].milliseconds
  redis.call('ZADD', key, now + milliseconds, ARGV[1])
  redis.call('PEXPIRE', key, math.max(milliseconds, redis.call('PTTL', key)))
end
return {0, 0}
"""
"""Claim a place under every key, or under none and say which is full: its number, and the time of its oldest claim."""

_BEGIN = """
local begun, offset = {}, 0
repeat
  local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', offset, 100)
  for place = 1, #members, 2 do
    if #begun == tonumber(ARGV[2]) then return begun end
    local member = members[place]
    if redis.call('EXISTS', ARGV[4] .. member) == 0 then
      redis.call('SET', ARGV[4] .. member, '1', 'PX', ARGV[3])
      begun[#begun + 1] = {member, members[place + 1], redis.call('MGET', ARGV[5] .. member)[1]}
    end
  end
  offset = offset + 100
until #members == 0
return begun
"""
"""Mark the first jobs of a queue that are due and that nobody has begun; return each with its score and definition."""


class Limit(NamedTuple):
    """At most so many claims under a key at a time; one that is not given back ends after some seconds."""

    key: str
    most: int
    seconds: float
    held: tuple[str, ...] = ()
    """Claims that count though the store may have forgotten them."""


class Full(NamedTuple):
    """A limit that has no place left, and in how many seconds its oldest claim ends; 0 where that is not known."""

    limit: Limit
    seconds: float


class _Script(Protocol):
    def __call__(self, *, keys: Sequence[str], args: Sequence[str | int]) -> Awaitable[object]: ...


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


def open_redis(url: str, *, retries: int = _RETRIES) -> ArqRedis:
    """A pool of connections that outlive a restart of the server, none of them open yet.

    Not arq's own, whose connections wait for ever for a server that falls silent. `retries` is how often a command is
    tried again while the server is away: 5 take 1.7 seconds, 3 take 0.7.
    """
    settings = redis_settings(url)
    retried: list[type[Exception]] = [*_AWAY_ERRORS]
    return ArqRedis(
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


async def connect(url: str, *, retries: int = _RETRIES) -> "Store":
    """Open a pool of connections; raises SERVICE_UNAVAILABLE where no server answers, or where it refuses us."""
    redis = open_redis(url, retries=retries)
    try:
        answer: Awaitable[object] = redis.ping()
        await answer
    except (AuthenticationError, ResponseError):
        raise AppError(
            ErrorCode.SERVICE_UNAVAILABLE, "Redis refuses the user name or the password that `REDIS__URL` holds."
        ) from None
    except _AWAY_ERRORS:
        raise AppError(
            ErrorCode.SERVICE_UNAVAILABLE, "No Redis answers at `REDIS__URL`: start it, or leave the setting empty."
        ) from None
    return Store(redis)


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


def _read_definition(data: bytes | None) -> JobDefinition | None:
    """A job as it is stored; None for one that is missing or cannot be read."""
    try:
        return None if data is None else JobDefinition.model_validate_json(data)
    except ValidationError:
        return None


def _is_job_id(member: bytes) -> bool:
    try:
        job_id_adapter.validate_python(member.decode())
    except ValueError:  # a ValidationError and a UnicodeDecodeError are ones too
        return False
    return True


def _streams(reply: object) -> list[tuple[bytes, _Entries]]:
    return [] if reply is None else _streams_adapter.validate_python(reply)


def _fields(event: InferenceEvent) -> dict[FieldT, EncodableT]:
    return {"request_id": event.request_id, "event": event.model_dump_json(by_alias=True)}


class Store:
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

    async def mend(self, kinds: Mapping[str, _Kind]) -> list[str]:
        """Delete those of these keys that hold something else than they should; return them."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for key in kinds:
                pipe.type(key)
            executed: Awaitable[list[bytes]] = pipe.execute()
            found = [kind.decode() for kind in await executed]
        wrong = [key for (key, kind), is_now in zip(kinds.items(), found, strict=True) if is_now not in (kind, "none")]
        if wrong:
            log.error("keys that held something else deleted", names=", ".join(wrong))
            deleted: Awaitable[object] = self.redis.delete(*wrong)
            await deleted
        return wrong

    async def _with(self, kinds: Mapping[str, _Kind], command: Callable[[], Awaitable[Reply]]) -> Reply:
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

    async def tell_inference(self, event: InferenceEvent) -> None:
        """Put what happens to a short job on the common stream, where it rings for no run."""
        reply: Awaitable[object] = self.redis.xadd(keys.EVENT_STREAM, _fields(event), maxlen=_EVENT_STREAM_LENGTH)
        await reply

    async def put_answer(self, key: str, bell: str, value: str, event: InferenceEvent, *, ttl_seconds: float) -> None:
        """Put an answer in the place of its request, ring the bell of who waits for it, and tell that it has ended."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.set(key, value, px=int(ttl_seconds * 1000))
            pipe.delete(bell)  # whatever it holds: it is rung once
            pipe.xadd(bell, {"answered": 1})
            pipe.pexpire(bell, _ANSWER_BELL_MS)
            pipe.xadd(keys.EVENT_STREAM, _fields(event), maxlen=_EVENT_STREAM_LENGTH)
            executed: Awaitable[object] = pipe.execute()
            await executed

    async def wait_for_answer(self, bell: str, *, wait_seconds: float) -> None:
        """Wait until a bell has rung, but not for ever: a server that was away may have forgotten that it has."""

        async def command() -> None:
            reply: Awaitable[object] = self.redis.xread({bell: "0-0"}, block=int(wait_seconds * 1000))
            await reply

        await self._with({bell: "stream"}, command)

    async def claim(self, claim: str, limits: Sequence[Limit]) -> Full | None:
        """Take one place under each limit at once, or none where one is full; what is claimed again is prolonged."""
        script: _Script = self.redis.register_script(_CLAIM)
        bounds = [{"most": a.most, "milliseconds": int(a.seconds * 1000), "held": a.held} for a in limits]

        async def command() -> tuple[int, int]:
            return _full_adapter.validate_python(
                await script(keys=[limit.key for limit in limits], args=[claim, json.dumps(bounds)])
            )

        full: tuple[int, int] = await self._with(_sorted_sets(limits), command)
        place, milliseconds = full
        return Full(limits[place - 1], milliseconds / 1000) if place else None

    async def give_back(self, claim: str, limits: Sequence[Limit]) -> None:
        """End a claim before its time."""

        async def command() -> None:
            async with self.redis.pipeline(transaction=True) as pipe:
                for limit in limits:
                    pipe.zrem(limit.key, claim)
                executed: Awaitable[object] = pipe.execute()
                await executed

        await self._with(_sorted_sets(limits), command)

    async def enqueue(self, queue: str, function: str, job_id: str, payload: JobPayload) -> None:
        """Queue a job by id, unless it is there already, and ring the workers' bell.

        What arq's own method does, in one write to the server's disk and one round trip instead of two and four.
        Jobs are in order of the seconds since 1970, which for arq, that counts milliseconds, are always over: a host
        whose clock is ahead, or was put back, keeps no job waiting.
        """
        await self._enqueue(queue, function, job_id, payload, time.time(), anew=False)

    async def _enqueue(
        self, queue: str, function: str, job_id: str, payload: JobPayload, seconds: float, *, anew: bool
    ) -> None:
        fields: dict[str, str] = payload.model_dump()
        no_names: dict[str, object] = {}
        job = serialize_job(function, (fields,), no_names, None, int(seconds * 1000), serializer=dumps)

        async def command() -> None:
            async with self.redis.pipeline(transaction=True) as pipe:
                if anew:  # what an earlier attempt may have left must not stop this one
                    pipe.delete(keys.definition(job_id), keys.tries(job_id), keys.result(job_id))
                    pipe.zrem(keys.ABORTS, job_id)
                pipe.set(keys.definition(job_id), job, px=_JOB_EXPIRY_MS, nx=True)
                pipe.zadd(queue, {job_id: seconds}, nx=True)
                pipe.xadd(keys.JOB_BELL, {"queue": queue}, maxlen=100)
                executed: Awaitable[object] = pipe.execute()
                await executed

        await self._with(_queue_kinds(queue), command)

    async def restore(
        self, queue: str, function: str, job_id: str, payload: JobPayload, *, since: float, lease_seconds: float
    ) -> bool:
        """Queue a job anew if the queue has lost it, or what it is to do (R9): then True.

        Its place is that of a job that waits since then, in seconds since 1970: nobody overtakes it by a wipe.
        A mark that the job was begun, under which nobody has a lease, ends within two leases. One whose deferral is
        over, or was to a time that some clock had wrong, gets back the place that it had.
        """

        async def command() -> _Place:
            async with self.redis.pipeline(transaction=True) as pipe:
                pipe.zscore(queue, job_id)
                pipe.mget(keys.definition(job_id), keys.in_progress(job_id), keys.lease(job_id))
                pipe.pttl(keys.in_progress(job_id))
                executed: Awaitable[object] = pipe.execute()
                return _place_adapter.validate_python(await executed)

        score, (stored, begun, lease), left_ms = await self._with(_queue_kinds(queue), command)
        patience_ms = int(lease_seconds * 2000)
        if lease is None and (left_ms == -1 or left_ms > patience_ms):
            shortened: Awaitable[object] = self.redis.pexpire(keys.in_progress(job_id), patience_ms)
            await shortened
        definition = _read_definition(stored)
        fields: dict[str, str] = payload.model_dump()
        place = min(since, time.time())
        if score is None or definition is None or (definition.f, *definition.a) != (function, fields):
            await self._enqueue(queue, function, job_id, payload, place, anew=True)
            return True
        if begun is None and score > _FIRST_MS and not 0 < score / 1000 - time.time() < _LONGEST_DEFERRAL_SECONDS:
            due: Awaitable[object] = self.redis.zadd(queue, {job_id: place}, xx=True)
            await due
        return False

    async def begin_jobs(self, queue: str, most: int, *, lease_seconds: float) -> list[tuple[str, int]]:
        """Mark the first jobs that are due and that nobody has begun, at most so many; return their ids and scores.

        What arq does for one job in four round trips, and workers that are woken together do not get in each other's
        way. What cannot be a job of ours is taken out of the queue.
        """
        script: _Script = self.redis.register_script(_BEGIN)
        prefixes = keys.in_progress(""), keys.definition("")
        reply = await script(keys=[queue], args=[int(time.time() * 1000), most, int(lease_seconds * 1000), *prefixes])
        begun: list[tuple[str, int]] = []
        for member, score, definition in _begun_adapter.validate_python(reply):
            if _is_job_id(member) and _read_definition(definition) is not None:
                begun.append((member.decode(), int(max(score, 0.0))))  # whoever put it there may have made it -inf
            else:
                log.error("job that cannot be read taken out of the queue", entry_id=repr(member[:64]))
                await self.dequeue(queue, member)
        return begun

    async def keep_in_progress(self, job_ids: Collection[str], *, seconds: float) -> None:
        """Say for a little longer that jobs were begun (R3)."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.pexpire(keys.in_progress(job_id), int(seconds * 1000))
            executed: Awaitable[object] = pipe.execute()
            await executed

    async def mend_queue(self, queue: str) -> list[str]:
        """Delete whatever stands in the way of a queue's jobs; return the keys."""
        mended = await self.mend(_queue_kinds(queue))
        reply: Awaitable[list[bytes]] = self.redis.zrange(queue, 0, -1)
        job_ids = [member.decode() for member in await reply if _is_job_id(member)]
        names = (keys.definition, keys.in_progress, keys.tries)
        mended += await self.mend({name(job_id): "string" for name in names for job_id in job_ids})
        for key in map(keys.tries, job_ids):
            tries = await self.get(key)
            if tries is not None and not (tries.isdigit() and len(tries) <= _MOST_TRIES_DIGITS):
                mended += await self.mend({key: ""})
        return mended

    async def dequeue(self, queue: str, job_id: str | bytes) -> None:
        """Forget a job that has not started."""
        name = job_id if isinstance(job_id, str) else job_id.decode(errors="replace")

        async def command() -> None:
            async with self.redis.pipeline(transaction=True) as pipe:
                pipe.zrem(queue, job_id)
                pipe.delete(keys.definition(name), keys.tries(name), keys.in_progress(name))
                executed: Awaitable[object] = pipe.execute()
                await executed

        await self._with(_queue_kinds(queue), command)

    async def queue_position(self, queue: str, job_id: str) -> int | None:
        """1 for the job that is next (or running); None for one that is not in the queue."""

        async def command() -> int | None:
            reply: Awaitable[int | None] = self.redis.zrank(queue, job_id)
            return await reply

        rank = await self._with(_queue_kinds(queue), command)
        return None if rank is None else rank + 1

    async def renew_lease(self, job_id: str, holder: str, *, seconds: float, heartbeat: float) -> None:
        """Keep a job in progress for a little longer, and its definition and tries for ever (R3)."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.set(keys.in_progress(job_id), 1, px=int(seconds * 1000))  # set, as the server may have been wiped
            pipe.pexpire(keys.definition(job_id), _JOB_EXPIRY_MS)
            pipe.delete(keys.tries(job_id))
            pipe.set(keys.lease(job_id), holder, px=int(seconds * 1000))
            pipe.set(keys.heartbeat(job_id), f"{heartbeat:.3f}", px=int(seconds * 1000))
            executed: Awaitable[object] = pipe.execute()
            await executed

    async def holders(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Who has these jobs, of those that anybody has."""
        if not job_ids:
            return {}
        reply: Awaitable[list[bytes | None]] = self.redis.mget([*map(keys.lease, job_ids)])
        found = zip(job_ids, await reply, strict=True)
        return {job_id: holder.decode(errors="replace") for job_id, holder in found if holder is not None}

    async def release(self, job_ids: Collection[str]) -> None:
        """Let jobs be begun again whose holder is gone, before the lease ends."""
        if job_ids:
            gone: Awaitable[object] = self.redis.delete(*map(keys.in_progress, job_ids), *map(keys.lease, job_ids))
            await gone

    async def tell(self, run_id: str, events: Sequence[Event], status: str, *, is_cancelled: bool) -> None:
        """Put those of a run's events that have not been told on its own stream and on the common one (R7).

        With them, unless somebody has told more, how the run stands and whether it is to be cancelled.

        The ids of a run's stream are the sequence numbers, so it knows what has been told; whoever tells watches it,
        so of several who do at once only one tells each event.
        """

        async def command() -> None:
            await self._tell(run_id, events, status, is_cancelled=is_cancelled)

        # where one of the two is mended, the run is told anew
        await self._with({keys.EVENT_STREAM: "stream", keys.run_events(run_id): ""}, command)

    async def untold(self, run_ids: Sequence[str]) -> list[str]:
        """Those of these runs of which the store knows no event."""
        if not run_ids:
            return []
        streams = [keys.run_events(run_id) for run_id in run_ids]
        counted: Awaitable[int] = self.redis.exists(*streams)
        if await counted == len(streams):
            return []
        async with self.redis.pipeline(transaction=False) as pipe:
            for stream in streams:
                pipe.exists(stream)
            executed: Awaitable[list[int]] = pipe.execute()
            return [run_id for run_id, there in zip(run_ids, await executed, strict=True) if not there]

    async def _tell(self, run_id: str, events: Sequence[Event], status: str, *, is_cancelled: bool) -> None:
        key = keys.run_events(run_id)
        while True:
            async with self.redis.pipeline(transaction=True) as pipe:
                watched: Awaitable[object] = pipe.watch(key)
                await watched
                last: Awaitable[object] = pipe.xrevrange(key, count=1)
                told = _last_told(run_id, _entries_adapter.validate_python(await last))
                begin: Callable[[], None] = pipe.multi
                begin()
                if told == 0:  # nothing, all trimmed, or not ours: its ids may be higher than those to come
                    pipe.delete(key)
                for event in events:
                    if event.seq > told:
                        body = event.model_dump_json()
                        pipe.xadd(key, {"event": body}, id=f"{event.seq}-0", maxlen=_RUN_STREAM_LENGTH)
                        fields: dict[FieldT, EncodableT] = {"run_id": run_id, "seq": event.seq, "event": body}
                        pipe.xadd(keys.EVENT_STREAM, fields, maxlen=_EVENT_STREAM_LENGTH)
                if events and events[-1].seq >= told:
                    pipe.set(keys.status(run_id), status)
                    if is_cancelled:
                        pipe.set(keys.cancelled(run_id), 1)
                    else:
                        pipe.delete(keys.cancelled(run_id))
                try:
                    executed: Awaitable[object] = pipe.execute()
                    await executed
                except WatchError:
                    continue
                return

    async def next_rings(self, consumer: str, *, wait_seconds: float) -> list[str]:
        """Wait for events, acknowledge them, and return the ids of their runs."""

        async def command() -> list[str]:
            return await self._next_rings(consumer, wait_seconds)

        return await self._with({keys.EVENT_STREAM: "stream"}, command)

    async def _next_rings(self, consumer: str, wait_seconds: float) -> list[str]:
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
        with_body = [(entry_id, fields) for entry_id, fields in entries if fields]
        for entry_id, fields in with_body:
            if b"run_id" not in fields and b"request_id" not in fields:  # what happens to short jobs rings for no run
                log.warning("malformed event on the stream left out", entry_id=entry_id.decode())
        return [fields[b"run_id"].decode(errors="replace") for _, fields in with_body if b"run_id" in fields]

    async def wait_for_job(self, after: str, *, wait_seconds: float) -> str:
        """Wait until the workers' bell has rung after an entry ('0-0' for the first); return the one to go on from."""

        async def command() -> str:
            reply: Awaitable[object] = self.redis.xread({keys.JOB_BELL: after}, block=int(wait_seconds * 1000))
            streams = _streams(await reply)
            return streams[0][1][-1][0].decode() if streams else after

        return await self._with({keys.JOB_BELL: "stream"}, command)


def _sorted_sets(limits: Sequence[Limit]) -> dict[str, _Kind]:
    return {limit.key: "zset" for limit in limits}


def _queue_kinds(queue: str) -> dict[str, _Kind]:
    return {queue: "zset", keys.JOB_BELL: "stream", keys.ABORTS: "zset"}


def _last_told(run_id: str, last: _Entries) -> int:
    """The sequence number of the event that a run's stream ends with; 0 for an end that is none of its events."""
    for entry_id, fields in last:
        try:
            event = event_adapter.validate_json((fields or {}).get(b"event", b""))
        except ValidationError:
            return 0
        return event.seq if (event.job_id, f"{event.seq}-0".encode()) == (run_id, entry_id) else 0
    return 0
