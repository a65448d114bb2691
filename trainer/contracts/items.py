"""Requests and responses of scores of a table of items, whose columns come back beside the scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Annotated, Literal, NamedTuple, assert_never

from pydantic import Field, model_validator

from trainer.contracts.base import CountOptions, Frozen, describe_fields
from trainer.contracts.cells import ABSENT
from trainer.contracts.inference_fields import (
    MAX_TEXT_CHARACTERS,
    InferenceRecord,
    InferenceRequest,
    Response,
    ScoringMethod,
    check_text_length,
)
from trainer.contracts.regions import best_placement, occurrences_of
from trainer.contracts.runs import Leak
from trainer.contracts.sequences import Separator, Tokenizations, has_unwritten_space, is_one_word, joined
from trainer.contracts.wording import counted

ItemUnit = Literal["item", "region", "word", "char"]
"""A row of the results: an item, one of its regions or words, or a token, which with characters is a character."""
Cell = str | int | float | bool | None
ColumnName = Annotated[str, Field(max_length=200)]
Columns = dict[ColumnName, tuple[Cell, ...]]
"""The values of a table by column."""

UNIT_COLUMNS = ("unit", "unit_text")
SCORE_COLUMNS = ("surprisal_nats", "entropy_nats", "n_tokens", "n_chars", "n_unknown", "log_frequency")
LEFT_OUT_COLUMN = "left_out_nats"
"""A further column of sums over tokenizations: how much lower a surprisal can be."""
RESULT_COLUMNS = ("source_row", *UNIT_COLUMNS, *SCORE_COLUMNS)
"""Columns that are added to those of the table; those of units only where an item has several rows."""
MAX_ITEMS = 10_000
MAX_RESULT_CHARACTERS = 20_000_000
"""Limit of the values of the table as often as they come back."""
_MAX_OCCURRENCES = 1_000_000
"""Occurrences of the regions of a request in its texts, which are compared."""
_MIN_WORDS = 5
"""A table of at least so many single words may be one of words in texts."""
_MIN_REPEATED = 3
"""Words that are repeated in a text of one reader: `no no no` has one."""

_EMPTY = "Counted as empty: {cells} with `NA` or the like, first in row {row:,}. `keep_na` scores them as words."
_AGAIN = (
    "Not joined: {texts} with the group of an earlier text, first in row {row:,}, as other rows stand between them."
)
_REPEATED = (
    "Joined although the same words come more than once: {texts}, first in row {row:,}. `group_column` takes several "
    "columns, such as those of the item and of the reader."
)
_INSIDE = "Found only inside a longer word: regions of {texts}, first in row {row:,}."
_SEVERAL = (
    "Found at several positions: regions of {texts}, first in row {row:,}. The first between white space, or else the "
    "first, is taken; `occurrence_column` gives another."
)
_SPACE = (
    "Joined with a space where usually none is written, as before punctuation: {texts}, first in row {row:,}. "
    "`separator` gives another; `text_column` names texts as they are written."
)
_BARE = (
    "Joined without a space where usually none is written, as before punctuation: {texts}, first in row {row:,}. "
    "`separator` gives another; `text_column` names texts as they are written."
)
_WORDS = "Each text is one word, scored by itself: `group_column` joins the rows of an item."


class ItemText(NamedTuple):
    """The text of an item in parts, and the regions among them."""

    parts: tuple[str, ...]
    rows: tuple[int, ...]
    """For each part its row in the request."""
    regions: tuple[tuple[str | int, int], ...]
    """Names of the regions with the numbers of their parts; for a text of several rows, the numbers of its rows."""
    context: str = ""
    """Text before the parts, which is given and not scored."""
    is_repeated: bool = False
    """True if the rows have the same words several times, as if they were of several readers."""
    is_inside_word: bool = False
    """True if a region stands inside a word only."""
    is_ambiguous: bool = False
    """True if the regions stand at several positions, and no column tells which."""
    has_unwritten_space: bool = False
    """True if parts are joined where no space is usually written: by a space of the options, or without one."""
    n_compared: int = 0
    """Occurrences of the regions in the text."""

    @property
    def text(self) -> str:
        return self.context + "".join(self.parts)


class ItemOptions(Frozen, json_schema_extra=describe_fields):
    """Options of a request to score a table of items."""

    text_column: ColumnName | None = None
    """Column of the texts; without it, an item's regions, joined by the separator, are its text."""
    group_column: ColumnName | Annotated[tuple[ColumnName, ...], Field(max_length=20)] | None = None
    """Columns whose values are the same in consecutive rows of one text, whose `text_column` has a word each."""
    region_columns: Annotated[tuple[ColumnName, ...], Field(max_length=400)] = ()
    """Columns of regions, in the order in which they stand in the text; an empty one is not there."""
    occurrence_column: ColumnName | None = None
    """Column with the number of the occurrence, from 1, that the only region is in its text."""
    context_column: ColumnName | None = None
    """Column of texts before the items, which are given and not scored."""
    separator: Separator | None = None
    """What stands between regions or rows that are joined, and between a context and its text.

    Default: a space where one is usually written, so none before punctuation or in Chinese.
    """
    keep_na: bool = False
    """Score `NA`, `NaN`, `nan`, `null` and `<NA>` as words; otherwise they are empty cells."""
    per: ItemUnit | None = None
    """The rows of the results; default: regions where there are columns of them or groups, otherwise items."""
    pll_within_word: bool = False
    """For masked models: mask the later tokens of a word too (Kauf and Ivanova 2023)."""
    tokenizations: Tokenizations = "canonical"
    """For items and regions of causal models: score the canonical tokenization, or sum over all (marginal)."""

    @property
    def unit(self) -> ItemUnit:
        return self.per or ("region" if self.region_columns or self.group_columns else "item")

    @property
    def group_columns(self) -> tuple[str, ...]:
        group = self.group_column or ()
        return (group,) if isinstance(group, str) else group


class ItemsRequest(ItemOptions, CountOptions, InferenceRequest):
    """A request to score a table of items, each by itself."""

    table: Annotated[Columns, Field(min_length=1, max_length=1000)]
    """The columns, of equal lengths; the texts are among them, and all come back."""
    first_row: Annotated[int, Field(ge=1)] = 1
    """The number of the first row, for a table that is sent in parts."""

    @classmethod
    def response_type(cls) -> "type[ItemsResponse]":
        return ItemsResponse

    @property
    def has_surprisals(self) -> bool:
        return self.unit in ("word", "char") or bool(self.group_columns)

    @model_validator(mode="after")
    def _is_table(self) -> "ItemsRequest":
        lengths = {len(values) for values in self.table.values()}
        if len(lengths) > 1:
            raise ValueError("`table` must have columns of equal lengths")
        if not 1 <= max(lengths) <= MAX_ITEMS:
            raise ValueError(f"`table` must have 1 to {MAX_ITEMS:,} rows")
        for name in (*RESULT_COLUMNS, LEFT_OUT_COLUMN):
            if name in self.table:
                raise ValueError(f"`table` has a column `{name}`, which the results have too: give it another name")
        self._check_names()
        self._check_groups()
        texts = list(self.texts())
        check_text_length("The text of the items", sum(len(text.text) for text in texts), MAX_TEXT_CHARACTERS)
        check_text_length("The table of the results", self._result_characters(texts), MAX_RESULT_CHARACTERS)
        return self

    def texts(self) -> Iterator[ItemText]:
        """Yield the texts of the items; raises ValueError for one that cannot be scored."""
        n_compared = 0
        for start, end in pairwise([*text_starts(self.table, self.group_columns), self.n_rows]):
            context = self._context(range(start, end))
            if self.group_columns:
                item = self._of_rows(range(start, end))
            elif self.text_column is None:
                item = self._of_regions(start)
            else:
                item = self._of_text(self._text(self.text_column, start), start, _MAX_OCCURRENCES - n_compared)
                n_compared += item.n_compared
            first = next((number for number, part in enumerate(item.parts) if part), None)
            if first is None:
                absent = next((f": `{value}` is a word with `keep_na` only" for value in self.absent(start)), "")
                raise ValueError(f"row {self.first_row + start:,} has no text{absent}")
            if context:
                _, after = joined((context, item.parts[first]), self.separator)
                parts = (*item.parts[:first], after, *item.parts[first + 1 :])
                is_odd = item.has_unwritten_space or self._has_unwritten_space((context, after))
                item = item._replace(context=context, parts=parts, has_unwritten_space=is_odd)
            yield item

    @property
    def n_rows(self) -> int:
        return len(next(iter(self.table.values())))

    def _check_names(self) -> None:
        if self.text_column is None and not self.region_columns:
            raise ValueError("`text_column` or `region_columns` must name the texts")
        if self.per == "region" and not (self.region_columns or self.group_columns):
            raise ValueError("`region_columns` must name the regions that are the rows")
        if self.tokenizations == "marginal" and self.unit in ("word", "char"):
            raise ValueError("`tokenizations` 'marginal' is for `per` item or region")
        if len({*self.region_columns}) < len(self.region_columns):
            raise ValueError("`region_columns` must name each column once")
        if self.occurrence_column is not None and (self.text_column is None or len(self.region_columns) != 1):
            raise ValueError("`occurrence_column` is for one column of regions and a column of texts")
        named = (self.text_column, self.context_column, self.occurrence_column)
        for name in (*named, *self.group_columns, *self.region_columns):
            if name is not None and name not in self.table:
                shown = ", ".join(f"`{column}`" for column in islice(self.table, 20))
                raise ValueError(f"`table` has no column `{name}`: it has {shown}")

    def _check_groups(self) -> None:
        if self.group_columns and (self.region_columns or self.per == "item"):
            other = "`region_columns`" if self.region_columns else "`per` `item`"
            raise ValueError(f"`group_column` gives the scores of each row of a text: it goes without {other}")
        for name in self.group_columns:
            for row, value in enumerate(self.table[name]):
                if self._is_empty(value):
                    raise ValueError(f"row {self.first_row + row:,} has no value in `{name}`, which groups the rows")

    def _is_empty(self, value: Cell) -> bool:
        return not _plain(value) or (_plain(value) in ABSENT and not self.keep_na)

    def absent(self, row: int) -> Iterator[str]:
        """Yield the texts of a row that are written as a word, although they have no value."""
        if not self.keep_na:
            named = (self.text_column, self.context_column, *self.region_columns)
            cells = (_plain(self.table[name][row]) for name in named if name is not None)
            yield from (cell for cell in cells if cell in ABSENT)

    def _text(self, column: str | None, row: int) -> str:
        """Return a text without white space at its ends."""
        value = None if column is None else self.table[column][row]
        if value is not None and not isinstance(value, str):
            raise ValueError(f"row {self.first_row + row:,} has no text in `{column}`, but the value {value}")
        text = "" if value is None or self._is_empty(value) else value.strip()
        if "\n" in text or "\r" in text:
            raise ValueError(f"row {self.first_row + row:,} has several lines in `{column}`: an item is one line")
        return text

    def _context(self, rows: range) -> str:
        """Return the context of a text; raises ValueError if its rows have different ones."""
        contexts = {self._text(self.context_column, row) for row in rows}
        if len(contexts) > 1:
            first, last = self.first_row + rows[0], self.first_row + rows[-1]
            raise ValueError(f"rows {first:,} to {last:,} are one text, and differ in `{self.context_column}`")
        return contexts.pop()

    def _of_rows(self, rows: range) -> ItemText:
        """Join the texts of consecutive rows."""
        texts = [self._text(self.text_column, row) for row in rows]
        regions = tuple((number + 1, number) for number in range(len(rows)))
        return self._of_parts(texts, rows, regions)._replace(is_repeated=_is_repeated(texts))

    def _of_regions(self, row: int) -> ItemText:
        """Join the regions of a row."""
        regions = tuple((name, number) for number, name in enumerate(self.region_columns))
        return self._of_parts([self._text(name, row) for name in self.region_columns], [row] * len(regions), regions)

    def _of_parts(
        self, texts: Iterable[str], rows: Sequence[int], regions: tuple[tuple[str | int, int], ...]
    ) -> ItemText:
        parts = joined(texts, self.separator)
        is_odd = self._has_unwritten_space([*filter(None, parts)])
        return ItemText(tuple(parts), tuple(rows), regions, has_unwritten_space=is_odd)

    def _has_unwritten_space(self, parts: Sequence[str]) -> bool:
        if self.separator is None:
            return any(part[0] != " " for part in parts[1:])
        return any(has_unwritten_space(before, after) for before, after in pairwise(parts))

    def _of_text(self, text: str, row: int, max_compared: int) -> ItemText:
        """Cut a text into its regions and what is between them."""
        regions = {name: self._text(name, row) for name in self.region_columns}
        names = [name for name, region in regions.items() if region]
        placement = best_placement(text, [regions[name] for name in names], max_compared)
        where = f"row {self.first_row + row:,}"
        if placement is None:
            raise ValueError(f"{where}: the regions occur too often in the texts: give fewer rows or regions at once")
        found = placement.occurrences
        if len(found) < len(names):
            problem = "not after the region before it" if found else "not in the text"
            raise ValueError(f"{where}: the region in `{names[len(found)]}` is {problem}")
        number = self._occurrence(row) if names else None
        if number is not None:
            among = occurrences_of(text, regions[names[0]])
            if number > len(among):
                raise ValueError(
                    f"{where}: the region in `{names[0]}` occurs {counted(len(among), 'time')}, not {number:,}"
                )
            found = (among[number - 1],)
        spans = dict(zip(names, found, strict=True))
        parts: list[str] = []
        end = 0
        for name in regions:
            start, past = (spans[name].start, spans[name].end) if name in spans else (end, end)
            parts += [text[end:start], text[start:past]]
            end = past
        return ItemText(
            (*parts, text[end:]),
            (row,) * (len(parts) + 1),
            tuple((name, 2 * number + 1) for number, name in enumerate(regions)),
            is_inside_word=any(one.level == "inside_word" for one in found),
            is_ambiguous=placement.n_choices > 1 and number is None,
            n_compared=placement.n_compared,
        )

    def _occurrence(self, row: int) -> int | None:
        """Return the number of the occurrence that the region of a row is; None if the row does not tell."""
        value = None if self.occurrence_column is None else self.table[self.occurrence_column][row]
        if self._is_empty(value):
            return None
        digits = str(value).strip().removesuffix(".0")  # pandas has floats in a column with missing values
        if not digits.isdecimal() or not int(digits):
            column = f"`{self.occurrence_column}`"
            raise ValueError(f"row {self.first_row + row:,} must have a number from 1 in {column}, not {value}")
        return int(digits)

    def _result_characters(self, texts: list[ItemText]) -> int:
        """Return an upper bound of the characters in the table's columns of the results."""
        widths = [sum(len(str(values[row])) for values in self.table.values()) for row in range(self.n_rows)]
        total = 0
        for text in texts:
            parts = zip(text.parts, text.rows, strict=True)
            match self.unit:
                case "item":
                    total += widths[text.rows[0]]
                case "region":
                    total += sum(widths[text.rows[part]] for _, part in text.regions)
                case "word":
                    total += sum(len(part.split()) * widths[row] for part, row in parts)
                case "char":
                    total += sum(len(part) * widths[row] for part, row in parts)
                case unknown:
                    assert_never(unknown)
        return total


def text_starts(table: Mapping[str, Sequence[Cell]], group_columns: Sequence[str]) -> list[int]:
    """Return the rows at which a text begins: each one, or each whose values in these columns are new ones."""
    n_rows = max(map(len, table.values()), default=0)
    groups = [_group_of(table, row, group_columns) for row in range(n_rows)]
    return [row for row in range(n_rows) if not (row and groups[row]) or groups[row] != groups[row - 1]]


def _group_of(table: Mapping[str, Sequence[Cell]], row: int, group_columns: Sequence[str]) -> tuple[str, ...]:
    """Return the values of a row in the columns that the table has of these."""
    return tuple(_plain(table[name][row]) for name in group_columns if name in table)


def _is_repeated(words: Sequence[str]) -> bool:
    """Return whether words are several times the same sequence of a few words or more."""
    lines = "".join(f"{word}\n" for word in words)
    period = f"{lines}{lines}".find(lines, 1)
    return period < len(lines) and lines[:period].count("\n") >= _MIN_REPEATED


def _plain(value: Cell) -> str:
    return "" if value is None else str(value).strip()


def item_notes(requests: Iterable[ItemsRequest]) -> tuple[str, ...]:
    """Return sentences on what was guessed in a table that is sent in parts, with counts and the first row of each."""
    rows: dict[str, list[int]] = {
        _EMPTY: [],
        _AGAIN: [],
        _REPEATED: [],
        _INSIDE: [],
        _SEVERAL: [],
        _SPACE: [],
        _BARE: [],
    }
    groups: set[tuple[str, ...]] = set()
    is_word: list[bool] = []
    for request in requests:
        rows[_EMPTY] += [request.first_row + row for row in range(request.n_rows) for _ in request.absent(row)]
        for text in request.texts():
            row = text.rows[0]
            group = _group_of(request.table, row, request.group_columns)
            guesses = {
                _AGAIN: group in groups,
                _REPEATED: text.is_repeated,
                _INSIDE: text.is_inside_word,
                _SEVERAL: text.is_ambiguous,
                _SPACE: text.has_unwritten_space and request.separator is not None,
                _BARE: text.has_unwritten_space and request.separator is None,
            }
            for sentence in (sentence for sentence, is_so in guesses.items() if is_so):
                rows[sentence].append(request.first_row + row)
            groups |= {group} if group else set()
            is_joined = bool(text.context or request.region_columns or text.rows[1:])
            is_word.append(not is_joined and is_one_word(text.text))
    notes = [
        sentence.format(cells=counted(len(found), "cell"), texts=counted(len(found), "text"), row=found[0])
        for sentence, found in rows.items()
        if found
    ]
    return (*notes, _WORDS) if len(is_word) >= _MIN_WORDS and all(is_word) else tuple(notes)


class ItemsResponse(Response):
    """Scores of a table of items."""

    table: Columns | None = None
    """The columns of the request, repeated for each unit, and after them those of the scores."""
    method: ScoringMethod = "causal"
    n_cut: int = 0
    """Items that are longer than the model's context, so that they are scored by windows."""
    has_frequencies: bool = True
    """False if the training text is not there any more, or not yours, so that no unit has a frequency."""
    leak: Leak | None = None
    """How much of the texts the run and its ancestors have trained on; None without their texts, or if not yours."""
    notes: tuple[str, ...] = ()
    """What was guessed about the table, and what of it was trained on, in sentences."""


class ItemsRecord(InferenceRecord):
    kind: Literal["items"] = "items"
    request: ItemsRequest
    response: ItemsResponse
