"""Texts in tables and transcripts, written as a plain text: the field `text`, or utterances."""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from trainer.config.validation import safe_name
from trainer.contracts.batteries import Quoting
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import RATING_COLUMNS
from trainer.contracts.wording import counted
from trainer.data import chat_transcripts
from trainer.data.rows import are_names, bad_line, in_file, json_values, read_table, shown_names
from trainer.data.text import check_text_name, is_converted, line_blocks, text_blocks, with_newlines
from trainer.reports.report_text import ENGLISH

_FIELD = "text"
_MAX_NAMES_CHARACTERS = 10_000
_EXAMINED_ROWS = 100
_MAX_SPEAKERS = 10
_ONE_COLUMN = (
    f"its first line may be a text or the name of its only column: write `{_FIELD}` above the texts, or save them as"
    " .txt, a text per line."
)


class PlainText(NamedTuple):
    """A text file, with what a person should know of the table that it was read from."""

    path: Path
    notes: tuple[str, ...] = ()
    first_lines: Sequence[int] = ()
    """The numbers of the lines in which the texts of the table begin; empty for a text file."""

    def number(self, line: int) -> int:
        """Return the number of the text in which a line lies; of a text file, that of the line."""
        return bisect_right(self.first_lines, line) if self.first_lines else line


def as_text(path: Path, folder: Path, quoting: Quoting | None = None) -> PlainText:
    """Return a plain text of the same name in a folder with the texts of a .jsonl, .csv, .tsv or .cha file.

    Other files are returned as they are, as is a table of human ratings, which only experiments read. Raises
    INVALID_INPUT with the first line that has no text, and UNSUPPORTED_MEDIA_TYPE for a name of another format.
    """
    if not path.is_dir():
        check_text_name(path.name)
    if not is_converted(path) or _has_ratings(path):
        return PlainText(path)
    with in_file(path.name):
        if path.suffix.lower() == ".jsonl":
            texts = _json_texts(chain.from_iterable(line_blocks(path, "stream")))
            return _written(folder / path.name, texts, (), _FIELD)
        if path.suffix.lower() == chat_transcripts.SUFFIX:
            return _utterances(path, folder / path.name)
        for _ in text_blocks(path, "stream"):
            pass  # refuses what is no text
        table = read_table(partial(_lines, path), path.suffix.lower(), quoting)
        field, notes = _FIELD, tuple(map(ENGLISH.note, table.notes))
        if len(table.names) == 1 and _FIELD not in table.names:
            field = table.names[0]
            if not are_names([field], [cells for _, cells in islice(table.records(), 1, _EXAMINED_ROWS)]):
                raise AppError(ErrorCode.INVALID_INPUT, _ONE_COLUMN)
            notes = (f"The first line, `{safe_name(field)}`, is read as the name of the column.", *notes)
        elif _FIELD not in table.names:
            raise AppError(ErrorCode.INVALID_INPUT, _without_texts(table.names))
        return _written(folder / path.name, (f"{row[field]}" for _, row in table.rows()), notes, field)


def _has_ratings(path: Path) -> bool:
    """Return True for a table whose first line names the columns of human ratings."""
    with suppress(OSError), path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        names = {name.strip(' "') for name in file.readline(_MAX_NAMES_CHARACTERS).strip().split(",")}
        return any({*columns} <= names for columns in RATING_COLUMNS)
    return False


def _utterances(path: Path, target: Path) -> PlainText:
    """Write the utterances of a transcript, and note whose they are."""
    found = [*chat_transcripts.utterances(chain.from_iterable(line_blocks(path, "stream")))]
    if not found:
        raise AppError(ErrorCode.INVALID_INPUT, "it has no main line with words, as `*MOT:` and a tab begin one.")
    spoken = Counter(one.speaker for one in found)
    speakers = ", ".join(f"{safe_name(name)} {count:,}" for name, count in spoken.most_common(_MAX_SPEAKERS))
    note = f"{counted(len(found), 'line')} read without codes, by speakers {speakers}."
    return _written(target, (one.text for one in found), (note,), None)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from file


def _json_texts(lines: Iterable[str]) -> Iterator[str]:
    for number, row in json_values(lines):
        text: object = row.get(_FIELD) if isinstance(row, dict) else row
        if not isinstance(text, str):
            raise bad_line(number, f"must be a text, or an object with a text in the field `{_FIELD}`")
        yield text


def _without_texts(names: Sequence[str]) -> str:
    problem = f"it has no column `{_FIELD}`, but {shown_names(names)}" if names else "it is empty"
    return f"{problem}: rename the column of the texts to `{_FIELD}`, or save the texts as .txt, a text per line."


def _written(path: Path, texts: Iterable[str], notes: tuple[str, ...], field: str | None) -> PlainText:
    """Write the texts, and note in which lines they begin; `field` is that of a table."""
    first_lines, line = array("Q"), 1
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for text in texts:
            lines = with_newlines(text)
            file.write(f"{lines}\n")
            first_lines.append(line)
            line += 1 + lines.count("\n")
    if field is not None:
        notes = (f"{counted(len(first_lines), 'text')} read from the field `{safe_name(field)}`.", *notes)
    return PlainText(path, notes, first_lines)
