"""Test suites in the JSON form of SyntaxGym: items in conditions, whose regions formulas compare."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from trainer.config.validation import parse_json
from trainer.contracts.errors import AppError, ErrorCode, refusal
from trainer.contracts.sequences import MAX_PARTS, SequenceParts
from trainer.data.input_text import read_text
from trainer.data.text import shown_name
from trainer.reports.formulas import Formula, read_formula

_MAX_CHARACTERS = 50_000_000


class Condition(NamedTuple):
    """A sentence of an item, and the numbers of its regions; each region is a part of the sequence."""

    item: int
    name: str
    regions: tuple[int, ...]
    sequence: SequenceParts


class Suite(NamedTuple):
    """A test suite."""

    name: str
    region_names: dict[int, str]
    formulas: tuple[Formula, ...]
    conditions: tuple[Condition, ...]
    """The conditions of all items, in the order of the file."""


class _Published(BaseModel):
    """A part of the file, whose other fields are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _Region(_Published):
    region_number: int
    content: str


class _Condition(_Published):
    condition_name: str
    regions: tuple[_Region, ...]


class _Item(_Published):
    item_number: int
    conditions: tuple[_Condition, ...]


class _Prediction(_Published):
    type: Literal["formula"]
    formula: str


class _Meta(_Published):
    name: str
    metric: Literal["sum"]


class _Suite(_Published):
    meta: _Meta
    region_meta: dict[int, str]
    predictions: tuple[_Prediction, ...]
    items: tuple[_Item, ...]


def read_suite(path: Path) -> Suite:
    """Read a test suite whose metric is the sum; raises DATA_NOT_FOUND, PAYLOAD_TOO_LARGE and INVALID_INPUT."""
    shown = shown_name(path.name)
    text = read_text(path, _MAX_CHARACTERS)
    try:
        found = parse_json(_Suite, text)
    except AppError as error:
        first = refusal(ErrorCode.INVALID_INPUT, *error.details[:1]).message
        raise AppError(ErrorCode.INVALID_INPUT, f"'{shown}' is no test suite of SyntaxGym: {first}") from None
    suite = Suite(
        found.meta.name,
        found.region_meta,
        tuple(read_formula(prediction.formula) for prediction in found.predictions),
        tuple(_condition(item, condition) for item in found.items for condition in item.conditions),
    )
    problem_found = next(_problems(suite, found), None)
    if problem_found is not None:
        raise AppError(ErrorCode.INVALID_INPUT, f"'{shown}' {problem_found}.")
    return suite


def _condition(item: _Item, condition: _Condition) -> Condition:
    """Join the regions by spaces, as SyntaxGym does: a region without text has no space."""
    parts: list[str] = []
    for region in condition.regions:
        content = region.content.lstrip()
        parts.append(f" {content}" if content and any(parts) else content)
    if "\n" in "".join(parts) or not any(parts) or len(parts) > MAX_PARTS:
        where = f"Item {item.item_number:,}, condition '{condition.condition_name}'"
        problem = f"a sentence is one line of text in at most {MAX_PARTS:,} regions"
        raise AppError(ErrorCode.INVALID_INPUT, f"{where}: {problem}.")
    numbers = tuple(region.region_number for region in condition.regions)
    return Condition(item.item_number, condition.condition_name, numbers, SequenceParts(parts=tuple(parts)))


def _problems(suite: Suite, found: _Suite) -> Iterator[str]:
    if not suite.conditions or not suite.formulas:
        yield "has no items, or no predictions"
    numbers = [item.item_number for item in found.items]
    if len(set(numbers)) < len(numbers):
        yield "has two items with the same number"
    regions: dict[int, dict[str, tuple[int, ...]]] = {}
    for condition in suite.conditions:
        if len(set(condition.regions)) < len(condition.regions):
            yield f"has two regions with the same number in condition '{condition.name}' of item {condition.item:,}"
        of_item = regions.setdefault(condition.item, {})
        if condition.name in of_item:
            yield f"has two conditions '{condition.name}' in item {condition.item:,}"
        of_item[condition.name] = condition.regions
    yield from _wrong_references(suite.formulas, regions)


def _wrong_references(
    formulas: Iterable[Formula], regions: Mapping[int, Mapping[str, tuple[int, ...]]]
) -> Iterator[str]:
    """Yield the problem of each condition or region that a formula names and an item lacks."""
    for formula in formulas:
        for region, name in formula.references:
            for item, conditions in regions.items():
                if name not in conditions:
                    yield f"has no condition '{name}' in item {item:,}, which a formula names"
                elif region is not None and region not in conditions[name]:
                    yield f"has no region {region:,} in condition '{name}' of item {item:,}, which a formula names"
