"""A list of runs: its rows, their order, and the rows after a place in it."""

import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from pydantic_core import to_json

from trainer.contracts.base import Frozen, RunState
from trainer.contracts.errors import ErrorCode, FieldProblem, refusal
from trainer.contracts.http_answers import ValueTotals
from trainer.contracts.intervals import Spread, spread
from trainer.contracts.parameters import CONDITION_PARTS, NUMBER_FIELDS, SORT_FIELDS, NumberField, RunsQuery
from trainer.queue.run_index import RunEntry, RunNumbers, RunRow, matching

_STATES: tuple[RunState, ...] = ("running", "queued", "paused", "completed", "failed", "cancelled")
"""The order of a list that is sorted by status."""
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": float.__le__,
    ">=": float.__ge__,
    "<": float.__lt__,
    ">": float.__gt__,
    "=": float.__eq__,
}
_PARTS = re.compile(CONDITION_PARTS)
_AFTER_NUMBERS = 1e308
"""Stands for a text in the order of settings; a cursor, which is JSON, has no infinity."""

Key = tuple[bool, float, str, float, str]


class Place(Frozen):
    """The place of a row in a list, which stays where it is when rows come, go and move."""

    sort: str
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

    sort: str = "created_at"
    is_descending: bool = True

    def place(self, row: RunRow) -> Place:
        return Place(sort=self.sort, is_descending=self.is_descending, key=self._key(row))

    def rows(self, rows: Sequence[RunRow]) -> Sequence[RunRow]:
        """Return rows, given from new to old, in this order."""
        if self.sort == "created_at":
            return rows if self.is_descending else rows[::-1]
        return sorted(rows, key=self._key, reverse=self.is_descending)

    def after(self, rows: Sequence[RunRow], place: Place) -> Sequence[RunRow]:
        """Return those of the rows, given in this order, that stand after a place."""
        if self.is_descending:
            return [row for row in rows if self._key(row) < place.key]
        return [row for row in rows if self._key(row) > place.key]

    def _key(self, row: RunRow) -> Key:
        newest, value = row.runs[0], _value(row, self.sort)
        number, text = value or (0.0, "")
        return (value is not None) is self.is_descending, number, text, newest.created_at.timestamp(), newest.run_id


def condition(text: str) -> Callable[[RunEntry], bool]:
    """Return whether a run meets a condition of the form of CONDITION."""
    field, sign, given = _parts(text)
    numbers, compare, limit = {name: name for name in NUMBER_FIELDS}, _COMPARISONS[sign], _number(given)
    number_of = _reader(numbers[field]) if field in numbers else None

    def holds(run: RunEntry) -> bool:
        if number_of is not None:
            value = number_of(run)
            return value is not None and limit is not None and compare(float(value), limit)
        setting = run.setting(field)
        number = _number(setting)
        if number is not None and limit is not None:
            return compare(number, limit)
        is_listed = setting is not None and setting.startswith("[") and to_json(given).decode() in setting
        return sign == "=" and (setting == given or is_listed)

    return holds


def check_known(runs: Sequence[RunEntry], query: RunsQuery) -> None:
    """Raise INVALID_INPUT if a condition or the order names a setting that none of the runs has."""
    for path, text in (*(("where", text) for text in query.where.split(",") if text), ("sort", f"{query.sort}=?")):
        name = _parts(text)[0]
        if runs and name not in SORT_FIELDS and not any(run.setting(name) is not None for run in runs):
            fields = ", ".join(SORT_FIELDS)
            message = f"`{path}` names `{name}`, which is no setting of these runs and none of the fields {fields}."
            raise refusal(ErrorCode.INVALID_INPUT, FieldProblem(path=path, message=message, value=name))


def _parts(text: str) -> tuple[str, str, str]:
    """Return the name, the sign and the value of a condition."""
    found: list[tuple[str, str, str]] = _PARTS.findall(text)
    return found[0]


def varied_settings(runs: Iterable[RunEntry]) -> tuple[str, ...]:
    """Return the names of the settings that differ among runs, sorted."""
    different = {run.settings for run in runs}
    everywhere = set[str]().union(*list(different)[:1]).intersection(*different)
    names: dict[str, None] = {}
    for settings in different:
        names.update((one.partition("=")[0], None) for one in settings if one not in everywhere)
    return tuple(sorted(names))


def _value(row: RunRow, sort: str) -> tuple[float, str] | None:
    """Return the number or the text by which a row is sorted; None where it is unknown."""
    if sort in _TEXTS:
        text = _TEXTS[sort](row)
        return None if text is None else (0.0, text)
    if sort in _NUMBERS:
        number = _NUMBERS[sort](row)
        return None if number is None else (number, "")
    return (0.0, "") if sort == "created_at" else _setting(row, sort)


def totals_of(rows: Sequence[RunRow], page: range, name: str) -> tuple[ValueTotals, ...]:
    """Return the totals of the values of a setting on a page of rows that are sorted by it."""
    if name in SORT_FIELDS or not page:
        return ()
    first, last = page[0], page[-1]
    while first > 0 and _setting(rows[first - 1], name) == _setting(rows[first], name):
        first -= 1
    while last + 1 < len(rows) and _setting(rows[last + 1], name) == _setting(rows[last], name):
        last += 1
    runs: dict[str, list[RunEntry]] = {}
    for row in rows[first : last + 1]:
        runs.setdefault(row.runs[0].setting(name) or "", []).extend(row.runs)
    return tuple(_totals(value, of_value) for value, of_value in runs.items())


def _totals(value: str, runs: Sequence[RunEntry]) -> ValueTotals:
    completed = [run for run in runs if run.state == "completed"]
    numbers: dict[NumberField, Spread] = {}
    for field in NUMBER_FIELDS:
        counted = runs if field == "progress" else completed
        known = [float(number) for number in map(_reader(field), counted) if number is not None]
        if known:
            numbers[field] = spread(known, 0.0)
    return ValueTotals(value=value, n_runs=len(runs), n_completed=len(completed), numbers=numbers)


def _setting(row: RunRow, name: str) -> tuple[float, str] | None:
    """Return the place of a setting in an order: numbers by their size, then texts."""
    value = row.runs[0].setting(name)
    if value is None or value == "null":
        return None
    number = _number(value)
    return (_AFTER_NUMBERS, value) if number is None else (number, "")


def _number(text: str | None) -> float | None:
    """Return the finite number that a text stands for, if it stands for one."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _reader(field: NumberField) -> Callable[[RunEntry], float | None]:
    """Return the function that reads a number of a run."""
    if field == "progress":
        return lambda run: run.progress
    place = RunNumbers._fields.index(field)
    return lambda run: run.numbers[place]


def _number_of(row: RunRow, field: NumberField, value_of: Callable[[RunEntry], float | None]) -> float | None:
    """Return a number of a row: of a group, the mean of its completed runs."""
    run = row.runs[0]
    if len(row.runs) == 1 and (run.state == "completed" or not row.is_group):
        return value_of(run)
    counted = [run for run in row.runs if field == "progress" or run.state == "completed"]
    known = [number for run in counted if (number := value_of(run)) is not None]
    return sum(known) / len(known) if known else None


def _state_number(row: RunRow) -> float:
    return float(min(_STATES.index(run.state) for run in row.runs))


_TEXTS: dict[str, Callable[[RunRow], str | None]] = {
    "label": lambda row: (row.runs[0].label or row.name).casefold(),
    "model_family": lambda row: row.runs[0].family,
    "owner": lambda row: row.runs[0].owner,
}
_NUMBERS: dict[str, Callable[[RunRow], float | None]] = {
    "status": _state_number,
    **{field: partial(_number_of, field=field, value_of=_reader(field)) for field in NUMBER_FIELDS},
}


def found_runs(runs: Sequence[RunEntry], query: RunsQuery) -> Sequence[RunEntry]:
    """Return the runs that a request asks for, in their order."""
    corpus, label = query.corpus.casefold(), query.label.casefold()
    members = {run.run_id for run in runs if run.group_id == query.parent} if query.parent else set[str]()
    tests: list[tuple[object, Callable[[RunEntry], bool]]] = [
        (query.status, lambda run: run.state == query.status),
        (query.family, lambda run: run.family == query.family),
        (query.owner, lambda run: run.owner == query.owner),
        (query.group, lambda run: run.group_id == query.group),
        (query.parent, lambda run: query.parent in run.parents or not members.isdisjoint(run.parents)),
        (corpus, lambda run: not run.has_attached_text and corpus in run.corpus.casefold()),
        (label, lambda run: label in (run.label or "").casefold()),
        *((text, condition(text)) for text in query.where.split(",") if text),
    ]
    for given, holds in tests:
        if given:
            runs = [run for run in runs if holds(run)]
    if not query.search.strip():
        return runs
    named = matching(query.search, runs, _searched, exactly=True)
    ids = {run.run_id for run in named}
    return [run for run in runs if run.run_id in ids]


def _searched(run: RunEntry) -> tuple[str, ...]:
    return (*run.names, run.setting("tags") or "", run.setting("note") or "")
