"""Requests for completions: the bounds of every field, and records that do not show a prompt."""

import pytest
from pydantic import ValidationError

from trainer.config.validation import parse
from trainer.contracts.completions import CompletionRecord, CompletionRequest, CompletionResponse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import inference_adapter

REFUSED: list[tuple[dict[str, object], str]] = [
    ({"prompts": []}, "`prompts` must have at least one prompt"),
    ({"prompts": ["a"] * 65}, "`prompts` must have at most 64 items, not 65"),
    ({"prompts": ["a", [0] * 65_537]}, "`prompts.1` must have at most 65536 items, not 65537"),
    ({"prompts": [[3, -1]]}, "`prompts.0.1` must be greater than or equal to 0, you gave -1."),
    ({"prompts": [[2**32]]}, "`prompts.0.0` must be less than 4294967296"),
    ({"prompts": [[True]]}, "`prompts.0.0` must be a valid integer, you gave true."),
    ({"prompts": [None]}, "`prompts.0` must be text, you gave null."),
    ({"max_tokens": -1}, "`max_tokens` must be greater than or equal to 0"),
    ({"max_tokens": 513}, "`max_tokens` must be less than or equal to 512"),
    ({"temperature": -0.1}, "`temperature` must be"),
    ({"top_p": 0}, "`top_p` must be greater than 0"),
    ({"top_p": 1.01}, "`top_p` must be less than or equal to 1"),
    ({"n": 0}, "`n` must be greater than or equal to 1"),
    ({"n": 11}, "`n` must be less than or equal to 10"),
    ({"stop": ["x"] * 9}, "`stop` must have at most 8 items, not 9"),
    ({"stop": [""]}, "`stop.0` must have at least 1 character"),
    ({"seed": -1}, "`seed` must be greater than or equal to 0"),
    ({"seed": 2**32}, "`seed` must be less than 4294967296"),
    ({"logprobs": -1}, "`logprobs` must be greater than or equal to 0"),
    ({"logprobs": 51}, "`logprobs` must be less than or equal to 50"),
    ({"echo": 1}, "`echo` must be true or false"),
]
TAKEN: list[dict[str, object]] = [
    {"prompts": [""], "max_tokens": 0},
    {"prompts": ["a", [], [2**32 - 1] * 65_536] + ["a"] * 61},
    {"max_tokens": 0, "echo": True, "logprobs": 0, "n": 1, "stop": [], "seed": 0, "temperature": 0},
    {"max_tokens": 512, "logprobs": 50, "n": 10, "stop": ["x"] * 8, "seed": 2**32 - 1, "top_p": 1},
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_bounds__a_value_outside_is_refused_by_its_name(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(AppError) as caught:
        parse(CompletionRequest, {"prompts": ["a"], **values})
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert sentence in caught.value.message


@pytest.mark.parametrize("values", TAKEN)
def test_bounds__a_value_on_them_is_taken(values: dict[str, object]) -> None:
    request = parse(CompletionRequest, {"prompts": ["a"], **values})
    assert CompletionRequest.model_validate_json(request.model_dump_json()) == request


LARGE: list[tuple[dict[str, object], str]] = [
    ({"prompts": ["a" * 100_001]}, "`prompts` is too long: at most 100,000 characters are allowed."),
    ({"prompts": ["a" * 100_000] * 20 + [[1]]}, "together at most 2,000,000 characters or tokens are allowed"),
    ({"prompts": [[1] * 1000] * 41, "echo": True, "logprobs": 50}, "together at most 39,215 characters or tokens"),
]


@pytest.mark.parametrize(("values", "sentence"), LARGE)
def test_prompts__that_are_too_long_together_are_too_large(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(AppError) as caught:
        parse(CompletionRequest, values)
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert sentence in caught.value.message


def test_record__is_read_again_and_shows_no_prompt_if_it_is_damaged() -> None:
    response = CompletionResponse(request_id="a", run_id="b", status="queued")
    record = CompletionRecord(request=CompletionRequest(prompts=("a secret text", (1, 2))), response=response)
    stored = record.model_dump_json()
    with pytest.raises(ValidationError) as caught:
        inference_adapter.validate_json(stored.replace('"n":1', '"n":"a secret text"'))
    assert inference_adapter.validate_json(stored) == record
    assert "n\n" in str(caught.value) and "secret" not in str(caught.value)
