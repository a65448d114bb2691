"""Items in conditions, whose regions formulas compare: the JSON of SyntaxGym, and what tables of regions share."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from trainer.batteries.formulas import Formula, read_formula
from trainer.config.validation import parse_json
from trainer.contracts.batteries import BatteryItem, Suite
from trainer.contracts.errors import AppError, ErrorCode, refusal
from trainer.contracts.reports import Note
from trainer.contracts.sequences import MAX_PARTS, SequenceParts

MAX_SEQUENCES = 100
"""Conditions or choices of an item, so that the largest one fits into a request."""
MAX_CHARACTERS = 10_000
"""Characters of a sequence."""


class Items(NamedTuple):
    """The items of a file, the suites of its paradigms, and how the file was read."""

    items: list[BatteryItem]
    suites: dict[str, Suite]
    notes: tuple[Note, ...] = ()


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


def read_suite(text: str, stem: str, battery: str) -> Items:
    """Read a test suite whose metric is the sum; raises INVALID_INPUT."""
    try:
        found = parse_json(_Suite, text)
    except AppError as error:
        first = refusal(ErrorCode.INVALID_INPUT, *error.details[:1]).message
        raise AppError(ErrorCode.INVALID_INPUT, f"it is no test suite of SyntaxGym: {first}") from None
    if not found.items or not found.predictions:
        raise AppError(ErrorCode.INVALID_INPUT, "it has no items, or no predictions.")
    items: list[BatteryItem] = []
    for item in found.items:
        regions = [[(region.region_number, region.content) for region in one.regions] for one in item.conditions]
        names = [condition.condition_name for condition in item.conditions]
        items.append(
            item_of(f"{stem}:{item.item_number}", found.meta.name, battery, list(zip(names, regions, strict=True)))
        )
    suite = Suite(regions=found.region_meta, formulas=tuple(one.formula for one in found.predictions))
    check_items(items, [read_formula(formula) for formula in suite.formulas])
    return Items(items, {found.meta.name: suite})


def item_of(
    name: str, paradigm: str, battery: str, conditions: Sequence[tuple[str, Sequence[tuple[int, str]]]]
) -> BatteryItem:
    """Return an item of conditions by name, each with the number and the text of its regions in their order."""
    if not 0 < len(conditions) <= MAX_SEQUENCES:
        raise AppError(ErrorCode.INVALID_INPUT, f"Item {name} must have 1 to {MAX_SEQUENCES} conditions.")
    sequences = [_joined(f"Item {name}, condition '{named}'", [text for _, text in of]) for named, of in conditions]
    return BatteryItem(
        battery=battery,
        name=name,
        paradigm=paradigm,
        sequences=tuple(sequences),
        conditions=tuple(named for named, _ in conditions),
        regions=tuple(tuple(number for number, _ in of) for _, of in conditions),
    )


def _joined(where: str, texts: Sequence[str]) -> SequenceParts:
    """Join regions by spaces, as SyntaxGym does: a region without text has no space."""
    parts: list[str] = []
    for text in texts:
        content = text.lstrip()
        parts.append(f" {content}" if content and any(parts) else content)
    text = "".join(parts)
    if "\n" in text or not text.strip() or len(parts) > MAX_PARTS or len(text) > MAX_CHARACTERS:
        problem = f"a sentence is one line of at most {MAX_CHARACTERS:,} characters in at most {MAX_PARTS:,} regions"
        raise AppError(ErrorCode.INVALID_INPUT, f"{where}: {problem}.")
    return SequenceParts(parts=tuple(parts))


def check_items(items: Sequence[BatteryItem], formulas: Sequence[Formula]) -> None:
    """Raise INVALID_INPUT for items of one name, twice the same name in an item, and what formulas do not find."""
    problem = next(_problems(items, formulas), None)
    if problem is not None:
        raise AppError(ErrorCode.INVALID_INPUT, f"{problem}.")


def _problems(items: Iterable[BatteryItem], formulas: Sequence[Formula]) -> Iterator[str]:
    names: set[str] = set()
    for item in items:
        if item.name in names:
            yield f"it has two items {item.name}"
        names.add(item.name)
        of_conditions: dict[str, tuple[int, ...]] = {}
        for condition, regions in zip(item.conditions, item.regions, strict=True):
            if condition in of_conditions:
                yield f"it has two conditions '{condition}' in item {item.name}"
            if len(set(regions)) < len(regions):
                yield f"it has two regions with the same number in condition '{condition}' of item {item.name}"
            of_conditions[condition] = regions
        for formula in formulas:
            for region, condition in formula.references:
                where = f"in item {item.name}, which a formula names"
                if condition not in of_conditions:
                    yield f"it has no condition '{condition}' {where}"
                elif region is not None and region not in of_conditions[condition]:
                    yield f"it has no region {region:,} of condition '{condition}' {where}"
