"""Rows of tables in files: objects in JSON Lines, or columns between tabs, `,` or `;` that the first line names."""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from trainer.config.validation import decoded, unreadable
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.text import shown_name

Row = tuple[int, Mapping[str, object]]
"""The number of a line, and its values by column."""


_MAX_FILE_BYTES = 1 << 28
_BOM = "\ufeff"


class TextFile(NamedTuple):
    name: str
    content: bytes

    @property
    def shown(self) -> str:
        """The name in messages."""
        return shown_name(self.name)

    def text(self) -> str:
        """Return the text without its byte order mark; raises INVALID_INPUT if it is not UTF-8."""
        return decoded(self.content, f"'{self.shown}'").removeprefix(_BOM)


def read_file(path: Path, suffixes: Collection[str]) -> TextFile:
    """Read a file of one of these kinds; raises DATA_NOT_FOUND, INVALID_INPUT and PAYLOAD_TOO_LARGE."""
    check_suffix(path.name, suffixes)  # before it is read
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            message = f"'{shown_name(path.name)}' is larger than {_MAX_FILE_BYTES >> 20} MiB."
            raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)
        return TextFile(path.name, path.read_bytes())
    except OSError as error:
        raise AppError(ErrorCode.DATA_NOT_FOUND, unreadable(path, error)) from None


def check_suffix(name: str, suffixes: Collection[str]) -> None:
    """Raise INVALID_INPUT for a file of another kind."""
    if PurePosixPath(name).suffix.lower() not in suffixes:
        message = f"'{shown_name(name)}' is no file of items: its name must end in {', '.join(suffixes)}."
        raise AppError(ErrorCode.INVALID_INPUT, message)


@contextmanager
def in_file(name: str) -> Iterator[None]:
    """Begin the message of an error with the name of the file that is read."""
    try:
        yield
    except AppError as error:
        raise AppError(error.code, f"'{shown_name(name)}': {error.message}", error.details) from None


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
    """Return the names of a table's columns, none without a line; raises INVALID_INPUT."""
    start = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    first = "".join(lines[start : start + 1])
    delimiter = max("\t;,", key=first.count)
    try:
        return Head(first, start + 1, delimiter, next(csv.reader([first], delimiter=delimiter), []))
    except csv.Error as error:
        raise bad_line(start + 1, f"is no row of a table: {error}") from None


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
