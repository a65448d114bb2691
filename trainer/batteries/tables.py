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

A table between tabs with two or three columns of other names, or without names, has the right sentence first, then the
wrong one, and optionally a group.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isnan
from typing import NamedTuple

from trainer.batteries.formulas import read_formula
from trainer.batteries.suites import MAX_CHARACTERS, MAX_SEQUENCES, Items, check_items, item_of
from trainer.config.validation import did_you_mean, safe_name
from trainer.contracts.base import narrowed
from trainer.contracts.batteries import BatteryItem, BatteryOptions, Suite
from trainer.contracts.cells import ABSENT
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.reports import Note, counted_note, note
from trainer.contracts.sequences import SequenceParts
from trainer.data.rows import Row, Rows, are_names, bad_line, lines_of, read_rows, shown_names
from trainer.data.rows import read_table as read_columns

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
_BY_POSITION = ("good", "bad", "group")
"""Columns of a table between tabs that does not name them."""
_NO_SENTENCES = frozenset({"id", "item", "number", "row", "index", "condition"})
"""Names that no column of sentences has."""
_WRONG_WORDS = frozenset({"bad", "wrong", "incorrect", "ungrammatical", "unacceptable"})


class _File(NamedTuple):
    """The name of a file, and of the battery that its items belong to, with the columns that group them."""

    stem: str
    battery: str
    paradigm: str | None
    phenomenon: str | None

    def item(
        self, number: int, values: Mapping[str, object], sequences: Sequence[SequenceParts], part: str = ""
    ) -> BatteryItem:
        """Return an item of choices, of which the first is right."""
        paradigm, language = self.paradigm_of(number, values), _text(number, values, "lang")
        phenomenon = "" if self.phenomenon is None else _text(number, values, self.phenomenon)
        return BatteryItem(
            battery=self.battery,
            name=f"{self.stem}:{number}{part}",
            paradigm=f"{language}:{paradigm}" if language else paradigm,
            phenomenon="" if phenomenon == paradigm else phenomenon,
            field=_text(number, values, "field"),
            sequences=tuple(sequences),
        )

    def paradigm_of(self, number: int, values: Mapping[str, object]) -> str:
        return ("" if self.paradigm is None else _text(number, values, self.paradigm)) or self.stem


_Read = Callable[[_File, int, Mapping[str, object]], Iterator[BatteryItem]]
"""Makes the items of a row, given its number."""


class _Form(NamedTuple):
    """Columns of a table of items by name, with what they are; the reader of a row is None for regions."""

    roles: Mapping[str, str]
    texts: Sequence[str]
    """Those with text to score, or before it."""
    read: _Read | None


def read_table(text: str, stem: str, suffix: str, battery: str, options: BatteryOptions) -> Items:
    """Read a table, of which the first line tells the form; raises INVALID_INPUT with the first line that is wrong."""
    table, given = _rows(text, suffix, options)
    if not table.rows:
        raise AppError(ErrorCode.INVALID_INPUT, "it has no items.")
    names = [*given, *(name for name in table.names if name not in given and name not in given.values())]
    rows = [(number, _renamed(values, given)) for number, values in table.rows]
    form = _form(names, given)
    if options.formulas and form.read is not None:
        message = "are for tables of regions: `item`, `condition`, `region`, `text`."
        raise field_error(ErrorCode.INVALID_INPUT, "formulas", message)
    notes = [*table.notes]
    if not options.keep_na:
        rows, n_absent = _without_absent(rows, form.texts)
        if n_absent:
            absent = note(
                "Read as empty: {cells} with NA, NaN or null. The option `keep_na` (`--keep-na`) reads them as words.",
                cells=counted_note(n_absent, "cell"),
            )
            notes.append(absent)
    paradigm, of_paradigm = _paradigm(rows, names, given, is_regions=form.read is None)
    file = _File(stem, battery, paradigm, next((name for name in _PHENOMENA if name in names), None))
    notes = [_columns_note(form, file, names, given), *of_paradigm, *notes]
    if form.read is None:
        return _regions(rows, file, options.formulas)._replace(notes=tuple(notes))
    return Items([item for row in rows for item in form.read(file, *row)], {}, tuple(notes))


def _rows(text: str, suffix: str, options: BatteryOptions) -> tuple[Rows, Mapping[str, str]]:
    """Return the rows of a table, and its columns by the known names that the options or their positions give them."""
    if suffix == ".jsonl":
        rows = read_rows(text, suffix)
        return rows, _given(rows.names, options.columns)
    table = read_columns(lines_of(text), suffix, options.quoting)
    known = {name for pair in _PAIRS for name in pair} | {"text", "Target1", "target"}
    known |= {name for name in table.names if name.lower() in _NO_SENTENCES}
    n_columns = len(table.names)
    by_position = _BY_POSITION[:n_columns]
    is_named = bool(options.columns or known & {*table.names})
    if is_named or table.delimiter != "\t" or not 2 <= n_columns <= len(_BY_POSITION):
        rows = read_rows(text, suffix, options.quoting)
        return rows, _given(rows.names, options.columns)
    first, *others = table.records()
    if are_names(first[1], [cells[:2] for _, cells in others]):
        if _WRONG_WORDS & {*table.names[0].lower().replace("_", " ").split()}:
            by_position = ("bad", "good", *by_position[2:])
        right = table.names[by_position.index("good")]
        guess = note(
            "The first line is read as names of columns, and `{right}` as that of the right sentences; the option"
            " `columns` (`--column good=NAME`) names another.",
            right=safe_name(right),
        )
        rows = Rows(table.names, [*table.rows()], (guess, *table.notes))
        return rows, dict(zip(by_position, table.names, strict=True))
    guess = note(
        "The first line is read as a pair, right sentence first; if it names columns, give `columns`"
        " (`--column good=NAME --column bad=NAME`)."
    )
    pairs = [(number, dict(zip(by_position, cells, strict=True))) for number, cells in (first, *others)]
    return Rows(by_position, pairs, (guess, *table.notes)), {}


def _given(columns: Sequence[str], given: Mapping[str, str]) -> Mapping[str, str]:
    """Check the names that a table has for known ones, and return them."""
    for known, column in given.items():
        if known not in _OWN_COLUMNS and not _is_further(known, ("bad",)):
            near = did_you_mean(known, _OWN_COLUMNS) or f": known are {', '.join(_OWN_COLUMNS)}."
            message = f"has an unknown name '{safe_name(known)}'{near}"
            raise field_error(ErrorCode.INVALID_INPUT, "columns", message)
        if column not in columns:
            shown = ", ".join(safe_name(name) for name in columns[:20])
            message = f"names '{safe_name(column)}', but the table has: {shown}."
            raise field_error(ErrorCode.INVALID_INPUT, "columns", message)
    return given


def _renamed(values: Mapping[str, object], given: Mapping[str, str]) -> Mapping[str, object]:
    """Return the values by the known names; a column that has a given name itself gives way."""
    if not given:
        return values
    others = {name: value for name, value in values.items() if name not in given and name not in given.values()}
    return others | {known: values[column] for known, column in given.items() if column in values}


def _form(names: Sequence[str], given: Mapping[str, str]) -> _Form:
    """Return the form of a table: of those whose columns it has, the one with most given names, else the first."""
    forms = [form for form in _forms(names, given) if {*form.roles} <= {*names}]
    if not forms:
        known = ", ".join(f"`{good}` and `{bad}`" for good, bad in _PAIRS)
        message = (
            f"it has no columns of two sentences, but {shown_names(names)}: known are {known}; `columns`"
            " (`--column good=NAME --column bad=NAME`) names others."
        )
        raise AppError(ErrorCode.INVALID_INPUT, message)

    def n_given(form: _Form) -> int:
        return sum(known in form.roles for known in given)

    return max(forms, key=n_given)


def _forms(names: Sequence[str], given: Mapping[str, str]) -> Iterator[_Form]:
    context = {"context": "context"} if "context" in names else {}
    yield _Form({name: name for name in ("item", "condition", "region", "text")}, ("text",), None)
    targets = {"Context1": "context 1", "Context2": "context 2", "Target1": "target 1", "Target2": "target 2"}
    yield _Form(targets, [*targets], _two_by_two)
    contexts = {"good_context": "right context", "bad_context": "wrong context", "target": "target"}
    yield _Form(contexts, [*contexts], _contexts)
    yield _Form({"choices": "choices", "answer": "place of the right one", **context}, [*context], _answers)
    for good, bad in _PAIRS:
        more = [name for name in names if _is_further(name, (bad, given.get(bad, bad)))]
        wrong = [bad, *more]
        roles = {good: "right", **dict.fromkeys(wrong, "wrong"), **context}
        yield _Form(roles, [*roles], _choices(good, wrong))


def _is_further(name: str, wrong: Sequence[str]) -> bool:
    """Return True for the name of a further wrong choice: that of the column of the first one, and a number."""
    return any(re.fullmatch(rf"{re.escape(one)}[_ ]?\d+", name) is not None for one in wrong)


def _without_absent(rows: Sequence[Row], columns: Sequence[str]) -> tuple[list[Row], int]:
    """Return the rows with empty cells for absent values in some columns, and the number of these."""
    cleaned: list[Row] = []
    count = 0
    for number, values in rows:
        absent = [name for name in columns if name in values and _is_absent(values[name])]
        count += len(absent)
        cleaned.append((number, {**values, **dict.fromkeys(absent, "")} if absent else values))
    return cleaned, count


def _is_absent(value: object) -> bool:
    return value.strip() in ABSENT if isinstance(value, str) else isinstance(value, float) and isnan(value)


def _paradigm(
    rows: Sequence[Row], names: Sequence[str], given: Mapping[str, str], *, is_regions: bool
) -> tuple[str | None, list[Note]]:
    """Return the column whose values are paradigms, and notes on it; a `UID` that numbers the items is none."""
    n_items = len({_text(number, values, "item") for number, values in rows}) if is_regions else len(rows)
    notes: list[Note] = []
    for name in ("paradigm",) if "paradigm" in given else _PARADIGMS:
        if name in names:
            counts_items = 1 < n_items <= len({_text(number, values, name) for number, values in rows})
            if name != "UID" or not counts_items:
                if counts_items:
                    shown = safe_name(given.get(name, name))
                    own = note(
                        "Each of the {number} items has a paradigm of its own in `{column}`.",
                        number=n_items,
                        column=shown,
                    )
                    notes.append(own)
                return name, notes
            notes.append(note("`UID` has another value for each item: it is not read as the paradigm."))
    return None, notes


def _columns_note(form: _Form, file: _File, names: Sequence[str], given: Mapping[str, str]) -> Note:
    """Return the note on the columns that were read, and the others."""
    groups = {"field": "field", "lang": "language", file.phenomenon: "phenomenon", file.paradigm: "paradigm"}
    roles = {**form.roles, **{name: role for name, role in groups.items() if name in names and name is not None}}
    read = ", ".join(f"`{safe_name(given.get(name, name))}` ({role})" for name, role in roles.items())
    others = [name for name in names if name not in roles]
    if not others:
        return note("Columns: {columns}.", columns=read)
    return note("Columns: {columns}; not read: {others}.", columns=read, others=shown_names(others))


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
    yield file.item(number, values, [_sequence(number, context, text.strip()) for text in ordered])


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


def _regions(rows: Sequence[Row], file: _File, formulas: Sequence[str]) -> Items:
    """Return the items of a table of regions: those of a paradigm have a suite, with the regions in the first order."""
    numbers: dict[str, dict[str, int]] = {}
    conditions: dict[tuple[str, str], dict[str, list[tuple[int, str]]]] = {}
    for number, values in rows:
        paradigm = file.paradigm_of(number, values)
        item, condition, region = (_text(number, values, name) for name in ("item", "condition", "region"))
        if not item or not condition or not region:
            raise bad_line(number, "needs an `item`, a `condition` and a `region`")
        of_paradigm = numbers.setdefault(paradigm, {})
        place = of_paradigm.setdefault(region, len(of_paradigm) + 1)
        of_item = conditions.setdefault((paradigm, item), {})
        of_item.setdefault(condition, []).append((place, _text(number, values, "text")))
    several = len(numbers) > 1
    items = [
        item_of(f"{file.stem}:{f'{paradigm}:' if several else ''}{item}", paradigm, file.battery, [*of_item.items()])
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


def _text(number: int, values: Mapping[str, object], name: str) -> str:
    value = values.get(name, "")
    if value is not None and not isinstance(value, (str, int)):
        raise bad_line(number, f"must have a text in `{name}`")
    return "" if value is None else str(value).strip()
