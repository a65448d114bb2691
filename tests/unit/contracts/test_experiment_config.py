"""The YAML form of a training maps onto the one train request, and says what is wrong with a file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiment_config import parse_yaml, read_yaml, requested_paths, train_fields
from trainer.contracts.presets import request_hash, resolve
from trainer.contracts.runs import CorpusRef, TrainRequest
from trainer.contracts.validation import parse

CONFIGS = Path(__file__).parents[3] / "configs"
Blocks = dict[str, dict[str, object]]


def document() -> Blocks:
    training: dict[str, object] = {
        "output_dir": "models/x",
        "learning_rate": 0.001,
        "adam_beta1": 0.9,
        "adam_beta2": 0.98,
        "adam_epsilon": 1e-6,
        "epochs": 3,
        "max_grad_norm": None,
    }
    return {
        "data": {"source_corpus": "web", "training_corpus": "kk", "batch_size": 4, "max_sequence_length": 32},
        "tokenizer": {"output_dir": "tok", "vocab_size": 50, "tokenizer_type": "character"},
        "model": {"architecture": "gru", "rnn": {"embedding_size": 8, "hidden_size": 16, "num_layers": 1}},
        "training": training,
        "logging": {"log_metrics_every_n_steps": 7},
        "run": {},
    }


def request_of(blocks: Blocks) -> TrainRequest:
    whole: dict[str, object] = {"experiment_name": "x", "random_seed": 3, **blocks}
    return parse(TrainRequest, train_fields(whole))


def refusal(change: Callable[[Blocks], object]) -> tuple[ErrorCode, str]:
    blocks = document()
    change(blocks)
    with pytest.raises(AppError) as caught:
        request_of(blocks)

    return caught.value.code, caught.value.message


def test_mapping__every_block_reaches_its_field() -> None:
    request = request_of(document())

    assert (request.model_family, request.label, request.seed) == ("gru", "x", 3)
    assert (request.corpus, request.batch_size, request.max_seq_len) == ("kk", 4, 32)
    assert request.provenance is not None and request.provenance.source_corpus == "web"
    assert request.tokenizer is not None and request.tokenizer.vocab_size == 50
    assert request.model is not None and request.model.hidden_size == 16
    assert (request.optimizer.name, request.optimizer.betas, request.optimizer.eps) == ("adamw", (0.9, 0.98), 1e-6)
    assert (request.learning_rate, request.num_epochs, request.gradient_clipping) == (0.001, 3, None)
    assert (request.lr_schedule, request.warmup_ratio, request.log_every_steps) == ("linear", 0.1, 7)
    assert request.precision == "fp32"


def test_mapping__explicit_warmup_steps_win_over_the_ratio() -> None:
    blocks = document()
    blocks["training"] |= {"warmup_steps": 9, "use_amp": True}

    request = request_of(blocks)

    assert (request.warmup_steps, request.warmup_ratio, request.precision) == (9, None, "auto")


def test_mapping__run_block_wins_over_what_the_others_imply() -> None:
    blocks = document()
    blocks["run"] = {"lr_schedule": "cosine", "warmup_steps": 4, "optimizer": {"name": "sgd"}, "holdout_fraction": 0.2}

    request = request_of(blocks)

    assert (request.lr_schedule, request.warmup_steps, request.warmup_ratio) == ("cosine", 4, None)
    assert (request.optimizer.name, request.holdout_fraction) == ("sgd", 0.2)


def test_shipped_char_lstm_config__is_the_preset() -> None:
    fields = train_fields(read_yaml(CONFIGS / "char_lstm_ipa.yaml"))
    corpus = CorpusRef(name="demo", sha256="a" * 64, bytes=1)
    fields["tokenizer"] = {"method": "char"}  # the file must name a cap for the vocabulary, the preset has none
    fields["precision"] = "auto"
    preset: dict[str, object] = {"model_family": "char_lstm", "corpus": "demo", "warmup_ratio": 0.0}

    both = [
        resolve(parse(TrainRequest, f), corpus=corpus, validation_corpus=None, test_corpus=None, threads=1)
        for f in (fields, preset)
    ]

    assert request_hash(both[0]) == request_hash(both[1])


def test_output_folders__are_recorded() -> None:
    whole: dict[str, object] = {"experiment_name": "x", "random_seed": 3, **document()}

    assert requested_paths(whole) == ("tok", "models/x", "logs")


def test_refusals__name_the_path_in_the_file() -> None:
    assert refusal(lambda b: b["model"].pop("architecture")) == (
        ErrorCode.CONFIG_INVALID,
        "Missing required field 'architecture' in model config."
        " Must be one of: gpt2, bert, lstm, gru, rnn, llama, qwen",
    )
    assert "`model.rnn` is required for gru; write the sizes under it" in refusal(lambda b: b["model"].pop("rnn"))[1]
    assert refusal(lambda b: b["training"].update(epoch=3))[1] == (
        "unknown field `training.epoch`; did you mean `epochs`?."
    )
    assert "`training.epochs` must be greater than 0" in refusal(lambda b: b["training"].update(epochs=0))[1]
    assert "relative path" in refusal(lambda b: b["training"].update(output_dir="../x"))[1]
    assert refusal(lambda b: b.pop("logging"))[1] == "`logging` is required."
    assert "did you mean `seed`?" in refusal(lambda b: b["run"].update(sed=1))[1]
    flat: dict[str, object] = {"experiment_name": "x", "random_seed": 3, **document(), "model": 3}
    with pytest.raises(AppError, match="`model` must be an object"):
        train_fields(flat)
    assert "must equal the architecture, 'gru'" in refusal(lambda b: _rnn(b).update(rnn_type="lstm"))[1]


def test_refusals__what_is_not_available_yet_is_said_before_anything_is_queued() -> None:
    changes: tuple[Callable[[Blocks], object], ...] = (
        lambda b: b["model"].update(architecture="bert"),
        lambda b: b["training"].update(objective="masked_lm"),
        lambda b: _rnn(b).update(bidirectional=True),
        lambda b: b["tokenizer"].update(tokenizer_type="bpe"),
    )
    for change in changes:
        assert refusal(change)[0] is ErrorCode.UNSUPPORTED_BACKEND


def test_files__that_are_no_yaml_mapping_are_refused(tmp_path: Path) -> None:
    for content, sentence in (
        (b"a: [1", "'f.yaml' is not YAML:"),
        (b"a: 1\na: 2", 'found duplicate key "a"'),
        (b"- 1", "'f.yaml' must hold a mapping of names to values."),
        (b"a: \xff", "'f.yaml' cannot be read as UTF-8 text."),
    ):
        (tmp_path / "f.yaml").write_bytes(content)
        with pytest.raises(AppError) as caught:
            read_yaml(tmp_path / "f.yaml")
        assert sentence in caught.value.message
        assert str(tmp_path) not in caught.value.message


def test_numbers__are_read_as_yaml_1_2_has_them() -> None:
    values: dict[str, object] = {"1e-3": 0.001, "no": "no", "null": None, "[1, 2]": [1, 2]}

    assert {text: parse_yaml(text, "x") for text in values} == values


def _rnn(blocks: Blocks) -> dict[str, object]:
    rnn = blocks["model"]["rnn"]
    assert isinstance(rnn, dict)
    return rnn
