"""The rules for values that a request leaves out."""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import strategies as st

from tests.support.families import CAUSAL
from tests.support.properties import for_all_pairs
from tests.support.runs import record
from trainer.config.defaults import TextCharacters, TrainingText, chosen_vocab_size
from trainer.config.experiment_file import read_experiment, read_yaml, request_path
from trainer.config.presets import Resolved, resolve_with_reasons, with_recorded, with_tokenizer
from trainer.config.train_request import train_request
from trainer.config.validation import merged, parse, set_path, value_at
from trainer.contracts.base import changed
from trainer.contracts.models import ModelFamily
from trainer.contracts.runs import CorpusRef, EffectiveRequest, RunRecord, TrainRequest
from trainer.contracts.tokenizers import BpeTokenizerConfig, WordPieceTokenizerConfig
from trainer.contracts.training_options import ChosenValue

Values = Mapping[str, object]
FAMILIES: tuple[ModelFamily, ...] = get_args(ModelFamily)
CHARACTERS = 97
NO_BYTES = CorpusRef(name="kk", sha256="a" * 64, bytes=0)


def request_of(fields: Values) -> TrainRequest:
    return train_request(dict[str, object](model_family="char_lstm", corpus="kk") | dict(fields))


def resolved(tokens: int, fields: Values) -> Resolved:
    text = TrainingText(tokens, CHARACTERS)
    return resolve_with_reasons(request_of(fields), text, {"corpus": NO_BYTES})


def value(effective: EffectiveRequest, path: str) -> object:
    values: dict[str, object] = effective.model_dump(mode="json")
    return value_at(values, path)


LSTM: dict[str, object] = {"model_family": "lstm", "model_size": "small", "tokenizer": {"method": "char"}}
GPT2, LLAMA = LSTM | {"model_family": "gpt2"}, LSTM | {"model_family": "llama"}
SHORT, MIDDLE, LONG = 2_000, 100_000, 100_000_000
RULES: list[tuple[int, Values, Values]] = [
    # 1.5 * 8 * (1e6 / 1e5) ** 0.4 = 30.1 epochs; 512 tokens in a step
    (MIDDLE, LSTM, {"num_epochs": 30, "batch_size": 4, "max_seq_len": 128, "early_stopping.patience": 6}),
    (MIDDLE, {"model_family": "lstm"}, {"model.initialization": "torch", "model.hidden_size": 256}),
    (MIDDLE, LSTM, {"learning_rate": 5e-3, "lr_schedule": "cosine", "warmup_ratio": 0.05}),
    (MIDDLE, LSTM | {"max_steps": 12}, {"warmup_steps": 20, "warmup_ratio": None}),
    (MIDDLE, LSTM | {"max_steps": 399}, {"warmup_steps": 20}),
    (MIDDLE, LSTM | {"max_steps": 400}, {"warmup_steps": None, "warmup_ratio": 0.05}),
    (MIDDLE, LSTM | {"max_steps": 798, "gradient_accumulation": 2}, {"warmup_ratio": 0.05}),
    (MIDDLE, LSTM | {"max_steps": 12, "warmup_ratio": 0.5}, {"warmup_steps": None, "warmup_ratio": 0.5}),
    (MIDDLE, LSTM | {"model_size": "base"}, {"learning_rate": 3.5e-3}),  # 0.005 / sqrt(2)
    (MIDDLE, {}, {"model_size": "small", "model.dropout_places": "all"}),
    # two layers of 4 * 256 * (inputs + 256 + 2) for 100,000 tokens: 9.22
    (MIDDLE, LSTM, {"model.dropout": 0.33}),  # 0.1 + 0.06 * log2(9.22) + 0.06 * log2(30 / 20) = 0.327
    (MIDDLE, LSTM, {"optimizer.name": "adamw", "optimizer.weight_decay": 0.01}),
    (MIDDLE, LSTM | {"optimizer": {"name": "muon"}}, {"optimizer.weight_decay": 0.1, "learning_rate": 0.01}),
    (MIDDLE, LSTM | {"model_family": "gru"}, {"learning_rate": 2.5e-3}),
    (MIDDLE, LSTM | {"model_family": "rnn"}, {"learning_rate": 2.5e-3}),
    (MIDDLE, LSTM | {"model_family": "gru", "optimizer": {"name": "muon"}}, {"learning_rate": 0.01}),
    (399_999, LSTM, {"optimizer.name": "adamw", "num_epochs": 17}),
    (400_000, LSTM, {"num_epochs": 12, "optimizer.name": "muon", "optimizer.weight_decay": 0.1, "learning_rate": 0.01}),
    (400_000, LSTM | {"optimizer": {"name": "adamw"}}, {"optimizer.weight_decay": 0.01}),
    (SHORT, LSTM, {"num_epochs": 96, "early_stopping.patience": 19, "model.dropout": 0.4}),
    (SHORT, {}, {"model_size": "tiny"}),
    (9_999, {}, {"model_size": "tiny", "num_epochs": 50}),
    (10_000, {}, {"model_size": "small", "num_epochs": 50}),
    (200 * 64 * 30, LSTM | {"model_family": "gru"}, {"max_seq_len": 128, "optimizer.name": "adamw"}),
    (100, LSTM, {"max_seq_len": 16, "batch_size": 32, "num_epochs": 100}),  # four rows of 25 tokens, to a power of two
    (1, LSTM, {"max_seq_len": 8, "batch_size": 64}),
    # 500,000 tokens an epoch for 200 steps, at most 16,384 in a step
    (LONG, LSTM, {"max_seq_len": 128, "batch_size": 128, "num_epochs": 1, "model.dropout": 0.0}),
    (LONG, {"model_family": "gpt2"}, {"model_size": "base"}),
    (1_000_000, LSTM, {"batch_size": 39, "num_epochs": 8}),  # 5,000 tokens in a step
    (MIDDLE, LSTM | {"max_seq_len": 30}, {"batch_size": 17}),
    (MIDDLE, LSTM | {"batch_size": "auto"}, {"batch_size": 4}),
    (MIDDLE, LSTM | {"num_epochs": 50}, {"early_stopping.patience": 10}),
    (MIDDLE, LSTM | {"max_steps": 70}, {"num_epochs": 70, "early_stopping.enabled": False}),
    (
        MIDDLE,
        LSTM | {"early_stopping": {"patience": 9}},
        {"early_stopping.enabled": True, "early_stopping.patience": 9},
    ),
    (MIDDLE, LSTM | {"warmup_steps": 0}, {"warmup_steps": None, "warmup_ratio": None}),
    (MIDDLE, LSTM | {"optimizer": {"name": "sgd"}}, {"optimizer.weight_decay": 0.0}),
    (MIDDLE, GPT2, {"optimizer.name": "muon", "optimizer.weight_decay": 0.3, "learning_rate": 5e-3}),
    (MIDDLE, GPT2, {"max_seq_len": 64, "model.max_position_embeddings": 64, "batch_size": 8, "num_epochs": 20}),
    (MIDDLE, LLAMA, {"max_seq_len": 128, "batch_size": 4}),
    # 64 * 256 for positions, four layers of 12 * 256^2 + 13 * 256, two more norms: 32 for each token
    (MIDDLE, GPT2, {"model.dropout": 0.1, "model.attention_dropout": 0.1}),  # 0.02 * log2(32) = 0.1
    (10_000, GPT2, {"num_epochs": 50, "model.dropout": 0.25}),  # 0.02 * log2(318) + 0.06 * log2(50.5 / 20) = 0.246
    # 0.1 + 0.06 * log2(0.92) + 0.06 * log2(8 / 20) = 0.014
    (1_000_000, LSTM, {"num_epochs": 8, "model.dropout": 0.01}),
    # 0.293 - 0.06 for half of 20 epochs; 500 steps of 512 tokens read the text 2.56 times
    (MIDDLE, LSTM | {"num_epochs": 10}, {"model.dropout": 0.23, "early_stopping.patience": 3}),
    (MIDDLE, LSTM | {"max_steps": 500}, {"model.dropout": 0.11}),
    (MIDDLE, LSTM | {"max_steps": 500, "num_epochs": 1}, {"model.dropout": 0.03}),
    # 0.02 * log2(32) of the weights; 14 epochs of a model with rotary positions are 20 of another
    (MIDDLE, LLAMA, {"num_epochs": 14, "model.dropout": 0.1}),
    (MIDDLE, LLAMA | {"num_epochs": 14}, {"model.dropout": 0.1}),
    (MIDDLE, LLAMA | {"num_epochs": 7}, {"model.dropout": 0.04}),
    (LONG, GPT2, {"model.dropout": 0.0}),
    (2_000_000, GPT2, {"max_seq_len": 128, "model.max_position_embeddings": 128}),
    (MIDDLE, GPT2 | {"optimizer": {"name": "adamw"}}, {"optimizer.weight_decay": 0.1, "learning_rate": 2e-3}),
    (MIDDLE, GPT2 | {"optimizer": {"name": "adamw"}}, {"num_epochs": 20}),
    (MIDDLE, GPT2 | {"optimizer": {"name": "sgd"}}, {"optimizer.weight_decay": 0.0}),
    (MIDDLE, GPT2 | {"optimizer": {"betas": [0.9, 0.95]}}, {"optimizer.name": "muon"}),
]


@pytest.mark.parametrize(("tokens", "fields", "expected"), RULES)
def test_rule__chooses_what_is_left_out_and_a_given_value_wins(tokens: int, fields: Values, expected: Values) -> None:
    effective = resolved(tokens, fields).effective
    assert {path: value(effective, path) for path in expected} == expected


RECIPES: list[tuple[str, Values]] = [
    (
        "char_lstm_ipa",
        {
            **{"model.embedding_size": 128, "model.hidden_size": 256, "model.num_layers": 2, "model.dropout": 0.1},
            **{"model.tie_word_embeddings": True, "model.dropout_places": "between_layers", "optimizer.name": "adamw"},
            **{"max_seq_len": 256, "batch_size": 64, "learning_rate": 2e-3, "gradient_clipping": 1.0},
            **{"num_epochs": 5, "holdout_fraction": 0.05, "test_fraction": 0.1},
        },
    ),
    (
        "word_lstm_keyboard",
        {
            **{"model.embedding_size": 256, "model.hidden_size": 512, "model.num_layers": 2, "model.dropout": 0.2},
            **{"model.tie_word_embeddings": False, "model.dropout_places": "all", "model.initialization": "keyboard"},
            **{"max_seq_len": 30, "batch_size": 64, "learning_rate": 1e-3, "gradient_clipping": 1.0},
            **{"num_epochs": 5, "optimizer.name": "adam", "tokenizer.method": "word"},
        },
    ),
]


@pytest.mark.parametrize(("name", "expected"), RECIPES)
def test_recipe_of_an_author__holds_its_numbers_whatever_the_text(name: str, expected: Values) -> None:
    request = train_request(read_experiment(read_yaml(request_path(Path(name))), {}).fields)
    for tokens in (SHORT, MIDDLE, LONG):
        found = resolve_with_reasons(request, TrainingText(tokens, CHARACTERS), {"corpus": NO_BYTES})
        assert found.chosen == ()
        assert {path: value(found.effective, path) for path in expected} == expected
        effective = found.effective
        assert (effective.lr_schedule, effective.warmup_steps, effective.warmup_ratio) == ("constant", None, None)


LONG_TEXT = TextCharacters(1_600_000, 90)  # 80 % of a text of two million characters
SHORT_TEXT = LONG_TEXT._replace(total=LONG_TEXT.total - 1)
TOKENIZERS: list[tuple[TextCharacters, Values, Values]] = [
    (SHORT_TEXT, {"model_family": "gpt2"}, {"method": "char"}),
    (SHORT_TEXT, {"model_family": "llama"}, {"method": "char"}),
    (SHORT_TEXT, {"model_family": "qwen"}, {"method": "char"}),
    (SHORT_TEXT, {"model_family": "gru"}, {"method": "char"}),
    # a subword for each 500 characters, up to 8,000 tokens
    (LONG_TEXT, {"model_family": "gpt2"}, {"method": "bpe", "vocab_size": 3200}),
    (TextCharacters(3_999_999, 90), {"model_family": "llama"}, {"method": "bpe", "vocab_size": 7999}),
    (TextCharacters(50_000_000, 90), {"model_family": "qwen"}, {"method": "bpe", "vocab_size": 8000}),
    (LONG_TEXT, {"model_family": "lstm"}, {"method": "word"}),
    (TextCharacters(88_000, 80), {"model_family": "bert"}, {"method": "wordpiece", "vocab_size": 416}),  # 2 * 80 + 256
    # what is given stays
    (TextCharacters(88_000, 80), GPT2 | {"tokenizer": {"method": "bpe"}}, {"method": "bpe", "vocab_size": 336}),
    (SHORT_TEXT, GPT2 | {"tokenizer": {"method": "bpe"}}, {"method": "bpe", "vocab_size": 3199}),
    (SHORT_TEXT, GPT2 | {"tokenizer": {"method": "bpe", "vocab_size": 8000}}, {"vocab_size": 8000}),
    (SHORT_TEXT, {"model_family": "gpt2", "tokenizer": {"vocab_size": 300}}, {"method": "bpe", "vocab_size": 300}),
    # every character has a token: 7,000 of a text in Chinese, and 256 bytes
    (TextCharacters(100_000, 7000), GPT2 | {"tokenizer": {"method": "bpe"}}, {"vocab_size": 7256}),
    (TextCharacters(100_000, 7000), GPT2 | {"tokenizer": {"method": "wordpiece"}}, {"vocab_size": 14_256}),
    (
        TextCharacters(50_000, 100),
        GPT2 | {"tokenizer": {"method": "sentencepiece", "byte_fallback": True}},
        {"vocab_size": 612},
    ),
]


@pytest.mark.parametrize(("text", "fields", "expected"), TOKENIZERS)
def test_tokenizer__suits_the_length_of_the_text_and_a_given_value_wins(
    text: TextCharacters, fields: Values, expected: Values
) -> None:
    request = train_request(dict[str, object](corpus="kk") | dict(fields))
    found = with_tokenizer(request, text)
    values: dict[str, object] = found.request.model_dump(include={"tokenizer"})
    assert {name: value_at(values, f"tokenizer.{name}") for name in expected} == expected
    assert {value_at(values, one.field) == one.value for one in found.values} <= {True}
    given: dict[str, object] = request.model_dump(exclude_unset=True)
    assert all(value_at(given, one.field) is None and f"{text}" in one.reason for one in found.values)


@for_all_pairs(st.integers(min_value=0, max_value=10**10), st.integers(min_value=1, max_value=20_000))
def test_vocabulary__has_room_for_every_character_and_grows_with_the_text(total: int, kinds: int) -> None:
    def size(config: BpeTokenizerConfig | WordPieceTokenizerConfig, total: int) -> int:
        return int(chosen_vocab_size(config, TextCharacters(total, kinds)).value)

    for config, units in ((BpeTokenizerConfig(), kinds), (WordPieceTokenizerConfig(), 2 * kinds)):
        assert units + 256 <= size(config, total) <= size(config, 2 * total) <= max(8000, units + 256)


@pytest.mark.parametrize("fields", [{"tokenizer_id": "char-1"}, {"init_from_run_id": "parent"}])
def test_trained_tokenizer__stays(fields: Values) -> None:
    request = train_request(dict[str, object](corpus="kk", model_family="gpt2") | dict(fields))
    assert with_tokenizer(request, LONG_TEXT) == (request, ())


STANDARDS: list[tuple[Values, int, Values]] = [
    ({}, 200 * 64 * 256, {"max_seq_len": 256, "batch_size": 64, "learning_rate": 0.002, "model.dropout": 0.1}),
    ({}, 200 * 64 * 256, {"model.dropout_places": "between_layers", "model.hidden_size": 256}),
    ({"model_family": "gru"}, 200 * 64 * 30, {"max_seq_len": 30, "batch_size": 64, "learning_rate": 0.001}),
    ({"model_family": "gru"}, 200 * 64 * 30, {"optimizer.name": "adam", "model.initialization": "keyboard"}),
    ({"model_family": "gru"}, 200 * 64 * 30, {"model.dropout": 0.2, "model.hidden_size": 512}),
]


@pytest.mark.parametrize(("fields", "tokens", "fixed"), STANDARDS)
def test_standard_model__has_its_values_from_200_steps_an_epoch_on(fields: Values, tokens: int, fixed: Values) -> None:
    long, short = (resolved(n, fields) for n in (tokens, tokens - 1))
    assert {path: value(long.effective, path) for path in fixed} == fixed
    assert all(value(short.effective, path) != value(long.effective, path) for path in {"max_seq_len"} & fixed.keys())
    assert any("of the standard" in choice.reason for choice in long.chosen)
    assert not any("of the standard" in choice.reason for choice in short.chosen)


_families: st.SearchStrategy[str] = st.sampled_from(CAUSAL)


@for_all_pairs(st.integers(min_value=0, max_value=10**10), _families)
def test_every_text__has_values_that_fit_and_a_longer_one_is_not_read_more_often(tokens: int, family: str) -> None:
    one, longer = (resolved(n, {"model_family": family}).effective for n in (tokens, 2 * tokens))
    assert 8 <= one.max_seq_len <= max(8, tokens)
    assert 1 <= longer.num_epochs <= one.num_epochs <= 100
    assert 0 < one.learning_rate <= 0.01 and 0 <= one.model.dropout <= 0.4
    assert one.max_seq_len * one.batch_size <= 16_384 + one.max_seq_len


def test_reasons__stand_beside_exactly_the_values_that_were_left_out() -> None:
    bare, full = resolved(MIDDLE, LSTM), resolved(MIDDLE, LSTM | {"learning_rate": 0.3, "model": {"dropout": 0.5}})
    chosen = {choice.field: choice.value for choice in bare.chosen}
    assert all(value(bare.effective, field) == chosen[field] for field in chosen)
    left_out = [field for field in chosen if field not in ("learning_rate", "model.dropout")]
    assert [choice.field for choice in full.chosen] == left_out
    assert all(choice.reason for choice in bare.chosen)
    assert resolved(MIDDLE, {"model_family": "ngram"}).chosen[0].value == "base"
    block = resolved(5_000, {"model_family": "qwen", "model": {"hidden_size": 96, "num_attention_heads": 3}}).chosen
    assert [(choice.field, choice.value, choice.reason) for choice in block[:3]] == [
        ("model.num_layers", 2, "of tiny, for 5,000 training tokens"),
        ("model.intermediate_size", 8 * 96 // 3, "usual for the given hidden_size"),
        ("model.num_key_value_heads", 1, "of tiny, for 5,000 training tokens"),
    ]
    assert not block[3].field.startswith("model.num")


def test_reason__has_no_number_with_an_exponent() -> None:
    many = resolved(SHORT, LSTM | {"num_epochs": 400})
    [reason] = [choice.reason for choice in many.chosen if choice.field == "model.dropout"]
    assert reason.endswith(", 400 epochs")


def run_of_other_rules(tokens: int, fields: Values, chosen: Values) -> RunRecord:
    """A run of a request for which the rules of another version have chosen some values otherwise."""
    values: dict[str, object] = merged({}, fields)
    for path, chosen_value in chosen.items():
        set_path(values, path, chosen_value)
    then = resolved(tokens, values)
    others = [parse(ChosenValue, {"field": path, "value": one, "reason": ""}) for path, one in chosen.items()]
    run = record(request=request_of(fields), effective=then.effective)
    return changed(run, chosen=(*then.chosen, *others))


@pytest.mark.parametrize("method", ["char", "bpe"])
def test_run_of_another_tokenizer__keeps_it(method: str) -> None:
    """A run of before a rule, or of another one, continues with its own tokenizer."""
    run = run_of_other_rules(
        MIDDLE, {"model_family": "gpt2"}, {"tokenizer.method": method, "tokenizer.vocab_size": 4000}
    )
    for text in (SHORT_TEXT, LONG_TEXT):
        request, chosen = with_tokenizer(run.request, text)
        given: dict[str, object] = request.model_dump(exclude_unset=True)
        today = resolved(MIDDLE, given)
        assert today.effective != run.effective
        assert with_recorded(Resolved(today.effective, (*chosen, *today.chosen)), run) == run.effective


@pytest.mark.parametrize("tokens", [SHORT, LONG])
@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        *(
            (fields, {"optimizer.name": name})
            for fields in ({"model_family": "gpt2"}, {"model_family": "gpt2", "model_size": "tiny"}, LSTM)
            for name in ("adamw", "muon", "sgd")
        ),
        (LSTM | {"model": {"num_layers": 1}}, {"early_stopping.enabled": False}),
        (GPT2 | {"optimizer": {"betas": [0.9, 0.95]}}, {"optimizer.name": "adamw"}),
        (LSTM | {"tokenizer": {"method": "bpe"}}, {"tokenizer.vocab_size": 300}),
    ],
)
def test_run_of_other_rules__keeps_the_values_that_were_chosen_for_it(
    tokens: int, fields: Values, chosen: Values
) -> None:
    """Its checkpoint and its hash are of those."""
    today, run = resolved(MIDDLE, fields), run_of_other_rules(tokens, fields, chosen)
    assert today.effective != run.effective
    assert with_recorded(today, run) == run.effective
    edited = changed(run, effective=changed(run.effective, gradient_clipping=0.3))
    assert with_recorded(today, edited) == run.effective


def test_families__hold_out_the_same_lines() -> None:
    def split(family: str) -> dict[str, object]:
        fields = {"split_by", "split_seed", "holdout_fraction", "test_fraction"}
        found: dict[str, object] = resolved(MIDDLE, {"model_family": family}).effective.model_dump(include=fields)
        return found

    assert all(split(family) == split("lstm") for family in FAMILIES)


def test_run_of_other_shares__keeps_them() -> None:
    """Once char_lstm held out a twentieth by default."""
    today = resolved(MIDDLE, LSTM)
    run = record(request=request_of(LSTM), effective=changed(today.effective, holdout_fraction=0.05))
    assert with_recorded(today, run) == run.effective != today.effective


def test_recorded_values__leave_what_the_request_gives() -> None:
    """A record that somebody has edited is not that of its request."""
    fields = LSTM | {"model": {"num_layers": 1}, "optimizer": {"weight_decay": 0.3}}
    today = resolved(MIDDLE, fields)
    edited = resolved(MIDDLE, LSTM | {"model": {"num_layers": 2}, "optimizer": {"weight_decay": 0.2}}).effective
    run = record(request=request_of(fields), effective=edited)
    again = with_recorded(today, run)
    assert value(again, "model.num_layers") == 1
    assert value(again, "optimizer.weight_decay") == 0.3
