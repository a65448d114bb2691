"""Job queues in Redis, and the client for everything that the program stores there."""

import time
from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress

import structlog
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import NoPermissionError, ResponseError

from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.jobs import JobDefinition, JobNeeds, JobPayload, WorkerInfo, job_id_adapter
from trainer.store import keys
from trainer.store.answers import Answers
from trainer.store.connection import (
    RETRIES,
    STORE_ERRORS,
    Script,
    dumps,
    entries_adapter,
    open_redis,
    read_streams,
)
from trainer.store.events import EventStreams
from trainer.store.refusals import CLUSTER, NO_ANSWER, refusal

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_JOB_EXPIRY_MS = 10 * 365 * 24 * 3600 * 1000  # arq drops jobs after this time: never
_MAX_DEFERRAL_SECONDS = 600.0
_TRIED_SECONDS = 24 * 3600
_RESTORED = ""
"""A member of the turns of each queue that was restored from disk, and not an owner."""
_NO_NEEDS = JobNeeds()
_EARLIER_SECONDS = 120.0
_MIN_SCORE_MS = 1e11  # scores above are times in milliseconds, scores below in seconds
_NOTIFICATIONS_LENGTH = 100

_JobState = tuple[float | None, tuple[bytes | None, bytes | None, bytes | None], int]
_state_adapter: TypeAdapter[_JobState] = TypeAdapter(_JobState)
_Claimed = list[tuple[bytes, float, bytes | None]]
_claimed_adapter: TypeAdapter[_Claimed] = TypeAdapter(_Claimed)
_hashes_adapter: TypeAdapter[list[dict[bytes, bytes]]] = TypeAdapter(list[dict[bytes, bytes]])
_records_adapter: TypeAdapter[list[bytes | int | None]] = TypeAdapter(list[bytes | int | None])
_scores_adapter: TypeAdapter[list[tuple[bytes, float]]] = TypeAdapter(list[tuple[bytes, float]])
_members_adapter: TypeAdapter[list[bytes]] = TypeAdapter(list[bytes])

_IN_ORDER = """
local function in_order(latest)
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', latest, 'WITHSCORES')
  local owners, turns = {}, {}
  local found = redis.call('HGETALL', KEYS[2])
  for place = 1, #found, 2 do owners[found[place]] = found[place + 1] end
  found = redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
  for place = 1, #found, 2 do turns[found[place]] = tonumber(found[place + 1]) end
  local jobs, users, waiting = {}, {}, {}
  for place = 1, #due, 2 do
    local job = {due[place], due[place + 1], owners[due[place]]}
    local owner = job[3]
    if not owner then
      jobs[#jobs + 1] = job
    else
      if not waiting[owner] then
        waiting[owner] = {}
        users[#users + 1] = {owner, turns[owner] or -1, #users}
      end
      table.insert(waiting[owner], job)
    end
  end
  table.sort(users, function(a, b) return a[2] < b[2] or a[2] == b[2] and a[3] < b[3] end)
  local round, last = 0, -1
  while #jobs > last do
    round, last = round + 1, #jobs
    for _, user in ipairs(users) do jobs[#jobs + 1] = waiting[user[1]][round] end
  end
  return jobs
end
"""
"""A function that returns the jobs of a queue in the order in which workers claim them, with score and owner.

Jobs without an owner come first, by score: they have started before, or their queue has no owners. The others follow
in turns, one job of each owner, first the owner whose last turn was longest ago; so no owner can delay another's job
by more than one turn.
"""

_CLAIM = f"""{_IN_ORDER}
local claimed = {{}}
if redis.call('EXISTS', KEYS[4]) == 1 then return claimed end
local orders = redis.call('MGET', KEYS[5], KEYS[6])
if orders[1] and ARGV[9] ~= '' and orders[1] ~= ARGV[9] or orders[2] == '1' then return claimed end
local rooms = {{cpu = ARGV[11], any = ARGV[12], cuda = ARGV[13]}}
local function parse(definition)
  local is_json, job = pcall(cjson.decode, definition or '')
  return is_json and type(job) == 'table' and job or {{}}
end
local function fits(job)
  local room, gpus, bytes = rooms[job.d or ''], tonumber(job.n), tonumber(job.m)
  if not (room and gpus and bytes) or ARGV[10] == '' then return true end
  return gpus <= tonumber(ARGV[10]) and bytes <= tonumber(room)
end
local function try(member, score, owner)
  local claim, tries = ARGV[4] .. member, ARGV[8] .. member
  local definition = redis.call('GET', ARGV[5] .. member)
  local job = parse(definition)
  local is_elsewhere = type(job.i) == 'string' and job.i ~= '' and job.i ~= ARGV[7]
  if is_elsewhere or not fits(job) then return end
  if redis.call('EXISTS', claim) == 1 then return end
  local left = redis.call('HGETALL', ARGV[14] .. member)
  for place = 1, #left, 2 do
    if left[place] == ARGV[6] and tonumber(left[place + 1]) > tonumber(ARGV[1]) then return end
  end
  redis.call('SET', claim, ARGV[6], 'PX', ARGV[3])
  if not string.match(redis.call('GET', tries) or '', '^%d%d?%d?%d?%d?%d?$') then
    redis.call('DEL', tries)
  end
  if owner then
    local newest = redis.call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')[2]
    redis.call('HDEL', KEYS[2], member)
    redis.call('ZADD', KEYS[3], math.max(tonumber(ARGV[1]), (newest or 0) + 1), owner)
  end
  claimed[#claimed + 1] = {{member, score, definition}}
end
local most = tonumber(ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 1 then
  for _, job in ipairs(in_order(ARGV[1])) do
    if #claimed == most then break end
    try(job[1], job[2], job[3])
  end
  return claimed
end
local offset = 0
repeat
  local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', offset, 100)
  for place = 1, #members, 2 do
    if #claimed == most then return claimed end
    try(members[place], members[place + 1])
  end
  offset = offset + 100
until #members == 0
return claimed
"""
"""Claim the first due jobs of a queue that no process has claimed; return each with its score and definition.

Jobs of another artifacts folder, jobs that need more than the worker has, and jobs whose children have just ended at
their start here are left to other workers. A worker of
another version than the program that queues jobs claims nothing, nor does one that is being drained. A count of tries
that arq cannot increment is deleted. In a queue without owners, the script reads only the first jobs, however many
wait.
"""

_LIST = f"""{_IN_ORDER}
local members = {{}}
for place, job in ipairs(in_order('+inf')) do members[place] = job[1] end
return members
"""
"""Return the ids of all jobs of a queue in their order."""

_RELEASE = """
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
"""
"""Delete the keys that a process holds: another process may hold some of them by now."""


async def connect(url: str, *, retries: int = RETRIES) -> "Store":
    """Connect to Redis; raises SERVICE_UNAVAILABLE with the reason if no Redis answers or if it refuses the user."""
    redis = open_redis(url, retries=retries)
    async with AsyncExitStack() as undo:
        undo.push_async_callback(redis.aclose)
        try:
            answer: Awaitable[object] = redis.ping()
            await answer
        except STORE_ERRORS as error:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, refusal(error) or NO_ANSWER) from None
        undo.pop_all()
    return Store(redis)


def disconnected() -> "Store":
    """Return a store without a server, for what is done on the disk: each of its commands fails at once."""
    return Store(open_redis("unix:///dev/null/redis", retries=0))


class Store(Answers, EventStreams):
    """A connected Redis: job queues, events, inference requests."""

    async def check(self, queue: str) -> None:
        """Raise SERVICE_UNAVAILABLE with the reason if the server refuses to read a queue or to write."""
        try:
            if await self.is_cluster():
                raise AppError(ErrorCode.SERVICE_UNAVAILABLE, CLUSTER)
            await self.queue_order(queue)
            probe: Awaitable[object] = self.redis.set(keys.DELETED, 1, xx=True, keepttl=True)  # writes nothing
            await probe
        except STORE_ERRORS as error:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, refusal(error) or NO_ANSWER) from None

    async def enqueue(
        self,
        queue: str,
        function: str,
        job_id: str,
        payload: JobPayload,
        *,
        artifacts: str = "",
        needs: JobNeeds = _NO_NEEDS,
        owner: str | None = None,
        since: float | None = None,
    ) -> None:
        """Enqueue a job unless its id is in the queue already, and wake the workers, in one round trip.

        The score is in seconds, which arq reads as milliseconds long past: a clock that is ahead, or was put back,
        delays no job. Only workers of the artifacts folder with the id `artifacts` run the job; "" means any worker.
        The owners of a queue's jobs take turns; a job without an `owner` comes before them.
        `since` is the time of an earlier job with this id, which is replaced.
        """
        seconds = time.time() if since is None else since
        fields: dict[str, str] = payload.model_dump()
        job: dict[str, object] = {"t": None, "f": function, "a": [fields], "k": {}, "et": int(seconds * 1000)}
        job |= {"i": artifacts, "d": needs.device, "n": needs.gpus, "m": needs.memory_bytes}
        async with self.transaction() as pipe:
            if since is not None:
                pipe.delete(keys.definition(job_id), keys.tries(job_id))
            pipe.set(keys.definition(job_id), dumps(job), px=_JOB_EXPIRY_MS, nx=True)
            if owner is not None:
                pipe.hset(keys.owners(queue), job_id, f"{artifacts}/{owner}")
            pipe.zadd(queue, {job_id: seconds}, nx=True)
            pipe.xadd(keys.JOB_NOTIFICATIONS, {"queue": queue, "artifacts": artifacts}, maxlen=_NOTIFICATIONS_LENGTH)

    async def requeue(
        self,
        queue: str,
        function: str,
        job_id: str,
        payload: JobPayload,
        *,
        since: float,
        lease_seconds: float,
        artifacts: str = "",
        needs: JobNeeds = _NO_NEEDS,
        owner: str | None = None,
    ) -> bool:
        """Enqueue a job again if its queue entry or definition is lost or wrong; return True if it was.

        The job gets the position of a job enqueued at `since`, in seconds since 1970, so that no later job of its
        owner overtakes it. A job that has started before has no `owner`: it has had its turn. A claim without a lease
        expires within two leases. A deferral that has ended, or that a wrong clock set too far ahead, is replaced by
        that position, too.
        """
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.zscore(queue, job_id)
            pipe.mget(keys.definition(job_id), keys.in_progress(job_id), keys.lease(job_id))
            pipe.pttl(keys.in_progress(job_id))
            executed: Awaitable[object] = pipe.execute()
            score, (stored, claim, lease), claim_ms = _state_adapter.validate_python(await executed)
        max_claim_ms = int(lease_seconds * 2000)
        if lease is None and (claim_ms == -1 or claim_ms > max_claim_ms):
            shortened: Awaitable[object] = self.redis.pexpire(keys.in_progress(job_id), max_claim_ms)
            await shortened
        position = min(since, time.time())
        if score is None or not _is_definition(stored, function, artifacts, payload, needs):
            await self.enqueue(
                queue, function, job_id, payload, artifacts=artifacts, needs=needs, owner=owner, since=position
            )
            return True
        if claim is None and score > _MIN_SCORE_MS and not 0 < score / 1000 - time.time() < _MAX_DEFERRAL_SECONDS:
            due: Awaitable[object] = self.redis.zadd(queue, {job_id: position}, xx=True)
            await due
        return False

    async def find_lost_jobs(
        self, queue: str, function: str, payloads: Mapping[str, JobPayload], *, artifacts: str = ""
    ) -> list[str]:
        """Return the jobs that `requeue` may have to change; each of the others waits in the queue as it should.

        Takes three round trips, however many jobs there are; at least one.
        """
        waiting: Awaitable[object] = self.redis.zrange(queue, 0, -1, withscores=True)
        scores = dict(_scores_adapter.validate_python(await waiting))
        definitions = await self.get_all(*map(keys.definition, payloads))
        claims = await self.get_all(*map(keys.in_progress, payloads))
        return [
            job_id
            for (job_id, payload), definition, claim in zip(payloads.items(), definitions, claims, strict=True)
            if claim is not None
            or not 0 <= scores.get(job_id.encode(), -1.0) < _MIN_SCORE_MS
            or not _is_definition(definition, function, artifacts, payload)
        ]

    async def claim_jobs(
        self,
        queue: str,
        count: int,
        holder: str,
        *,
        lease_seconds: float,
        artifacts: str = "",
        worker: WorkerInfo | None = None,
    ) -> list[tuple[str, int]]:
        """Claim up to `count` due jobs for a process; return their ids and scores.

        One round trip claims several jobs, and workers that wake together do not compete for one. Malformed jobs are
        removed from the queue; jobs of other artifacts folders stay, and those that the worker cannot take. Raises
        NoPermissionError if the server's user may not run a command that this takes.
        """
        script: Script = self.redis.register_script(_CLAIM)
        prefixes = keys.in_progress(""), keys.definition("")
        numbers = int(time.time() * 1000), count, int(lease_seconds * 1000)
        try:
            reply = await script(
                keys=[*_keys_of(queue), keys.version(artifacts), keys.drain(holder)],
                args=[*numbers, *prefixes, holder, artifacts, keys.tries(""), *_offer(worker), keys.tried("")],
            )
        except ResponseError as error:
            if str(error).startswith("ACL failure"):  # how a script tells of a command that is not permitted
                raise NoPermissionError(str(error)) from None
            raise
        claimed: list[tuple[str, int]] = []
        for member, score, definition in _claimed_adapter.validate_python(reply):
            try:
                job_id = job_id_adapter.validate_python(member.decode())
                JobDefinition.model_validate_json(definition or b"")
                claimed.append((job_id, int(max(score, 0.0))))  # a foreign entry may have the score -inf
            except ValueError:  # includes ValidationError and UnicodeDecodeError
                log.error("malformed_job_removed", entry_id=repr(member[:64]))
                await self.dequeue(queue, member)
        return claimed

    async def leave_job(self, job_id: str, worker: str, *, seconds: float) -> None:
        """Let a worker that has tried a job leave it to others for some time, in which it claims the job no more."""
        until_ms = int((time.time() + seconds) * 1000)
        async with self.transaction() as pipe:
            pipe.hset(keys.tried(job_id), worker, str(until_ms))
            pipe.expire(keys.tried(job_id), _TRIED_SECONDS)
            pipe.delete(keys.lease(job_id), keys.tries(job_id))

    async def forget_tries(self, job_id: str) -> None:
        """Forget the workers that have tried a job, because a child of it has reached its first step."""
        async with self.transaction() as pipe:
            pipe.delete(keys.tried(job_id))

    async def workers_that_tried(self, job_id: str) -> set[str]:
        """Return the workers on which a child of a job ended before its first step, since one has reached it."""
        return {name.decode(errors="replace") for name in await self._hash(keys.tried(job_id))}

    async def renew_claims(self, job_ids: Collection[str], *, seconds: float) -> None:
        async with self.transaction() as pipe:
            for job_id in job_ids:
                pipe.pexpire(keys.in_progress(job_id), int(seconds * 1000))

    async def dequeue(self, queue: str, job_id: str | bytes) -> None:
        """Delete a job that has not started."""
        name = job_id if isinstance(job_id, str) else job_id.decode(errors="replace")
        async with self.transaction() as pipe:
            pipe.zrem(queue, job_id)
            pipe.hdel(keys.owners(queue), name)
            pipe.delete(keys.definition(name), keys.tries(name), keys.in_progress(name))

    async def needs(self, job_ids: Sequence[str]) -> dict[str, JobNeeds]:
        """Return what queued jobs need of a worker; without the jobs whose definition is missing or malformed."""
        found: dict[str, JobNeeds] = {}
        if job_ids:
            for job_id, stored in zip(job_ids, await self.get_all(*map(keys.definition, job_ids)), strict=True):
                with suppress(ValidationError):
                    found[job_id] = JobDefinition.model_validate_json(stored or b"").needs
        return found

    async def queue_length(self, queue: str) -> int:
        """Return the number of jobs in a queue, running ones included."""
        reply: Awaitable[int] = self.redis.zcard(queue)
        return await reply

    async def queue_order(self, queue: str) -> list[str]:
        """Return the ids of the jobs of a queue, running ones first, then in the order in which they start."""
        script: Script = self.redis.register_script(_LIST)
        members = _members_adapter.validate_python(await script(keys=_keys_of(queue), args=[]))
        return [member.decode(errors="replace") for member in members]

    async def has_turns(self, queue: str) -> bool:
        """Return False if the server has lost the turns of the owners of a queue's jobs."""
        reply: Awaitable[float | None] = self.redis.zscore(keys.turns(queue), _RESTORED)
        return await reply is not None

    async def rebuild_turns(self, queue: str, turns: Mapping[str, float], *, artifacts: str) -> None:
        """Record the last start of each owner's jobs, in seconds since 1970, except for owners with a turn."""
        scores: dict[str, float] = {f"{artifacts}/{owner}": at * 1000 for owner, at in turns.items()}
        done: Awaitable[object] = self.redis.zadd(keys.turns(queue), {_RESTORED: 0.0, **scores}, nx=True)
        await done

    async def set_paused(self, queue: str, *, is_paused: bool) -> None:
        """Let workers start no further job of a queue, or start them again; running jobs continue."""
        async with self.transaction() as pipe:
            if is_paused:
                pipe.set(keys.paused(queue), b"1")
            else:
                pipe.delete(keys.paused(queue))

    async def is_paused(self, queue: str) -> bool:
        return await self.exists(keys.paused(queue))

    async def renew_worker(self, *, seconds: float, worker: WorkerInfo | None = None) -> None:
        """Record for some seconds that a worker is running, if it takes jobs, and what it publishes of itself."""
        if worker is None or worker.state == "ready":
            await self.put(keys.WORKER, b"1", ttl_seconds=seconds)
        if worker is not None:
            lifetime_ms = int(seconds * 1000)
            async with self.transaction() as pipe:
                pipe.set(keys.worker(worker.name), worker.model_dump_json(), px=lifetime_ms)
                pipe.hset(keys.WORKERS, worker.name, f"{lifetime_ms}")

    async def workers(self) -> list[WorkerInfo]:
        """Return the workers whose records have not expired, by name; deletes the others.

        The server's clock alone decides. The times of the records become those of this machine's clock.
        """
        stored = await self._hash(keys.WORKERS)
        names = {raw: raw.decode(errors="replace") for raw in sorted(stored)}
        async with self.redis.pipeline(transaction=False) as pipe:
            for name in names.values():
                pipe.get(keys.worker(name))
                pipe.pttl(keys.worker(name))
            read: Awaitable[object] = pipe.execute()
            found = _records_adapter.validate_python(await read)
        workers: list[WorkerInfo] = []
        for (raw, name), record, left_ms in zip(names.items(), found[::2], found[1::2], strict=True):
            worker = _present(stored[raw], record, left_ms)
            if worker is None:
                await self.remove_worker(name)
            else:
                workers.append(worker)
        return workers

    async def report_broken(self, names: Collection[str]) -> list[str]:
        """Record the workers that are broken now; return those that were not when this was called last."""
        known = {name.decode(errors="replace") for name in await self._hash(keys.REPORTED)}
        async with self.transaction() as pipe:
            for name in known.difference(names):
                pipe.hdel(keys.REPORTED, name)
            for name in names:
                pipe.hset(keys.REPORTED, name, "1")
        return [name for name in names if name not in known]

    async def _hash(self, key: str) -> dict[bytes, bytes]:
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(key)
            executed: Awaitable[object] = pipe.execute()
            [stored] = _hashes_adapter.validate_python(await executed)
        return stored

    async def remove_worker(self, name: str) -> None:
        """Delete what a worker has published of itself."""
        async with self.transaction() as pipe:
            pipe.hdel(keys.WORKERS, name)
            pipe.delete(keys.worker(name))

    async def order_drain(self, names: Collection[str], *, is_draining: bool, seconds: float) -> None:
        """Let workers claim no further job, or claim jobs again; an order to claim is a new one each time."""
        order = "1" if is_draining else f"0 {time.time():.3f}"
        async with self.transaction() as pipe:
            for name in names:
                pipe.set(keys.drain(name), order, px=int(seconds * 1000))

    async def publish_version(self, version: str, artifacts: str, *, seconds: float, replaces: bool) -> None:
        """Record the version of the program that queues jobs of a folder; `replaces` also that of another program."""
        key = keys.version(artifacts)
        if replaces or await self.get(key) in (None, version.encode()):
            await self.put(key, version, ttl_seconds=seconds)

    async def has_worker(self) -> bool:
        """Return True if at least one worker is running that takes jobs."""
        return await self.exists(keys.WORKER)

    async def renew_lease(self, job_id: str, holder: str, *, seconds: float) -> None:
        """Renew the claim, the lease and the heartbeat of a running job, and keep its definition."""
        async with self.transaction() as pipe:
            # set anew, because the server may have been wiped
            pipe.set(keys.in_progress(job_id), holder, px=int(seconds * 1000))
            pipe.pexpire(keys.definition(job_id), _JOB_EXPIRY_MS)
            pipe.delete(keys.tries(job_id))
            pipe.set(keys.lease(job_id), holder, px=int(seconds * 1000))
            pipe.set(keys.heartbeat(job_id), int(seconds * 1000), px=int(seconds * 1000))

    async def silences(self, job_ids: Sequence[str]) -> dict[str, float]:
        """Return the seconds since the last heartbeat of running jobs, by the server's clock; none once it expired."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.get(keys.heartbeat(job_id))
                pipe.pttl(keys.heartbeat(job_id))
            executed: Awaitable[object] = pipe.execute()
            found = _records_adapter.validate_python(await executed)
        return {
            job_id: max(0.0, (int(lifetime) - left_ms) / 1000)
            for job_id, lifetime, left_ms in zip(job_ids, found[::2], found[1::2], strict=True)
            if isinstance(lifetime, bytes) and isinstance(left_ms, int) and lifetime.isdigit()
        }

    async def holders(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Return the processes that have claimed these jobs, by job id."""
        if not job_ids:
            return {}
        found = zip(job_ids, await self.get_all(*map(keys.in_progress, job_ids)), strict=True)
        return {job_id: holder.decode(errors="replace") for job_id, holder in found if holder is not None}

    async def release(self, job_ids: Collection[str]) -> None:
        """Release jobs of a process that has ended, before their lease ends."""
        if job_ids:
            deleted: Awaitable[object] = self.redis.delete(*map(keys.in_progress, job_ids), *map(keys.lease, job_ids))
            await deleted

    async def release_own(self, job_ids: Collection[str], holder: str) -> None:
        """Release the jobs that a process holds, and leave those that another process has claimed meanwhile."""
        if not job_ids:
            return
        script: Script = self.redis.register_script(_RELEASE)
        held = [key for job_id in job_ids for key in (keys.in_progress(job_id), keys.lease(job_id))]
        await script(keys=held, args=[holder])

    async def recent_artifacts_ids(self) -> set[str]:
        """Return the ids of the artifacts folders of recently enqueued jobs."""
        reply: Awaitable[object] = self.redis.xrevrange(keys.JOB_NOTIFICATIONS, count=_NOTIFICATIONS_LENGTH)
        entries = entries_adapter.validate_python(await reply)
        return {(fields or {}).get(b"artifacts", b"").decode(errors="replace") for _, fields in entries} - {""}

    async def wait_for_job(self, after: str, *, wait_seconds: float) -> str:
        """Wait until a job is enqueued after a position ('0-0' for the first); return the new position."""
        reply: Awaitable[object] = self.redis.xread({keys.JOB_NOTIFICATIONS: after}, block=int(wait_seconds * 1000))
        streams = read_streams(await reply)
        return streams[0][1][-1][0].decode() if streams else after


def _present(lifetime: bytes, record: bytes | int | None, left_ms: bytes | int | None) -> WorkerInfo | None:
    """Return the record of a worker, with its times on this machine's clock; None if it has ended.

    A worker of an earlier version stored its record in place of the lifetime: its own clock counts.
    """
    now = time.time()
    try:
        if lifetime.startswith(b"{"):
            worker = WorkerInfo.model_validate_json(lifetime)
            return worker if worker.seen_at > now - _EARLIER_SECONDS else None
        if not isinstance(record, bytes) or not isinstance(left_ms, int):
            return None
        worker, seen_at = WorkerInfo.model_validate_json(record), now - (int(lifetime) - left_ms) / 1000
    except ValueError:  # includes ValidationError
        return None
    started_at = None if worker.started_at is None else seen_at - (worker.seen_at - worker.started_at)
    return changed(worker, seen_at=seen_at, started_at=started_at)


def _keys_of(queue: str) -> list[str]:
    return [queue, keys.owners(queue), keys.turns(queue), keys.paused(queue)]


def _offer(worker: WorkerInfo | None) -> list[str | int]:
    """Return what the claim script compares with the needs of jobs: version, GPUs and memory for each device."""
    if worker is None:
        return ["", "", "", "", ""]
    rooms: list[int] = [worker.room_bytes("cpu"), worker.room_bytes("any"), worker.room_bytes("cuda")]
    return [worker.version, len(worker.gpu_memory_bytes), *rooms]


def _is_definition(
    stored: bytes | None, function: str, artifacts: str, payload: JobPayload, needs: JobNeeds | None = None
) -> bool:
    """Return whether a stored job has this function, artifacts id and payload, and these needs if they are given."""
    try:
        job = JobDefinition.model_validate_json(stored or b"")
    except ValidationError:
        return False
    fields: dict[str, str] = payload.model_dump()
    return (job.f, job.i, *job.a) == (function, artifacts, fields) and needs in (None, job.needs)
