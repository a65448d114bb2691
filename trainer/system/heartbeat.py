"""Heartbeats of a child, which it writes to its standard output from its main loop, and the detection of a stall.

In a phase without steps, such as reading a corpus or saving, processor time counts as progress, too.
"""

import os
import select
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Literal

Mark = Literal[b".", b"-", b"~"]
STEP: Mark = b"."
"""After a step."""
ALIVE: Mark = b"-"
"""Between two steps, or two batches of an evaluation."""
PHASE: Mark = b"~"
"""Start of a phase without steps, which lasts until the next heartbeat."""

_STDOUT = 1
_MARK_SECONDS = 0.1
_SLOWER = 20
_KEPT_STEPS = 100


class Heartbeat:
    """Sends heartbeats: at most ten a second, and none if the pipe is full."""

    def __init__(self, descriptor: int = _STDOUT) -> None:
        self._descriptor = descriptor
        self._next = 0.0

    def beat(self, mark: Mark) -> None:
        """Send a heartbeat; a terminated worker is ignored."""
        at = monotonic()
        if mark == PHASE or at >= self._next:
            self._next = 0.0 if mark == PHASE else at + _MARK_SECONDS
            if select.select((), (self._descriptor,), (), 0)[1]:
                with suppress(BrokenPipeError):
                    os.write(self._descriptor, mark)


class StallDetector:
    """Detects a child that makes no progress for too long."""

    def __init__(self, stall_seconds: float, processor_ticks: Callable[[], float]) -> None:
        self._stall_seconds = stall_seconds
        self._processor_ticks = processor_ticks
        self._used = processor_ticks()
        self._steps: deque[float] = deque(maxlen=_KEPT_STEPS)
        self._heard_at = 0.0
        self._in_phase = True
        self.silent_seconds = 0.0
        self.stalled = False
        self.has_begun = False
        """True once there was a heartbeat of a step, or between two."""

    def receive(self, marks: bytes, at: float) -> None:
        """Process heartbeats that arrived together, at a time in seconds."""
        known = [mark for mark in (marks[i : i + 1] for i in range(len(marks))) if mark in (STEP, ALIVE, PHASE)]
        if not known:
            return
        if STEP in known and PHASE not in known and not self._in_phase:
            self._steps.append((at - self._heard_at) / len(known))
        self._in_phase = known[-1] == PHASE
        self.has_begun = self.has_begun or STEP in known or ALIVE in known
        self._heard_at = at
        self.silent_seconds = 0.0

    def is_stalled(self, seconds: float) -> bool:
        """Return True if there was no progress for too long; call it every `seconds` seconds.

        The silence is the sum of these intervals, not a difference of clocks, because a stopped supervisor must not
        blame the child. A step may take `stall_seconds` or 20 times the median step, whichever is more.
        """
        self.silent_seconds += seconds
        if self._in_phase or not self._steps:
            used = self._processor_ticks()
            if used != self._used:
                self._used, self.silent_seconds = used, 0.0
        self.stalled = self.silent_seconds > max(self._stall_seconds, _SLOWER * median(self._steps or (0.0,)))
        return self.stalled


def processor_ticks(pid: int) -> float:
    """Return the processor time of a process in ticks; if it is unknown, a value that always grows."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(") ", 1)[1].split()
    except OSError:
        return monotonic()
    return float(fields[11]) + float(fields[12])
