"""The reader of tables in files: JSON Lines, or columns between tabs, `,` or `;` that the first line names.

A cell that begins with a quotation mark is quoted, as Python's csv, pandas and R write it. Of these readings the first
that gives every row the columns of the first line is taken:

1. a quotation mark in a quoted cell is doubled, and other cells have none
2. a quotation mark in a quoted cell follows a backslash (`write.table` of R)
3. as 1, but other cells may have quotation marks
4. quotation marks are plain characters: only if no cell both begins and ends with one

Lines end at \\n, \\r\\n or \\r.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from trainer.config.validation import decoded, safe_name, unreadable
from trainer.contracts.batteries import Quoting
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.reports import Note, counted_note, note
from trainer.contracts.wording import counted
from trainer.data.text import BOM, shown_name

Row = tuple[int, Mapping[str, object]]
"""The number of the line in which a row begins, and its values by column."""
Lines = Callable[[], Iterable[str]]
"""Yields the lines of a file with their ends, each time from the start."""

_MAX_FILE_BYTES = 1 << 28
_MAX_NAMES = 20
_BALANCED = re.compile(r'"(?:[^"]|"")*+"')
"""A cell that is quoted in one line."""
_LINE = re.compile(r"[^\r\n]*+(?:\r\n?|\n)|[^\r\n]+")

_HEADER_WORDS = frozenset(
    "good bad right wrong correct incorrect grammatical ungrammatical acceptable unacceptable sentence sentences text"
    " a b 1 2 group type".split()
)
"""Words in names of columns, where these do not differ from the sentences by their form."""
_SENTENCE_END = re.compile(r"[.!?…。！？।؟]\W*$")


class TextFile(NamedTuple):
    name: str
    content: bytes

    @property
    def shown(self) -> str:
        """The name in messages."""
        return shown_name(self.name)

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.shown).suffix.lower()

    def text(self) -> str:
        """Return the text without its byte order mark; raises INVALID_INPUT if it is not UTF-8."""
        return decoded(self.content, f"'{self.shown}'").removeprefix(BOM)


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
        message = f"'{shown_name(name)}' cannot be read as a table: its name must end in {', '.join(suffixes)}."
        raise AppError(ErrorCode.INVALID_INPUT, message)


@contextmanager
def in_file(name: str) -> Iterator[None]:
    """Begin the message of an error with the name of the file that is read."""
    try:
        yield
    except AppError as error:
        shown = f"'{shown_name(name)}'"
        message = error.message if error.message.startswith(shown) else f"{shown}: {error.message}"
        raise AppError(error.code, message, error.details) from None


def bad_line(number: int, problem: str) -> AppError:
    """Return the INVALID_INPUT error of a line."""
    return AppError(ErrorCode.INVALID_INPUT, f"line {number:,} {problem}.")


def lines_of(text: str) -> Lines:
    """Return the lines of a text with their ends; `StringIO` would copy the text with four bytes per character."""
    return lambda: (found[0] for found in _LINE.finditer(text))


def shown_names(names: Sequence[str]) -> str:
    """Return the names of columns for a message: the first 20."""
    shown = ", ".join(f"`{safe_name(name)}`" if name else "one without a name" for name in names[:_MAX_NAMES])
    return shown if len(names) <= _MAX_NAMES else f"{shown} and {len(names) - _MAX_NAMES:,} more"


class Rows(NamedTuple):
    """The rows of a table, and what a person should know of them."""

    names: Sequence[str]
    """The columns, also those that only some objects of JSON Lines have."""
    rows: Sequence[Row]
    notes: tuple[Note, ...]


def read_rows(text: str, suffix: str, quoting: Quoting | None = None) -> Rows:
    """Read a table, of which the first line names the columns; raises INVALID_INPUT with the number of a wrong line."""
    if suffix == ".jsonl":
        rows = [*json_rows(lines_of(text)())]
        return Rows([*{name: name for _, row in rows for name in row}], rows, ())
    table = read_table(lines_of(text), suffix, quoting)
    return Rows([*{name: None for name in table.names}], [*table.rows()], table.notes)


def json_rows(lines: Iterable[str]) -> Iterator[Row]:
    """Yield the objects of JSON Lines; raises INVALID_INPUT for another line, and for the same key twice."""
    for number, row in json_values(lines):
        if not isinstance(row, dict):
            raise bad_line(number, "is not a JSON object")
        values: dict[str, object] = row
        yield number, values


def json_values(lines: Iterable[str]) -> Iterator[tuple[int, object]]:
    """Yield the numbers and the values of lines of JSON that are not blank; raises INVALID_INPUT."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                value: object = json.loads(line, object_pairs_hook=partial(_object, number))
            except (ValueError, RecursionError):
                raise bad_line(number, "is not JSON") from None
            if "\\u" in line:
                _check_characters(number, value)
            yield number, value


def _object(number: int, pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise bad_line(number, f"names `{safe_name(twice)}` more than once")
    return values


def _check_characters(number: int, value: object) -> None:
    """Refuse what JSON can escape although no text has it: NUL, and half of a pair of UTF-16."""
    text = json.dumps(value, ensure_ascii=False)
    if "\\u0000" in text.replace("\\\\", ""):
        raise bad_line(number, "has a NUL character (\\u0000)")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise bad_line(number, "has half of a surrogate pair, which is no Unicode character") from None


class Table(NamedTuple):
    """A table between tabs, `,` or `;` of which all rows have been checked: each has the columns of the first line."""

    names: Sequence[str]
    """The cells of the first line that is not empty."""
    number: int
    """The number of this line."""
    n_rows: int
    """Rows below the first line, without the empty ones."""
    n_empty: int
    """Rows without any text, which are left out."""
    delimiter: str
    verbatim_line: int | None
    """A line with a quotation mark that was read as a plain character; None where cells are quoted."""
    joined_line: int | None
    """The first line of a quoted cell with several lines, each of which could be a row; None without one."""
    read: Callable[[], Iterator["_Record"]]

    def records(self) -> Iterator[tuple[int, Sequence[str]]]:
        """Yield the number of the first line, and the cells, of each row and of the first line."""
        return ((one.number, one.cells) for one in self.read() if not one.is_empty)

    def rows(self) -> Iterator[Row]:
        """Yield the rows below the first line; raises INVALID_INPUT for a column that is named twice.

        Of several columns without a name, none may have text.
        """
        names = [*self.names]
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise bad_line(self.number, f"names the column '{safe_name(twice)}' more than once")
        for number, cells in islice(self.records(), 1, None):
            if names.count("") > 1 and any(not name and cell.strip() for name, cell in zip(names, cells, strict=True)):
                raise bad_line(number, "has text in one of several columns without a name")
            yield number, dict(zip(names, cells, strict=True))

    @property
    def notes(self) -> tuple[Note, ...]:
        """Notes on the rows that were left out, and on what was guessed."""
        notes: list[Note] = []
        if self.n_empty:
            rows, empty = counted_note(self.n_rows, "row"), counted_note(self.n_empty, "empty row")
            notes.append(note("{rows} read, {empty} left out.", rows=rows, empty=empty))
        if self.verbatim_line is not None:
            text = note(
                "Quotation marks are read as plain characters: a cell of line {line} begins with one and does not end"
                " with one. `quoting` (`--quoting csv`) of scores and batteries reads quoted cells.",
                line=self.verbatim_line,
            )
            notes.append(text)
        if self.joined_line is not None:
            text = note(
                "The quoted cell that begins in line {line} has several lines, each with the columns of a row: if its"
                " quotation marks are plain characters, give scores and batteries `quoting: none` (`--quoting none`).",
                line=self.joined_line,
            )
            notes.append(text)
        return tuple(notes)


def are_names(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return True if a first line looks like names: several by their words, or as rows have sentences and it none."""
    words = {word for name in first for word in name.lower().replace("_", " ").split()}
    if rows and len(first) > 1 and words <= _HEADER_WORDS:
        return True
    n_sentences = sum(all(map(_is_sentence, cells)) for cells in rows)
    return 2 * n_sentences > len(rows) and not any(map(_is_sentence, first))


def _is_sentence(cell: str) -> bool:
    return len(cell.split()) > 1 or _SENTENCE_END.search(cell) is not None


def read_table(lines: Lines, suffix: str, quoting: Quoting | None = None) -> Table:
    """Check a table and return it; raises INVALID_INPUT with the number of the first line that is wrong.

    A `.tsv` file has tabs. Other files have the delimiter with which the first line has the most cells.
    """
    delimiter = "\t" if suffix == ".tsv" else _delimiter(lines())
    if quoting == "none":
        return _checked(lines, _Dialect(delimiter, is_quoted=False))
    for dialect in (_Dialect(delimiter), _Dialect(delimiter, escape="\\")):
        with suppress(AppError):
            return _of_quoted(lines, _checked(lines, dialect), quoting)
    try:
        return _of_quoted(lines, _checked(lines, _Dialect(delimiter, is_strict=False)), quoting)
    except AppError:
        if quoting is None and (table := _plain(lines, delimiter)) is not None:
            return table
        raise


def _of_quoted(lines: Lines, table: Table, quoting: Quoting | None) -> Table:
    """Return a table of quoted cells, or with plain quotation marks where these would join rows between tabs.

    A cell with both tabs and newlines, such that each of its lines has the columns of the table, is rarer than a
    quotation mark at the beginning of a word that the next one ends rows later. Commas in cells are not rare.
    """
    could_join = quoting is None and table.joined_line is not None
    plain = _plain(lines, table.delimiter) if could_join else None
    if plain is None:
        return table._replace(joined_line=None)
    return plain if table.delimiter == "\t" else table


class _Record(NamedTuple):
    """A row as it stands in a file."""

    number: int
    cells: Sequence[str]
    n_lines: int = 1

    @property
    def is_empty(self) -> bool:
        return not any(cell.strip() for cell in self.cells)


class _Dialect(NamedTuple):
    delimiter: str
    escape: str = '"'
    """The character before a quotation mark in a quoted cell."""
    is_quoted: bool = True
    """False: quotation marks are plain characters."""
    is_strict: bool = True
    """Cells that are not quoted have no quotation marks."""


def _delimiter(lines: Iterable[str]) -> str:
    """Return the delimiter that the first line has most often outside quoted cells."""
    first = re.sub(r'"[^"]*+"?', "", next((line for line in lines if line.strip()), ""))
    return max("\t;,", key=first.count) if any(sign in first for sign in "\t;") else ","


def _checked(lines: Lines, dialect: _Dialect) -> Table:
    """Read all of a table; raises INVALID_INPUT for a row with other columns than the first line."""
    names: Sequence[str] = ()
    number = n_rows = n_empty = 0
    joined: int | None = None
    for one in _records(lines, dialect):
        if joined is None and one.n_lines > 1:
            joined = one.number
        if one.is_empty:
            n_empty += len(one.cells) > 1  # a blank line is no row
        elif not names:
            names, number, n_empty = one.cells, one.number, 0
        elif len(one.cells) != len(names):
            raise bad_line(one.number, _wrong_columns(one, len(names), is_first=n_rows == 0))
        else:
            n_rows += 1
    return Table(names, number, n_rows, n_empty, dialect.delimiter, None, joined, partial(_records, lines, dialect))


def _wrong_columns(record: _Record, expected: int, *, is_first: bool) -> str:
    found = len(record.cells)
    problem = f"has {counted(found, 'column')}, and the first line names {expected:,}"
    if record.n_lines > 1:
        last = record.number + record.n_lines - 1
        return f"begins a cell with a quotation mark that ends in line {last:,}, so that it {problem}{_ADVICE}"
    if is_first and found == expected + 1 and record.cells[0] == "1":
        return f"{problem}: write a table of R with `row.names = FALSE`"
    return problem


_ADVICE = (
    ': write the quotation marks of a cell twice, and one before and behind it (`"""Stop!"" he said"`), or read them as'
    " plain characters (`quoting`, `--quoting none` of scores and batteries)"
)


def _plain(lines: Lines, delimiter: str) -> Table | None:
    """Return the table with quotation marks as plain characters; None if this is not the only way to read it.

    Quoted cells are known by a cell that begins and ends with quotation marks, or by newlines other than at the ends of
    rows (`csv` of Python ends rows with \\r\\n). A table of one column has nothing that shows where rows end.
    """
    try:
        table = _checked(lines, _Dialect(delimiter, is_quoted=False))
    except AppError:
        return None
    ends = {line[len(line.rstrip("\r\n")) :] for line in lines()} - {""}
    if len(table.names) < 2 or len(ends) > 1:
        return None
    first: int | None = None
    for number, cells in table.records():
        for cell in cells:
            if cell.startswith('"'):
                if _BALANCED.fullmatch(cell):
                    return None
                first = first or number
    return table._replace(verbatim_line=first)


def _records(lines: Lines, dialect: _Dialect) -> Iterator[_Record]:
    """Yield the rows of a table; raises INVALID_INPUT for a quotation mark that does not belong there."""
    delimiter = dialect.delimiter
    numbered = enumerate(lines(), 1)
    for number, line in numbered:
        text = line.rstrip("\r\n")
        if not dialect.is_quoted or '"' not in text:
            yield _Record(number, text.split(delimiter))
            continue
        cells = text.split(delimiter)
        if "\\" not in text and all(map(_is_simple, cells)):
            yield _Record(number, [cell.strip('"') for cell in cells])
            continue
        cells = []
        start, last = 0, number
        while start <= len(text):
            if not text.startswith('"', start):
                end = text.find(delimiter, start)
                end = len(text) if end < 0 else end
                cell = text[start:end]
                if dialect.is_strict and '"' in cell:
                    raise bad_line(number, f"has a quotation mark in a cell that does not begin with one{_ADVICE}")
                cells.append(cell)
            else:
                parts: list[str] = []
                start += 1
                while (end := _closing(text, start, dialect.escape)) < 0:
                    parts.append(line[start:])
                    last, line = next(numbered, (0, ""))
                    if not last:
                        raise bad_line(number, f"begins a cell with a quotation mark that nothing closes{_ADVICE}")
                    text, start = line.rstrip("\r\n"), 0
                parts.append(text[start:end])
                end += 1
                if end < len(text) and text[end] != delimiter:
                    raise bad_line(number, f"has text behind the closing quotation mark of a cell{_ADVICE}")
                cells.append("".join(parts).replace(f'{dialect.escape}"', '"'))
            start = end + 1
        yield _Record(number, cells, last - number + 1)


def _is_simple(cell: str) -> bool:
    """Return True for a cell without quotation marks, or with one at each end alone, so that it has no delimiter."""
    return '"' not in cell or (len(cell) > 1 and cell[0] == cell[-1] == '"' and cell.count('"') == 2)


def _closing(text: str, start: int, escape: str) -> int:
    """Return the position of the quotation mark that closes a cell, -1 if it is not in this line."""
    while (at := text.find('"', start)) >= 0:
        if escape == "\\" and at > start and text[at - 1] == escape:
            start = at + 1
        elif escape == '"' and text.startswith('"', at + 1):
            start = at + 2
        else:
            return at
    return -1
