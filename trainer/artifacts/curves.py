"""Numbers of a training by step, in compact columns."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import overload

from trainer.contracts.events import MetricsProgress


class Points(Sequence[tuple[int, float]]):
    """Points of one curve as pairs of step and value, in the order of their steps: 8 or 16 bytes each."""

    def __init__(self, steps: "array[int] | None" = None) -> None:
        """Create an empty curve; curves with the same steps can share their column of steps."""
        self._steps = array("q") if steps is None else steps
        self.values = array("d")
        """Numbers of the steps; whoever adds some adds a step first."""

    @classmethod
    def of(cls, points: Iterable[tuple[int, float]]) -> "Points":
        """Return a curve with its own steps."""
        found = cls()
        for step, value in points:
            found.add(step, value)
        return found

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> tuple[int, float]: ...
    @overload
    def __getitem__(self, index: "slice[int | None, int | None, int | None]") -> list[tuple[int, float]]: ...
    def __getitem__(self, index: "int | slice[int | None, int | None, int | None]") -> object:
        if isinstance(index, int):
            return self._steps[range(len(self))[index]], self.values[index]
        return list(zip(self._steps[: len(self)][index], self.values[index], strict=False))

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return zip(self._steps, self.values, strict=False)  # another thread may just have added a step

    def add(self, step: int, value: float) -> None:
        """Add a point of a curve with its own steps."""
        at = _place(self._steps, step)
        self._steps.insert(at, step)
        self.values.insert(at, value)

    def between(self, start: int, end: int | None) -> range:
        """Return the indices of the points from step `start` to step `end`, or to the last one."""
        size = len(self)
        return range(
            bisect_left(self._steps, start, hi=size),
            size if end is None else bisect_right(self._steps, end, hi=size),
        )

    def thinned(self, points: int, start: int = 0, end: int | None = None) -> list[tuple[int, float]]:
        """Return about `points` of the points from step `start` to step `end`, all of them if there are no more.

        The points are divided into buckets of equal counts. Each bucket keeps its lowest and its highest point, so that
        spikes stay; the first and the last point stay too.
        """
        chosen = self.between(start, end)
        count, n_buckets = len(chosen), max(1, points // 2)
        if count <= points:
            return self[chosen.start : chosen.stop]
        kept = {chosen.start, chosen.stop - 1}
        edges = [chosen.start + bucket * count // n_buckets for bucket in range(n_buckets + 1)]
        for low, high in pairwise(edges):
            values = self.values[low:high]
            kept |= {low + values.index(min(values)), low + values.index(max(values))}
        return [self[index] for index in sorted(kept)]


class RunCurves:
    """The curves of a run, from its progress events."""

    def __init__(self) -> None:
        self._steps: array[int] = array("q")
        self.train = Points(self._steps)
        """Mean loss in nats per token."""
        self.validation = Points()
        self.grad_norm = Points(self._steps)
        self.learning_rate = Points(self._steps)
        self.tokens_per_second = Points(self._steps)
        self.gpu_memory_bytes = Points()
        """Highest use of memory so far, on the GPU that uses most."""
        self.tokens = Points()
        """Tokens of the training text read so far."""
        self.words = Points()
        self.seconds = Points(self._steps)
        """Seconds of all attempts so far, without the time between them."""
        shared = (self.train, self.grad_norm, self.learning_rate, self.tokens_per_second, self.seconds)
        self._columns = tuple(points.values for points in shared)
        self._seconds = 0.0
        self._clock: datetime | None = None

    def start(self, at: datetime) -> None:
        """Start the clock of an attempt."""
        self._clock = at

    def add(self, event: MetricsProgress) -> None:
        """Add the numbers of an event; after a resume, its step can be lower than those before."""
        passed = (event.ts - (self._clock or event.ts)).total_seconds()
        self._clock, self._seconds = event.ts, self._seconds + max(0.0, passed)
        at = _place(self._steps, event.step)
        self._steps.insert(at, event.step)
        numbers = (event.train_loss, event.grad_norm, event.learning_rate, event.tokens_per_second, self._seconds)
        for values, number in zip(self._columns, numbers, strict=True):
            values.insert(at, number)
        if event.val_loss is not None:
            self.validation.add(event.step, event.val_loss)
        if event.gpu_memory_bytes:
            self.gpu_memory_bytes.add(event.step, max(event.gpu_memory_bytes))
        if event.tokens is not None:
            self.tokens.add(event.step, event.tokens)
        if event.words is not None:
            self.words.add(event.step, event.words)

    def by_name(self) -> dict[str, Points]:
        return {
            "train": self.train,
            "validation": self.validation,
            "grad_norm": self.grad_norm,
            "learning_rate": self.learning_rate,
            "tokens_per_second": self.tokens_per_second,
            "gpu_memory_bytes": self.gpu_memory_bytes,
            "tokens": self.tokens,
            "words": self.words,
            "seconds": self.seconds,
        }


def _place(steps: "array[int]", step: int) -> int:
    """Return where a step belongs among others in order: nearly always at the end."""
    return len(steps) if not steps or steps[-1] <= step else bisect_right(steps, step)
