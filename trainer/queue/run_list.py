"""A list of runs: its rows, their order, and the rows after a place in it."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
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
_TEXT_FIELDS = ("label", "model_family", "owner")
_STATES: tuple[RunState, ...] = ("running", "queued", "paused", "completed", "failed", "cancelled")
"""The order of a list that is sorted by status."""
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": float.__le__,
    ">=": float.__ge__,
    "<": float.__lt__,
    ">": float.__gt__,
    "=": float.__eq__,
}
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
CONDITION = rf"(?:{'|'.join(NUMBER_FIELDS)})(?:{'|'.join(_COMPARISONS)}){_NUMBER}"
"""Pattern of a condition on a number of a run, such as `test_loss<3.2`."""
_PARTS = re.compile(rf"({'|'.join(NUMBER_FIELDS)})({'|'.join(_COMPARISONS)})({_NUMBER})")

Value = tuple[float, str]
"""What a row is sorted by: a number, or else a text."""
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

    def rows(self, rows: Sequence[RunRow], after: Place | None = None) -> Sequence[RunRow]:
        """Return rows, given from new to old, in this order; with `after`, only those after a place."""
        if after is not None:
            rows = [row for row in rows if self._is_after(self._key(row), after.key)]
        ordered = rows if self.is_descending else rows[::-1]
        if self.sort == "created_at":
            return ordered
        valued = [(_value(row, self.sort), row) for row in ordered]
        known = [(value, row) for value, row in valued if value is not None]
        known.sort(key=_text if self.sort in _TEXT_FIELDS else _float, reverse=self.is_descending)
        return [*(row for _, row in known), *(row for value, row in valued if value is None)]

    def _is_after(self, key: Key, place: Key) -> bool:
        return key < place if self.is_descending else key > place

    def _key(self, row: RunRow) -> Key:
        value, newest = _value(row, self.sort), row.runs[0]
        is_known = value is not None
        number, text = value or (0.0, "")
        is_before = is_known if self.is_descending else not is_known
        return is_before, number, text, newest.created_at.timestamp(), newest.run_id


def condition(text: str) -> Callable[[RunEntry], bool]:
    """Return whether a run meets a condition of the form of CONDITION."""
    parts: list[tuple[NumberField, str, str]] = _PARTS.findall(text)
    [(field, sign, number)] = parts
    compare, limit = _COMPARISONS[sign], float(number)

    def holds(run: RunEntry) -> bool:
        value = _number(run, field)
        return value is not None and compare(float(value), limit)

    return holds


def _value(row: RunRow, sort: SortField) -> Value | None:
    """Return what a row is sorted by; numbers of a group are the means of its completed runs."""
    first = row.runs[0]
    match sort:
        case "created_at":
            return 0.0, ""  # the runs stand from new to old
        case "label":
            return 0.0, (first.label or row.name).casefold()
        case "model_family":
            return 0.0, first.family
        case "owner":
            return None if first.owner is None else (0.0, first.owner)
        case "status":
            return float(min(_STATES.index(run.state) for run in row.runs)), ""
        case _:
            return _number_value(row, sort)


def _number_value(row: RunRow, sort: NumberField) -> Value | None:
    if not row.is_group:
        number = _number(row.runs[0], sort)
        return None if number is None else (number, "")
    counted = [run for run in row.runs if sort == "progress" or run.state == "completed"]
    known = [number for run in counted if (number := _number(run, sort)) is not None]
    return (sum(known) / len(known), "") if known else None


def _number(run: RunEntry, field: NumberField) -> float | None:
    if field == "progress":
        return run.progress
    number: float | None = getattr(run.numbers, field)
    return number


def _float(valued: tuple[Value, RunRow]) -> float:
    return valued[0][0]


def _text(valued: tuple[Value, RunRow]) -> str:
    return valued[0][1]
