"""The table of rights: no field of an operation is left out."""

from tests.support.rights import NAMES_NOTHING, RULES, TABLE, cells, inputs, text_fields
from trainer.contracts.base import Names
from trainer.http.routes import OPERATIONS


def test_field__with_text_is_marked_with_what_it_names_or_names_nothing() -> None:
    unmarked = {
        field
        for operation in OPERATIONS
        for record in inputs(operation)
        for field, _, marks in text_fields(record)
        if not marks
    }
    assert unmarked == {f"{record}.{field}" for record, fields in NAMES_NOTHING.items() for field in fields.split()}


def test_field__that_names_something_has_a_rule() -> None:
    assert {cell for cell, _ in cells()} == {*TABLE}
    assert len(TABLE) == sum(len(fields.split()) for fields in RULES.values()), "a cell with two rules"


def test_rule__is_one_for_what_the_field_names() -> None:
    rules = {
        Names.TEXT: {"text", "quotation", "deletion", "admin"},
        Names.TRAINING: {"training", "admin"},
        Names.WEIGHTS: {"weights"},
        Names.RUN: {"run", "group", "filter", "owner", "weights", "request"},
        Names.TOKENIZER: {"tokenizer", "owner"},
        Names.JOB: {"job", "experiment", "owner", "admin"},
        Names.BATTERY: {"battery", "admin"},
        Names.UPLOAD: {"upload"},
        Names.REQUEST: {"request"},
    }
    assert {(cell, *marks) for cell, marks in cells() if any(TABLE[cell] not in rules[mark] for mark in marks)} == set()
