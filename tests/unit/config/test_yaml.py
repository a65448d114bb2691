"""YAML is read as JSON would hold it, by the rules of YAML 1.2, or refused with the line of what is wrong."""

import pytest
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from tests.support.properties import for_all
from tests.support.refusals import refused
from trainer.config.yaml import parse_yaml
from trainer.contracts.errors import AppError, ErrorCode

READ: list[tuple[str, object]] = [
    *(("1e-3", 0.001), ("1.0E3", 1000.0), ("0x1F", 31), ("010", 10), ("no", "no"), ("yes", "yes"), ("on", "on")),
    *(("true", True), ("null", None), ("~", None), ("", None), ("'5'", "5"), ("2024-12-24", "2024-12-24")),
    *(("{1: a}", {"1": "a"}), ("[1, {a: b}]", [1, {"a": "b"}]), ("a: |\n  x\n", {"a": "x\n"})),
]


@pytest.mark.parametrize(("text", "value"), READ)
def test_values__are_those_of_yaml_1_2(text: str, value: object) -> None:
    read = parse_yaml(text, "f")
    assert (read, type(read)) == (value, type(value))


NO_ANCHORS = "anchors, aliases and tags are not taken."
REFUSED: list[tuple[str, str]] = [
    ("a: 1\n---\nb: 2", "'f' is not YAML: line 2, but found another document."),
    ('a: "\\U00110000"', "'f' holds a value that cannot be read."),
    ('a: 1\nb: "\\ud800"', "'f' holds a value that cannot be read."),
    (f"a: {'9' * 5000}", "'f' holds a value that cannot be read."),
    ("2024-13-45", "'f' holds a value that cannot be read."),
    ("? - - ", "'f' holds a value that cannot be read."),
    *((deep, "'f', line 1: values are nested deeper than 32 levels.") for deep in ("[" * 2000, "- " * 2000)),
    ("\n".join(" " * i + "a:" for i in range(60)), "'f', line 33: values are nested deeper than 32 levels."),
    ("a: 1\nb: \x07", "'f', line 2: it holds a control character."),
    ("a: 1\nb: &x [1]", f"'f', line 2: {NO_ANCHORS}"),
    ("a: *b", f"'f', line 1: {NO_ANCHORS}"),
    ("a: !!str 5", f"'f', line 1: {NO_ANCHORS}"),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED, ids=range(len(REFUSED)))
def test_refusals__name_the_line_in_one_sentence(text: str, sentence: str) -> None:
    with refused(ErrorCode.CONFIG_INVALID, sentence):
        parse_yaml(text, "f")


PIECES: list[str] = [
    *"ab:-?,[]{}#&*!|>'\"%@` \n\t01.~\\é",
    *("- ", ": ", "\n  ", "&a ", "*a", "!!int ", "!!float ", "<<: ", "---\n"),
    *("\\U00110000", "\\ud800", "!<", "? ", "\x85", "0x", "..."),
]
pieces: st.SearchStrategy[list[str]] = st.lists(st.sampled_from(PIECES), max_size=12)


@for_all(pieces)
def test_any_text__is_a_value_that_json_can_hold_or_one_sentence(parts: list[str]) -> None:
    try:
        read = parse_yaml("".join(parts), "f")
    except AppError as error:
        assert "\n" not in error.message
    else:
        again: object = from_json(to_json(read))
        assert again == read
