"""Texts in tables: the field `text` of JSON lines or of tab-separated columns, written as a plain text."""

import json
from collections.abc import Iterator
from pathlib import Path

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.validation import decoded

_FIELD = "text"


def as_text(path: Path) -> Path:
    """Return the path of a plain text with the texts of a .jsonl or .tsv file; other files are returned as they are.

    Raises INVALID_INPUT with the first line that has no text.
    """
    kind = path.suffix.lower()
    if kind not in (".jsonl", ".tsv"):
        return path
    lines = decoded(path.read_bytes(), "`file`").removeprefix("\ufeff").split("\n")
    texts = _json_texts(lines) if kind == ".jsonl" else _column(lines)
    plain = path.with_suffix(".txt")
    with plain.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{text}\n" for text in texts)
    return plain


def _json_texts(lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row: object = json.loads(line)
            except (ValueError, RecursionError):
                raise _refusal(f"line {number:,} is not JSON.") from None
            text: object = row.get(_FIELD) if isinstance(row, dict) else row
            if not isinstance(text, str):
                raise _refusal(f"line {number:,} must be a text, or an object with a text in the field `{_FIELD}`.")
            yield text


def _column(lines: list[str]) -> Iterator[str]:
    """Yield the column `text`, which the first line names; a table with one column needs no such line."""
    names = lines[0].rstrip("\r").split("\t")
    if len(names) > 1 and _FIELD not in names:
        raise _refusal(f"its first line must name a column `{_FIELD}`.")
    index = names.index(_FIELD) if _FIELD in names else 0
    for number, line in enumerate(lines, 1):
        columns = line.rstrip("\r").split("\t")
        if line.strip() and (number > 1 or _FIELD not in names):
            if len(columns) <= index:
                raise _refusal(f"line {number:,} has no column `{_FIELD}`.")
            yield columns[index]


def _refusal(problem: str) -> AppError:
    return AppError(ErrorCode.INVALID_INPUT, f"`file` is not a table of texts: {problem}")
