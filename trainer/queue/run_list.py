"""A list of runs: its rows, their order, and the rows after a place in it."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from operator import eq, ge, gt, le, lt
from statistics import fmean
from typing import Literal, NamedTuple, get_args

from trainer.contracts.base import Frozen, RunState
from trainer.queue.run_index import RunEntry, RunRow

NumberField = Literal[
    "progress",
    "train_loss",
    "val_loss",
    "best_val_loss",
    "best_val_bits_per_char",
    "test_loss",
    "bits_per_char",
    "params",
]
SortField = Literal["created_at", "label", "model_family", "status", "owner", NumberField]
"""Fields of the status of a run by which a list is sorted."""
NUMBER_FIELDS: tuple[NumberField, ...] = get_args(NumberField)
_STATES: tuple[RunState, ...] = ("running", "queued", "paused", "completed", "failed", "cancelled")
"""The order of a list that is sorted by status."""
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {"<=": le, ">=": ge, "<": lt, ">": gt, "=": eq}
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
CONDITION = rf"(?:{'|'.join(NUMBER_FIELDS)})(?:{'|'.join(_COMPARISONS)}){_NUMBER}"
"""Pattern of a condition on a number of a run, such as `test_loss<3.2`."""
_PARTS = re.compile(rf"({'|'.join(NUMBER_FIELDS)})({'|'.join(_COMPARISONS)})({_NUMBER})")

Key = tuple[bool, float, str, float, str]


class Place(Frozen):
    """The place of a row in a list, which stays where it is when rows come, go and move."""

    sort: SortField
    is_descending: bool
    key: Key

    def cursor(self) -> str:
        """Return the place as text for an address."""
        return urlsafe_b64encode(self.model_dump_json().encode()).decode()

    @classmethod
    def of_cursor(cls, cursor: str) -> "Place":
        """Return the place that a text stands for; raises ValueError for another text."""
        return cls.model_validate_json(urlsafe_b64decode(cursor))


class RunOrder(NamedTuple):
    """The order of a list; rows whose value is unknown are the last ones in both directions."""

    sort: SortField = "created_at"
    is_descending: bool = True

    def place(self, row: RunRow) -> Place:
        return Place(sort=self.sort, is_descending=self.is_descending, key=self._key(row))

    def rows(self, rows: Iterable[RunRow], after: Place | None = None) -> list[RunRow]:
        """Return rows in this order; with `after`, only those after a place."""
        keyed = sorted(((self._key(row), row) for row in rows), key=_first, reverse=self.is_descending)
        return [row for key, row in keyed if after is None or self._is_after(key, after.key)]

    def _is_after(self, key: Key, place: Key) -> bool:
        return key < place if self.is_descending else key > place

    def _key(self, row: RunRow) -> Key:
        value = _value(row, self.sort)
        is_known = value is not None
        created = max(run.created_at for run in row.runs).timestamp()
        number, text = (0.0, value) if isinstance(value, str) else (value or 0.0, "")
        return is_known if self.is_descending else not is_known, number, text, created, row.name


def conditions(text: str) -> Callable[[RunEntry], bool]:
    """Return whether a run meets conditions with commas between them, each of the form of CONDITION."""
    parts: list[tuple[NumberField, str, str]] = _PARTS.findall(text)
    wanted = [(field, _COMPARISONS[sign], float(number)) for field, sign, number in parts]

    def holds(run: RunEntry) -> bool:
        values = ((_number(run, field), compare, limit) for field, compare, limit in wanted)
        return all(value is not None and compare(value, limit) for value, compare, limit in values)

    return holds


def _value(row: RunRow, sort: SortField) -> float | str | None:
    """Return what a row is sorted by; numbers of a group are the means of its completed runs."""
    first = row.runs[0]
    match sort:
        case "created_at":
            return 0.0  # the key has it
        case "label":
            return (first.label or row.name).casefold()
        case "model_family":
            return first.family
        case "owner":
            return first.owner
        case "status":
            return float(min(_STATES.index(run.state) for run in row.runs))
        case "progress":
            return fmean(run.progress for run in row.runs)
        case _:
            counted = [run for run in row.runs if run.state == "completed"] if row.is_group else row.runs
            known = [number for run in counted if (number := _number(run, sort)) is not None]
            return fmean(known) if known else None


def _number(run: RunEntry, field: NumberField) -> float | None:
    number: float | None = run.progress if field == "progress" else getattr(run.numbers, field)
    return number


def _first(keyed: tuple[Key, RunRow]) -> Key:
    return keyed[0]
