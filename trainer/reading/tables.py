"""Tables of reading times: a row for each unit of a text, whose times are means, or for each person and unit.

Several columns may together name a text. Where the same position of a text has different words then, columns of
conditions are part of its name too, such as `condition`, `difficulty_level` or `lang`: as few as make the words equal.
"""

import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from hashlib import sha256
from html import unescape
from itertools import chain, compress, pairwise
from math import isnan, nan
from statistics import median
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote

from trainer.config.validation import safe_name
from trainer.contracts.batteries import Quoting
from trainer.contracts.cells import ABSENT
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.readings import (
    MIN_TEXTS,
    Measure,
    ReadingData,
    TableOptions,
)
from trainer.contracts.reports import Note, counted_note, note
from trainer.data.rows import (
    Row,
    TextFile,
    bad_line,
    check_suffix,
    in_file,
    lines_of,
    read_rows,
    read_table,
    shown_names,
)
from trainer.reading.columns import Columns, column_option, columns_of
from trainer.reading.encodings import table_text
from trainer.reading.running_text import Span, first_absent, joined_words, places_in
from trainer.reports.score_table import csv_lines

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl")
WRITTEN = TableOptions(keep_na=True)
"""Options for tables of `written_times`."""
_EYES: Sequence[Measure] = ("gaze", "first_fixation", "go_past", "total")
"""Measures without a time for a unit that is skipped; the first that a table has tells where it does not itself."""
_FIRST_PASS: Sequence[Measure] = ("first_fixation", "gaze", "go_past")
"""Measures that a unit does not have which the first pass skips (Inhoff and Radach 1998)."""
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d+|#x[0-9a-f]+);", re.IGNORECASE)
_UNSEEN = {ord(sign): None for sign in "\u00ad\u2060\ufeff"}
"""Soft hyphens, word joiners and byte order marks."""
_WHOLE = re.compile(r"(-?\d{1,9})(\.0*)?")
_TRUTHS = {"true": 1.0, "false": 0.0}
_ABSENT = frozenset({"", ".", *ABSENT})
"""Cells of numbers without one; a point is that of EyeLink's reports."""
_NO_SYMBOLS = frozenset("`´^~¨\ufe0e\ufe0f\ufffd")
"""Symbols and marks that stand for punctuation, choose a form of an emoji, or are what a wrong encoding leaves."""
_THOUSANDS = re.compile(r"\s*\d{1,3}[,.]\d{3}\s*")
_MAX_MS = 1e9
_LEAST_MEDIAN_MS, _LARGEST_MEDIAN_MS = 20.0, 100_000.0
"""Other times are seconds, logarithms or microseconds."""
_Ints: TypeAlias = "array[int]"
_Floats: TypeAlias = "array[float]"


class Unit(NamedTuple):
    """A word or a region of a text."""

    text: int
    """The number of its text, from 0."""
    position: int
    """Its position in the text as the table numbers it."""
    word: str
    start: int
    """The place of its first character in the running text."""
    end: int


class Text(NamedTuple):
    """A text of a table."""

    name: str
    item: str
    """The same for texts that belong into one fold, such as those of the conditions of an item."""
    running: str
    """The text on one line: that of a column, or its units with separators between them."""
    first: int
    """The number of its first unit in the table."""
    units: Sequence[Unit]
    """In the order of their positions."""

    @property
    def past(self) -> int:
        """The number of the unit behind its last one."""
        return self.first + len(self.units)


class Times(NamedTuple):
    """A table of times, with its rows in the order of the file."""

    data: ReadingData
    texts: Sequence[Text]
    units: Sequence[Unit]
    """Those of all texts."""
    persons: Sequence[str]
    """Empty for a table of means."""
    is_running: bool
    """True if the running texts are those of a column."""
    unit: _Ints
    """For each row the number of its unit."""
    person: _Ints
    """For each row the number of its person; 0 in a table of means."""
    values: Mapping[Measure, _Floats]
    """For each row the time in milliseconds, or 1 for a unit that is skipped; NaN without a time."""


def read_times(file: TextFile, options: TableOptions, separator: str | None = None) -> Times:
    """Read a table of times; raises INVALID_INPUT with the columns of the table or the first line that is wrong.

    The separator stands between two units of a text; None for a space where one is usually written.
    """
    check_suffix(file.name, SUFFIXES)
    with in_file(file.name):
        text, notes = table_text(file, options.encoding)
        found = _rows(text, file.suffix, options.quoting)
        columns = columns_of(found.names, options.columns)
        table = _Table(found.names, columns, keep_na=options.keep_na, decimal=found.decimal)
        for row in found.rows:
            table.add(*row)
        return table.times(file, separator, [*notes, *found.notes])


def written_times(times: Times, measures: Sequence[Measure] = ()) -> bytes:
    """Return a table as CSV with the known names of its columns, which WRITTEN reads; default: all measures.

    A running text stands in the first row of its text alone.
    """
    has_items = any(text.item != text.name for text in times.texts)
    chosen = measures or times.data.measures
    columns = [times.values[measure] for measure in chosen]
    names = ["text", *["item"] * has_items, "position", "word", *["person"] * bool(times.persons), *chosen]
    rows: list[list[str | int | float]] = [[*names, *["running_text"] * times.is_running]]
    written: set[int] = set()
    for row, (number, person) in enumerate(zip(times.unit, times.person, strict=True)):
        unit = times.units[number]
        text = times.texts[unit.text]
        cells: list[str | int | float] = [text.name, *[text.item] * has_items, unit.position, unit.word]
        cells += [times.persons[person]] if times.persons else []
        cells += [_shortest(column[row]) for column in columns]
        if times.is_running:
            cells.append("" if unit.text in written else text.running)
            written.add(unit.text)
        rows.append(cells)
    return f"{csv_lines(rows, ',')}\n".encode()


def _shortest(value: float) -> str | int | float:
    return "" if isnan(value) else int(value) if value.is_integer() else value


def check_measures(times: Times, measures: Sequence[Measure]) -> None:
    """Raise INVALID_INPUT for a measure that a table does not have, or whose times are no milliseconds."""
    name = times.data.name
    if absent := [measure for measure in measures if measure not in times.values]:
        message = f"'{name}' has no times of {absent[0]}, but of {', '.join(times.values)}."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    for measure in measures or times.values:
        middle = median(filter(_is_known, times.values[measure]))
        if measure != "skipping" and not _LEAST_MEDIAN_MS <= middle <= _LARGEST_MEDIAN_MS:
            message = f"'{name}' has a median of {middle:g} for {measure}: times must be milliseconds, such as 350."
            raise AppError(ErrorCode.INVALID_INPUT, message)


def check_number_of_texts(n_texts: int) -> None:
    """Raise INVALID_INPUT for too few texts, or texts of different items, to hold some of them out."""
    if n_texts < MIN_TEXTS:
        message = (
            f"Held-out likelihoods need {MIN_TEXTS} or more texts, and the table has {n_texts} of different items and "
            "words. Take more texts, or give the column of the texts."
        )
        raise AppError(ErrorCode.INVALID_INPUT, message)


def position_step(units: Sequence[Unit]) -> int:
    """Return the difference of the positions of neighbours: the smallest one within a text."""
    return min((two.position - one.position for one, two in pairwise(units) if one.text == two.text), default=1)


def unit_parts(text: Text) -> tuple[list[str], list[int]]:
    """Cut a running text into parts for scoring, and return them with the number of the part of each unit.

    White space before a unit belongs to its part; what else stands between units is a part by itself.
    """
    parts: list[str] = []
    numbers: list[int] = []
    end = 0
    for unit in text.units:
        between = text.running[end : unit.start]
        other = between.rstrip()
        parts += [other] if other else []
        numbers.append(len(parts))
        parts.append(between[len(other) :] + text.running[unit.start : unit.end])
        end = unit.end
    return [*parts, *filter(None, [text.running[end:]])], numbers


class _Rows(NamedTuple):
    names: Sequence[str]
    rows: Iterable[Row]
    notes: Sequence[Note]
    decimal: str
    """The sign before decimals, beside the point: a comma between semicolons, as Excel writes both."""


def _rows(text: str, suffix: str, quoting: Quoting | None) -> _Rows:
    if suffix == ".jsonl":
        return _Rows(*read_rows(text, suffix), ".")
    table = read_table(lines_of(text), suffix, quoting)
    names = [*{name: None for name in table.names}]
    if len(names) < 2:
        problem = "its first line must name columns with tabs, commas or semicolons between them"
        raise AppError(ErrorCode.INVALID_INPUT, f"{problem}.")
    return _Rows(names, table.rows(), table.notes, "," if table.delimiter == ";" else ".")


class _Codes:
    """A column of texts in NFC, of which each different one has a number; absent ones have -1."""

    def __init__(self, name: str, absent: Iterable[str] = ()) -> None:
        self.name, self.texts = name, list[str]()
        self.numbers = array("q")
        self.escaped: dict[str, str] = {}
        """Cells with escaped or invisible signs, and how they are read."""
        self._of_cells: dict[str, int] = {}
        self._of_texts: dict[str, int] = {text: -1 for text in ("", *absent)}

    def number(self, cell: str) -> int:
        known = self._of_cells.get(cell)
        if known is None:
            plain = _ENTITY.sub(_entity_sign, cell).translate(_UNSEEN)
            text = _on_one_line(plain)
            if plain != cell and text:
                self.escaped[_on_one_line(cell)] = text
            known = self._of_cells[cell] = self._of_texts.setdefault(text, len(self.texts))
            if known == len(self.texts):
                self.texts.append(text)
        return known

    def unquote(self) -> None:
        """Decode the percent signs of a column of Ibex, which writes `%2C` for commas, when all rows are read."""
        if not any("%2C" in text.upper() for text in self.texts):
            return
        plain = [_on_one_line(unquote(text)) or text for text in self.texts]
        self.escaped |= {text: read for text, read in zip(self.texts, plain, strict=True) if text != read}
        places: dict[str, int] = {}
        of_plain = [places.setdefault(text, len(places)) for text in plain]
        self.texts = [*places]
        self.numbers = array("q", (-1 if number < 0 else of_plain[number] for number in self.numbers))


def _entity_sign(entity: re.Match[str]) -> str:
    return unescape(entity[0])


class _Groups(NamedTuple):
    """Groups of rows: for each row the number of its group, and the names of the groups."""

    numbers: _Ints
    names: Sequence[str]

    def within(self, column: _Codes) -> "_Groups":
        """Return the groups of the rows that are equal in a column too, in the order of their first rows."""
        pairs: dict[tuple[int, int], int] = {}
        rows = zip(self.numbers, column.numbers, strict=True)
        numbers = array("q", (pairs.setdefault(pair, len(pairs)) for pair in rows))
        texts = [*column.texts, ""]
        return _Groups(numbers, [":".join(filter(None, (self.names[one], texts[two]))) for one, two in pairs])


class _Conflict(NamedTuple):
    """Rows with another word than an earlier row of their unit: their number, and the first of them with that row."""

    n_rows: int
    row: int
    earlier: int


class _Table:
    """The rows of a table in the columns that are read."""

    def __init__(self, names: Sequence[str], columns: Columns, *, keep_na: bool, decimal: str) -> None:
        self._names, self._columns, self._decimal = names, columns, decimal
        self._texts = [_Codes(name, ABSENT) for name in columns.text]
        self._words = _Codes(columns.word, () if keep_na else ABSENT)
        self._persons = [_Codes(name, ABSENT) for name in columns.person]
        self._named = [*self._texts, self._words, *self._persons]
        others = (*columns.conditions, *columns.running, *columns.groups, *filter(None, [columns.item]))
        self._others = {name: _Codes(name) for name in others}
        self._positions, self._lines, self._left_out = array("q"), array("q"), array("q")
        self._of_positions: dict[str, int | None] = {}
        self._absent_words: dict[str, None] = {}
        self._values = {measure: array("d") for measure in columns.measures}
        self._of_values: dict[Measure, dict[str, float]] = {measure: {} for measure in columns.measures}

    def add(self, line: int, row: Mapping[str, object]) -> None:
        """Add a row; one without a text, a position, a word or a person is left out."""
        cell = _text(line, self._columns.position, row)
        if cell not in self._of_positions:
            self._of_positions[cell] = _position(line, self._columns.position, cell)
        position = self._of_positions[cell]
        numbers = [column.number(_text(line, column.name, row)) for column in self._named]
        if position is None or -1 in numbers:
            self._left_out.append(line)
            if position is not None and numbers[self._named.index(self._words)] == -1:
                self._absent_words[_on_one_line(_text(line, self._columns.word, row))] = None
            return
        self._lines.append(line)
        self._positions.append(position)
        for column, number in zip(self._named, numbers, strict=True):
            column.numbers.append(number)
        for column in self._others.values():
            column.numbers.append(column.number(_text(line, column.name, row)))
        for measure, name in self._columns.measures.items():
            cell, known = _text(line, name, row), self._of_values[measure]
            if cell not in known:
                largest = 1.0 if measure == "skipping" else _MAX_MS
                value = _value(line, name, cell, self._decimal, largest)
                if measure == "skipping" and self._persons and 0 < value < 1:
                    raise _wrong_value(line, name, cell, "1 for a unit that the person skips or 0")
                known[cell] = value
            self._values[measure].append(known[cell])

    def times(self, file: TextFile, separator: str | None, notes: Sequence[Note]) -> Times:
        """Return the times of all rows; raises INVALID_INPUT for a unit with several words, or times of one person."""
        if not self._lines:
            needed = "a text, a position, a word and a person" if self._persons else "a text, a position and a word"
            raise AppError(ErrorCode.INVALID_INPUT, f"it has no row with {needed}.")
        for column in (*self._named, *self._others.values()):
            column.unquote()
        start = _Groups(array("q", bytes(8 * len(self._lines))), [""])
        base = reduce(_Groups.within, self._texts, start)
        groups, conditions = self._with_conditions(base)
        persons = reduce(_Groups.within, self._persons, start)
        keys = self._keys(groups)
        first_rows: dict[int, int] = {}
        for row, key in enumerate(keys):
            first_rows.setdefault(key, row)
        numbers = {key: number for number, key in enumerate(sorted(first_rows))}
        unit = array("q", map(numbers.__getitem__, keys))
        kept, of_repeated = self._first_readings(unit, persons)
        values, of_values = self._measured(kept)
        of_texts: list[list[int]] = [[] for _ in groups.names]
        for key in numbers:
            of_texts[groups.numbers[first_rows[key]]].append(first_rows[key])
        running, of_running = self._running(groups, of_texts)
        items, of_items = self._items(groups)
        texts: list[Text] = []
        units: list[Unit] = []
        for number, rows in enumerate(of_texts):
            words = [self._word(row) for row in rows]
            whole, places = running.texts[number] if running else joined_words(words, separator)
            words = [whole[start:end] for start, end in places]
            item = items[number] or base.names[base.numbers[rows[0]]]
            found = zip(rows, words, places, strict=True)
            of_text = [Unit(number, self._positions[row], word, *place) for row, word, place in found]
            texts.append(Text(groups.names[number], item, whole, len(units), of_text))
            units += of_text
        texts, of_equal = _with_equal_words(texts)
        read = dict.fromkeys(conditions, "text") | self._columns.roles()
        if of_items:
            read = {column: role for column, role in read.items() if role != "item"}
        if running is not None:
            read[running.column] = "running_text"
        if running is None:
            of_running += _of_joints(texts, separator)
        guesses = [
            *self._of_names(conditions),
            *self._of_escapes(read),
            *self._of_groups(persons),
            *self._of_words(keys),
            *of_items,
            *of_equal,
            *of_repeated,
            *of_values,
            *of_running,
        ]
        data = ReadingData(
            name=file.shown,
            sha256=sha256(file.content).hexdigest(),
            n_texts=len(texts),
            n_units=len(units),
            n_persons=len(persons.names) if self._persons else 0,
            measures=tuple(values),
            notes=(self._of_columns(read), *notes, *guesses, *_of_gaps(texts, is_running=running is not None)),
        )
        unit, person = (array("q", compress(one, kept)) for one in (unit, persons.numbers))
        names = persons.names if self._persons else ()
        return Times(data, texts, units, names, running is not None, unit, person, values)

    def _keys(self, groups: _Groups) -> _Ints:
        """Return a number for the place of each row, in the order of texts and positions."""
        low = min(self._positions)
        span = max(self._positions) - low + 1
        places = zip(groups.numbers, self._positions, strict=True)
        return array("q", (group * span + position - low for group, position in places))

    def _word(self, row: int) -> str:
        return self._words.texts[self._words.numbers[row]]

    def _items(self, groups: _Groups) -> tuple[list[str], list[Note]]:
        """Return the item of each text, "" without one, and a note on a column whose items differ within a text.

        Raises INVALID_INPUT for such a column of the options.
        """
        name = self._columns.item
        if name is None:
            return [""] * len(groups.names), []
        column, of_groups = self._others[name], dict[int, int]()
        for group, number in zip(groups.numbers, column.numbers, strict=True):
            if number >= 0 and of_groups.setdefault(group, number) != number:
                if self._columns.is_item_given:
                    text = safe_name(groups.names[group])
                    problem = f"the column `{safe_name(name)}` has several items in the text '{text}'"
                    raise AppError(ErrorCode.INVALID_INPUT, f"{problem}: name one with one item for each text.")
                said = note("Not read as items, as it differs within texts: `{column}`.", column=safe_name(name))
                return [""] * len(groups.names), [said]
        texts = [*column.texts, ""]
        return [texts[of_groups.get(group, -1)] for group in range(len(groups.names))], []

    def _with_conditions(self, base: _Groups) -> tuple[_Groups, list[str]]:
        """Return the texts of the rows, and the columns of conditions that their names need.

        Words of the same unit may differ in case and punctuation. But if columns of conditions tell all these spellings
        apart, they are part of the names too, unless the options name the texts.
        """
        forms: dict[str, int] = {}
        form = [forms.setdefault(_letters(word), len(forms)) for word in self._words.texts]
        groups, used, conflict = self._divided(base, form)
        if conflict is not None:
            raise self._contradiction(groups, conflict)
        if self._columns.is_text_given:
            return groups, used
        finer, more, conflict = self._divided(groups, range(len(form)))
        return (finer, [*used, *more]) if conflict is None else (groups, used)

    def _divided(self, base: _Groups, form: Sequence[int]) -> tuple[_Groups, list[str], _Conflict | None]:
        """Divide texts by as few conditions as make words of one unit equal in form; also return what still differs."""
        used: list[str] = []
        groups, conflict = base, self._conflict(base, form)
        while conflict is not None:
            for name in self._columns.conditions:
                finer = groups.within(self._others[name])
                rest = self._conflict(finer, form)
                if rest is None or rest.n_rows < conflict.n_rows:
                    used.append(name)
                    groups, conflict = finer, rest
                    break
            else:
                break
        return groups, used, conflict

    def _conflict(self, groups: _Groups, form: Sequence[int]) -> _Conflict | None:
        """Return the rows whose words differ in form from the first one of their unit; None without such rows."""
        first_rows: dict[int, int] = {}
        rows: list[tuple[int, int]] = []
        words = self._words.numbers
        for row, key in enumerate(self._keys(groups)):
            first = first_rows.setdefault(key, row)
            if form[words[row]] != form[words[first]]:
                rows.append((row, first))
        return _Conflict(len(rows), *rows[0]) if rows else None

    def _contradiction(self, groups: _Groups, conflict: _Conflict) -> AppError:
        word, earlier = (safe_name(self._word(row)) for row in (conflict.row, conflict.earlier))
        text = safe_name(groups.names[groups.numbers[conflict.row]])
        names = "+".join(map(safe_name, self._columns.text))
        problem = (
            f"has the word '{word}' where line {self._lines[conflict.earlier]:,} has '{earlier}': position"
            f" {self._positions[conflict.row]:,} of text '{text}'. Name all columns that tell texts apart in"
            f" `columns` (`--column text={names}+NAME`); the table has {shown_names(self._names)}"
        )
        return bad_line(self._lines[conflict.row], problem)

    def _running(self, groups: _Groups, of_texts: Sequence[Sequence[int]]) -> "tuple[_Running | None, list[Note]]":
        """Return the running texts of the first column that has one for each text, with its units in their order.

        Notes tell of words that are spelled otherwise, or of columns that have one text for each but not its units.
        Raises INVALID_INPUT for a column of the options that has not.
        """
        notes: list[Note] = []
        of_words = [[self._word(row) for row in rows] for rows in of_texts]
        for name in self._columns.running:
            column, shown = self._others[name], safe_name(name)
            found: list[set[int]] = [set() for _ in of_texts]
            for group, number in zip(groups.numbers, column.numbers, strict=True):
                if number >= 0:
                    found[group].add(number)
            bad = next((number for number, numbers in enumerate(found) if len(numbers) != 1), None)
            absent: str | None = None
            if bad is None:
                wholes = [column.texts[number] for numbers in found for number in numbers]
                places = [*map(places_in, wholes, of_words)]
                if all(places):
                    running = _Running(name, [*zip(wholes, places, strict=True)])
                    return running, [*_of_spellings(running, of_words)]
                bad = next(number for number, of_text in enumerate(places) if not of_text)
                absent = first_absent(wholes[bad], of_words[bad])
            text, word = safe_name(groups.names[bad]), safe_name(absent or "")
            if self._columns.is_running_given:
                problem = f"has not one running text of '{text}' with its units in their order"
                if word:
                    problem = f"has in the text '{text}' no '{word}' in its place"
                raise AppError(ErrorCode.INVALID_INPUT, f"the column `{shown}` {problem}.")
            if word:
                notes.append(
                    note(
                        "Not read as running texts, as `{word}` of text {text} is not in its place there: `{column}`.",
                        word=word,
                        text=text,
                        column=shown,
                    )
                )
        return None, notes

    def _first_readings(self, unit: _Ints, persons: _Groups) -> tuple[bytes, list[Note]]:
        """Return 1 for the first row of each person and unit; raises INVALID_INPUT for others in a table of means."""
        first_rows: dict[int, int] = {}
        pairs = zip(unit, persons.numbers, strict=True)
        firsts = [
            first_rows.setdefault(number * len(persons.names) + person, row)
            for row, (number, person) in enumerate(pairs)
        ]
        again = [row for row, first in enumerate(firsts) if first < row]
        if again and not self._persons:
            problem = (
                f"has the unit '{safe_name(self._word(again[0]))}' of line {self._lines[firsts[again[0]]]:,} again, and"
                f" no column is known as that of the person. Name it in {column_option('person')}; the table has"
                f" {shown_names(self._names)}"
            )
            raise bad_line(self._lines[again[0]], problem)
        kept = bytes(first == row for row, first in enumerate(firsts))
        if not again:
            return kept, []
        rows, line = self._counted(again)
        return kept, [
            note(
                "Left out: {rows} of a person and a unit that an earlier row has, first in line {line}.",
                rows=rows,
                line=line,
            )
        ]

    def _measured(self, kept: bytes) -> tuple[dict[Measure, _Floats], list[Note]]:
        """Return the values of the rows that are kept, NaN for a time of 0; raises INVALID_INPUT if there are none."""
        notes: list[Note] = []
        values: dict[Measure, _Floats] = {}
        n_zeros = 0
        is_skipped = bytes(value == 1 for value in compress(self._values.get("skipping", ()), kept))
        of_later: set[int] = set()
        later: list[str] = []
        for measure, column in self._values.items():
            times = array("d", compress(column, kept))
            notes += self._of_marks(measure)
            if measure != "skipping":
                n_zeros += times.count(0.0)
                times = array("d", (value or nan for value in times))
            if measure in _FIRST_PASS:
                pairs = enumerate(zip(is_skipped, times, strict=False))
                rows = [row for row, (skip, time) in pairs if skip and _is_known(time)]
                of_later |= {*rows}
                later += [self._columns.measures[measure]] if rows else []
                for row in rows:
                    times[row] = nan
            if all(map(isnan, times)):
                notes.append(note("No times in `{column}`.", column=safe_name(self._columns.measures[measure])))
            else:
                values[measure] = times
        if n_zeros:
            notes.append(note("Read as without a time: {cells} of 0.", cells=counted_note(n_zeros, "cell")))
        if of_later:
            notes.append(
                note(
                    "Read as without a time in {columns}, as the first pass skips the unit: {rows} with that of a later"
                    " visit.",
                    columns=shown_names(later),
                    rows=counted_note(len(of_later), "row"),
                )
            )
        notes += self._skipped(values)
        if len(values) > 1 and len({*filter(_is_known, values.get("skipping", ()))}) == 1:
            del values["skipping"]
            notes.append(note("Left out: skipping, as all units are skipped or none."))
        if not values:
            raise AppError(ErrorCode.INVALID_INPUT, "it has no times: their cells are empty or 0.")
        return values, notes

    def _of_marks(self, measure: Measure) -> Iterator[Note]:
        """Yield a note on decimal commas; raises INVALID_INPUT if all could as well stand between thousands.

        So could points beside decimal commas, if most numbers have none.
        """
        column, cells = safe_name(self._columns.measures[measure]), self._of_values[measure]
        commas, points = ([cell for cell in cells if mark in cell] for mark in ",.")
        marked = commas or (points if self._decimal == "," and 2 * len(points) < len(cells) else [])
        if marked and all(map(_THOUSANDS.fullmatch, marked)):
            plain, mark = safe_name(marked[0]), "." if commas else ","
            problem = (
                f"`{column}` has cells such as '{plain}': write {re.sub('[,.]', '', plain)} for a thousand and"
                f" more, or {re.sub('[,.]', mark, plain)} for a decimal mark."
            )
            raise AppError(ErrorCode.INVALID_INPUT, problem)
        if commas:
            yield note("Read as decimal marks: the commas in `{column}`.", column=column)

    def _skipped(self, values: dict[Measure, _Floats]) -> list[Note]:
        """Add whether units are skipped where the table does not tell, and return notes."""
        timed = next((measure for measure in _EYES if measure in values), None)
        if timed is None or not self._persons:
            return []
        column = safe_name(self._columns.measures[timed])
        derived = array("d", map(isnan, values[timed]))
        given = values.setdefault("skipping", array("d", [nan]) * len(derived))
        n_later = sum(skip == 1 and _is_known(time) for skip, time in zip(given, values[timed], strict=True))
        notes: list[Note] = []
        if any(map(isnan, given)):
            if any(derived):
                notes.append(note("Counted as skipped: units without a time in `{column}`.", column=column))
            values["skipping"] = array("d", (b if isnan(a) else a for a, b in zip(given, derived, strict=True)))
        if n_later:
            rows = counted_note(n_later, "row")
            notes.append(
                note("Skipped units have a time of a later visit in `{column}`: {rows}.", column=column, rows=rows)
            )
        return notes

    def _of_columns(self, read: Mapping[str, str]) -> Note:
        """Return the note on the columns that were read, and the others."""
        shown = ", ".join(f"`{safe_name(column)}` ({role})" for column, role in read.items())
        others = [name for name in self._names if name not in read]
        if not others:
            return note("Columns: {columns}.", columns=shown)
        return note("Columns: {columns}; not read: {others}.", columns=shown, others=shown_names(others))

    def _of_names(self, conditions: Sequence[str]) -> Iterator[Note]:
        """Yield notes on the names of texts and persons."""
        if conditions:
            shown = shown_names(conditions)
            yield note("Part of the names of texts, as words differ between conditions: {columns}.", columns=shown)
        if not self._persons:
            yield note("No column is known as that of the person: the times are read as means of units.")
        if self._left_out:
            rows, line = counted_note(len(self._left_out), "row"), self._left_out[0]
            yield note(
                "Left out: {rows} without a text, position, word or person, first in line {line}.", rows=rows, line=line
            )
        if absent := [f"`{safe_name(word)}`" for word in self._absent_words if word]:
            words = ", ".join(absent)
            yield note("Read as no word: {words}. `keep_na` (`--set keep_na=true`) reads them as words.", words=words)

    def _of_escapes(self, read: Mapping[str, str]) -> Iterator[Note]:
        """Yield notes on cells with signs that stand for others, or for none."""
        for column in (*self._named, *self._others.values()):
            for cell, text in [*column.escaped.items()][:1] if column.name in read else ():
                yield note(
                    "Read as the signs that they stand for, and without invisible ones: {cells} of `{column}`, first"
                    " `{cell}` as `{text}`.",
                    cells=counted_note(len(column.escaped), "spelling"),
                    column=safe_name(column.name),
                    cell=safe_name(cell),
                    text=safe_name(text),
                )

    def _of_groups(self, persons: _Groups) -> Iterator[Note]:
        """Yield a note on persons who are in several groups, where readers may be numbered anew in each."""
        for name in self._columns.groups if self._persons else ():
            groups: dict[int, int] = {}
            pairs = zip(persons.numbers, self._others[name].numbers, strict=True)
            several = [person for person, group in pairs if group >= 0 and groups.setdefault(person, group) != group]
            if several:
                column, named = safe_name(name), "+".join(safe_name(one.name) for one in self._persons)
                yield note(
                    "Read as one person each: {persons} with rows of several values of `{column}`, first {person}. If"
                    " readers are numbered anew there, name both: `columns` (`--column person={column}+{named}`).",
                    persons=counted_note(len({*several}), "person"),
                    column=column,
                    person=safe_name(persons.names[several[0]]),
                    named=named,
                )

    def _of_words(self, keys: _Ints) -> Iterator[Note]:
        """Yield a note on words that differ from those of the same unit in case or punctuation only."""
        first_words: dict[int, int] = {}
        words = zip(keys, self._words.numbers, strict=True)
        if other := [row for row, (key, word) in enumerate(words) if first_words.setdefault(key, word) != word]:
            rows, line = self._counted(other)
            yield note(
                "Words that differ in case or punctuation from earlier rows: {rows}, first in line {line}. The first"
                " spelling is scored.",
                rows=rows,
                line=line,
            )

    def _counted(self, rows: Sequence[int]) -> tuple[Note, int]:
        """Return the number of rows for a note, and the line of the first."""
        return counted_note(len(rows), "row"), self._lines[rows[0]]


class _Running(NamedTuple):
    """A column of running texts: for each text its running text, and the places of its units."""

    column: str
    texts: Sequence[tuple[str, Sequence[Span]]]


def _text(line: int, name: str, row: Mapping[str, object]) -> str:
    """Return a cell as text; raises INVALID_INPUT for a list or an object."""
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int | float):
        return str(value)
    raise bad_line(line, f"has a list or an object in `{safe_name(name)}`, and no text or number")


def _position(line: int, name: str, cell: str) -> int | None:
    """Return the position in a cell, None for an absent one; raises INVALID_INPUT for another than a whole number."""
    whole = _WHOLE.fullmatch(cell.strip())
    if whole is None and cell.strip() not in _ABSENT:
        raise bad_line(line, f"must have a whole number in `{safe_name(name)}`, not '{safe_name(cell)}'")
    return None if whole is None else int(whole[1])


def _value(line: int, name: str, cell: str, decimal: str, largest: float) -> float:
    """Return the time in a cell, or up to 1 the share of readings that skip a unit; NaN for an absent one.

    Raises INVALID_INPUT for what is no number from 0 to the largest one.
    """
    text = cell.strip()
    if text in _ABSENT:
        return nan
    with suppress(ValueError):
        is_truth = largest == 1 and text.lower() in _TRUTHS
        value = _TRUTHS[text.lower()] if is_truth else float(text.replace(decimal, "."))
        if 0 <= value <= largest:
            return value
    wanted = "a time in milliseconds such as 350.5"
    if largest == 1:
        wanted = "1 for a skipped unit, 0 for another, or the share of readings that skip it"
    raise _wrong_value(line, name, cell, wanted)


def _wrong_value(line: int, name: str, cell: str, wanted: str) -> AppError:
    return bad_line(line, f"must have {wanted} in `{safe_name(name)}`, or nothing, not '{safe_name(cell)}'")


def _letters(word: str) -> str:
    """Return a word without case and punctuation: its letters with their marks, its numbers and its symbols."""
    if word.isalnum() and word.isascii():
        return word.casefold()
    folded = unicodedata.normalize("NFC", word.casefold()).replace("i\u0307", "i")  # of the Turkish İ
    return "".join(sign for sign in folded if sign not in _NO_SYMBOLS and unicodedata.category(sign)[0] in "LMNS")


def _is_known(value: float) -> bool:
    return not isnan(value)


def _on_one_line(text: str) -> str:
    """Return a text in NFC with single spaces, and without white space and zero-width spaces at its ends."""
    return unicodedata.normalize("NFC", " ".join(text.strip("\u200b").split()))


def _with_equal_words(texts: Sequence[Text]) -> tuple[list[Text], list[Note]]:
    """Return the texts with one item for those of the same words, so that no fold holds out what others train on."""
    items: dict[str, str] = {}  # that stand for others

    def item_of(item: str) -> str:
        while (other := items.get(item, item)) != item:
            item = other
        return item

    firsts: dict[str, Text] = {}
    equal: list[tuple[str, str]] = []
    for text in texts:
        first = firsts.setdefault(_letters(text.running) or text.running, text)
        if item_of(text.item) != item_of(first.item):
            items[item_of(text.item)] = item_of(first.item)
            equal.append((text.name, first.name))
    together = [text._replace(item=item_of(text.item)) for text in texts]
    if not equal:
        return together, []
    name, first_name = map(safe_name, equal[0])
    return together, [
        note(
            "In one fold, as their words are the same: {texts} and earlier ones, first {text} and {first}.",
            texts=counted_note(len(equal), "text"),
            text=name,
            first=first_name,
        )
    ]


def _of_spellings(running: _Running, of_words: Sequence[Sequence[str]]) -> Iterator[Note]:
    """Yield a note on words that are spelled otherwise in the running text."""
    other = [
        (word, whole[start:end])
        for (whole, places), words in zip(running.texts, of_words, strict=True)
        for word, (start, end) in zip(words, places, strict=True)
        if whole[start:end] != word
    ]
    for word, written in other[:1]:
        yield note(
            "Spelled otherwise in `{column}`: {words}, first `{word}` as `{written}`. The spelling there is scored.",
            column=safe_name(running.column),
            words=counted_note(len(other), "word"),
            word=safe_name(word),
            written=safe_name(written),
        )


def _of_joints(texts: Sequence[Text], separator: str | None) -> Iterator[Note]:
    """Yield a note on units that are joined without a space, by no option."""
    pairs = chain.from_iterable(pairwise(text.units) for text in texts)
    bare = [f"{one.word}{two.word}" for one, two in pairs if separator is None and one.end == two.start]
    for example in bare[:1]:
        yield note(
            "Joined without a space, as is usual before punctuation, in clitics and in scripts without spaces: {units},"
            " first `{example}`. `separator` (`--set separator=' '`) gives another; a column `running_text` has the"
            " texts as they are written.",
            units=counted_note(len(bare), "unit"),
            example=safe_name(example),
        )


def _of_gaps(texts: Sequence[Text], *, is_running: bool) -> Iterator[Note]:
    """Yield a note on texts with words that are not units: in the running text, or as positions have gaps."""
    step = position_step([unit for text in texts for unit in text.units])
    if step > 1:
        yield note("Read as neighbours: units whose positions differ by {step}.", step=step)
    found = [(text, first) for text in texts if (first := _first_other(text) if is_running else _first_gap(text, step))]
    for text, first in found[:1]:
        n_texts, name = counted_note(len(found), "text"), safe_name(text.name)
        if is_running:
            yield note(
                "Words of {texts} have no rows, first `{word}` in text {text}: they are context of the others.",
                texts=n_texts,
                text=name,
                word=safe_name(first),
            )
        else:
            yield note(
                "Words of {texts} have no rows, first before position {position} of text {text}: surprisal is computed"
                " without them, and the next units have no unit before. A column `running_text` with the whole text of"
                " a row gives them.",
                texts=n_texts,
                text=name,
                position=first,
            )


def _first_other(text: Text) -> str:
    """Return the first word of a running text that belongs to no unit; "" without one."""
    parts, numbers = unit_parts(text)
    of_units = {*numbers}
    others = (part for number, part in enumerate(parts) if number not in of_units and _letters(part))
    return next((part.split()[0] for part in others), "")


def _first_gap(text: Text, step: int) -> str:
    """Return the first position with another one missing before it; "" without one. Texts begin at 0 or at a step."""
    places = [min(0, text.units[0].position - step), *(unit.position for unit in text.units)]
    return next((f"{after}" for before, after in pairwise(places) if after > before + step), "")
