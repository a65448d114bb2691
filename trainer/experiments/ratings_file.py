"""Reads a CSV file of human ratings: how well people of one language understand another."""

import csv
from collections.abc import Iterator
from io import StringIO
from math import isfinite
from pathlib import Path

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import Rating

COLUMNS = (
    ("listener", "language", "mean_rating"),
    ("listener_language", "text_language", "mean_human_rating"),
)
"""The names of the columns: one of these sets."""


def read_ratings(path: Path) -> tuple[Rating, ...]:
    """Return the ratings of a CSV file with the columns of one set of COLUMNS.

    Other columns are ignored. Raises INVALID_INPUT for missing columns, a wrong line, or a pair that is rated twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid("The ratings file is not UTF-8 text.") from error
    rows = _rows(text)
    _, header = next(rows, (1, []))
    named = [columns for columns in COLUMNS if all(header.count(column) == 1 for column in columns)]
    if len(named) != 1:
        raise _invalid(
            "The first line of the ratings file must name the columns listener, language and mean_rating,"
            " or listener_language, text_language and mean_human_rating."
        )
    places = [header.index(column) for column in named[0]]
    ratings: dict[tuple[str, str], Rating] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            raise _wrong_line(line, f"has {len(cells)} columns; the first line has {len(header)}")
        listener, language, rated = (cells[place] for place in places)
        mean_rating = _number(rated)
        if not listener or not language:
            raise _wrong_line(line, "needs a listener and a language")
        if mean_rating is None:
            raise _wrong_line(line, f"needs a number as {named[0][2]}")
        if (listener, language) in ratings:
            raise _wrong_line(line, "rates a pair of languages that an earlier line has rated")
        ratings[listener, language] = Rating(listener=listener, language=language, mean_rating=mean_rating)
    return tuple(ratings.values())


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that is not blank."""
    rows = csv.reader(StringIO(text), strict=True)
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield rows.line_num, cells
    except csv.Error as error:
        raise _wrong_line(rows.line_num, f"is not CSV: {error}") from error


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if isfinite(number) else None


def _wrong_line(line: int, problem: str) -> AppError:
    return _invalid(f"Line {line} of the ratings file {problem}.")


def _invalid(message: str) -> AppError:
    return AppError(ErrorCode.INVALID_INPUT, message)
