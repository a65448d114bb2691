"""The options that Discord and the command line share, and the request fields that they set."""

import pytest

from tests.support.experiments import document as blocks
from tests.support.refusals import refused
from trainer.config.experiment_file import read_experiment
from trainer.config.train_request import TRAIN_OPTIONS, RequestDraft, request_fields, train_request, with_family
from trainer.config.validation import parse
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import TrainRequest
from trainer.contracts.studies import SET_BY_STUDY
from trainer.contracts.training_options import EarlyStopping

_DISCORD_DESCRIPTION = 100


def test_every_option__sets_a_field_of_the_request() -> None:
    assert {option.field for option in TRAIN_OPTIONS.values()} <= {*TrainRequest.model_fields, "search"}
    assert all(len(option.help) <= _DISCORD_DESCRIPTION for option in TRAIN_OPTIONS.values())


def test_options__become_the_fields_of_a_request() -> None:
    options: dict[str, object] = {"corpus": "demo", "model": "lstm", "size": "tiny", "epochs": 3, "tokenizer": "bpe"}
    options |= {"early_stopping": 4, "name": "first", "seed": 0, "batch_size": None, "learning_rate": 0.01}
    fields = request_fields({**options, "init_from": "lstm-1", "freeze_embeddings": True, "max_steps": 9})
    assert fields == {
        **{"corpus": "demo", "model_family": "lstm", "model_size": "tiny", "num_epochs": 3, "label": "first"},
        **{"tokenizer": {"method": "bpe"}, "early_stopping": {"enabled": True, "patience": 4}, "seed": 0},
        **{"learning_rate": 0.01, "init_from_run_id": "lstm-1", "freeze_embeddings": True, "max_steps": 9},
    }
    assert parse(TrainRequest, fields).early_stopping == EarlyStopping(enabled=True, patience=4)
    assert request_fields({"tokenizer": "bpe-20260101"}) == {"tokenizer_id": "bpe-20260101"}
    alone = train_request(with_family(request_fields({"corpus": "demo"})))
    assert alone == TrainRequest(model_family="char_lstm", corpus="demo")
    assert request_fields({"early_stopping": 0}) == {"early_stopping": {"enabled": False}}, "a patience of 0"


METHOD_OF = {"lstm": "word", "gru": "word", "rnn": "word", "gpt2": "bpe", "llama": "bpe", "qwen": "bpe"}


@pytest.mark.parametrize(("family", "method"), [("char_lstm", "char"), ("bert", "wordpiece"), *METHOD_OF.items()])
def test_tokenizer_options_without_a_method__are_of_the_familys(family: str, method: str) -> None:
    options: dict[str, object] = {"model_family": family, "tokenizer": {"normalization": {"lowercase": True}}}
    request = train_request({"corpus": "kk", **options})
    assert request.tokenizer is not None and request.tokenizer.method == method


def test_search__starts_a_study_over_the_other_fields() -> None:
    fields: dict[str, object] = {"corpus": "kk", "model_family": "lstm", "minutes": 2.0}
    study = RequestDraft({**fields, "search": 8, "label": "Kazakh: words", "seed": 7}).study()
    assert study is not None
    assert (study.name, study.variants, study.seed, study.train) == ("kazakh--words", 8, 7, fields)
    assert RequestDraft(fields).study() is None
    unnamed = RequestDraft({**fields, "search": 2}).study()
    assert unnamed is not None and (unnamed.name, unnamed.seed) == ("kk", 42)
    sent = RequestDraft({**fields, "corpus": "a" * 64, "search": 2}).study()
    assert sent is not None and sent.name == "study"
    with refused(ErrorCode.INVALID_INPUT, "`search` must be greater than or equal to 2, you gave 1.", "search"):
        RequestDraft({**fields, "search": 1}).study()


@pytest.mark.parametrize("document", [{"corpus": "kk", "search": 4}, blocks({"run": {"search": 4}})])
def test_search__of_a_file_starts_a_study(document: dict[str, object]) -> None:
    study = read_experiment(document, {}).study()
    assert study is not None and (study.variants, study.train["corpus"]) == (4, "kk")
    assert study.train.keys().isdisjoint(SET_BY_STUDY)


def test_search__of_a_file_with_problems_starts_no_study() -> None:
    draft = read_experiment(blocks({"run": {"search": 4}, "logging": {"levle": "INFO"}}), {})
    with refused(ErrorCode.CONFIG_INVALID, "unknown field `logging.levle`"):
        draft.study()
