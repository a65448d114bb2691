"""Texts in tables: the field `text` of JSON lines or of tab-separated columns, written as a plain text."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.text import is_table, line_blocks, shown_name

_FIELD = "text"


def as_text(path: Path, folder: Path) -> Path:
    """Return a plain text of the same name in a folder with the texts of a .jsonl or .tsv file.

    Other files are returned as they are. Raises INVALID_INPUT with the first line that has no text.
    """
    if not is_table(path):
        return path
    lines = chain.from_iterable(line_blocks(path, "stream"))
    name = shown_name(path.name)
    texts = _json_texts(lines, name) if path.suffix.lower() == ".jsonl" else _column(lines, name)
    plain = folder / path.name
    with plain.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{text}\n" for text in texts)
    return plain


def _json_texts(lines: Iterable[str], name: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row: object = json.loads(line)
            except (ValueError, RecursionError):
                raise _refusal(name, f"line {number:,} is not JSON.") from None
            text: object = row.get(_FIELD) if isinstance(row, dict) else row
            if not isinstance(text, str):
                raise _refusal(
                    name, f"line {number:,} must be a text, or an object with a text in the field `{_FIELD}`."
                )
            yield text


def _column(lines: Iterable[str], name: str) -> Iterator[str]:
    """Yield the column `text`, which the first line names; a table with one column needs no such line."""
    index = 0
    for number, line in enumerate(lines, 1):
        columns = line.split("\t")
        if number == 1 and _FIELD in columns:
            index = columns.index(_FIELD)
        elif number == 1 and len(columns) > 1:
            raise _refusal(name, f"its first line must name a column `{_FIELD}`.")
        elif line.strip():
            if len(columns) <= index:
                raise _refusal(name, f"line {number:,} has no column `{_FIELD}`.")
            yield columns[index]


def _refusal(name: str, problem: str) -> AppError:
    return AppError(ErrorCode.INVALID_INPUT, f"'{name}' is not a table of texts: {problem}")
