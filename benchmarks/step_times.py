"""Times at which the steps of a training ended."""

from itertools import pairwise
from statistics import median
from time import perf_counter

WARM_UP_STEPS = 5


class StepTimes:
    """The clock of a contestant that runs its own loop."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def add(self) -> None:
        """Record that a step has ended now."""
        self._ends.append(perf_counter())

    def tokens_per_second(self, tokens_per_step: int) -> float:
        """Return the tokens per second of the median step, without the first steps."""
        return tokens_per_step / median(after - before for before, after in pairwise(self._ends[WARM_UP_STEPS:]))
