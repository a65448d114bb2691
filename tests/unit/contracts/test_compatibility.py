"""Architectures, objectives and options that do not work together are refused with one sentence."""

import pytest

from tests.support.families import CAUSAL, FAMILIES, effective_of, request_of
from tests.support.refusals import refused
from trainer.config.compatibility import check_generates, check_scores, is_unidirectional
from trainer.config.presets import resolve
from trainer.config.train_request import train_request
from trainer.config.validation import parse
from trainer.contracts.errors import ErrorCode
from trainer.contracts.inference import ScoreRequest
from trainer.contracts.models import Objective
from trainer.contracts.runs import CorpusRef, TrainRequest

Fields = dict[str, object]
CORPUS = CorpusRef(name="kk", sha256="a" * 64, bytes=10)
CHAR: Fields = {"corpus": "kk", "tokenizer": {"method": "char"}}
NOT_BEHIND = "must be 'causal_lm' for {}: it cannot see what comes after a masked token"
IN_SIGHT = "must be false: with causal_lm the model would see what it is to predict"
BOTH_SIDES: Fields = {"model": {"bidirectional": True}}
MASKED: Fields = {"objective": "masked_lm"}
MATRIX: list[tuple[str, Fields, str, str]] = [
    ("bert", {"objective": "causal_lm"}, "objective", "must be 'masked_lm' for bert: it reads both"),
    *((family, MASKED, "objective", NOT_BEHIND.format(family)) for family in ("gpt2", "llama", "qwen")),
    *((family, BOTH_SIDES, "model.bidirectional", IN_SIGHT) for family in ("lstm", "gru", "rnn")),
    ("char_lstm", MASKED | BOTH_SIDES, "model.bidirectional", "must be false for char_lstm, which has one"),
    ("char_lstm", {"tokenizer": {"method": "bpe"}}, "tokenizer.method", "must be 'char' for char_lstm: take lstm for"),
    ("gru", {"compute": {"gradient_checkpointing": True}}, "compute.gradient_checkpointing", "is for transformers"),
    ("bert", {"sample_every_steps": 5}, "sample_every_steps", "must be left out"),
]


@pytest.mark.parametrize(("family", "fields", "path", "said"), MATRIX)
def test_pair__that_cannot_be_trained_is_refused_at_the_edge_and_later(
    family: str, fields: Fields, path: str, said: str
) -> None:
    values = {**CHAR, "model_family": family, **fields}
    with refused(ErrorCode.MODEL_INCOMPATIBLE, f"`{path}` {said}", path):
        train_request(values)
    with refused(ErrorCode.MODEL_INCOMPATIBLE, f"`{path}` {said}", path):
        resolve(parse(TrainRequest, values), corpus=CORPUS, validation_corpus=None, test_corpus=None)


@pytest.mark.parametrize("name", FAMILIES)
def test_pair__that_can_be_trained_is_taken(name: str) -> None:
    effective_of(name)
    given: Fields = request_of(name).model_dump(mode="json", exclude_unset=True)
    train_request(given)


METHOD_OF = {"lstm": "word", "gru": "word", "rnn": "word", "gpt2": "bpe", "llama": "bpe", "qwen": "bpe"}


@pytest.mark.parametrize(("family", "method"), [("char_lstm", "char"), ("bert", "wordpiece"), *METHOD_OF.items()])
def test_tokenizer_options_without_a_method__are_of_the_familys(family: str, method: str) -> None:
    options: Fields = {"model_family": family, "tokenizer": {"normalization": {"lowercase": True}}}
    request = train_request(CHAR | options)
    assert request.tokenizer is not None and request.tokenizer.method == method


def test_sides__are_one_for_all_but_bert_and_two_directions() -> None:
    one_sided = [name for name in FAMILIES if is_unidirectional(effective_of(name).model)]
    assert one_sided == CAUSAL


def test_generation__is_refused_for_a_model_that_fills_gaps() -> None:
    check_generates("causal_lm")
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "cannot generate text"):
        check_generates("masked_lm")


@pytest.mark.parametrize(
    ("values", "objective"), [({"context": "none"}, "masked_lm"), ({"pll_within_word": True}, "causal_lm")]
)
def test_scores__of_options_that_the_objective_has_not_are_refused(values: Fields, objective: Objective) -> None:
    with refused(ErrorCode.MODEL_INCOMPATIBLE, f"trained with {objective}"):
        check_scores(parse(ScoreRequest, {"text": "a", **values}), objective)
