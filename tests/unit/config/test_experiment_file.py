"""Experiment files with fields of the train request: read beside what is typed, and written for any run."""

from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.support.experiments import Fields, document, resolved
from tests.support.families import EVERY, TRANSFORMERS
from tests.support.families import request_of as request_of_family
from tests.support.properties import for_all
from tests.support.refusals import refused
from tests.support.runs import record
from tests.support.tiny_models import char_tokenizer
from trainer.artifacts.runs import manifest_of
from trainer.config.experiment_file import experiment_yaml, read_experiment, read_yaml
from trainer.config.presets import request_hash
from trainer.config.train_request import train_request
from trainer.config.validation import block, value_at
from trainer.config.yaml import parse_yaml
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.models import ModelFamily
from trainer.contracts.runs import EffectiveRequest, TrainRequest


def request_of(file: Fields, typed: Fields) -> TrainRequest:
    return read_experiment(file, typed).with_family(None).request()


def test_file_with_some_fields__takes_the_rest_from_typed_options() -> None:
    typed: Fields = {"corpus": "kk", "model_family": "char_lstm"}
    files: list[Fields] = [{"num_epochs": 2}, {"model": {"hidden_size": 9}}, {"tokenizer": {"min_frequency": 2}}]
    for file in files:
        assert request_of(file, typed) == request_of({**typed, **file}, {}) == train_request({**typed, **file})


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
        {"model_size": "tiny", "model": {"hidden_size": 9}},
    ),
    ({"model": {"architecture": "gru"}}, {"model_family": "rnn"}, {"model_family": "rnn", "model": {}}),
    ({"tokenizer": {"method": "word"}}, {"tokenizer_id": "word-1"}, {"tokenizer_id": "word-1"}),
    ({"tokenizer_id": "word-1"}, {"tokenizer": {"method": "word"}}, {"tokenizer": {"method": "word"}}),
    ({"tokenizer_id": "word-1"}, {"init_from_run_id": "first"}, {"init_from_run_id": "first"}),
    ({"warmup_ratio": 0.5}, {"warmup_steps": 7}, {"warmup_steps": 7}),
    ({"num_epochs": 5, "max_steps": 7, "max_seconds": 9.0}, {"minutes": 2.0}, {"minutes": 2.0}),
    ({"minutes": 2.0}, {"max_steps": 7}, {"max_steps": 7}),
    ({"num_epochs": 5, "max_steps": 7}, {"max_steps": 70}, {"max_steps": 70}),
    ({"num_epochs": 5}, {"max_steps": 70, "num_epochs": 4}, {"max_steps": 70, "num_epochs": 4}),
    ({"warmup_steps": 7}, {"warmup_ratio": 0.5}, {"warmup_ratio": 0.5}),
]


@pytest.mark.parametrize(("file", "typed", "expected"), WINS, ids=str)
def test_typed_value__wins_over_a_file_with_it_by_another_name(file: Fields, typed: Fields, expected: Fields) -> None:
    common: Fields = {"corpus": "kk"} if "model_family" in typed else {"corpus": "kk", "model_family": "lstm"}
    assert request_of({**common, **file}, typed) == train_request({**common, **expected})


def test_typed_sizes_and_presets__leave_the_rest_as_it_is() -> None:
    file: Fields = {"corpus": "kk", "model_family": "gpt2", "model_size": "tiny"}
    sizes: Fields = {"hidden_size": 32, "intermediate_size": 99}
    asked: Fields = dict(resolved(request_of(file, {"model": sizes})).model)
    preset: Fields = dict(resolved(train_request(file)).model)
    by_rule = {"dropout", "attention_dropout"}  # by the number of weights
    assert {name: asked[name] for name in asked.keys() - by_rule} == {
        name: value for name, value in {**preset, **sizes}.items() if name not in by_rule
    }
    made = read_experiment(document(), {"model_size": "tiny"}).request()
    assert (made.model_size, made.model_family, resolved(made).model.hidden_size) == ("tiny", "gru", 64)


@pytest.mark.parametrize(
    ("fields", "parent", "family"),
    [
        *(({}, None, "char_lstm"), ({"model_family": "gru"}, None, "gru")),
        *(({"model": {"architecture": "gru"}}, None, "gru"), ({"model": {"hidden_size": 9}}, None, "char_lstm")),
        *(({"init_from_run_id": "first"}, "gpt2", "gpt2"), ({"init_from_run_id": "first"}, None, "char_lstm")),
    ],
)
def test_family__is_named_or_of_architecture_or_parent(fields: Fields, parent: ModelFamily | None, family: str) -> None:
    draft = read_experiment({"corpus": "kk", **fields}, {})
    assert draft.with_family(parent).request().model_family == family


NO_BLOCK = "`data` is required"
WRONG: list[tuple[Fields, Fields, ErrorCode, str]] = [
    ({"epochs": 3}, {}, ErrorCode.CONFIG_INVALID, "unknown field `epochs`; did you mean `num_epochs`?"),
    ({"num_epochs": 0}, {}, ErrorCode.CONFIG_INVALID, "`num_epochs` must be greater than or equal to 1, you gave 0."),
    ({}, {"num_epochs": 0}, ErrorCode.INVALID_INPUT, "`num_epochs` must be greater than or equal to 1, you gave 0."),
    ({"corpus": "/etc/passwd"}, {}, ErrorCode.CONFIG_INVALID, "`corpus` must be a relative path without `..`."),
    ({"model_family": "t5"}, {}, ErrorCode.UNSUPPORTED_BACKEND, "`model_family` 't5' is not available; it must be one"),
    ({"model": 5}, {"model_size": "tiny"}, ErrorCode.CONFIG_INVALID, "`model` must be a block of fields, you gave 5."),
    ({"tokenizer": {"tokenizer_type": "word"}}, {}, ErrorCode.CONFIG_INVALID, NO_BLOCK),
    ({"model": {"architecture": "lstm", "rnn": {}}}, {}, ErrorCode.CONFIG_INVALID, NO_BLOCK),
    ({"run": {"seed": 1}}, {}, ErrorCode.CONFIG_INVALID, NO_BLOCK),
]


@pytest.mark.parametrize(("file", "typed", "code", "sentence"), WRONG, ids=str)
def test_mistake__is_named_as_the_file_names_it(file: Fields, typed: Fields, code: ErrorCode, sentence: str) -> None:
    with refused(code, sentence):
        request_of({"corpus": "kk", **file}, typed)


def test_file__that_holds_no_fields_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(file) == {"a": 1}, "it may begin with a byte order mark"
    file.write_bytes(b"text")
    with refused(ErrorCode.CONFIG_INVALID, "'f.yaml' must hold lines of `name: value`; it is a single value."):
        read_yaml(file)


Strategies = dict[str, st.SearchStrategy[object]]
NONE: Strategies = {}


def drawn(required: Strategies, optional: Strategies = NONE) -> st.SearchStrategy[Fields]:
    return st.fixed_dictionaries(required, optional=optional)


def fraction(below: float = 1.0) -> st.SearchStrategy[float]:
    return st.floats(0, below, exclude_max=True)


def choice(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


positive = st.floats(0, 1, exclude_min=True)
count, frequent = st.integers(1, 10_000), {"min_frequency": st.integers(1, 10_000)}
text = st.text(min_size=1, max_size=30)
label = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=64)
name = st.from_regex(r"[a-zçәı][a-z0-9 çә_-]{0,9}(/[a-z .]{1,5}x)?", fullmatch=True)
tied: Strategies = {"dropout": fraction(), "tie_word_embeddings": st.booleans()}
sizes = drawn({}, {"embedding_size": count, "hidden_size": count, "num_layers": st.integers(1, 9), **tied})
betas: Strategies = {"betas": st.tuples(fraction(), fraction()), "eps": positive, "weight_decay": fraction()}
optimizer = drawn({"name": choice("adam", "adamw")}, betas)
optimizer |= drawn({"name": st.just("sgd")}, {"weight_decay": fraction()})
optimizer |= drawn({"name": st.just("muon")}, betas | {"momentum": fraction()})
normalization: Strategies = {"normalization": drawn({"lowercase": st.sampled_from([False, True, "tr", "az"])})}
names: Strategies = {f"{role}_token": st.just(f"<{role}>") for role in ("cls", "sep", "unk", "mask")}
special: Strategies = {"special_style": choice("gpt2", "gpt2_mask", "bert"), "special_tokens": drawn({}, names)}
plain = drawn({"method": choice("char", "word")}, {"vocab_size": st.none() | count, **frequent, **normalization})
merges: Strategies = {"vocab_size": count, **frequent, **special, **normalization}
pieces: Strategies = {"vocab_size": count, "model_type": choice("unigram", "bpe"), **special}
tokenizer_block = plain | drawn({"method": choice("bpe", "wordpiece")}, merges)
tokenizer_block |= drawn({"method": st.just("sentencepiece")}, pieces)
rule = drawn(
    {},
    {
        **{"first_epoch_checkpoints": count, "subsequent_epochs_spacing": choice("linear", "log")},
        **{"log_base": st.integers(2, 9), "linear_interval": st.none() | count},
        **{"min_checkpoint_interval": count, "min_checkpoints_per_epoch": st.integers(0, 9)},
    },
)
counts = st.integers(0, 10**15) | st.sampled_from(["500k", "1.5M", "2B"])
thresholds = drawn({"words": st.just("log2") | st.lists(counts, min_size=1, max_size=1)})
thresholds |= drawn({"steps": st.sets(count, min_size=1).map(sorted)}) | drawn({"tokens": st.just("log2")})
maybe = st.none() | count
common: Strategies = {
    **{"label": st.none() | label, "tags": st.lists(label, max_size=3)},
    **{"provenance": st.none() | drawn({"source_corpus": text})},
    **{"validation_corpus": st.none() | name, "test_corpus": st.none() | name},
    **{"split_by": choice("line", "file", "position"), "seed": st.integers(0, 2**32 - 1)},
    "holdout_fraction": st.floats(0, 0.5, exclude_min=True, exclude_max=True),
    **{"test_fraction": fraction(0.5), "max_seq_len": st.integers(8, 4096)},
    "batch_size": st.integers(1, 4096) | st.just("auto"),
    **{"gradient_accumulation": st.integers(1, 1024), "gradient_clipping": st.none() | positive},
    "ema_decay": st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
    **{"optimizer": optimizer, "learning_rate": positive, "lr_schedule": choice("constant", "linear", "cosine", "wsd")},
    "early_stopping": drawn({"enabled": st.booleans(), "patience": st.integers(1, 100)}),
    **{"device": choice("auto", "cpu", "cuda:1"), "precision": choice("auto", "fp32", "fp16", "bf16")},
    **{"compute": drawn({"tf32": st.booleans()}), "logging": drawn({"level": choice("DEBUG", "ERROR")})},
    "checkpoint_schedule": st.none() | st.sets(st.integers(0, 99), min_size=1).map(sorted) | rule | thresholds,
    **{"threads": st.integers(0, 8), "data_num_workers": st.none() | st.integers(0, 64)},
    **{"data_pin_memory": st.none() | st.booleans(), "log_every_steps": count},
    **{"checkpoint_every_steps": maybe, "eval_every_steps": maybe, "sample_every_steps": maybe},
}
lengths = drawn({"num_epochs": st.integers(1, 1000)}, {"max_steps": maybe, "max_seconds": st.none() | positive})
lengths |= drawn({"minutes": st.floats(0, 10_000, exclude_min=True)})
warmups = st.just(dict[str, object]()) | drawn({"warmup_steps": st.none() | count})
warmups |= drawn({"warmup_ratio": st.none() | st.floats(0, 1)})
of_chars: Strategies = {"model": drawn({"hidden_size": count})}
of_chars |= {"tokenizer": drawn({"method": st.just("char")}, dict[str, st.SearchStrategy[object]](frequent))}
families = drawn({"model_family": st.just("char_lstm")}, of_chars)
families |= drawn({"model_family": choice("lstm", "gru", "rnn"), "tokenizer": tokenizer_block}, {"model": sizes})
presets = drawn({}, {"model_size": choice("tiny", "small", "base")})


def one_request(parts: tuple[Fields, ...]) -> TrainRequest:
    fields: Fields = {}
    for part in parts:
        fields |= part
    if "model_size" in fields:
        fields.pop("model", None)
    return train_request(fields)


def written(request: TrainRequest, effective: EffectiveRequest) -> tuple[Fields, TrainRequest]:
    """The experiment file of a run, and the request that it is when it is read again."""
    hashed = request_hash(effective)
    text = experiment_yaml(changed(record(), request=request, effective=effective, request_hash=hashed))
    file = parse_yaml(text, "f.yaml")
    assert isinstance(file, dict)
    return file, read_experiment(file, {}).request()


@for_all(st.tuples(drawn({"corpus": name}, common), lengths, families, warmups, presets).map(one_request))
def test_any_run__written_as_a_file_is_the_same_request_again(request: TrainRequest) -> None:
    effective = resolved(request)
    again = resolved(written(request, effective)[1])
    assert request_hash(again) == request_hash(effective)
    assert again == changed(effective, model_size=None)


def test_experiment_file_of_a_run__keeps_how_files_of_a_folder_are_split() -> None:
    for given in ({"split_by": "line"}, dict[str, object]()):
        request = train_request({"model_family": "gru", "corpus": "kk", **given})
        file, again = written(request, resolved(request))
        assert value_at(file, "split_by") == given.get("split_by")
        assert ("split_by" in again.model_fields_set) == ("split_by" in given)


def test_experiment_file_of_a_warm_start__names_its_parent_and_no_tokenizer() -> None:
    tokenizer = char_tokenizer(["ab"]).manifest
    sizes: Fields = {"tie_word_embeddings": True}
    first = train_request({"model_family": "gru", "corpus": "kk", "tokenizer": {"method": "char"}, "model": sizes})
    parent = manifest_of(changed(record("first"), request=first, effective=resolved(first)), "completed")
    asked: Fields = {"init_from_run_id": "first", "freeze_embeddings": True}
    request = train_request({"model_family": "gru", "corpus": "ky", **asked})
    effective = resolved(request, parent=parent, tokenizer=tokenizer)
    file, again = written(request, effective)
    assert value_at(file, "init_from_run_id") == "first"
    assert "tokenizer" not in file
    assert request_hash(resolved(again, parent=parent, tokenizer=tokenizer)) == request_hash(effective)


@pytest.mark.parametrize("family", EVERY)
def test_run_of_any_family__written_as_a_file_is_the_same_request(family: str) -> None:
    wide: Fields = {"model": {"max_position_embeddings": 64, **block(EVERY[family], "model")}}
    for values in ({}, wide if family in TRANSFORMERS else {"mlm_probability": 0.3}):
        request = request_of_family(family, **values)
        file, again = written(request, resolved(request))
        assert request_hash(resolved(again)) == request_hash(resolved(request))
        assert ("max_position_embeddings" in str(file)) == (values == wide)
