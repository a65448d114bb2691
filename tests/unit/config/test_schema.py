"""No integer of a request or of the settings is unbounded."""

from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from bot.commands.generate import GenerateOptions
from bot.commands.score import ScoreOptions
from trainer.config.experiment_blocks import BlockFile
from trainer.config.schema import Schema, schema_of
from trainer.config.settings import Settings
from trainer.contracts.chats import ChatRequest
from trainer.contracts.completions import CompletionRequest
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.predictions import PredictRequest
from trainer.contracts.runs import TrainRequest
from trainer.contracts.scores import ScoreRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest

REQUESTS: list[type[BaseModel]] = [TrainRequest, TokenizerTrainRequest, BlockFile, Settings]
REQUESTS += [ScoreRequest, GenerateRequest, CompletionRequest, PredictRequest, ChatRequest, EvalRequest]
REQUESTS += [ScoreOptions, GenerateOptions]


def unbounded(model: type[BaseModel]) -> list[str]:
    def found(schema: Schema, path: str) -> Iterator[str]:
        if schema.type == "integer" and not schema.choices and schema.maximum is None and schema.below is None:
            yield path
        for inner in (*schema.any_of, *schema.one_of, *schema.first_items):
            yield from found(inner, path)
        for item in (schema.items, schema.any_property):
            if isinstance(item, Schema):
                yield from found(item, path)
        for name, inner in schema.properties.items():
            yield from found(inner, f"{path}.{name}".removeprefix("."))

    paths: dict[str, None] = dict.fromkeys(found(schema_of(model), ""))
    return list(paths)


@pytest.mark.parametrize("model", REQUESTS)
def test_request__has_no_integer_without_a_maximum(model: type[BaseModel]) -> None:
    assert unbounded(model) == []
