"""Numbers of a training by step, in compact columns."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from io import BufferedReader
from itertools import groupby, pairwise
from pathlib import Path
from typing import NotRequired, overload

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from trainer.artifacts.event_log import EventReader, is_progress
from trainer.contracts.events import Event, JobCancelled, JobCompleted, JobFailed, JobStarted, MetricsProgress
from trainer.contracts.parameters import CurveQuery
from trainer.system.files import BrokenFile, open_regular

_PIECE = 20_000
"""Points that are written at once: a run may have a million."""
_READ_BYTES = 1 << 22
"""Bytes of the loss curve that are read at once."""
_NAMES = (
    *("train", "validation", "grad_norm", "learning_rate", "tokens_per_second", "gpu_memory_bytes", "cpu_cores"),
    *("memory_bytes", "tokens", "words", "seconds"),
)
_OF_EACH_STEP = ("train", "grad_norm", "learning_rate", "tokens_per_second", "seconds")
_ROW_FIELDS = {
    **{"train": "train_loss", "validation": "val_loss", "grad_norm": "grad_norm", "learning_rate": "lr"},
    "seconds": "elapsed_seconds",
}
"""Curves, and the fields of the loss curve's rows that they show."""


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
        found.extend(points)
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

    def extend(self, points: Iterable[tuple[int, float]]) -> None:
        """Add points of a curve with its own steps."""
        pairs = [*points]
        _insert(self._steps, (self.values,), [step for step, _ in pairs], ([value for _, value in pairs],))

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


class _Numbers(TypedDict):
    """The fields of a progress event that curves need; all others are not validated, which takes longer."""

    seq: int
    ts: datetime
    step: int
    train_loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    val_loss: NotRequired[float | None]
    gpu_memory_bytes: NotRequired[tuple[int, ...] | None]
    cpu_cores: NotRequired[float | None]
    memory_bytes: NotRequired[int | None]
    tokens: NotRequired[int | None]
    words: NotRequired[int | None]


_numbers: TypeAdapter[list[_Numbers]] = TypeAdapter(list[_Numbers], config=ConfigDict(defer_build=True))
_rows: TypeAdapter[list[dict[str, float | None]]] = TypeAdapter(
    list[dict[str, float | None]], config=ConfigDict(defer_build=True)
)


class RunCurves:
    """The curves of a run, from its progress events; once it has ended, from all rows of its loss curve."""

    def __init__(self, reader: EventReader, loss_curve: Path) -> None:
        self.last_seq = 0
        """Number of the last event that was read."""
        self._reader = reader
        self._loss_curve = loss_curve
        self._steps: array[int] = array("q")
        self.by_name = {name: Points(self._steps if name in _OF_EACH_STEP else None) for name in _NAMES}
        """Losses are means in nats per token, `gpu_memory_bytes` the highest use so far on the GPU that uses most.

        `tokens` and `words` are those of the training text read so far, `seconds` those of all attempts so far without
        the time between them.
        """
        self._columns = [self.by_name[name].values for name in _OF_EACH_STEP]
        self._seconds = 0.0
        self._clock: datetime | None = None

    def read_new(self) -> None:
        """Add the numbers of the events that are new in the log; after a resume, steps can be lower than before."""
        for lines in self._reader.lines():
            for has_numbers, stretch in groupby(lines, is_progress):
                found = [*stretch]
                if not has_numbers:
                    self._add_events(self._reader.parsed(found))
                    continue
                try:
                    numbers = _numbers.validate_json(b"[" + b",".join(found) + b"]")
                except ValidationError:  # one of the lines is damaged
                    self._add_events(self._reader.parsed(found))
                else:
                    self._add(numbers)

    def _add_events(self, events: Iterable[Event]) -> None:
        for event in events:
            self.last_seq = event.seq
            match event:
                case JobStarted():
                    self._clock = event.ts  # the time between two attempts does not count
                case MetricsProgress():
                    self._add(_numbers.validate_json(f"[{event.model_dump_json()}]"))
                case JobCompleted() | JobFailed() | JobCancelled():
                    self._read_rows()
                case _:
                    pass

    def _add(self, events: Sequence[_Numbers]) -> None:
        steps = [event["step"] for event in events]
        columns = (  # in the order of _OF_EACH_STEP
            [event["train_loss"] for event in events],
            [event["grad_norm"] for event in events],
            [event["learning_rate"] for event in events],
            [event["tokens_per_second"] for event in events],
            [self._seconds_at(event["ts"]) for event in events],
        )
        _insert(self._steps, self._columns, steps, columns)
        memory = [None if not (used := event.get("gpu_memory_bytes")) else max(used) for event in events]
        for name, values in (
            ("validation", [event.get("val_loss") for event in events]),
            ("gpu_memory_bytes", memory),
            ("cpu_cores", [event.get("cpu_cores") for event in events]),
            ("memory_bytes", [event.get("memory_bytes") for event in events]),
            ("tokens", [event.get("tokens") for event in events]),
            ("words", [event.get("words") for event in events]),
        ):
            points = zip(steps, values, strict=True)
            self.by_name[name].extend((step, value) for step, value in points if value is not None)
        self.last_seq = events[-1]["seq"]

    def _read_rows(self) -> None:
        """Take the numbers of all rows of the loss curve; those of the events stay if it is deleted or damaged."""
        found = {name: Points() for name in _ROW_FIELDS}
        try:
            with BufferedReader(open_regular(self._loss_curve)) as file:
                while lines := file.readlines(_READ_BYTES):
                    rows = _rows.validate_json(b"[" + b",".join(lines) + b"]")
                    for name, field in _ROW_FIELDS.items():
                        values = ((int(row["step"] or 0), row.get(field)) for row in rows)
                        found[name].extend((step, value) for step, value in values if value is not None)
        except (FileNotFoundError, BrokenFile, ValidationError, KeyError):
            return
        if found["train"]:
            self.by_name |= found

    def _seconds_at(self, at: datetime) -> float:
        """Return the seconds of all attempts, and count on from this time."""
        self._seconds += max(0.0, (at - (self._clock or at)).total_seconds())
        self._clock = at
        return self._seconds


def _insert(
    steps: "array[int]",
    columns: "Sequence[array[float]]",
    new_steps: Sequence[int],
    new_values: Sequence[Sequence[float]],
) -> None:
    """Insert rows into columns in the order of their steps: nearly always at the end."""
    if all(one <= other for one, other in pairwise([*steps[-1:], *new_steps])):
        steps.extend(new_steps)
        for column, values in zip(columns, new_values, strict=True):
            column.extend(values)
        return
    for row, step in enumerate(new_steps):
        at = bisect_right(steps, step)
        steps.insert(at, step)
        for column, values in zip(columns, new_values, strict=True):
            column.insert(at, values[row])


def pieces(points: Points, query: CurveQuery) -> Iterator[list[tuple[int, float]]]:
    """Yield the points that a query asks for, some thousands at a time."""
    if query.points is not None:
        found = points.thinned(query.points, query.from_step, query.to_step)
        yield from [found] if found else []
        return
    chosen = points.between(query.from_step, query.to_step)
    for start in range(chosen.start, chosen.stop, _PIECE):
        yield points[start : min(start + _PIECE, chosen.stop)]
