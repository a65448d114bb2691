"""Reads a table of human ratings: how well people of one language understand another."""

from itertools import islice
from math import isfinite
from pathlib import Path

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import RATING_COLUMNS, Rating
from trainer.data.rows import TextFile, lines_of, read_table


def read_ratings(path: Path) -> tuple[Rating, ...]:
    """Return the ratings of a table with the columns of one set of RATING_COLUMNS.

    Other columns are ignored. Raises INVALID_INPUT for missing columns, a wrong line, or a pair that is rated twice.
    """
    try:
        table = read_table(lines_of(TextFile("ratings", path.read_bytes()).text()), ".csv", "csv")
    except AppError as error:
        raise _invalid(f"The ratings file is no table: {error.message}") from None
    header = [name.strip() for name in table.names]
    named = [columns for columns in RATING_COLUMNS if all(header.count(column) == 1 for column in columns)]
    if len(named) != 1:
        raise _invalid(
            "The first line of the ratings file must name the columns listener, language and mean_rating,"
            " or listener_language, text_language and mean_human_rating."
        )
    places = [header.index(column) for column in named[0]]
    ratings: dict[tuple[str, str], Rating] = {}
    for line, cells in islice(table.records(), 1, None):
        listener, language, rated = (cells[place].strip() for place in places)
        mean_rating = _number(rated)
        if not listener or not language:
            raise _wrong_line(line, "needs a listener and a language")
        if mean_rating is None:
            raise _wrong_line(line, f"needs a number as {named[0][2]}")
        if (listener, language) in ratings:
            raise _wrong_line(line, "rates a pair of languages that an earlier line has rated")
        ratings[listener, language] = Rating(listener=listener, language=language, mean_rating=mean_rating)
    return tuple(ratings.values())


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
