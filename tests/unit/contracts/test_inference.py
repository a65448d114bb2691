"""Inference requests: bounds of every field, one source of text, records that do not show it."""

import pytest
from pydantic import BaseModel, ValidationError

from trainer.config.compatibility import check_scores
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    EvalRequest,
    GenerateRequest,
    ScoreRecord,
    ScoreRequest,
    ScoreResponse,
    inference_adapter,
)
from trainer.contracts.models import Objective

TOO_MUCH: list[tuple[type[BaseModel], str, object]] = [
    (ScoreRequest, "text", ""),
    (ScoreRequest, "path", ""),
    (ScoreRequest, "detail_level", "words"),
    (ScoreRequest, "top_k", 0),
    (ScoreRequest, "top_k", 51),
    (ScoreRequest, "window_tokens", 63),
    (ScoreRequest, "window_tokens", 65_537),
    (ScoreRequest, "context", "eos"),
    (ScoreRequest, "pll_within_word", 1),
    (ScoreRequest, "seed", -1),
    (ScoreRequest, "seed", True),
    (GenerateRequest, "prompt_path", ""),
    (GenerateRequest, "max_new_tokens", 0),
    (GenerateRequest, "max_new_tokens", 513),
    (GenerateRequest, "temperature", -0.1),
    (GenerateRequest, "temperature", "inf"),
    (GenerateRequest, "top_k", -1),
    (GenerateRequest, "top_k", 1.5),
    (GenerateRequest, "top_p", 0),
    (GenerateRequest, "top_p", 1.01),
    (GenerateRequest, "stop_on_eos", 1),
    (GenerateRequest, "stop_sequences", ["x"] * 9),
    (GenerateRequest, "stop_sequences", [""]),
    (GenerateRequest, "seed", -1),
    (GenerateRequest, "seed", 2**32),
    (GenerateRequest, "num_return_sequences", 0),
    (GenerateRequest, "num_return_sequences", 11),
    (GenerateRequest, "repetition_penalty", 0),
    (GenerateRequest, "repetition_window", 0),
    (GenerateRequest, "banned_tokens", ["x"] * 65),
    (GenerateRequest, "banned_tokens", [""]),
    (GenerateRequest, "alphabet", ""),
    (GenerateRequest, "alphabet", "x" * 10_001),
    (GenerateRequest, "logprobs", 1),
    (GenerateRequest, "precision", "fp16"),
    (EvalRequest, "split", "train"),
    (EvalRequest, "path_override", ""),
]
ALLOWED: list[tuple[type[BaseModel], dict[str, object]]] = [
    (ScoreRequest, {"text": "a", "top_k": 1, "window_tokens": 64, "seed": 0}),
    (ScoreRequest, {"path": "a", "top_k": 50, "window_tokens": 65_536, "seed": None}),
    (GenerateRequest, {"prompt_text": "", "max_new_tokens": 1, "temperature": 0, "top_k": 0, "top_p": 1}),
    (GenerateRequest, {"prompt_path": "a", "max_new_tokens": 512, "num_return_sequences": 10, "seed": 2**32 - 1}),
    (GenerateRequest, {"prompt_text": "a", "stop_sequences": ["x"] * 8, "num_return_sequences": 1, "seed": None}),
    (GenerateRequest, {"prompt_text": "a", "banned_tokens": ["x"] * 64, "alphabet": "a", "logprobs": True}),
    (GenerateRequest, {"prompt_text": "a", "precision": "bf16"}),
    (EvalRequest, {"split": "test", "path_override": "a"}),
    (EvalRequest, {}),
]


def source(request: type[BaseModel], field: str) -> dict[str, object]:
    """A text for the requests that need one, unless it is the field in question that gives it."""
    texts = {ScoreRequest: "text", GenerateRequest: "prompt_text"}
    given = request in texts and field not in {"text", "path", "prompt_path"}
    return {texts[request]: "a"} if given else {}


@pytest.mark.parametrize(("request_type", "field", "value"), TOO_MUCH)
def test_bounds__a_value_outside_is_refused_by_its_name(
    request_type: type[BaseModel], field: str, value: object
) -> None:
    with pytest.raises(AppError) as caught:
        parse(request_type, {**source(request_type, field), field: value})
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert f"`{field}" in caught.value.message


@pytest.mark.parametrize(("request_type", "values"), ALLOWED)
def test_bounds__a_value_on_them_is_taken(request_type: type[BaseModel], values: dict[str, object]) -> None:
    assert set(parse(request_type, values).model_fields_set) == set(values)


@pytest.mark.parametrize(
    ("request_type", "text", "path"), [(ScoreRequest, "text", "path"), (GenerateRequest, "prompt_text", "prompt_path")]
)
def test_source__is_exactly_one(request_type: type[BaseModel], text: str, path: str) -> None:
    neither: dict[str, object] = {}
    both: dict[str, object] = {text: "a", path: "a"}
    for values in (neither, both):
        with pytest.raises(AppError) as caught:
            parse(request_type, values)
        assert caught.value.code is ErrorCode.INVALID_INPUT
        assert caught.value.message == f"give `{text}` or `{path}`, one of both."


def test_long_texts__are_refused_as_too_large_wherever_they_come_in() -> None:
    with pytest.raises(AppError) as of_text:
        parse(ScoreRequest, {"text": "s" * 2_000_001})
    with pytest.raises(AppError) as of_prompt:
        GenerateRequest(prompt_text="s" * 100_001)
    assert of_text.value.code is of_prompt.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert of_text.value.message == "`text` is too long: at most 2,000,000 characters are allowed."
    assert of_prompt.value.message == "`prompt_text` is too long: at most 100,000 characters are allowed."
    assert len(ScoreRequest(text="s" * 2_000_000).text or "") == 2_000_000
    assert len(GenerateRequest(prompt_text="s" * 100_000).prompt_text or "") == 100_000


def test_record_that_cannot_be_read__is_told_without_its_text() -> None:
    response = ScoreResponse(request_id="a", run_id="b", status="queued")
    record = ScoreRecord(request=ScoreRequest(text="a secret text"), response=response)
    broken = record.model_dump_json().replace('"top_k":null', '"top_k":"a secret text"')
    with pytest.raises(ValidationError) as of_any:
        inference_adapter.validate_json(broken)
    with pytest.raises(ValidationError) as of_score:
        ScoreRecord.model_validate_json(broken)
    for told in (str(of_any.value), str(of_score.value)):
        assert "top_k" in told
        assert "secret" not in told


OLD_RECORD = (
    '{"kind":"score","request":{"text":"ab","path":null,"detail_level":"summary","top_k":3,"window_tokens":null,'
    '"seed":null},"response":{"request_id":"r","run_id":"a","status":"completed","loss":1.5,"perplexity":4.5,'
    '"bits_per_char":2.2,"n_tokens":2,"n_scored":2,"unk_count":0,"unit":"nats","method":"causal",'
    '"surprisal":[1.0,2.0],"rank":[1,2],"entropy":[0.5,0.5],"tokens":["a","b"],"char_spans":[[0,1],[1,2]],'
    '"topk":null,"window":{"window_tokens":64,"context_tokens":16,"compared_tokens":0,"max_difference_nats":0.0},'
    '"error":null}}'
)


def test_record__of_the_release_before_is_read() -> None:
    record = inference_adapter.validate_json(OLD_RECORD)
    assert isinstance(record, ScoreRecord)
    assert (record.response.surprisal, record.response.words, record.request.context) == ((1.0, 2.0), None, "bos")


WISHES: list[tuple[dict[str, object], Objective, ErrorCode, str]] = [
    ({"context": "none"}, "masked_lm", ErrorCode.MODEL_INCOMPATIBLE, "trained with masked_lm"),
    ({"pll_within_word": True}, "causal_lm", ErrorCode.MODEL_INCOMPATIBLE, "trained with causal_lm"),
]


@pytest.mark.parametrize(("values", "objective", "code", "sentence"), WISHES)
def test_score__of_wishes_that_do_not_go_together_is_refused(
    values: dict[str, object], objective: Objective, code: ErrorCode, sentence: str
) -> None:
    with pytest.raises(AppError, match=sentence) as caught:
        check_scores(parse(ScoreRequest, {"text": "a", **values}), objective)
    assert caught.value.code == code
