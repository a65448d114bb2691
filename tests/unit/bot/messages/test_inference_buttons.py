"""Buttons and forms of inference requests: they are read back as written, and wrong lines are named."""

import pytest
from hypothesis import strategies as st

from bot.commands.generate import GenerateOptions
from bot.commands.score import Detail, ScoreOptions
from bot.messages.buttons import ButtonPress, Field, custom_id, form, parse_press
from tests.support.properties import for_all
from tests.support.refusals import refused
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.units import Unit

LONGEST_ID = "r" * 64


@pytest.mark.parametrize("detail", ["summary", "per_char"])
@pytest.mark.parametrize("unit", ["bits", "nats"])
@pytest.mark.parametrize("top_k", [0, 9, 10])
def test_score_options__are_read_back_from_a_custom_id(detail: Detail, unit: Unit, top_k: int) -> None:
    options = ScoreOptions(detail=detail, unit=unit, top_k=top_k)
    whole = custom_id("score", LONGEST_ID, options.code)
    assert len(whole) <= 100  # Discord's limit
    assert parse_press({"custom_id": whole}) == ButtonPress("score", LONGEST_ID, options.code)
    assert ScoreOptions.of_code(options.code) == options


@pytest.mark.parametrize("code", [None, "", "per_char", "per_char-bits-x", "all-bits-3"])
def test_score_options__of_a_button_that_has_none_are_the_defaults(code: str | None) -> None:
    assert ScoreOptions.of_code(code) == ScoreOptions()


def test_score_options__out_of_bounds_are_refused() -> None:
    with pytest.raises(AppError, match="`top_k`"):
        ScoreOptions.of_code("per_char-bits-11")


def test_settings__of_a_form_are_read_line_by_line() -> None:
    lines = "max_new_tokens: 7\n temperature :0.5\n\ntop_p:\nstop: 12\nseed:  \nsamples: 2"
    assert GenerateOptions.of_lines("men ", lines) == GenerateOptions(
        prompt="men ", max_new_tokens=7, temperature=0.5, stop="12", samples=2
    )
    assert GenerateOptions.of_lines("", "") == GenerateOptions()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("temperature 0.8", "`temperature: 0.8`"),
        ("temprature: 0.8", "did you mean `temperature`"),
        ("max_new_tokens: many", "`max_new_tokens` must be a valid integer, you gave 'many'"),
        ("max_new_tokens: 1.5", "`max_new_tokens`"),
        ("top_p: nan", "`top_p`"),
        ("samples: 5", "`samples`"),
        ("prompt: the", "its own field"),
        ("seed: \ud800", "half of a surrogate pair"),
    ],
)
def test_settings__that_are_wrong_are_named(lines: str, said: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, said):
        GenerateOptions.of_lines("", lines)


@for_all(st.text(max_size=300))
def test_settings__of_any_text_are_read_or_refused(text: str) -> None:
    try:
        options = GenerateOptions.of_lines("", text)
    except AppError as error:
        assert error.code is ErrorCode.INVALID_INPUT
    else:
        assert options.prompt == ""


async def test_form__returns_its_values_by_the_names_of_its_fields() -> None:
    modal = form(
        "edit", "char_lstm-1", "Edit", Field("prompt", "Prompt", "men", is_required=False), Field("text", "Text")
    )
    sent: dict[str, object] = {
        "custom_id": modal.custom_id,
        "components": [
            {"type": 18, "id": 1, "component": {"type": 4, "id": 2, "custom_id": "prompt", "value": "a: b"}},
            {"type": 18, "id": 3, "component": {"type": 4, "id": 4, "custom_id": "text", "value": ""}},
        ],
    }
    assert modal.custom_id == "mt:edit:char_lstm-1"
    assert modal.is_finished()  # so that the library does not wait for it
    assert parse_press(sent) == ButtonPress("edit", "char_lstm-1", None, {"prompt": "a: b", "text": ""})
