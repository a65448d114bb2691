"""Times at which the steps of a training ended."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from time import perf_counter

_WARM_UP_STEPS = 5


class StepTimes:
    """The clock of a contestant that runs its own loop."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def add(self) -> None:
        """Record that a step has ended now."""
        self._ends.append(perf_counter())

    def tokens_per_second(self, tokens_per_step: int) -> float:
        return tokens_per_step / median_step_seconds(self._ends)


def median_step_seconds(ends: Sequence[float]) -> float:
    """Return the median time between the ends of two steps in seconds, without the first steps."""
    return median(after - before for before, after in pairwise(ends[_WARM_UP_STEPS:]))
