"""Tables of items: read from files, and cut into requests for their scores."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

from trainer.config.validation import parse, safe_name
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.items import MAX_ITEMS, MAX_RESULT_CHARACTERS, Cell, ItemOptions, ItemsRequest, text_starts
from trainer.data.rows import bad_line, head_of, in_file, json_rows, read_file, rows_below

_SUFFIXES = (".csv", ".tsv", ".jsonl")
_PORTION_CHARACTERS = 20_000
"""Other people's requests are answered between two portions, each of which takes a second or so."""


def read_columns(path: Path) -> dict[str, list[Cell]]:
    """Read the columns of a table; raises DATA_NOT_FOUND, INVALID_INPUT and PAYLOAD_TOO_LARGE.

    A column that an object in JSON Lines does not have is empty there.
    """
    file = read_file(path, _SUFFIXES)
    lines = [line.removesuffix("\r") for line in file.text().split("\n")]
    with in_file(file.name):
        if PurePosixPath(file.name).suffix.lower() == ".jsonl":
            rows = [*json_rows(lines)]
            names = [*{name: name for _, row in rows for name in row}]
        else:
            head = head_of(lines)
            if twice := next((name for name in head.names if head.names.count(name) > 1), None):
                raise bad_line(head.number, f"names the column '{safe_name(twice)}' more than once")
            rows, names = [*rows_below(head, lines)], [*head.names]
        if not rows or not names:
            raise AppError(ErrorCode.INVALID_INPUT, "it has no items.")
        return {name: [_cell(number, row.get(name), name) for number, row in rows] for name in names}


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
