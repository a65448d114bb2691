"""Expected starts of the runs that wait in the queue, and what they wait for."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from heapq import heapify, heapreplace

from trainer.artifacts.run_status import WAITING, RunFollower
from trainer.contracts.wording import counted

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


def waiting_for(training: Sequence[str], ahead: int, starts_ts: float | None) -> str:
    """Return what a queued run waits for: runs that train now, of `ahead` runs before it, and its expected start."""
    if not training:
        return WAITING
    parts = [f"Waiting for {' and '.join(training)}, which {'trains' if len(training) == 1 else 'train'} now"]
    if ahead > len(training):
        parts.append(f"{counted(ahead - len(training), 'other run')} before it")
    if starts_ts is not None:
        parts.append(f"starts about {datetime.fromtimestamp(starts_ts):%H:%M}")
    return f"{'; '.join(parts)}."
