"""The YAML form of a training maps onto the one train request."""

import pytest

from tests.support import ROOT
from tests.support.experiments import (
    document,
    request_of,
    resolved,
    rnn,
    transformer,
    whole,
)
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.config.presets import request_hash
from trainer.config.train_request import train_request
from trainer.config.validation import parse
from trainer.contracts.runs import CheckpointRule, OptimizerConfig
from trainer.contracts.tokenizers import BpeTokenizerConfig, SpecialTokens


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


def test_mapping__names_of_special_tokens_reach_the_tokenizer() -> None:
    blocks = document()
    names: dict[str, object] = {"bos_token": "<|begin|>", "pad_token": "[P]"}
    blocks["tokenizer"] |= {"tokenizer_type": "bpe", "special_tokens": names}
    tokenizer = request_of(blocks).tokenizer
    assert isinstance(tokenizer, BpeTokenizerConfig)
    assert tokenizer.special_tokens == parse(SpecialTokens, names)


def test_mapping__explicit_warmup_steps_win_over_the_ratio() -> None:
    blocks = document()
    blocks["training"] |= {"warmup_steps": 9, "use_amp": True}
    request = request_of(blocks)
    assert (request.warmup_steps, request.warmup_ratio, request.precision) == (9, None, "auto")


def test_mapping__run_block_wins_over_what_the_others_imply() -> None:
    blocks = document()
    blocks["run"] = {"lr_schedule": "cosine", "warmup_steps": 4, "optimizer": {"name": "adam"}, "holdout_fraction": 0.2}
    request = request_of(blocks)
    assert (request.lr_schedule, request.warmup_steps, request.warmup_ratio) == ("cosine", 4, None)
    assert (request.optimizer.name, request.optimizer.betas, request.holdout_fraction) == ("adam", (0.9, 0.98), 0.2)


def test_mapping__checkpoints_are_kept_by_a_list_by_a_rule_or_not_at_all() -> None:
    def schedule(**training: object) -> object:
        blocks = document()
        blocks["training"] |= training
        return request_of(blocks).checkpoint_schedule

    keys: dict[str, object] = {
        "first_epoch_checkpoints": 7,
        "subsequent_epochs_spacing": "linear",
        "linear_interval": 9,
    }
    assert schedule() is None
    assert schedule(checkpoint_schedule=[], **keys) is None
    assert schedule(checkpoint_schedule=[0, 5, 9], auto_generate_checkpoints=False) == (0, 5, 9)
    assert schedule(auto_generate_checkpoints=True) == CheckpointRule()
    assert schedule(auto_generate_checkpoints=True, **keys) == parse(CheckpointRule, keys)


def test_mapping__run_block_wins_over_a_schedule_of_either_form() -> None:
    blocks = document()
    blocks["training"]["auto_generate_checkpoints"] = True
    blocks["run"] = {"checkpoint_schedule": {"log_base": 3}}
    assert request_of(blocks).checkpoint_schedule == CheckpointRule(log_base=3)
    assert request_of(blocks, checkpoint_schedule=[4]).checkpoint_schedule == (4,)
    assert request_of(blocks, checkpoint_schedule=None).checkpoint_schedule is None


def test_mapping__precision_of_the_run_block_wins_where_amp_is_on() -> None:
    blocks = document()
    blocks["training"] |= {"use_amp": True, "use_tf32": False}
    assert (request_of(blocks).precision, request_of(blocks).compute.tf32) == ("auto", False)
    blocks["run"] = {"precision": "bf16"}
    assert request_of(blocks).precision == "bf16"


def test_mapping__resume_and_log_level_reach_their_fields_and_change_no_hash() -> None:
    blocks = document()
    before = request_of(blocks)
    assert (before.resume, before.logging.level) == (False, "INFO")
    blocks["training"]["resume_from_checkpoint"] = True
    blocks["logging"]["level"] = "WARNING"
    after = request_of(blocks)
    assert (after.resume, after.logging.level) == (True, "WARNING")
    assert request_hash(resolved(after)) == request_hash(resolved(before))


def test_settings_without_effect__are_those_that_the_file_states() -> None:
    blocks = document()
    folder: dict[str, object] = {"training.output_dir": blocks["training"]["output_dir"]}
    assert read_experiment(whole(blocks), {}).unused_settings == folder
    blocks["logging"] |= {"max_log_files": 3, "wandb_project": None, "level": "ERROR", "use_wandb": False, "dir": "x"}
    experiment = read_experiment(whole(blocks), {})
    logging = {"logging.max_log_files": 3, "logging.wandb_project": None, "logging.dir": "x"}
    assert experiment.unused_settings == {**folder, **logging}


def test_mapping__sgd_takes_nothing_of_what_the_file_says_of_adam() -> None:
    blocks = document()
    blocks["run"] = {"optimizer": {"name": "sgd"}}
    assert request_of(blocks).optimizer == OptimizerConfig(name="sgd")


def test_mapping__what_is_typed_wins_over_the_run_block() -> None:
    blocks = document()
    blocks["run"] = {"seed": 8, "model": {"dropout": 0.5}}
    request = request_of(blocks, seed=9, warmup_steps=2, model={"num_layers": 3})
    assert (request.seed, request.warmup_steps, request.warmup_ratio) == (9, 2, None)
    assert request.model is not None
    assert (request.model.dropout, request.model.num_layers, request.model.hidden_size) == (0.5, 3, 16)


@pytest.mark.parametrize("field", ["tokenizer_id", "init_from_run_id"])
def test_mapping__a_tokenizer_that_is_there_takes_the_place_of_the_block(field: str) -> None:
    blocks = document()
    blocks["tokenizer"] |= {"tokenizer_type": "bpe"}
    typed: dict[str, object] = {field: "there"}
    assert request_of(blocks, **typed).tokenizer is None
    blocks["run"] = typed
    assert request_of(blocks).tokenizer is None


SHIPPED = [("char_lstm_ipa", "char_lstm", "char"), ("word_lstm_keyboard", "lstm", "word")]


@pytest.mark.parametrize(("name", "family", "method"), SHIPPED)
def test_shipped_config__has_the_defaults_of_its_family(name: str, family: str, method: str) -> None:
    draft = read_experiment(read_yaml(ROOT / "configs" / f"{name}.yaml"), {})
    fields = {**draft.fields, "tokenizer": {"method": method}, "precision": "auto"}  # without a largest vocabulary
    effective = resolved(train_request(fields))
    assert request_hash(effective) == request_hash(resolved(train_request({"model_family": family, "corpus": "demo"})))


def test_output_folders__are_recorded() -> None:
    assert read_experiment(whole(document()), {}).requested_paths == ("tok", "models/x", "logs")


def test_mapping__sizes_of_a_transformer_reach_their_fields() -> None:
    blocks = document()
    blocks["model"] = transformer("bert", activation_function="relu") | {"bert": {"type_vocab_size": 3}}
    blocks["training"] |= {"objective": "masked_lm", "mlm_probability": 0.2, "use_gradient_checkpointing": True}

    request = request_of(blocks)

    assert request.model is not None
    given: dict[str, object] = request.model.model_dump(exclude_none=True)
    assert given == {
        "num_layers": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "dropout": 0.1,
        "attention_dropout": 0.2,
        "activation_function": "relu",
        "type_vocab_size": 3,
    }
    assert (request.model_family, request.objective, request.mlm_probability) == ("bert", "masked_lm", 0.2)
    assert request.compute.gradient_checkpointing


def test_mapping__two_directions_are_for_masked_tokens() -> None:
    blocks = document()
    rnn(blocks)["bidirectional"] = True
    blocks["training"]["objective"] = "masked_lm"
    request = request_of(blocks)
    assert request.model is not None and request.model.bidirectional
