"""Expected starts of the runs that wait in the queue."""

import math
from collections.abc import Iterable
from heapq import heapify, heapreplace

from trainer.artifacts.run_status import RunFollower

MAX_AHEAD = 16
"""Behind more runs, no start is estimated."""
_STEP_SECONDS = 60.0


def expected_starts(order: Iterable[RunFollower], *, slots: int, now_seconds: float) -> dict[str, float]:
    """Return the Unix time, to the minute, at which each waiting run gets a free slot; a run is absent if unknown.

    `order` has the running runs, then the waiting ones in the order of their turns. A waiting run takes as long as its
    estimated cost says. A slot whose run has no known end is never free.
    """
    ends: list[float] = []
    waiting: list[tuple[str, float]] = []
    for follower in order:
        status = follower.status
        if status.status == "running":
            known, left = status.last_heartbeat_ts, status.eta_seconds
            ends.append(math.inf if known is None or left is None else max(known + left, now_seconds))
        elif status.status == "queued":
            cost = follower.record.cost
            waiting.append((status.run_id, math.inf if cost is None or cost.seconds is None else cost.seconds))
    free = [*ends, *[now_seconds] * (slots - len(ends))]
    heapify(free)
    starts: dict[str, float] = {}
    for run_id, seconds in waiting:
        start = free[0]
        heapreplace(free, start + seconds)
        if math.isfinite(start):
            starts[run_id] = math.ceil(start / _STEP_SECONDS) * _STEP_SECONDS
    return starts
