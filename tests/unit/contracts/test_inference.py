"""Inference requests: bounds of every field, one source of text, records that do not show it; flat responses."""

from collections.abc import Mapping

import pytest
from pydantic import BaseModel, ValidationError

from tests.support.refusals import refused
from trainer.config.validation import parse
from trainer.contracts.completions import CompletionRecord, CompletionRequest, CompletionResponse
from trainer.contracts.errors import ErrorCode
from trainer.contracts.evaluations import EvalRequest, EvalResponse
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.scores import ScoreRecord, ScoreRequest, ScoreResponse
from trainer.contracts.segmentation import SegmentResponse

Request = type[BaseModel]
SOURCES: Mapping[Request, dict[str, object]] = {
    **{ScoreRequest: {"text": "a"}, GenerateRequest: {"prompt_text": "a"}, CompletionRequest: {"prompts": ["a"]}},
    EvalRequest: {},
}
"""What gives each request a text."""
TOO_MUCH: Mapping[Request, Mapping[str, list[object]]] = {
    ScoreRequest: {
        **{"text": [""], "path": [""], "detail_level": ["words"], "context": ["eos"], "pll_within_word": [1]},
        **{"top_k": [0, 51], "window_tokens": [63, 65_537], "seed": [-1, True]},
    },
    GenerateRequest: {
        **{"prompt_path": [""], "max_new_tokens": [0, 513], "temperature": [-0.1, "inf"], "top_k": [-1, 1.5]},
        **{"top_p": [0, 1.01], "stop_on_eos": [1], "stop_sequences": [["x"] * 9, [""]], "seed": [-1, 2**32]},
        **{"num_return_sequences": [0, 11], "repetition_penalty": [0], "repetition_window": [0], "logprobs": [1]},
        **{"banned_tokens": [["x"] * 65, [""]], "alphabet": ["", "x" * 10_001], "precision": ["fp16"]},
    },
    EvalRequest: {"split": ["train"], "path_override": [""]},
    CompletionRequest: {
        "prompts": [[], ["a"] * 65, ["a", [0] * 65_537], [[3, -1]], [[2**32]], [[True]], [None]],
        **{"max_tokens": [-1, 513], "temperature": [-0.1], "top_p": [0, 1.01], "n": [0, 11], "echo": [1]},
        **{"stop": [["x"] * 9, [""]], "seed": [-1, 2**32], "logprobs": [-1, 51]},
    },
}
ALLOWED: list[tuple[Request, dict[str, object]]] = [
    (ScoreRequest, {"text": "a", "top_k": 1, "window_tokens": 64, "seed": 0}),
    (ScoreRequest, {"path": "a", "top_k": 50, "window_tokens": 65_536, "seed": None}),
    (GenerateRequest, {"prompt_text": "", "max_new_tokens": 1, "temperature": 0, "top_k": 0, "top_p": 1}),
    (GenerateRequest, {"prompt_path": "a", "max_new_tokens": 512, "num_return_sequences": 10, "seed": 2**32 - 1}),
    (GenerateRequest, {"prompt_text": "a", "stop_sequences": ["x"] * 8, "num_return_sequences": 1, "seed": None}),
    (GenerateRequest, {"prompt_text": "a", "banned_tokens": ["x"] * 64, "alphabet": "a", "logprobs": True}),
    (GenerateRequest, {"prompt_text": "a", "precision": "bf16"}),
    (EvalRequest, {"split": "test", "path_override": "a"}),
    (EvalRequest, {}),
    (CompletionRequest, {"prompts": [""], "max_tokens": 0}),
    (CompletionRequest, {"prompts": ["a", [], [2**32 - 1] * 65_536] + ["a"] * 61}),
    (CompletionRequest, {"prompts": ["a"], "max_tokens": 0, "echo": True, "logprobs": 0, "n": 1, "stop": []}),
    (CompletionRequest, {"prompts": ["a"], "max_tokens": 512, "logprobs": 50, "n": 10, "stop": ["x"] * 8}),
    (CompletionRequest, {"prompts": ["a"], "seed": 0, "temperature": 0}),
    (CompletionRequest, {"prompts": ["a"], "seed": 2**32 - 1, "top_p": 1}),
]


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in TOO_MUCH.items() for field in fields])
def test_bounds__a_value_outside_is_refused_by_its_name(kind: Request, field: str) -> None:
    source = {} if field in ("text", "path", "prompt_path") else SOURCES[kind]
    for value in TOO_MUCH[kind][field]:
        with refused(ErrorCode.INVALID_INPUT, f"`{field}"):
            parse(kind, {**source, field: value})


@pytest.mark.parametrize(("kind", "values"), ALLOWED)
def test_bounds__a_value_on_them_is_taken_and_read_again(kind: Request, values: dict[str, object]) -> None:
    request = parse(kind, values)
    assert request.model_fields_set == set(values)
    assert kind.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize(("kind", "prefix"), [(ScoreRequest, ""), (GenerateRequest, "prompt_")])
def test_source__is_exactly_one(kind: Request, prefix: str) -> None:
    for given in ([], [f"{prefix}text", f"{prefix}path"]):
        with refused(ErrorCode.INVALID_INPUT, f"give either `{prefix}text` or `{prefix}path`."):
            parse(kind, dict.fromkeys(given, "a"))


LARGE: list[tuple[Request, dict[str, object], str]] = [
    (ScoreRequest, {"text": "s" * 2_000_001}, "`text` is too long: at most 2,000,000 characters are allowed."),
    (GenerateRequest, {"prompt_text": "s" * 100_001}, "`prompt_text` is too long: at most 100,000 characters are all"),
    (CompletionRequest, {"prompts": ["a" * 100_001]}, "`prompts` is too long: at most 100,000 characters are allowed."),
    (CompletionRequest, {"prompts": ["a" * 100_000] * 20 + [[1]]}, "at most 2,000,000 characters or tokens are al"),
    (CompletionRequest, {"prompts": [[1] * 1000] * 41, "echo": True, "logprobs": 50}, "at most 39,215 characters or"),
]


@pytest.mark.parametrize(("kind", "values", "sentence"), LARGE, ids=range(len(LARGE)))
def test_long_texts__are_refused_as_too_large(kind: Request, values: dict[str, object], sentence: str) -> None:
    with refused(ErrorCode.PAYLOAD_TOO_LARGE, sentence):
        parse(kind, values)


def test_long_texts__are_taken_up_to_the_limit_and_refused_from_python_too() -> None:
    with refused(ErrorCode.PAYLOAD_TOO_LARGE, "`prompt_text`"):
        GenerateRequest(prompt_text="s" * 100_001)
    assert len(ScoreRequest(text="s" * 2_000_000).text or "") == 2_000_000
    assert len(GenerateRequest(prompt_text="s" * 100_000).prompt_text or "") == 100_000


QUEUED: dict[str, object] = {"request_id": "r", "run_id": "a", "status": "queued"}
TEXT, TWO_PROMPTS = ScoreRequest(text="a secret text"), CompletionRequest(prompts=("a secret text", (1, 2)))
RECORDS: list[tuple[BaseModel, str, str]] = [
    (ScoreRecord(request=TEXT, response=parse(ScoreResponse, QUEUED)), "top_k", "null"),
    (CompletionRecord(request=TWO_PROMPTS, response=parse(CompletionResponse, QUEUED)), "n", "1"),
]


@pytest.mark.parametrize(("record", "field", "value"), RECORDS)
def test_record__is_read_again_and_a_damaged_one_shows_no_text(record: BaseModel, field: str, value: str) -> None:
    stored = record.model_dump_json()
    assert type(record).model_validate_json(stored) == record
    damaged = stored.replace(f'"{field}":{value}', f'"{field}":"a secret text"')
    with pytest.raises(ValidationError, match=f"{field}\n") as caught:
        type(record).model_validate_json(damaged)
    assert "secret" not in str(caught.value)


def test_answer__without_a_result_says_that_no_worker_has_answered() -> None:
    waiting: dict[str, object] = {"request_id": "1", "run_id": "run", "status": "queued"}
    for result in (parse(SegmentResponse, waiting).result, parse(EvalResponse, waiting).measured):
        with refused(ErrorCode.SERVICE_UNAVAILABLE, "No worker has answered; try again in a minute."):
            result()
