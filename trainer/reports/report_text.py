"""Reports as text: their numbers and notes in the reader's language and unit, and tables as rows of texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias, TypeVar

from trainer.contracts.base import changed
from trainer.contracts.reports import (
    WRITINGS,
    Cell,
    Column,
    Estimate,
    Form,
    Link,
    Note,
    Quantity,
    Report,
    Table,
    TableChoice,
    counted_note,
    note,
)
from trainer.contracts.units import Unit, bits_in_unit, in_unit
from trainer.contracts.wording import duration, local_time

MISSING = "–"
"""Stands in tables for a number that does not exist."""
COLUMN_GAP = "  "
Rows: TypeAlias = list[list[str]]


def _same(text: str) -> str:
    return text


def _moment(seconds: float) -> str:
    return local_time(datetime.fromtimestamp(seconds, UTC))


def _size(n_bytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes:.0f} B"


_IN_WORDS: Mapping[Form, Callable[[float], str]] = {
    "text": str,
    "percent": "{:.0f} %".format,
    "time": _moment,
    "duration": duration,
    "bytes": _size,
}
"""How numbers are written that have no fixed decimals."""


def _english(one: str, many: str, number: int) -> str:
    return one if number == 1 else many


class Reader(NamedTuple):
    """Who reads a report: in which unit and language."""

    unit: Unit = "nats"
    translated: Callable[[str], str] = _same
    """Returns an English text in the reader's language."""
    form_of: Callable[[str, str, int], str] = _english
    """Returns the text of the reader's language for a number, given the English ones for one and for others."""
    numeral: Callable[[float, str], str] = format
    """Writes a number by a format specification with the reader's marks."""
    inert: Callable[[str], str] = _same
    """Makes the marks in names and texts of users plain characters."""
    told: Callable[[str], str] = _same
    """Returns words of the program that a report has as text, such as a unit, in the reader's language."""
    is_brief: bool = False
    """Estimates are shown without their intervals, but in the columns of these."""

    def note(self, note: Note) -> str:
        """Return a note as text; where estimates stand without intervals, without what `{intervals}` says of these."""
        values = {name: self._value(value) for name, value in note.values.items()}
        if self.is_brief and "intervals" in values:
            values["intervals"] = ""
        for name, value in note.values.items():
            if isinstance(value, str) and f"`{{{name}}}`" in note.template:  # marks in code are plain characters
                values[name] = value.replace("`", "'")
        count = note.values.get("count")
        if note.plural is not None and isinstance(count, Quantity):
            template = self.form_of(note.template, note.plural, int(count.value))
        else:
            template = self.translated(note.template)
        return template.format(unit=self.translated(self.unit), **values)

    def number(self, value: float, form: Form) -> str:
        """Return a number as text."""
        if form in _IN_WORDS:
            return _IN_WORDS[form](value)
        writing, value = WRITINGS[form], self.in_unit(value, form)
        sign, marks = "+" if writing.is_signed else "", "," if writing.is_grouped else ""
        kind = "g" if writing.is_significant else "%" if writing.is_percent else "f"
        text = self.numeral(value, f"{sign}z{marks}.{writing.digits}{kind}")
        return text.rstrip("%") if form == "points" else text

    def in_unit(self, value: float, form: Form) -> float:
        """Return a number of a report in the reader's unit."""
        match None if form in _IN_WORDS else WRITINGS[form].unit:
            case "nats":
                return in_unit(value, self.unit)
            case "bits":
                return bits_in_unit(value, self.unit)
            case _:
                return value

    def cell(self, cell: Cell, column: Column) -> str:
        """Return a cell of a column as text."""
        match cell:
            case None:
                return MISSING
            case str():
                return self._words(cell)
            case Note():
                return self.note(cell)
            case Estimate():
                return self._estimate(cell, column)
            case Link():
                return self.cell(cell.text, column)
            case _:
                return self.number(cell, column.form)

    def _value(self, value: "str | Quantity | Note") -> str:
        match value:
            case str():
                return self.inert(self._words(value))
            case Note():
                return self.note(value)
            case _:
                return self.number(value.value, value.form)

    def _words(self, text: str) -> str:
        """Return a text of several words in the reader's language; a single word may be a name."""
        return self.told(text) if " " in text else text

    def _estimate(self, one: Estimate, column: Column) -> str:
        """Return the parts of an estimate that a column shows."""
        value = MISSING if one.value is None else self.number(one.value, column.form)
        value += " (!)" if one.is_marked else ""
        if column.shows == "value" or (self.is_brief and column.shows == "all"):
            return value
        ends = None if one.low is None or one.high is None else self._ends(one.low, one.high, column.form)
        if column.shows == "interval":
            return ends or MISSING
        deviation = "" if one.deviation is None else f"±{self.number(one.deviation, column.form)}"
        ties = self.note(counted_note(one.n_ties, "tie")) if one.n_ties else ""
        within = "" if ends is None else f" [{ends}]" if column.form == "points" else f" ({ends})"
        return ", ".join(filter(None, (f"{value}{deviation}{within}", ties)))

    def _ends(self, low: float, high: float, form: Form) -> str:
        first, last = self.number(low, form), self.number(high, form)
        if form == "points":
            return f"{first}, {last}"
        if form == "accuracy":  # the sign stands behind the accuracy
            first, last = first.rstrip("%"), last.rstrip("%")
        return self.note(note("{low} to {high}", low=first, high=last))


ENGLISH = Reader()


def rows_of(table: Table, reader: Reader = ENGLISH) -> Rows:
    """Return a row of titles and the rows of a table."""
    titles = [reader.note(column.title) for column in table.columns]
    cells = [[reader.cell(*pair) for pair in zip(row, table.columns, strict=True)] for row in table.rows]
    return [titles, *cells]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells in columns, without empty rows."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    return [*filter(None, lines)]


def plain_lines(report: Report, reader: Reader = ENGLISH) -> Iterator[str]:
    """Yield the lines of a report: its notes, and its tables in columns."""
    for part in (each for one in report.parts() for each in (one.tables if isinstance(one, TableChoice) else (one,))):
        match part:
            case Note():
                yield reader.note(part)
            case Table():
                yield reader.note(part.caption or part.title)
                yield from aligned(rows_of(part, reader))
            case _:
                yield reader.note(part.text)


SampleT = TypeVar("SampleT")


def spread(rows: Sequence[SampleT], most: int) -> list[SampleT]:
    """Return at most so many rows, evenly spread over their order, with the first and the last one."""
    if len(rows) <= most:
        return [*rows]
    return [rows[number * (len(rows) - 1) // (most - 1)] for number in range(most)]


def sampled(table: Table, most: int) -> Table:
    """Return a table with at most so many rows, if it is one of which a few say enough."""
    return changed(table, rows=tuple(spread(table.rows, most))) if table.is_series else table
