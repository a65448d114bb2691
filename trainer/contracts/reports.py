"""The report of a result: tables, figures and notes, which each face writes in its own form."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from trainer.contracts.base import Frozen
from trainer.contracts.units import LOSS_DIGITS, PERPLEXITY_DIGITS, SHARE_DIGITS, SURPRISAL_DIGITS

Form = Literal[
    "text",
    "count",
    "tenths",
    "hundredths",
    "thousandths",
    "share",
    "accuracy",
    "points",
    "change",
    "p",
    "loss",
    "per_char",
    "surprisal",
    "perplexity",
    "rise",
    "hundredths_share",
    "count_change",
    "loss_change",
    "per_char_change",
    "perplexity_change",
    "effect",
    "percent",
    "figures",
    "time",
    "duration",
    "bytes",
]
"""The kind of a number, which decides how it is written; times are in seconds since 1970, durations in seconds."""


class Writing(Frozen):
    """The decimals, the sign and the unit of the numbers of a form."""

    digits: int = 0
    """Decimals, or significant digits."""
    is_significant: bool = False
    is_percent: bool = False
    is_signed: bool = False
    is_grouped: bool = False
    """Written with marks between thousands."""
    unit: Literal["nats", "bits"] | None = None
    """The unit of the number in the report, which the reader's replaces; None for a number without one."""


WRITINGS: Mapping[Form, Writing] = {
    "count": Writing(is_grouped=True),
    "tenths": Writing(digits=1, is_grouped=True),
    "hundredths": Writing(digits=2, is_grouped=True),
    "thousandths": Writing(digits=3),
    "share": Writing(digits=SHARE_DIGITS, is_percent=True),
    "accuracy": Writing(digits=SHARE_DIGITS, is_percent=True),
    "points": Writing(digits=SHARE_DIGITS, is_percent=True),
    "change": Writing(digits=SHARE_DIGITS, is_percent=True, is_signed=True),
    "p": Writing(digits=4, is_significant=True),
    "loss": Writing(digits=LOSS_DIGITS, unit="nats"),
    "per_char": Writing(digits=LOSS_DIGITS, unit="bits"),
    "surprisal": Writing(digits=SURPRISAL_DIGITS, unit="nats"),
    "perplexity": Writing(digits=PERPLEXITY_DIGITS),
    "rise": Writing(digits=2, is_percent=True, is_signed=True),
    "hundredths_share": Writing(digits=2, is_percent=True),
    "count_change": Writing(is_grouped=True, is_signed=True),
    "loss_change": Writing(digits=LOSS_DIGITS, unit="nats", is_signed=True),
    "per_char_change": Writing(digits=LOSS_DIGITS, unit="bits", is_signed=True),
    "perplexity_change": Writing(digits=PERPLEXITY_DIGITS, is_signed=True),
    "effect": Writing(digits=2, is_signed=True),
    "figures": Writing(digits=3, is_significant=True),
}


class Quantity(Frozen):
    """A number in a note."""

    value: float
    form: Form = "count"


class Note(Frozen):
    """A sentence or a title, whose names in braces stand for the values; `{unit}` is the reader's unit."""

    kind: Literal["note"] = "note"
    template: str
    """The English text, by which catalogues have that of other languages."""
    plural: str | None = None
    """The text for any `{count}` but one; None where the text depends on no number."""
    values: Mapping[str, "str | Quantity | Note"] = {}


class Estimate(Frozen):
    """A number with its 95 % interval, or with its standard deviation over seeds."""

    value: float | None
    low: float | None = None
    high: float | None = None
    deviation: float | None = None
    n_ties: int = 0
    """Items that are neither right nor wrong."""
    is_own: bool = False
    """True for a model on its own language, which tables mark."""
    is_marked: bool = False
    """True for a figure that is too low to compare, because of unknown tokens: (!) stands behind it."""


class Link(Frozen):
    """A run, or a checkpoint of one, that has a page of its own."""

    text: str | int
    address: str
    """Its place on the page: `runs/RUN`, or `text/RUN@1200`."""


Cell: TypeAlias = str | int | float | Note | Estimate | Link | None


class Column(Frozen):
    """A column of a table."""

    title: Note
    form: Form = "text"
    shows: Literal["all", "value", "interval"] = "all"
    """The part of an estimate that the column has."""
    is_detail: bool = False
    """Left out where there is little room."""


class Table(Frozen):
    """Rows of cells; `None` is a number that does not exist."""

    kind: Literal["table"] = "table"
    name: str
    title: Note
    caption: Note | None = None
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    n_titles: int = 1
    """The first columns, which name a row."""
    scale: tuple[float, float] | None = None
    """The range of numbers that a face can draw in colours; None for a table without colours."""
    file: str | None = None
    """The CSV file with all digits."""
    is_series: bool = False
    """A few rows, evenly spread, say enough where there is little room."""


class Series(Frozen):
    """A line of a figure."""

    name: str
    values: tuple[Estimate | None, ...]


class Axis(Frozen):
    """The places of the values of all lines: numbers, or names that stand beside each other."""

    title: Note
    places: tuple[float, ...] = ()
    is_linear: bool = False
    """Places are drawn as they are; otherwise their logarithms are."""
    names: tuple[str, ...] = ()


class TreeJoin(Frozen):
    """A join of the average-linkage tree: two clusters of languages at a height."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    height: float


class Figure(Frozen):
    """Lines over an axis; its picture is the file of its name."""

    kind: Literal["figure"] = "figure"
    name: str
    title: Note
    text: Note
    """The figure in words, for those who do not see it."""
    axes: tuple[Axis, ...] = ()
    """Axes to choose from, the first one first; none for a figure that is a picture alone, without lines."""
    y: Note = Note(template="")
    form: Form = "text"
    series: tuple[Series, ...] = ()
    levels: tuple[float, ...] = ()
    """Values to compare with, such as that of guessing."""
    n_left_out: int = 0
    """Lines that are in the file alone."""
    file: str | None = None
    addresses: tuple[str, ...] = ()
    """The places on the page of what stands at each place of the axes; see `Link`."""
    joins: tuple[TreeJoin, ...] = ()
    """The joins of a tree, the nearest first."""
    leaves: Mapping[str, str] = {}
    """The text at each leaf of the tree, by its name in the joins."""


class TableChoice(Frozen):
    """Tables of one kind of which a reader wants to see one at a time, the first one first."""

    kind: Literal["choice"] = "choice"
    title: Note
    tables: Annotated[tuple[Table, ...], Field(min_length=1)]


Part: TypeAlias = Annotated[Table | Figure | TableChoice | Note, Field(discriminator="kind")]


class Section(Frozen):
    """Parts of a report under a title."""

    title: Note
    parts: tuple[Part, ...]
    is_detail: bool = False
    """Left out, or closed at first, where a reader wants the answer."""

    def first_parts(self) -> list[Table | Figure | Note]:
        """Return the parts; of several tables to choose from, the first one."""
        return [part.tables[0] if isinstance(part, TableChoice) else part for part in self.parts]


class Report(Frozen):
    """`report.json`: the answer of a result first, then what is to be known about it, and details."""

    schema_version: Literal[2] = 2
    title: Note
    sections: tuple[Section, ...]

    def parts(self) -> Iterator[Table | Figure | TableChoice | Note]:
        """Yield the parts of all sections."""
        for section in self.sections:
            yield from section.parts

    def figures(self) -> Sequence[Figure]:
        """Return the figures in their order."""
        return [part for part in self.parts() if isinstance(part, Figure)]

    def tables(self) -> list[Table]:
        """Return all tables in their order, also those to choose from."""
        found: list[Table] = []
        for part in self.parts():
            found += part.tables if isinstance(part, TableChoice) else [part] if isinstance(part, Table) else []
        return found


def note(template: str, **values: "str | Quantity | Note | float") -> Note:
    """Return a note; a plain number is a count."""
    return Note(template=template, values=_values(values))


def number_note(value: float, form: Form) -> Note:
    """Return a note of a number alone."""
    return note("{value}", value=Quantity(value=value, form=form))


def counted_note(number: int, noun: str, **values: "str | Quantity | Note | float") -> Note:
    """Return a count with its noun, which is in the plural unless it is one: `3 items`."""
    return Note(
        template=f"{{count}} {noun}",
        plural=f"{{count}} {noun}s",
        values=_values(values | {"count": number}),
    )


def joined(notes: Iterable[Note], between: str = "") -> Note:
    """Return notes one behind the other."""
    values = {f"part_{place}": one for place, one in enumerate(notes)}
    return Note(template=between.join(f"{{{name}}}" for name in values), values=values)


def column(
    title: str, form: Form = "text", shows: Literal["all", "value", "interval"] = "all", *, is_detail: bool = False
) -> Column:
    """Return a column under an English title."""
    return Column(title=note(title), form=form, shows=shows, is_detail=is_detail)


def choice(title: str, tables: Sequence[Table]) -> Part:
    """Return tables to choose from under an English title; a single table as it is."""
    return tables[0] if len(tables) == 1 else TableChoice(title=note(title), tables=tuple(tables))


def section(title: str, parts: Iterable[Part], *, is_detail: bool = False) -> list[Section]:
    """Return parts under an English title; nothing without parts."""
    found = tuple(parts)
    return [Section(title=note(title), parts=found, is_detail=is_detail)] if found else []


def _values(values: Mapping[str, "str | Quantity | Note | float"]) -> dict[str, "str | Quantity | Note"]:
    return {name: Quantity(value=one) if isinstance(one, int | float) else one for name, one in values.items()}
