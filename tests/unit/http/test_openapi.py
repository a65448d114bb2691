"""The OpenAPI description of the HTTP API says of each request what the records say."""

from collections.abc import Callable, Iterator

import jsonschema_rs
import pytest
from pydantic import BaseModel

from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode, PathError, http_status
from trainer.contracts.inference import EvalRequest, GenerateRequest, ScoreRequest
from trainer.contracts.runs import TrainRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.http.completions import CompletionBody
from trainer.http.openapi import describe_api
from trainer.http.operations import RUN
from trainer.http.table import OPERATIONS

RIGHT: list[tuple[type[BaseModel], dict[str, object]]] = [
    (ScoreRequest, {"text": "a"}),
    (ScoreRequest, {"text": None, "path": "folder/file.txt"}),
    (ScoreRequest, {"text": "a", "top_k": 3, "detail_level": "per_char"}),
    (ScoreRequest, {"text": "a", "top_k": 3}),
    (GenerateRequest, {"prompt_text": ""}),
    (GenerateRequest, {"prompt_path": "a"}),
    (EvalRequest, {"path_override": "a b"}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "model_size": "tiny", "device": "cuda:12"}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "warmup_steps": 3, "warmup_ratio": None}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "freeze_embeddings": True, "init_from_run_id": "b"}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "optimizer": {"betas": [0.5, 0.9]}}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "label": "Ünïcödé  😀"}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "tokenizer": {"method": "char", "special_tokens": {}}}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "checkpoint_schedule": [0, 3, 9]}),
    (TokenizerTrainRequest, {"method": "bpe", "corpora": ["a", "b"], "special_tokens": {"bos_token": "<|b_.-|>"}}),
    (TokenizerTrainRequest, {"method": "word", "corpora": ["a"], "special_tokens": {"bos_token": None}}),
    (TokenizerTrainRequest, {"method": "sentencepiece", "corpora": ["a"], "model_type": "bpe"}),
    (CompletionBody, {"model": "a", "prompt": [[1, 2], [3]]}),
    (CompletionBody, {"model": "a", "prompt": ["a"] * 64, "stop": "b"}),
]
WRONG: list[tuple[type[BaseModel], dict[str, object]]] = [
    (ScoreRequest, {}),
    (ScoreRequest, {"text": None}),
    (ScoreRequest, {"text": "a", "path": "b"}),
    (GenerateRequest, {"prompt_text": "a", "prompt_path": "b"}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "warmup_steps": 3, "warmup_ratio": 0.5}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "tokenizer": {"method": "char"}, "tokenizer_id": "b"}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "freeze_embeddings": True}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "device": "cuda:123"}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "device": "cuda:٣"}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "label": "a\u202eb"}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "label": "a\n"}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "optimizer": {"betas": [0.5]}}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "tokenizer": {"method": "char", "special_tokens": 0}}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "tokenizer": {"method": "bpe", "special_tokens": ""}}),
    (TokenizerTrainRequest, {"method": "bpe", "corpora": ["a"], "special_tokens": {"bos_token": "<.>"}}),
    (TokenizerTrainRequest, {"method": "bpe", "corpora": ["a"], "special_tokens": {"bos_token": f"<{'a' * 63}>"}}),
    (CompletionBody, {"model": "a", "prompt": ["a"] * 65}),
]
AT_ITS_WORK: list[tuple[type[BaseModel], dict[str, object]]] = [
    (TrainRequest, {"corpus": "/a", "model_family": "gru"}),
    (TrainRequest, {"corpus": "../a", "model_family": "gru"}),
    (TrainRequest, {"corpus": "a/../../b", "model_family": "gru"}),
    (TrainRequest, {"corpus": "a", "model_family": "gru", "model_size": "huge"}),
    (TokenizerTrainRequest, {"method": "morse", "corpora": ["a"]}),
    (TokenizerTrainRequest, {"method": "bpe", "corpora": ["a", "a"]}),
    (TokenizerTrainRequest, {"method": "bpe", "corpora": ["a"], "model_type": "bpe"}),
    (TokenizerTrainRequest, {"method": "sentencepiece", "corpora": ["a"], "min_frequency": 2}),
    (TokenizerTrainRequest, {"method": "word", "corpora": ["a"], "special_tokens": {"bos_token": "<b>"}}),
]
"""Requests that the operations refuse, not the records."""
CONTRADICTIONS: list[tuple[type[BaseModel], dict[str, object]]] = [
    (TrainRequest, {"corpus": "a", "model_family": "gru", "checkpoint_schedule": [3, 3]}),
    (TokenizerTrainRequest, {"method": "bpe", "corpora": ["a"], "special_tokens": {"mask_token": "</s>"}}),
]


Described = Callable[[type[BaseModel], object], bool]


@pytest.fixture(scope="module", name="described")
def described_fixture() -> Described:
    """A function that returns whether the description allows a body."""
    components = describe_api(OPERATIONS)["components"]

    def described(model: type[BaseModel], body: object) -> bool:
        schema: dict[str, object] = {"$ref": f"#/components/schemas/{model.__name__}", "components": components}
        return jsonschema_rs.validator_for(schema).is_valid(body)

    return described


def everything(value: object) -> Iterator[dict[str, object]]:
    """Every map inside of a description."""
    if isinstance(value, dict):
        fields: dict[str, object] = value
        yield fields
        for inner in fields.values():
            yield from everything(inner)
    if isinstance(value, list):
        items: list[object] = value
        for item in items:
            yield from everything(item)


@pytest.mark.parametrize(("model", "body"), RIGHT)
def test_description__allows_what_the_records_allow(
    model: type[BaseModel], body: dict[str, object], described: Described
) -> None:
    parse(model, body)
    assert described(model, body)


@pytest.mark.parametrize(("model", "body"), WRONG)
def test_description__refuses_what_the_records_refuse(
    model: type[BaseModel], body: dict[str, object], described: Described
) -> None:
    with pytest.raises(AppError) as caught:
        parse(model, body)
    assert http_status(caught.value) == 422
    assert not described(model, body)


@pytest.mark.parametrize(("model", "body"), AT_ITS_WORK)
def test_description__refuses_what_the_operations_refuse(
    model: type[BaseModel], body: dict[str, object], described: Described
) -> None:
    assert not described(model, body)


@pytest.mark.parametrize(("model", "body"), CONTRADICTIONS)
def test_contradictions__that_no_schema_can_state_are_refused_too(
    model: type[BaseModel], body: dict[str, object], described: Described
) -> None:
    assert described(model, body)
    with pytest.raises(AppError) as caught:
        parse(model, body)
    assert caught.value.code is ErrorCode.INVALID_INPUT


def test_path_errors__are_400() -> None:
    assert http_status(PathError("corpus")) == 400


def test_description__needs_a_key_only_where_there_are_keys() -> None:
    def needs_key(*, has_keys: bool) -> set[bool]:
        found = everything(describe_api(OPERATIONS, has_keys=has_keys)["paths"])
        return {bool(one["security"]) for one in found if "operationId" in one and "security" in one}

    assert needs_key(has_keys=True) == {True, False}
    assert needs_key(has_keys=False) == {False}


def test_description__has_links_to_operations_and_examples_without_placeholders() -> None:
    found = list(everything(describe_api(OPERATIONS)))
    parameters = {one.name: {*one.path_model.model_fields, *one.query_model.model_fields} for one in OPERATIONS}
    links = [link for one in OPERATIONS for answer in one.answers.values() for link in answer.links]
    assert {link.operation for link in links} <= parameters.keys()
    assert all(link.parameters.keys() <= parameters[link.operation] for link in links)
    assert not any("prefixItems" in one or any(name.startswith("x-") for name in one) for one in found)
    assert not any(RUN in one.values() for one in found)
