"""Statuses of runs for many clients: each event log is read once, and then only its new events."""

import asyncio
from collections import OrderedDict
from time import monotonic

from trainer.artifacts.run_status import RunFollower
from trainer.contracts.runs import RunStatus
from trainer.jobs.queue import JobQueue

_FRESH_SECONDS = 0.1


class _Followed:
    def __init__(self, follower: RunFollower) -> None:
        self.follower = follower
        self.reading, self.asking = asyncio.Lock(), asyncio.Lock()  # of the disk, and of Redis
        self.read_at = self.asked_at = -_FRESH_SECONDS
        self.asked_for = self.status = follower.status
        """The status as read, and the same with the state of the queue."""


class RunStatuses:
    """Followers of the runs that clients asked for last."""

    def __init__(self, queue: JobQueue, max_runs: int = 512) -> None:
        self._queue = queue
        self._max_runs = max_runs
        self._runs: OrderedDict[str, _Followed] = OrderedDict()

    async def status(self, run_id: str) -> RunStatus:
        """Return the status of a run with the state of the queue; raises RUN_NOT_FOUND."""
        followed = await self._read(run_id)
        async with followed.asking:
            read = followed.follower.status
            if followed.asked_for is not read or monotonic() - followed.asked_at >= _FRESH_SECONDS:
                followed.status = await self._queue.add_queue_state(read)
                followed.asked_for, followed.asked_at = read, monotonic()
            return followed.status

    async def follower(self, run_id: str) -> RunFollower:
        """Return the follower of a run, at most a tenth of a second old; raises RUN_NOT_FOUND."""
        return (await self._read(run_id)).follower

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
