"""Tables of items in the forms in which their authors publish them: JSON Lines, or columns between tabs, `,` or `;`.

| form | columns |
|---|---|
| BLiMP (Warstadt et al. 2020) | `sentence_good`, `sentence_bad`, `UID`, `linguistics_term`, `field` |
| MultiBLiMP (Jumelet et al. 2025) | `sen`, `wrong_sen`, `phenomenon`, `lang` |
| TurBLiMP (Başar et al. 2025) | `good_sentence`, `bad_sentence`, `phenomenon` |
| pairs and choices of your own | `good`, `bad`, more of `bad_2`, …, and `context` |
| the same text after two contexts | `good_context`, `bad_context`, `target` |
| EWoK (Ivanova et al. 2024) | `Context1`, `Context2`, `Target1`, `Target2`, `Domain` |
| questions with several answers | `context`, `choices`, `answer`, in JSON Lines |
| regions of sentences in conditions | `item`, `condition`, `region`, `text` |

A table between tabs without names of columns has two sentences in each line, and optionally a group.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from trainer.batteries.formulas import read_formula
from trainer.batteries.suites import MAX_CHARACTERS, MAX_SEQUENCES, Items, check_items, item_of
from trainer.config.validation import did_you_mean, safe_name
from trainer.contracts.base import narrowed
from trainer.contracts.batteries import BatteryItem, BatteryOptions, Suite
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.sequences import SequenceParts
from trainer.data.rows import Row, bad_line, head_of, json_rows, rows_below

_PAIRS = (
    ("sentence_good", "sentence_bad"),
    ("sen", "wrong_sen"),
    ("good_sentence", "bad_sentence"),
    ("good", "bad"),
)
"""Columns of the right and the wrong sentence."""
_PARADIGMS = ("UID", "paradigm", "group", "phenomenon", "Domain")
_PHENOMENA = ("linguistics_term", "linguistic_phenomenon", "phenomenon")
"""Columns that group items; the first that a file has counts."""
_OWN_COLUMNS = (
    *("good", "bad", "context", "paradigm", "phenomenon", "field", "item", "condition", "region", "text"),
    *("good_context", "bad_context", "target"),
)
_MAX_TABS = 2
"""Tabs in a line of a table without names of columns."""


class _File(NamedTuple):
    """The name of a file, and of the battery that its items belong to."""

    stem: str
    battery: str

    def item(
        self, number: int, values: Mapping[str, object], sequences: Sequence[SequenceParts], part: str = ""
    ) -> BatteryItem:
        """Return an item of choices, of which the first is right."""
        paradigm = _first(number, values, _PARADIGMS) or self.stem
        phenomenon, language = _first(number, values, _PHENOMENA), _text(number, values, "lang")
        return BatteryItem(
            battery=self.battery,
            name=f"{self.stem}:{number}{part}",
            paradigm=f"{language}:{paradigm}" if language else paradigm,
            phenomenon="" if phenomenon == paradigm else phenomenon,
            field=_text(number, values, "field"),
            sequences=tuple(sequences),
        )


_Read = Callable[[_File, int, Mapping[str, object]], Iterator[BatteryItem]]
"""Makes the items of a row, given its number."""


def read_table(text: str, stem: str, suffix: str, battery: str, options: BatteryOptions) -> Items:
    """Read a table, of which the first line tells the form; raises INVALID_INPUT with the first line that is wrong."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    rows = json_rows(lines) if suffix == ".jsonl" else _table_rows(lines)
    first = next(rows, None)
    if first is None:
        raise AppError(ErrorCode.INVALID_INPUT, "it has no items.")
    names = _renaming([*first[1]], options.columns)
    renamed = (
        (number, {names.get(name, name): value for name, value in values.items()})
        for number, values in chain([first], rows)
    )
    columns = [names.get(name, name) for name in first[1]]
    if {"item", "condition", "region", "text"} <= {*columns}:
        return _regions(renamed, stem, battery, options.formulas)
    if options.formulas:
        message = "are for tables of regions: `item`, `condition`, `region`, `text`."
        raise field_error(ErrorCode.INVALID_INPUT, "formulas", message)
    read = _reader(first[0], columns)
    file = _File(stem, battery)
    return Items([item for row in renamed for item in read(file, *row)], {})


def _renaming(columns: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the known names by the names that a table has for them."""
    for known, column in given.items():
        if known not in _OWN_COLUMNS:
            near = did_you_mean(known, _OWN_COLUMNS) or f": known are {', '.join(_OWN_COLUMNS)}."
            message = f"has an unknown name '{safe_name(known)}'{near}"
            raise field_error(ErrorCode.INVALID_INPUT, "columns", message)
        if column not in columns:
            shown = ", ".join(safe_name(name) for name in columns[:20])
            message = f"names '{safe_name(column)}', but the table has: {shown}."
            raise field_error(ErrorCode.INVALID_INPUT, "columns", message)
    return {column: known for known, column in given.items()}


def _table_rows(lines: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a table; the first line names the columns, or is a pair itself."""
    head = head_of(lines)
    known = {name for pair in _PAIRS for name in pair} | {"text", "Target1", "target"}
    is_pair = not known & {*head.names} and head.line.count("\t") in range(1, _MAX_TABS + 1)
    return _pair_rows(lines) if is_pair else rows_below(head, lines)


def _pair_rows(lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            cells = line.split("\t")
            if len(cells) > _MAX_TABS + 1:
                raise bad_line(number, "is no pair: write two sentences between tabs, and optionally a group")
            yield number, dict(zip(("good", "bad", "group"), (*cells, "")[: max(2, len(cells))], strict=False))


def _reader(number: int, columns: Sequence[str]) -> _Read:
    """Return the function that makes the items of a row."""
    if {"Context1", "Context2", "Target1", "Target2"} <= {*columns}:
        return _two_by_two
    if {"good_context", "bad_context", "target"} <= {*columns}:
        return _contexts
    if {"choices", "answer"} <= {*columns}:
        return _answers
    for good, bad in _PAIRS:
        if good in columns and bad in columns:
            more = [name for name in columns if name.removeprefix("bad").strip("_ ").isdecimal()]
            return _choices(good, [bad, *more])
    known = ", ".join(f"`{good}` and `{bad}`" for good, bad in _PAIRS)
    message = f"does not name the columns of two sentences: known are {known}; other names are given by `columns`"
    raise bad_line(number, message)


def _choices(good: str, bad: Sequence[str]) -> _Read:
    """Return the function for a column of right sentences and several of wrong ones, of which one must be there."""

    def read(file: _File, number: int, values: Mapping[str, object]) -> Iterator[BatteryItem]:
        others = [_text(number, values, name) for name in bad]
        texts = [_text(number, values, good), others[0], *filter(None, others[1:])]
        context = _text(number, values, "context")
        yield file.item(number, values, [_sequence(number, context, text) for text in texts])

    return read


def _answers(file: _File, number: int, values: Mapping[str, object]) -> Iterator[BatteryItem]:
    texts, answer = _list(values.get("choices")), values.get("answer")
    if not 2 <= len(texts) <= MAX_SEQUENCES or not all(isinstance(text, str) for text in texts):
        raise bad_line(number, f"must have a list of 2 to {MAX_SEQUENCES} texts in `choices`")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(texts):
        raise bad_line(number, "must have in `answer` the place of the right choice, counted from 0")
    context = _text(number, values, "context")
    ordered = [f"{texts[answer]}", *map(str, texts[:answer]), *map(str, texts[answer + 1 :])]
    yield file.item(number, values, [_sequence(number, context, _unicode(number, text)) for text in ordered])


def _list(value: object) -> list[object]:
    """Return the elements of a list; none for another value."""
    elements: list[object] = narrowed(list, value) if isinstance(value, list) else []
    return elements


def _contexts(file: _File, number: int, values: Mapping[str, object]) -> Iterator[BatteryItem]:
    target = _text(number, values, "target")
    contexts = [_text(number, values, name) for name in ("good_context", "bad_context")]
    yield file.item(number, values, [_sequence(number, context, target) for context in contexts])


def _two_by_two(file: _File, number: int, values: Mapping[str, object]) -> Iterator[BatteryItem]:
    """Yield an item for each context, whose own text should be less surprising than that of the other context."""
    targets = [_text(number, values, name) for name in ("Target1", "Target2")]
    for part in (1, 2):
        context = _text(number, values, f"Context{part}")
        ordered = targets if part == 1 else targets[::-1]
        yield file.item(number, values, [_sequence(number, context, text) for text in ordered], f".{part}")


def _regions(rows: Iterable[Row], stem: str, battery: str, formulas: Sequence[str]) -> Items:
    """Return the items of a table of regions: those of a paradigm have a suite, with the regions in the first order."""
    numbers: dict[str, dict[str, int]] = {}
    conditions: dict[tuple[str, str], dict[str, list[tuple[int, str]]]] = {}
    for number, values in rows:
        paradigm = _first(number, values, _PARADIGMS) or stem
        item, condition, region = (_text(number, values, name) for name in ("item", "condition", "region"))
        if not item or not condition or not region:
            raise bad_line(number, "needs an `item`, a `condition` and a `region`")
        of_paradigm = numbers.setdefault(paradigm, {})
        place = of_paradigm.setdefault(region, len(of_paradigm) + 1)
        of_item = conditions.setdefault((paradigm, item), {})
        of_item.setdefault(condition, []).append((place, _text(number, values, "text")))
    several = len(numbers) > 1
    items = [
        item_of(f"{stem}:{f'{paradigm}:' if several else ''}{item}", paradigm, battery, [*of_item.items()])
        for (paradigm, item), of_item in conditions.items()
    ]
    check_items(items, [read_formula(formula) for formula in formulas])
    suites = {
        paradigm: Suite(regions={place: name for name, place in regions.items()}, formulas=tuple(formulas))
        for paradigm, regions in numbers.items()
    }
    return Items(items, suites)


def _sequence(number: int, context: str, text: str) -> SequenceParts:
    if not text:
        raise bad_line(number, "is no pair: one of its sentences is missing")
    if "\n" in f"{context}{text}":
        raise bad_line(number, "is no pair: a sentence is one line")
    if len(context) + len(text) > MAX_CHARACTERS:
        raise bad_line(number, f"has a sentence of more than {MAX_CHARACTERS:,} characters")
    return SequenceParts(context=context, parts=(f" {text}" if context else text,))


def _first(number: int, values: Mapping[str, object], names: Iterable[str]) -> str:
    """Return the value of the first column that a row has; empty without one."""
    return next((_text(number, values, name) for name in names if name in values), "")


def _text(number: int, values: Mapping[str, object], name: str) -> str:
    value = values.get(name, "")
    if value is not None and not isinstance(value, (str, int)):
        raise bad_line(number, f"must have a text in `{name}`")
    return "" if value is None else _unicode(number, str(value))


def _unicode(number: int, text: str) -> str:
    """Return a text without white space at both ends; refuses half of a pair of UTF-16, which JSON can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise bad_line(number, "has a character that is no Unicode") from None
    return text.strip()
