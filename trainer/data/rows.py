"""Rows of tables: objects in JSON Lines, or columns between tabs, `,` or `;` that the first line names."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from trainer.contracts.errors import AppError, ErrorCode

Row = tuple[int, Mapping[str, object]]
"""The number of a line, and its values by column."""


class Head(NamedTuple):
    """The first line of a table that is not blank."""

    line: str
    number: int
    delimiter: str
    names: Sequence[str]


def bad_line(number: int, problem: str) -> AppError:
    """Return the INVALID_INPUT error of a line."""
    return AppError(ErrorCode.INVALID_INPUT, f"line {number:,} {problem}.")


def json_rows(lines: Iterable[str]) -> Iterator[Row]:
    """Yield the objects of JSON Lines; raises INVALID_INPUT for another line."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row: object = json.loads(line)
            except (ValueError, RecursionError):
                raise bad_line(number, "is not JSON") from None
            if not isinstance(row, dict):
                raise bad_line(number, "is not a JSON object")
            values: dict[str, object] = row
            yield number, values


def head_of(lines: Sequence[str]) -> Head:
    """Return the names of a table's columns; none without a line."""
    start = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    first = "".join(lines[start : start + 1])
    delimiter = max("\t;,", key=first.count)
    return Head(first, start + 1, delimiter, next(csv.reader([first], delimiter=delimiter), []))


def rows_below(head: Head, lines: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a table; raises INVALID_INPUT for a line with other columns than the first."""
    rows = csv.reader((f"{line}\n" for line in lines[head.number :]), delimiter=head.delimiter, strict=True)
    try:
        for row in rows:
            number = rows.line_num + head.number
            if row and len(row) != len(head.names):
                raise bad_line(number, f"has {len(row):,} columns, and the first line names {len(head.names):,}")
            if row:
                yield number, dict(zip(head.names, row, strict=True))
    except csv.Error as error:
        raise bad_line(rows.line_num + head.number, f"is no row of a table: {error}") from None
