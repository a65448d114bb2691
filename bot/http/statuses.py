"""Statuses of runs for many clients: each event log is read once, and then only its new events."""

import asyncio
from collections import OrderedDict
from time import monotonic

from trainer.artifacts.run_status import RunFollower
from trainer.contracts.base import changed
from trainer.contracts.runs import RunStatus
from trainer.jobs.queue import JobQueue

_FRESH_SECONDS = 0.1
_PATIENCE_SECONDS = 0.05
"""Time to wait for a newer state of the queue where an older one is known: Redis may be waiting for its disk."""


class _Followed:
    def __init__(self, follower: RunFollower) -> None:
        self.follower = follower
        self.reading = asyncio.Lock()
        self.read_at = self.asked_at = -_FRESH_SECONDS
        self.asking: asyncio.Task[None] | None = None
        self.known: RunStatus | None = None
        """The last status with the state of the queue."""


class RunStatuses:
    """Followers of the runs that clients asked for last."""

    def __init__(self, queue: JobQueue, max_runs: int = 512) -> None:
        self._queue = queue
        self._max_runs = max_runs
        self._runs: OrderedDict[str, _Followed] = OrderedDict()

    async def status(self, run_id: str) -> RunStatus:
        """Return the status of a run with the state of the queue; raises RUN_NOT_FOUND."""
        followed = await self._read(run_id)
        if followed.asking is None and monotonic() - followed.asked_at >= _FRESH_SECONDS:
            followed.asking = asyncio.create_task(self._ask(followed))
        if followed.asking is not None:
            timeout = None if followed.known is None else _PATIENCE_SECONDS
            await asyncio.wait([followed.asking], timeout=timeout)
        read, known = followed.follower.status, followed.known
        if known is None or known.status != read.status or read.has_ended:
            return read
        beats = (read.last_heartbeat_ts or 0.0, known.last_heartbeat_ts or 0.0)
        state: dict[str, object] = {"reachable": known.reachable, "last_heartbeat_ts": max(beats) or None}
        if read.status == "queued":
            place, starts_ts = known.queue_position, known.starts_ts
            state |= {"queue_position": place, "starts_ts": starts_ts, "message": known.message}
        return changed(read, **state)

    async def follower(self, run_id: str) -> RunFollower:
        """Return the follower of a run, at most a tenth of a second old; raises RUN_NOT_FOUND."""
        return (await self._read(run_id)).follower

    async def _ask(self, followed: _Followed) -> None:
        """Ask Redis for the state of the queue, once for all clients."""
        try:
            status = followed.follower.status
            add_state = self._queue.steady_status if status.status == "queued" else self._queue.add_queue_state
            followed.known = await add_state(status)
        finally:
            followed.asking, followed.asked_at = None, monotonic()

    async def _read(self, run_id: str) -> _Followed:
        run = self._queue.runs.get(run_id)
        followed = self._runs.get(run_id)
        if followed is None:
            followed = _Followed(await asyncio.to_thread(run.follow))
            self._runs[run_id] = followed
        self._runs.move_to_end(run_id)
        while len(self._runs) > self._max_runs:
            self._runs.popitem(last=False)
        async with followed.reading:
            if not followed.follower.ended and monotonic() - followed.read_at >= _FRESH_SECONDS:
                await asyncio.to_thread(followed.follower.read_new)
                followed.read_at = monotonic()
            return followed
