"""The OpenAPI description of the HTTP API says of each request what the records say."""

from collections.abc import Callable, Iterator

import jsonschema_rs
import pytest
from pydantic import BaseModel

from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode, http_status
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.operations import RUN
from trainer.contracts.runs import TrainRequest
from trainer.contracts.scores import ScoreRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.http.completions import CompletionBody
from trainer.http.openapi import describe_api
from trainer.http.routes import OPERATIONS

Case = tuple[type[BaseModel], dict[str, object]]
TRAIN: dict[str, object] = {"corpus": "a", "model_family": "gru"}
BPE: dict[str, object] = {"method": "bpe", "corpora": ["a"]}
RIGHT: list[Case] = [
    (ScoreRequest, {"text": "a"}),
    (ScoreRequest, {"text": None, "path": "folder/file.txt"}),
    (ScoreRequest, {"text": "a", "top_k": 3, "detail_level": "per_char"}),
    (ScoreRequest, {"text": "a", "top_k": 3}),
    (GenerateRequest, {"prompt_text": ""}),
    (GenerateRequest, {"prompt_path": "a"}),
    (EvalRequest, {"path_override": "a b"}),
    (TrainRequest, TRAIN | {"model_size": "tiny", "device": "cuda:12"}),
    (TrainRequest, TRAIN | {"warmup_steps": 3, "warmup_ratio": None}),
    (TrainRequest, TRAIN | {"freeze_embeddings": True, "init_from_run_id": "b"}),
    (TrainRequest, TRAIN | {"optimizer": {"betas": [0.5, 0.9]}}),
    (TrainRequest, TRAIN | {"label": "Ünïcödé  😀"}),
    (TrainRequest, TRAIN | {"tokenizer": {"method": "char", "special_tokens": {}}}),
    (TrainRequest, TRAIN | {"checkpoint_schedule": [0, 3, 9]}),
    (TrainRequest, TRAIN | {"checkpoint_schedule": {"words": [0, "500k", "1.5M"], "steps": None}}),
    (TrainRequest, TRAIN | {"checkpoint_schedule": {"tokens": "log2"}}),
    (TokenizerTrainRequest, {"method": "bpe", "corpora": ["a", "b"], "special_tokens": {"bos_token": "<|b_.-|>"}}),
    (TokenizerTrainRequest, {"method": "word", "corpora": ["a"], "special_tokens": {"bos_token": None}}),
    (TokenizerTrainRequest, {"method": "sentencepiece", "corpora": ["a"], "model_type": "bpe"}),
    (CompletionBody, {"model": "a", "prompt": [[1, 2], [3]]}),
    (CompletionBody, {"model": "a", "prompt": ["a"] * 64, "stop": "b"}),
]
WRONG: list[Case] = [
    (ScoreRequest, {}),
    (ScoreRequest, {"text": None}),
    (ScoreRequest, {"text": "a", "path": "b"}),
    (GenerateRequest, {"prompt_text": "a", "prompt_path": "b"}),
    (TrainRequest, TRAIN | {"warmup_steps": 3, "warmup_ratio": 0.5}),
    (TrainRequest, TRAIN | {"tokenizer": {"method": "char"}, "tokenizer_id": "b"}),
    (TrainRequest, TRAIN | {"freeze_embeddings": True}),
    (TrainRequest, TRAIN | {"checkpoint_schedule": {"words": ["1.0005k"]}}),
    (TrainRequest, TRAIN | {"checkpoint_schedule": {"words": [3], "tokens": "log2"}}),
    (TrainRequest, TRAIN | {"checkpoint_schedule": {"words": [3], "log_base": 2}}),
    (TrainRequest, TRAIN | {"checkpoint_schedule": {"steps": []}}),
    (TrainRequest, TRAIN | {"checkpoint_schedule": {"steps": None}}),
    (TrainRequest, TRAIN | {"device": "cuda:123"}),
    (TrainRequest, TRAIN | {"device": "cuda:٣"}),
    (TrainRequest, TRAIN | {"label": "a\u202eb"}),
    (TrainRequest, TRAIN | {"label": "a\n"}),
    (TrainRequest, TRAIN | {"optimizer": {"betas": [0.5]}}),
    (TrainRequest, TRAIN | {"tokenizer": {"method": "char", "special_tokens": 0}}),
    (TrainRequest, TRAIN | {"tokenizer": {"method": "bpe", "special_tokens": ""}}),
    (TokenizerTrainRequest, BPE | {"special_tokens": {"bos_token": "<.>"}}),
    (TokenizerTrainRequest, BPE | {"special_tokens": {"bos_token": f"<{'a' * 63}>"}}),
    (CompletionBody, {"model": "a", "prompt": ["a"] * 65}),
]
AT_ITS_WORK: list[Case] = [
    (TrainRequest, {"corpus": "/a", "model_family": "gru"}),
    (TrainRequest, {"corpus": "../a", "model_family": "gru"}),
    (TrainRequest, {"corpus": "a/../../b", "model_family": "gru"}),
    (TrainRequest, TRAIN | {"model_size": "huge"}),
    (TokenizerTrainRequest, {"method": "morse", "corpora": ["a"]}),
    (TokenizerTrainRequest, {"method": "bpe", "corpora": ["a", "a"]}),
    (TokenizerTrainRequest, {"method": "bpe", "corpora": ["a"], "model_type": "bpe"}),
    (TokenizerTrainRequest, {"method": "sentencepiece", "corpora": ["a"], "min_frequency": 2}),
    (TokenizerTrainRequest, {"method": "word", "corpora": ["a"], "special_tokens": {"bos_token": "<b>"}}),
]
"""Requests that the operations refuse, not the records."""
CONTRADICTIONS: list[Case] = [
    (TrainRequest, TRAIN | {"checkpoint_schedule": [3, 3]}),
    (TokenizerTrainRequest, BPE | {"special_tokens": {"mask_token": "</s>"}}),
]

Described = Callable[[type[BaseModel], object], bool]


@pytest.fixture(scope="module", name="description")
def description_fixture() -> dict[str, object]:
    return dict(describe_api(OPERATIONS))


@pytest.fixture(scope="module", name="described")
def described_fixture(description: dict[str, object]) -> Described:
    """A function that returns whether the description allows a body."""

    def described(model: type[BaseModel], body: object) -> bool:
        reference = f"#/components/schemas/{model.__name__}"
        schema: dict[str, object] = {"$ref": reference, "components": description["components"]}
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


@pytest.mark.parametrize(("model", "body"), [*RIGHT, *CONTRADICTIONS, *WRONG, *AT_ITS_WORK])
def test_description__allows_what_records_allow_and_no_schema_can_state(
    model: type[BaseModel], body: dict[str, object], described: Described
) -> None:
    case = (model, body)
    assert described(model, body) is (case in RIGHT or case in CONTRADICTIONS)
    if case in RIGHT:
        parse(model, body)
    elif case not in AT_ITS_WORK:
        with pytest.raises(AppError) as caught:
            parse(model, body)
        assert (caught.value.code, http_status(caught.value)) == (ErrorCode.INVALID_INPUT, 422)


def test_description__needs_a_key_only_where_there_are_keys(description: dict[str, object]) -> None:
    def needs_key(paths: object) -> set[bool]:
        found = everything(paths)
        return {bool(one["security"]) for one in found if "operationId" in one and "security" in one}

    assert needs_key(description["paths"]) == {True, False}
    assert needs_key(describe_api(OPERATIONS, has_keys=False)["paths"]) == {False}


def test_description__has_links_to_operations_and_no_placeholders(description: dict[str, object]) -> None:
    found = list(everything(description))
    parameters = {one.row.name: {*one.path_model.model_fields, *one.query_model.model_fields} for one in OPERATIONS}
    links = [link for one in OPERATIONS for answer in one.answers.values() for link in answer.links]
    assert {link.operation for link in links} <= parameters.keys()
    assert all(link.parameters.keys() <= parameters[link.operation] for link in links)
    assert not any("prefixItems" in one or any(name.startswith("x-") for name in one) for one in found)
    assert not any(RUN in one.values() for one in found)
