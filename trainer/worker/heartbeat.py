"""How a child shows that it gets on, and how its supervisor sees that it does not (R5).

The child writes single letters to its standard output, from the loop that does the work and from no thread of its own:
a child that hangs is silent. What has no steps, such as reading a text or saving, is a phase; there the supervisor
takes the processor time that the child uses for progress too.
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
"""A step is done."""
ALIVE: Mark = b"-"
"""Between two steps, or two batches of an evaluation."""
PHASE: Mark = b"~"
"""What comes now has no steps; it lasts until the next mark."""

_STDOUT = 1
_MARK_SECONDS = 0.1
_SLOWER = 20
_KEPT_STEPS = 100


class Heartbeat:
    """The child's side: at most ten marks a second, and none that it would have to wait for."""

    def __init__(self, descriptor: int = _STDOUT) -> None:
        self._descriptor = descriptor
        self._next = 0.0

    def beat(self, mark: Mark) -> None:
        """Show progress; a worker that is gone does not matter here."""
        at = monotonic()
        if mark == PHASE or at >= self._next:
            self._next = 0.0 if mark == PHASE else at + _MARK_SECONDS
            if select.select((), (self._descriptor,), (), 0)[1]:
                with suppress(BrokenPipeError):
                    os.write(self._descriptor, mark)


class StallDetector:
    """The supervisor's side: how long a child has shown no progress, and how long it may."""

    def __init__(self, stall_seconds: float, processor_ticks: Callable[[], float]) -> None:
        self._stall_seconds = stall_seconds
        self._processor_ticks = processor_ticks
        self._used = processor_ticks()
        self._steps: deque[float] = deque(maxlen=_KEPT_STEPS)
        self._heard_at = 0.0
        self._in_phase = True
        self.silent_seconds = 0.0
        self.stalled = False

    def receive(self, marks: bytes, at: float) -> None:
        """Take in the marks that came together, at a time in seconds."""
        known = [mark for mark in (marks[i : i + 1] for i in range(len(marks))) if mark in (STEP, ALIVE, PHASE)]
        if not known:
            return
        if STEP in known and PHASE not in known and not self._in_phase:
            self._steps.append((at - self._heard_at) / len(known))
        self._in_phase = known[-1] == PHASE
        self._heard_at = at
        self.silent_seconds = 0.0

    def is_stalled(self, seconds: float) -> bool:
        """Say, each time that so many seconds have passed, whether there was no progress for too long.

        The silence is the sum of these seconds, not a difference of clocks: where the supervisor was stopped itself,
        the child had not the time to be blamed for. A step may take `stall_seconds`, or 20 times the median where that
        is more.
        """
        self.silent_seconds += seconds
        if self._in_phase or not self._steps:
            used = self._processor_ticks()
            if used != self._used:
                self._used, self.silent_seconds = used, 0.0
        self.stalled = self.silent_seconds > max(self._stall_seconds, _SLOWER * median(self._steps or (0.0,)))
        return self.stalled


def processor_ticks(pid: int) -> float:
    """The processor time that a process has used; where the system does not say, it seems to use some all the time."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(") ", 1)[1].split()
    except OSError:
        return monotonic()
    return float(fields[11]) + float(fields[12])
