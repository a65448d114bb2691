"""Statuses of runs for many clients: each event log is read once, and then only its new events."""

import asyncio
from collections import OrderedDict
from time import monotonic

from trainer.artifacts.run_status import RunFollower
from trainer.contracts.base import changed
from trainer.contracts.runs import RunStatus
from trainer.queue.queue import JobQueue

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
        self._due: list[_Followed] = []
        """Runs whose state the next request to Redis asks for."""
        self._asking: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        """Held while a run is read for the first time: many clients list the same runs."""

    async def status(self, run_id: str) -> RunStatus:
        """Return the status of a run with the state of the queue; raises RUN_NOT_FOUND."""
        followed = await self._read(run_id)
        if followed.follower.ended:
            return followed.follower.status
        if followed.asking is None and monotonic() - followed.asked_at >= _FRESH_SECONDS:
            if not self._due:
                self._asking = asyncio.create_task(self._ask())
            self._due.append(followed)
            followed.asking = self._asking
        if followed.asking is not None:
            timeout = None if followed.known is None else _PATIENCE_SECONDS
            await asyncio.wait([followed.asking], timeout=timeout)
        read, known = followed.follower.status, followed.known
        if known is None or known.status != read.status:
            return read
        beats = (read.last_heartbeat_ts or 0.0, known.last_heartbeat_ts or 0.0)
        state: dict[str, object] = {"reachable": known.reachable, "last_heartbeat_ts": max(beats) or None}
        if read.status == "queued":
            state |= {"queue_position": known.queue_position, "message": known.message, "waits_for": known.waits_for}
        return changed(read, **state)

    async def follower(self, run_id: str) -> RunFollower:
        """Return the follower of a run, at most a tenth of a second old; raises RUN_NOT_FOUND."""
        return (await self._read(run_id)).follower

    async def _ask(self) -> None:
        """Ask Redis for the state of the queue, once for all runs and clients."""
        due, self._due = self._due, []
        try:
            states = await self._queue.add_queue_state([one.follower.status for one in due])
            for one, state in zip(due, states, strict=True):
                one.known = state
        finally:
            for one in due:
                one.asking, one.asked_at = None, monotonic()

    async def _read(self, run_id: str) -> _Followed:
        followed = self._runs.get(run_id)
        if followed is None or not followed.follower.ended:
            run = self._queue.runs.get(run_id)
            if followed is None:
                async with self._opening:
                    followed = self._runs.get(run_id) or _Followed(await asyncio.to_thread(run.follow))
                    self._runs[run_id] = followed
        self._runs.move_to_end(run_id)
        while len(self._runs) > self._max_runs:
            self._runs.popitem(last=False)
        async with followed.reading:
            if not followed.follower.ended and monotonic() - followed.read_at >= _FRESH_SECONDS:
                await asyncio.to_thread(followed.follower.read_new)
                followed.read_at = monotonic()
            return followed
