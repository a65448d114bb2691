"""Expected start of a run that waits in the queue."""

import math
from collections.abc import Sequence
from heapq import heapify, heapreplace

from trainer.artifacts.runs import RunDirectory

MAX_AHEAD = 16
"""Behind more runs, no start is estimated."""
_STEP_SECONDS = 60.0


def expected_start(ahead: Sequence[RunDirectory], *, slots: int, now_seconds: float) -> float | None:
    """Return the Unix time at which the runs ahead leave a slot free, to the minute; None if it is not known.

    A waiting run takes as long as its estimated cost says. A slot whose run has no known end is never free.
    """
    ends: list[float] = []
    waiting: list[float] = []
    for run in ahead:
        follower = run.follow()
        status = follower.refresh()
        if status.status == "running":
            known, left = status.last_heartbeat_ts, status.eta_seconds
            ends.append(math.inf if known is None or left is None else max(known + left, now_seconds))
        elif status.status == "queued":
            cost = follower.record.cost
            waiting.append(math.inf if cost is None or cost.seconds is None else cost.seconds)
    free = [*ends, *[now_seconds] * (slots - len(ends))]
    heapify(free)
    for seconds in waiting:
        heapreplace(free, free[0] + seconds)
    start = free[0]
    return math.ceil(start / _STEP_SECONDS) * _STEP_SECONDS if math.isfinite(start) else None
