"""A file with fields of the train request: any of them, and what is typed beside the file wins."""

import pytest

from tests.support.experiments import document, resolved, whole
from trainer.config.experiment_file import read_experiment
from trainer.config.train_request import train_request
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import TrainRequest

Fields = dict[str, object]


def request_of(file: Fields, typed: Fields) -> TrainRequest:
    return read_experiment(file, typed).with_family(None).request()


def refused(file: Fields, typed: Fields) -> AppError:
    with pytest.raises(AppError) as caught:
        request_of(file, typed)
    return caught.value


def test_file_of_fields__is_the_request_with_these_fields() -> None:
    fields: Fields = {"model_family": "gru", "corpus": "kk", "num_epochs": 2, "model": {"hidden_size": 9}}
    assert request_of(fields, {}) == train_request(fields)


@pytest.mark.parametrize(
    "file", [{"num_epochs": 2}, {"model": {"hidden_size": 9}}, {"tokenizer": {"min_frequency": 2}}]
)
def test_file_with_some_fields__takes_the_rest_from_what_is_typed(file: Fields) -> None:
    typed: Fields = {"corpus": "kk", "model_family": "char_lstm"}
    assert request_of(file, typed) == train_request({**typed, **file})


WINS: list[tuple[Fields, Fields, Fields]] = [
    ({"num_epochs": 2}, {"num_epochs": 3}, {"num_epochs": 3}),
    ({"model_size": "small"}, {"model_size": "tiny"}, {"model_size": "tiny"}),
    (
        {"model": {"hidden_size": 9, "num_layers": 1, "tie_word_embeddings": True}},
        {"model_size": "tiny"},
        {"model_size": "tiny", "model": {"tie_word_embeddings": True}},
    ),
    (
        {"model_size": "tiny"},
        {"model": {"hidden_size": 9}},
        {"model": {"embedding_size": 32, "hidden_size": 9, "num_layers": 1, "dropout": 0.0}},
    ),
    ({"model": {"architecture": "gru"}}, {"model_family": "rnn"}, {"model_family": "rnn", "model": {}}),
    ({"tokenizer": {"method": "word"}}, {"tokenizer_id": "word-1"}, {"tokenizer_id": "word-1"}),
    ({"tokenizer_id": "word-1"}, {"tokenizer": {"method": "word"}}, {"tokenizer": {"method": "word"}}),
    ({"tokenizer_id": "word-1"}, {"init_from_run_id": "first"}, {"init_from_run_id": "first"}),
    ({"warmup_ratio": 0.5}, {"warmup_steps": 7}, {"warmup_steps": 7}),
    ({"warmup_steps": 7}, {"warmup_ratio": 0.5}, {"warmup_ratio": 0.5}),
]


@pytest.mark.parametrize(("file", "typed", "expected"), WINS, ids=str)
def test_what_is_typed__wins_over_a_file_that_says_it_by_another_name(
    file: Fields, typed: Fields, expected: Fields
) -> None:
    common: Fields = {"corpus": "kk", "model_family": "lstm"}
    if "model_family" in typed:
        common.pop("model_family")
    assert request_of({**common, **file}, typed) == train_request({**common, **expected})


def test_typed_size__leaves_the_other_sizes_of_a_preset_as_they_are() -> None:
    file: Fields = {"corpus": "kk", "model_family": "gpt2", "model_size": "tiny"}
    sizes: Fields = {"hidden_size": 32, "intermediate_size": 99}
    asked: Fields = dict(resolved(request_of(file, {"model": sizes})).model)
    preset: Fields = dict(resolved(train_request(file)).model)
    assert asked == {**preset, **sizes}


def test_typed_preset__wins_over_the_sizes_of_a_file_with_blocks() -> None:
    made = read_experiment(whole(document()), {"model_size": "tiny"}).request()
    assert (made.model_size, made.model_family) == ("tiny", "gru")
    assert resolved(made).model.hidden_size == 64


FAMILIES: list[tuple[Fields, str]] = [
    ({}, "char_lstm"),
    ({"model_family": "gru"}, "gru"),
    ({"model": {"architecture": "gru"}}, "gru"),
    ({"model": {"hidden_size": 9}}, "char_lstm"),
]


@pytest.mark.parametrize(("fields", "family"), FAMILIES, ids=str)
def test_family__is_the_one_named_or_that_of_the_architecture(fields: Fields, family: str) -> None:
    assert request_of({"corpus": "kk", **fields}, {}).model_family == family


def test_family__that_is_not_named_is_that_of_the_run_to_begin_from() -> None:
    experiment = read_experiment({"corpus": "kk", "init_from_run_id": "first"}, {})
    assert experiment.with_family("gpt2").request().model_family == "gpt2"
    assert experiment.with_family(None).request().model_family == "char_lstm"


WRONG: list[tuple[Fields, Fields, ErrorCode, str]] = [
    ({"epochs": 3}, {}, ErrorCode.CONFIG_INVALID, "unknown field `epochs`; did you mean `num_epochs`?"),
    (
        {"num_epochs": 0},
        {},
        ErrorCode.CONFIG_INVALID,
        "`num_epochs` must be greater than or equal to 1, you gave 0.",
    ),
    ({}, {"num_epochs": 0}, ErrorCode.INVALID_INPUT, "`num_epochs` must be greater than or equal to 1, you gave 0."),
    ({"corpus": "/etc/passwd"}, {}, ErrorCode.CONFIG_INVALID, "`corpus` must be a relative path without `..`."),
    ({"model_family": "t5"}, {}, ErrorCode.UNSUPPORTED_BACKEND, "`model_family` 't5' is not available; it must be one"),
    ({"model": 5}, {"model_size": "tiny"}, ErrorCode.CONFIG_INVALID, "`model` must be a block of fields, you gave 5."),
]


@pytest.mark.parametrize(("file", "typed", "code", "sentence"), WRONG, ids=str)
def test_mistake_in_a_file_of_fields__is_named_as_the_file_names_it(
    file: Fields, typed: Fields, code: ErrorCode, sentence: str
) -> None:
    error = refused({"corpus": "kk", **file}, typed)
    assert (error.code, error.message[: len(sentence)]) == (code, sentence)


def test_field_of_a_request__in_a_file_with_blocks_belongs_under_run() -> None:
    error = refused({**whole(document()), "model_family": "lstm"}, {})
    assert error.code is ErrorCode.CONFIG_INVALID
    assert error.message == (
        "`model_family` is a field of the train request: in a file with blocks write it under `run`."
    )


@pytest.mark.parametrize(
    "file",
    [{"tokenizer": {"tokenizer_type": "word"}}, {"model": {"architecture": "lstm", "rnn": {}}}, {"run": {"seed": 1}}],
)
def test_file_with_one_block__is_told_what_a_file_with_blocks_lacks(file: Fields) -> None:
    assert "`data` is required" in refused(file, {"corpus": "kk"}).message
