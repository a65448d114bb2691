"""Tables of items: read from files, and cut into requests for their scores."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from trainer.config.validation import parse, safe_name
from trainer.contracts.batteries import Quoting
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.items import MAX_ITEMS, MAX_RESULT_CHARACTERS, Cell, ItemOptions, ItemsRequest, text_starts
from trainer.data.rows import bad_line, in_file, read_file, read_rows
from trainer.reports.report_text import ENGLISH

_SUFFIXES = (".csv", ".tsv", ".jsonl")
_PORTION_CHARACTERS = 20_000
"""Other people's requests are answered between two portions, each of which takes a second or so."""


class ItemTable(NamedTuple):
    """The columns of a table, and what a person should know of how they were read."""

    columns: dict[str, list[Cell]]
    notes: tuple[str, ...]


def read_columns(path: Path, quoting: Quoting | None = None) -> ItemTable:
    """Read the columns of a table; raises DATA_NOT_FOUND, INVALID_INPUT and PAYLOAD_TOO_LARGE.

    A column that an object in JSON Lines does not have is empty there.
    """
    file = read_file(path, _SUFFIXES)
    with in_file(file.name):
        names, rows, notes = read_rows(file.text(), file.suffix, quoting)
        if not rows or not names:
            raise AppError(ErrorCode.INVALID_INPUT, "it has no items.")
        columns = {name: [_cell(number, row.get(name), name) for number, row in rows] for name in names}
    return ItemTable(columns, tuple(map(ENGLISH.note, notes)))


def _cell(number: int, value: object, name: str) -> Cell:
    if value is not None and not isinstance(value, (str, int, float, bool)):
        raise bad_line(number, f"has a list or an object in `{safe_name(name)}`, and no text or number")
    return value


def item_requests(columns: Mapping[str, Sequence[Cell]], options: ItemOptions) -> Iterator[ItemsRequest]:
    """Yield the requests for a table of any size, in the order of its rows; raises INVALID_INPUT.

    The rows of a text are in one request.
    """
    named = (options.text_column, options.context_column, *options.region_columns)
    texts = [columns[name] for name in named if name is not None and name in columns]
    units = {"item": 1, "region": max(1, len(options.region_columns))}
    start = characters = results = 0
    n_rows = max(map(len, columns.values()), default=0)
    for row, past in pairwise([*text_starts(columns, options.group_columns), n_rows]):
        if past - row > MAX_ITEMS:
            message = f"rows {row + 1:,} to {past:,} are one text: a text has at most {MAX_ITEMS:,} rows."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        text = sum(len(str(value)) for values in texts for value in values[row:past])
        written = sum(len(str(value)) for values in columns.values() for value in values[row:past])
        result = units.get(options.unit, text) * written
        is_full = characters + text > _PORTION_CHARACTERS or results + result > MAX_RESULT_CHARACTERS
        if row > start and (is_full or past - start > MAX_ITEMS):
            yield _request(columns, options, start, row)
            start, characters, results = row, 0, 0
        characters += text
        results += result
    yield _request(columns, options, start, n_rows)


def _request(columns: Mapping[str, Sequence[Cell]], options: ItemOptions, start: int, end: int) -> ItemsRequest:
    fields: dict[str, object] = options.model_dump()
    table = {name: values[start:end] for name, values in columns.items()}
    return parse(ItemsRequest, {**fields, "table": table, "first_row": start + 1})
