"""Minimal pairs in the forms in which their authors publish them.

| form | good, bad, and what groups them |
|---|---|
| JSON Lines of BLiMP (Warstadt et al. 2020) | `sentence_good`, `sentence_bad`, `UID` |
| tables of MultiBLiMP (Jumelet et al. 2025), tabs | `sen`, `wrong_sen`, `phenomenon` |
| tables of TurBLiMP (Başar et al. 2025), semicolons | `good_sentence`, `bad_sentence`, `phenomenon` |
| tables of your own, tabs, commas or semicolons | `good`, `bad`, `group`; or two or three columns between tabs |
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.input_text import BadLine, read_lines
from trainer.data.text import shown_name
from trainer.reports.minimal_pairs import Pair

_SENTENCES = (
    ("sentence_good", "sentence_bad"),
    ("sen", "wrong_sen"),
    ("good_sentence", "bad_sentence"),
    ("good", "bad"),
)
"""Names of the columns of the sentences, in each form."""
_GROUPS = ("UID", "paradigm", "phenomenon", "group")
"""Names of the column that groups pairs; the first that a file has counts."""
_CONTEXT = "context"
_MAX_TABS = 2
"""Tabs in a line of a table without names of columns."""


def read_pairs(path: Path) -> list[Pair]:
    """Read a file of minimal pairs, at least one.

    A column `context` is given before both sentences and not scored. Raises DATA_NOT_FOUND, and INVALID_INPUT with the
    first line that is wrong.
    """
    lines = _lines(path)
    pairs = list(_json_pairs(lines) if path.suffix.lower() == ".jsonl" else _table_pairs(lines))
    if not pairs:
        raise AppError(ErrorCode.INVALID_INPUT, f"'{shown_name(path.name)}' has no pairs.")
    return pairs


def _lines(path: Path) -> Iterator[str]:
    for number, line in enumerate(read_lines(path), 1):
        if isinstance(line, BadLine):
            raise AppError(line.error.code, f"Line {number:,}: {line.error.message}")
        yield line


def _json_pairs(lines: Iterable[str]) -> Iterator[Pair]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row: object = json.loads(line)
            except (ValueError, RecursionError):
                raise _refusal(number, "is not JSON") from None
            if not isinstance(row, dict):
                raise _refusal(number, "is not a JSON object")
            texts: dict[str, str] = {name: value for name, value in row.items() if isinstance(value, str)}
            yield _pair(number, texts, _sentences(number, [*texts]))


def _table_pairs(lines: Iterator[str]) -> Iterator[Pair]:
    """Yield the pairs of a table; the first line names the columns, or is a pair itself."""
    start, first = next(((number, line) for number, line in enumerate(lines, 1) if line.strip()), (1, ""))
    if not first:
        return
    delimiter = max("\t;,", key=first.count)
    names = next(csv.reader([first], delimiter=delimiter), [])
    if not any(name in names for pair in _SENTENCES for name in pair) and first.count("\t") in range(1, _MAX_TABS + 1):
        for number, line in enumerate(chain([first], lines), start):
            if line.strip():
                cells = [*line.split("\t"), ""]
                if len(cells) > _MAX_TABS + 2:
                    raise _refusal(number, "is no pair: write two sentences between tabs, and optionally a group")
                yield _pair(number, dict(zip(("good", "bad", "group"), cells, strict=False)), ("good", "bad"))
        return
    sentences = _sentences(start, names)
    rows = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    try:
        for row in rows:
            number = rows.line_num + start
            if row and len(row) != len(names):
                raise _refusal(number, f"has {len(row):,} columns, and the first line names {len(names):,}")
            if row:
                yield _pair(number, dict(zip(names, row, strict=True)), sentences)
    except csv.Error as error:
        raise _refusal(rows.line_num + start, f"is no row of a table: {error}") from None


def _sentences(number: int, names: Sequence[str]) -> tuple[str, str]:
    """Return the names of the columns of the sentences."""
    for pair in _SENTENCES:
        if all(name in names for name in pair):
            return pair
    known = ", ".join(f"`{good}` and `{bad}`" for good, bad in _SENTENCES)
    raise _refusal(number, f"does not name the columns of two sentences: known are {known}")


def _pair(number: int, texts: Mapping[str, str], names: tuple[str, str]) -> Pair:
    group = next((texts[name].strip() for name in _GROUPS if name in texts), "")
    first, second = (texts.get(name, "").strip() for name in names)
    context = texts.get(_CONTEXT, "").strip()
    if not first or not second:
        raise _refusal(number, "is no pair: one of its sentences is missing")
    if "\n" in f"{context}{first}{second}":
        raise _refusal(number, "is no pair: a sentence is one line")
    return Pair(number, first, second, group or None, context)


def _refusal(number: int, problem: str) -> AppError:
    return AppError(ErrorCode.INVALID_INPUT, f"Line {number:,} {problem}.")
