"""The jobs that wait in Redis, and the whole of what the program keeps there."""

import time
from collections.abc import Awaitable, Collection, Sequence
from contextlib import AsyncExitStack

import structlog
from arq.jobs import serialize_job
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import AuthenticationError, InvalidResponse, ResponseError

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.jobs import JobDefinition, JobPayload, job_id_adapter
from trainer.store import keys
from trainer.store.answers import Answers
from trainer.store.connection import (
    AWAY_ERRORS,
    RETRIES,
    Entries,
    Kind,
    Script,
    dumps,
    entries_adapter,
    open_redis,
    read_streams,
)
from trainer.store.events import EventStreams

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_JOB_EXPIRY_MS = 10 * 365 * 24 * 3600 * 1000  # arq drops jobs that waited longer: never
_LONGEST_DEFERRAL_SECONDS = 600.0
_FIRST_MS = 1e11  # queue positions above are times in milliseconds, below in seconds
_MOST_TRIES_DIGITS = 9
_BELL_LENGTH = 100

_Place = tuple[float | None, tuple[bytes | None, bytes | None, bytes | None], int]
_place_adapter: TypeAdapter[_Place] = TypeAdapter(_Place)
_begun_adapter: TypeAdapter[list[tuple[bytes, float, bytes | None]]] = TypeAdapter(
    list[tuple[bytes, float, bytes | None]]
)

_BEGIN = """
local begun, offset = {}, 0
repeat
  local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', offset, 100)
  for place = 1, #members, 2 do
    if #begun == tonumber(ARGV[2]) then return begun end
    local member = members[place]
    local definition = redis.call('MGET', ARGV[5] .. member)[1]
    local folder = definition and string.match(definition, '"i": "(%x+)"')
    if (not folder or folder == ARGV[7]) and redis.call('EXISTS', ARGV[4] .. member) == 0 then
      redis.call('SET', ARGV[4] .. member, ARGV[6], 'PX', ARGV[3])
      begun[#begun + 1] = {member, members[place + 1], definition}
    end
  end
  offset = offset + 100
until #members == 0
return begun
"""
"""Mark the first jobs of a queue that are due and that nobody has begun; return each with its score and definition.

Those of another artifacts folder are left to its workers.
"""


async def connect(url: str, *, retries: int = RETRIES) -> "Store":
    """Open a pool of connections; raises SERVICE_UNAVAILABLE where no Redis answers, or where it refuses us."""
    redis = open_redis(url, retries=retries)
    async with AsyncExitStack() as undo:
        undo.push_async_callback(redis.aclose)
        try:
            answer: Awaitable[object] = redis.ping()
            await answer
        except (AuthenticationError, ResponseError):
            reason = "Redis refuses the user name or the password that `REDIS__URL` holds."
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, reason) from None
        except InvalidResponse:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_REDIS) from None
        except AWAY_ERRORS:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_ANSWER) from None
        undo.pop_all()
    return Store(redis)


_NO_REDIS = "What answers at `REDIS__URL` is no Redis: give the address of one, or leave the setting empty."
_NO_ANSWER = (
    "No Redis answers at `REDIS__URL`: start it, look at the address (rediss:// where it takes TLS only), or leave the"
    " setting empty."
)


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


class Store(Answers, EventStreams):
    """A connected Redis: its queues of jobs, and whatever else is kept there."""

    async def withdraw(self, queue: str, job_id: str, key: str) -> None:
        """Forget a request, under its key, and its job; a worker that has begun it sees that the request is gone."""
        await self.forget(key)
        await self.dequeue(queue, job_id)

    async def enqueue(
        self, queue: str, function: str, job_id: str, payload: JobPayload, *, artifacts: str = ""
    ) -> None:
        """Queue a job by id, unless it is there already, and ring the workers' bell.

        What arq's own method does, in one write to the server's disk and one round trip instead of two and four.
        Jobs are in order of the seconds since 1970, which for arq, that counts milliseconds, are always over: a host
        whose clock is ahead, or was put back, keeps no job waiting. `artifacts` is the id of the folder with its run,
        whose workers alone take it; "" leaves it to any.
        """
        await self._enqueue(queue, function, job_id, payload, time.time(), anew=False, artifacts=artifacts)

    async def _enqueue(
        self,
        queue: str,
        function: str,
        job_id: str,
        payload: JobPayload,
        seconds: float,
        *,
        anew: bool,
        artifacts: str,
    ) -> None:
        fields: dict[str, str] = payload.model_dump()
        no_names: dict[str, object] = {}

        def with_folder(job: dict[str, object]) -> bytes:
            return dumps({**job, "i": artifacts})

        job = serialize_job(function, (fields,), no_names, None, int(seconds * 1000), serializer=with_folder)

        async def command() -> None:
            async with self.redis.pipeline(transaction=True) as pipe:
                if anew:  # what an earlier attempt may have left must not stop this one
                    pipe.delete(keys.definition(job_id), keys.tries(job_id), keys.result(job_id))
                    pipe.zrem(keys.ABORTS, job_id)
                pipe.set(keys.definition(job_id), job, px=_JOB_EXPIRY_MS, nx=True)
                pipe.zadd(queue, {job_id: seconds}, nx=True)
                pipe.xadd(keys.JOB_BELL, {"queue": queue, "artifacts": artifacts}, maxlen=_BELL_LENGTH)
                executed: Awaitable[object] = pipe.execute()
                await executed

        await self._with(_queue_kinds(queue), command)

    async def restore(
        self,
        queue: str,
        function: str,
        job_id: str,
        payload: JobPayload,
        *,
        since: float,
        lease_seconds: float,
        artifacts: str = "",
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
        wanted = (function, artifacts, fields)
        if score is None or definition is None or (definition.f, definition.i, *definition.a) != wanted:
            await self._enqueue(queue, function, job_id, payload, place, anew=True, artifacts=artifacts)
            return True
        if begun is None and score > _FIRST_MS and not 0 < score / 1000 - time.time() < _LONGEST_DEFERRAL_SECONDS:
            due: Awaitable[object] = self.redis.zadd(queue, {job_id: place}, xx=True)
            await due
        return False

    async def begin_jobs(
        self, queue: str, most: int, holder: str, *, lease_seconds: float, artifacts: str = ""
    ) -> list[tuple[str, int]]:
        """Mark the first jobs that are due and that nobody has begun, at most so many; return their ids and scores.

        What arq does for one job in four round trips, and workers that are woken together do not get in each other's
        way. What cannot be a job of ours is taken out of the queue; what is of another artifacts folder stays there.
        """
        script: Script = self.redis.register_script(_BEGIN)
        prefixes = keys.in_progress(""), keys.definition("")
        most_and_ms = int(time.time() * 1000), most, int(lease_seconds * 1000)
        reply = await script(keys=[queue], args=[*most_and_ms, *prefixes, holder, artifacts])
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

    async def renew_worker(self, *, seconds: float) -> None:
        """Show for a little longer that a worker is running."""
        await self.put(keys.WORKER, b"1", ttl_seconds=seconds)

    async def has_worker(self) -> bool:
        """Return whether at least one worker is running."""
        return await self.has(keys.WORKER)

    async def renew_lease(self, job_id: str, holder: str, *, seconds: float, heartbeat: float) -> None:
        """Keep a job in progress for a little longer, and its definition and tries for ever (R3)."""
        async with self.redis.pipeline(transaction=True) as pipe:
            # set, as the server may have been wiped
            pipe.set(keys.in_progress(job_id), holder, px=int(seconds * 1000))
            pipe.pexpire(keys.definition(job_id), _JOB_EXPIRY_MS)
            pipe.delete(keys.tries(job_id))
            pipe.set(keys.lease(job_id), holder, px=int(seconds * 1000))
            pipe.set(keys.heartbeat(job_id), f"{heartbeat:.3f}", px=int(seconds * 1000))
            executed: Awaitable[object] = pipe.execute()
            await executed

    async def holders(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Who has begun these jobs, of those that anybody has."""
        if not job_ids:
            return {}
        reply: Awaitable[list[bytes | None]] = self.redis.mget([*map(keys.in_progress, job_ids)])
        found = zip(job_ids, await reply, strict=True)
        return {job_id: holder.decode(errors="replace") for job_id, holder in found if holder is not None}

    async def release(self, job_ids: Collection[str]) -> None:
        """Let jobs be begun again whose holder is gone, before the lease ends."""
        if job_ids:
            gone: Awaitable[object] = self.redis.delete(*map(keys.in_progress, job_ids), *map(keys.lease, job_ids))
            await gone

    async def folders_of_late(self) -> set[str]:
        """The ids of the artifacts folders of the jobs that were queued last."""

        async def command() -> Entries:
            reply: Awaitable[object] = self.redis.xrevrange(keys.JOB_BELL, count=_BELL_LENGTH)
            return entries_adapter.validate_python(await reply)

        entries = await self._with({keys.JOB_BELL: "stream"}, command)
        return {(fields or {}).get(b"artifacts", b"").decode(errors="replace") for _, fields in entries} - {""}

    async def wait_for_job(self, after: str, *, wait_seconds: float) -> str:
        """Wait until the workers' bell has rung after an entry ('0-0' for the first); return the one to go on from."""

        async def command() -> str:
            reply: Awaitable[object] = self.redis.xread({keys.JOB_BELL: after}, block=int(wait_seconds * 1000))
            streams = read_streams(await reply)
            return streams[0][1][-1][0].decode() if streams else after

        return await self._with({keys.JOB_BELL: "stream"}, command)


def _queue_kinds(queue: str) -> dict[str, Kind]:
    return {queue: "zset", keys.JOB_BELL: "stream", keys.ABORTS: "zset"}
