"""The tidy table of an analysis: the times that are not left out, with the predictors of their units and those before.

Its columns have names for formulas of lme4: `time ~ surprisal + surprisal_1 + length + (1 | person)`.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from math import isnan, nan
from typing import NamedTuple, TypeAlias, assert_never, get_args

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.readings import LIMITS_MS, Excluded, Exclusion, Measure, Predictor, ReadingOptions, Reason
from trainer.reading.tables import Text, Times, position_step
from trainer.reports.score_table import csv_lines

Floats: TypeAlias = "NDArray[np.float64]"
Ints: TypeAlias = "NDArray[np.int64]"
_Flags: TypeAlias = "NDArray[np.bool_]"
_EXCLUSIONS: tuple[Exclusion, ...] = get_args(Exclusion)
_OPTIONS: Mapping[Reason, str] = {
    "first": "`exclude`",
    "last": "`exclude`",
    "punctuation": "`exclude`",
    "missing": "`measures`",
    "too_short": "`min_ms`",
    "too_long": "`max_ms`",
    "beginning": "`spillover`",
    "gap": "`spillover`",
    "inside_token": "`tokenizations` or `baseline`",
}
"""The options by which fewer rows are left out."""
_ROWS = 10_000
"""Rows that are written at once."""


class Observations(NamedTuple):
    """The rows of an analysis (N,), in the order of the table."""

    response: str
    """The column of `values`: `time` in ms, `log_time` for its natural logarithm, or `skipping`."""
    values: Floats
    unit: Ints
    person: Ints
    """0 without persons."""
    has_persons: bool
    """False for means over persons."""
    predictors: Mapping[str, Floats]
    """Of all units of the table, by name with the number of units before: `surprisal`, `surprisal_1`, `surprisal_2`.

    NaN for an absent one.
    """
    needed: tuple[str, ...]
    """The predictors of the analysis, which each row has: those of surprisal, and those of the baseline."""
    excluded: tuple[Excluded, ...]


def observations(
    times: Times, measure: Measure, options: ReadingOptions, scores: Mapping[Predictor, Sequence[float | None]]
) -> Observations:
    """Return the observations of a measure, given the scores of all units by predictor; length and position are added.

    A row that is left out counts for the first of its reasons in this order: first, last, punctuation, missing,
    too_short, too_long, beginning, gap, inside_token. Raises INVALID_INPUT if none is left.
    """
    come_after = [*_come_after(times, options.spillover)]
    of_units = dict(_predictors(times, scores, come_after))
    wanted: tuple[Predictor, ...] = ("surprisal", *options.baseline)
    needed = {column: None for name in wanted for column in _columns(name, options.spillover)}
    unit: Ints = np.array(times.unit, dtype=np.int64)
    values: Floats = np.array(times.values[measure], dtype=np.float64)
    low, high = LIMITS_MS.get(measure, (0.0, np.inf))
    if measure != "skipping":
        low = low if options.min_ms is None else options.min_ms
        high = high if options.max_ms is None else options.max_ms
    places: list[int] = [place for text in times.texts for place in range(len(text.units))]
    begins: _Flags = np.array(places, dtype=np.int64) < options.spillover
    is_behind_gap: _Flags = ~np.all(come_after, axis=0)
    lacks: _Flags = np.any([np.isnan(of_units[name]) for name in needed], axis=0)
    left: _Flags = np.ones(len(values), dtype=np.bool_)
    excluded: list[Excluded] = []
    reasons: list[tuple[Reason, _Flags]] = [
        *((reason, flags[unit]) for reason, flags in _excluded_units(times, options.exclude)),
        ("missing", np.isnan(values)),
        ("too_short", values < low),
        ("too_long", values > high),
        ("beginning", begins[unit]),
        ("gap", is_behind_gap[unit]),
        ("inside_token", lacks[unit]),
    ]
    for reason, flags in reasons:
        excluded.append(Excluded(reason=reason, n_rows=int(np.count_nonzero(left & flags))))
        left = left & ~flags
    if not left.any():
        counts = ", ".join(f"{one.n_rows:,} {one.reason}" for one in excluded if one.n_rows)
        changes = ", ".join({_OPTIONS[one.reason]: None for one in excluded if one.n_rows})
        message = f"'{times.data.name}' has no {measure} row that is not left out: {counts}. Change {changes}."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    is_log = options.scale == "log" and measure != "skipping"
    kept: Floats = values[left]
    return Observations(
        "skipping" if measure == "skipping" else "log_time" if is_log else "time",
        np.log(kept) if is_log else kept,
        unit[left],
        np.array(times.person, dtype=np.int64)[left],
        bool(times.persons),
        of_units,
        tuple(needed),
        tuple(excluded),
    )


def tidy_csv(times: Times, rows: Observations, folds: Ints) -> Iterator[str]:
    """Yield the tidy table as CSV, many lines at a time; NA stands for an absent predictor, as in R.

    Columns: text, item if the table has texts of one item, position, word, person if it has persons, the fold, the
    response, and the predictors.
    """
    has_items = any(text.item != text.name for text in times.texts)
    predictors = [name for name in rows.predictors if name != "position"]
    names = ["text", *["item"] * has_items, "position", "word", *["person"] * rows.has_persons, "fold", rows.response]
    yield csv_lines([[*names, *predictors]], ",") + "\n"
    table: Floats = np.empty((len(rows.values), 1 + len(predictors)))
    table[:, 0] = rows.values
    for place, name in enumerate(predictors, 1):
        table[:, place] = rows.predictors[name][rows.unit]
    for start in range(0, len(table), _ROWS):
        units: list[int] = rows.unit[start : start + _ROWS].tolist()
        persons: list[int] = rows.person[start : start + _ROWS].tolist()
        of_folds: list[int] = folds[start : start + _ROWS].tolist()
        cells: list[list[float]] = table[start : start + _ROWS].tolist()
        lines: list[list[str | int | float]] = []
        for number, person, fold, of_row in zip(units, persons, of_folds, cells, strict=True):
            unit = times.units[number]
            text = times.texts[unit.text]
            line: list[str | int | float] = [text.name, *[text.item] * has_items, unit.position, unit.word]
            line += [times.persons[person]] if rows.has_persons else []
            lines.append([*line, fold, *("NA" if isnan(cell) else cell for cell in of_row)])
        yield csv_lines(lines, ",") + "\n"


def _columns(name: Predictor, spillover: int) -> list[str]:
    """Return the columns of a predictor: its own, and those of the units before, but for the position."""
    return [name, *(f"{name}_{lag}" for lag in range(1, spillover + 1) if name != "position")]


def _predictors(
    times: Times, scores: Mapping[Predictor, Sequence[float | None]], come_after: Sequence[_Flags]
) -> Iterator[tuple[str, Floats]]:
    """Yield the columns of all predictors with a number for each unit; NaN for an absent one, as behind a gap.

    `come_after` are the flags of `_come_after` for each number of units before.
    """
    own: dict[Predictor, Sequence[float | None]] = {
        "length": [float(len(unit.word)) for unit in times.units],
        "position": [float(unit.position) for unit in times.units],
    }
    for name, numbers in chain(scores.items(), own.items()):
        filled: list[float] = [nan if number is None else number for number in numbers]
        values: Floats = np.array(filled, dtype=np.float64)
        for lag, column in enumerate(_columns(name, len(come_after) - 1)):
            before: Floats = np.full(len(values), nan)
            before[lag:] = values[: len(values) - lag]
            before[~come_after[lag]] = nan
            yield column, before


def _come_after(times: Times, spillover: int) -> Iterator[_Flags]:
    """Yield for each number of units before, from 0, whether a unit comes after so many without a gap in positions."""
    units = times.units
    step = position_step(units)
    for lag in range(spillover + 1):
        flags: _Flags = np.zeros(len(units), dtype=np.bool_)
        flags[lag:] = [
            two.text == one.text and two.position - one.position == lag * step
            for one, two in zip(units, units[lag:], strict=False)
        ]
        yield flags


def _excluded_units(times: Times, exclude: Sequence[Exclusion]) -> Iterator[tuple[Exclusion, _Flags]]:
    """Yield the reasons for which units are excluded, in their order, with a flag for each unit."""
    for reason in _EXCLUSIONS:
        if reason in exclude:
            flags: _Flags = np.zeros(len(times.units), dtype=np.bool_)
            for text in times.texts:
                match reason:
                    case "first":
                        flags[text.first] = True
                    case "last":
                        flags[text.past - 1] = True
                    case "punctuation":
                        flags[text.first : text.past] = [*_have_punctuation(text)]
                    case _:
                        assert_never(reason)
            yield reason, flags


def _have_punctuation(text: Text) -> Iterator[bool]:
    """Yield whether each unit of a text begins or ends with punctuation, or has it beside it in the running text."""
    ends = [0, *(unit.end for unit in text.units)]
    starts = [*(unit.start for unit in text.units[1:]), len(text.running)]
    for unit, end, start in zip(text.units, ends, starts, strict=False):
        beside = text.running[max(end, unit.start - 1) : min(start, unit.end + 1)]
        signs = {unit.word[0], unit.word[-1], beside[0], beside[-1]}
        yield any(unicodedata.category(sign).startswith("P") for sign in signs)
