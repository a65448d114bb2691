"""Requests and responses of scores of a table of items, whose columns come back beside the scores."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from trainer.contracts.base import Frozen, describe_fields
from trainer.contracts.inference_fields import (
    MAX_TEXT_CHARACTERS,
    InferenceRecord,
    InferenceRequest,
    Response,
    ScoringMethod,
    check_text_length,
)
from trainer.contracts.sequences import SequenceParts

ItemUnit = Literal["item", "region", "word", "char"]
"""A row of the results: an item, one of its regions or words, or a token, which with characters is a character."""
Cell = str | int | float | bool | None
ColumnName = Annotated[str, Field(max_length=200)]
Columns = dict[ColumnName, tuple[Cell, ...]]
"""The values of a table by column."""

UNIT_COLUMNS = ("unit", "unit_text")
SCORE_COLUMNS = ("surprisal_nats", "entropy_nats", "n_tokens", "n_chars", "n_unknown", "log_frequency")
RESULT_COLUMNS = ("source_row", *UNIT_COLUMNS, *SCORE_COLUMNS)
"""Columns that are added to those of the table; those of units only where an item has several rows."""
MAX_ITEMS = 10_000
MAX_RESULT_CHARACTERS = 20_000_000
"""Limit of the values of the table as often as they come back."""


class ItemText(NamedTuple):
    """The text of an item in parts, and the regions among them."""

    sequence: SequenceParts
    regions: tuple[tuple[str, int], ...]
    """Names of the regions with the numbers of their parts."""


class ItemOptions(Frozen, json_schema_extra=describe_fields):
    """Options of a request to score a table of items."""

    text_column: ColumnName | None = None
    """Column of the texts; without it, an item's regions, with a space between them, are its text."""
    region_columns: Annotated[tuple[ColumnName, ...], Field(max_length=400)] = ()
    """Columns of regions, in the order in which they stand in the text; an empty one is not there."""
    context_column: ColumnName | None = None
    """Column of texts before the items, which are given and not scored."""
    per: ItemUnit | None = None
    """The rows of the results; default: regions where there are columns of them, otherwise items."""
    pll_within_word: bool = False
    """For masked models: mask the later tokens of a word too (Kauf and Ivanova 2023)."""

    @property
    def unit(self) -> ItemUnit:
        return self.per or ("region" if self.region_columns else "item")


class ItemsRequest(ItemOptions, InferenceRequest):
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
        return self.unit in ("word", "char")

    @model_validator(mode="after")
    def _is_table(self) -> "ItemsRequest":
        lengths = {len(values) for values in self.table.values()}
        if len(lengths) > 1:
            raise ValueError("`table` must have columns of equal lengths")
        if not 1 <= max(lengths) <= MAX_ITEMS:
            raise ValueError(f"`table` must have 1 to {MAX_ITEMS:,} rows")
        for name in RESULT_COLUMNS:
            if name in self.table:
                raise ValueError(f"`table` has a column `{name}`, which the results have too: give it another name")
        self._check_names()
        texts = list(self.texts())
        scored = sum(len(text.sequence.text) for text in texts)
        check_text_length("The text of the items", scored, MAX_TEXT_CHARACTERS)
        check_text_length("The table of the results", self._result_characters(texts), MAX_RESULT_CHARACTERS)
        return self

    def texts(self) -> Iterator[ItemText]:
        """Yield the texts of the items; raises ValueError for one that cannot be scored."""
        for row in range(len(next(iter(self.table.values())))):
            text, context, *regions = (
                self._text(column, row) for column in (self.text_column, self.context_column, *self.region_columns)
            )
            named = dict(zip(self.region_columns, regions, strict=True))
            parts, found = _joined(named) if self.text_column is None else self._found(text, named, row)
            if not "".join(parts):
                raise ValueError(f"row {self.first_row + row:,} has no text")
            if context:
                first = next(number for number, part in enumerate(parts) if part)
                parts[first] = f" {parts[first]}"
            yield ItemText(SequenceParts(context=context, parts=tuple(parts)), tuple(found.items()))

    def _check_names(self) -> None:
        if self.text_column is None and not self.region_columns:
            raise ValueError("`text_column` or `region_columns` must name the texts")
        if self.per == "region" and not self.region_columns:
            raise ValueError("`region_columns` must name the regions that are the rows")
        if len({*self.region_columns}) < len(self.region_columns):
            raise ValueError("`region_columns` must name each column once")
        for name in (self.text_column, self.context_column, *self.region_columns):
            if name is not None and name not in self.table:
                shown = ", ".join(f"`{column}`" for column in islice(self.table, 20))
                raise ValueError(f"`table` has no column `{name}`: it has {shown}")

    def _text(self, column: str | None, row: int) -> str:
        """Return a text without white space at its ends."""
        value = None if column is None else self.table[column][row]
        if value is not None and not isinstance(value, str):
            raise ValueError(f"row {self.first_row + row:,} has no text in `{column}`, but the value {value}")
        text = (value or "").strip()
        if "\n" in text or "\r" in text:
            raise ValueError(f"row {self.first_row + row:,} has several lines in `{column}`: an item is one line")
        return text

    def _found(self, text: str, regions: dict[str, str], row: int) -> tuple[list[str], dict[str, int]]:
        """Cut a text into its regions and what is between them."""
        starts = _starts(text, regions.values(), prefers_words=True)
        if len(starts) < len(regions):
            starts = _starts(text, regions.values(), prefers_words=False)
        if len(starts) < len(regions):
            name = [*regions][len(starts)]
            where = "after the region before it" if starts else "in the text"
            raise ValueError(f"row {self.first_row + row:,}: the region in `{name}` is not {where}")
        parts: list[str] = []
        end = 0
        for region, start in zip(regions.values(), starts, strict=True):
            parts += [text[end:start], region]
            end = start + len(region)
        return [*parts, text[end:]], {name: 2 * number + 1 for number, name in enumerate(regions)}

    def _result_characters(self, texts: list[ItemText]) -> int:
        """Return an upper bound of the characters in the table's columns of the results."""
        total = 0
        for row, text in enumerate(texts):
            written = "".join(text.sequence.parts)
            rows = {"item": 1, "region": len(text.regions), "word": len(written.split()), "char": len(written)}
            total += rows[self.unit] * sum(len(str(values[row])) for values in self.table.values())
        return total


def _starts(text: str, regions: Iterable[str], *, prefers_words: bool) -> list[int]:
    """Return where the regions start that can be found one after the other; absent ones start where they would.

    As whole words, if they can be: `he` is not meant to be in `the`.
    """
    starts: list[int] = []
    end = 0
    for region in regions:
        word = re.compile(rf"(?<!\w){re.escape(region)}(?!\w)").search(text, end) if prefers_words and region else None
        start = text.find(region, end) if word is None else word.start()
        if start < 0:
            break
        starts.append(start)
        end = start + len(region)
    return starts


def _joined(regions: dict[str, str]) -> tuple[list[str], dict[str, int]]:
    """Return regions with a space between them as parts of a text."""
    parts: list[str] = []
    for region in regions.values():
        parts.append(f" {region}" if region and any(parts) else region)
    return parts, {name: number for number, name in enumerate(regions)}


class ItemsResponse(Response):
    """Scores of a table of items."""

    table: Columns | None = None
    """The columns of the request, repeated for each unit, and after them those of the scores."""
    method: ScoringMethod = "causal"
    n_cut: int = 0
    """Items that are longer than the model's context, so that they are scored by windows."""
    has_frequencies: bool = True
    """False if the training text is not there any more, so that no unit has a frequency."""


class ItemsRecord(InferenceRecord):
    kind: Literal["items"] = "items"
    request: ItemsRequest
    response: ItemsResponse
