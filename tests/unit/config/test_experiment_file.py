"""Any run, written as an experiment file, is the same request when it is read again."""

import pytest
from hypothesis import strategies as st

from tests.support.experiments import resolved
from tests.support.families import FAMILIES, TRANSFORMERS
from tests.support.families import request_of as request_of_family
from tests.support.properties import for_all
from trainer.config.experiment_file import experiment_yaml, read_experiment
from trainer.config.nested_dict import block, value_at
from trainer.config.presets import request_hash
from trainer.config.train_request import train_request
from trainer.config.yaml import parse_yaml
from trainer.contracts.base import changed, now
from trainer.contracts.runs import EffectiveRequest, RunManifest, RunRecord, Timings, TrainRequest
from trainer.contracts.tokenizers import CharTokenizerConfig, Normalization, TokenizerManifest, TokenizerStats


def record_of(effective: EffectiveRequest, request: TrainRequest) -> RunRecord:
    return RunRecord(
        run_id="a-run",
        user_id=None,
        created_at=now(),
        request=request,
        effective=effective,
        request_hash=request_hash(effective),
    )


Strategies = dict[str, st.SearchStrategy[object]]
NONE: Strategies = {}


def drawn(required: Strategies, optional: Strategies = NONE) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries(required, optional=optional)


def fraction(below: float = 1.0) -> st.SearchStrategy[float]:
    return st.floats(0, below, exclude_max=True)


positive = st.floats(0, 1, exclude_min=True)
count = st.integers(1, 10_000)
text = st.text(min_size=1, max_size=30)
name = st.from_regex(r"[a-zçәı][a-z0-9 çә_-]{0,9}(/[a-z .]{1,5}x)?", fullmatch=True)
sizes = drawn(
    {},
    {
        "embedding_size": count,
        "hidden_size": count,
        "num_layers": st.integers(1, 9),
        "dropout": fraction(),
        "tie_word_embeddings": st.booleans(),
    },
)
adam = drawn(
    {"name": st.sampled_from(["adam", "adamw"])},
    {"betas": st.tuples(fraction(), fraction()), "eps": positive, "weight_decay": fraction()},
)
sgd = drawn({"name": st.just("sgd")}, {"weight_decay": fraction()})
normalization = drawn({"lowercase": st.booleans()})
style = st.sampled_from(["gpt2", "gpt2_mask", "bert"])
special_tokens = drawn({}, {f"{role}_token": st.just(f"<{role}>") for role in ("cls", "sep", "unk", "mask")})
tokenizer_block = (
    drawn(
        {"method": st.sampled_from(["char", "word"])},
        {"vocab_size": st.none() | count, "min_frequency": count, "normalization": normalization},
    )
    | drawn(
        {"method": st.sampled_from(["bpe", "wordpiece"])},
        {
            "vocab_size": count,
            "min_frequency": count,
            "special_style": style,
            "special_tokens": special_tokens,
            "normalization": normalization,
        },
    )
    | drawn(
        {"method": st.just("sentencepiece")},
        {
            "vocab_size": count,
            "model_type": st.sampled_from(["unigram", "bpe"]),
            "special_style": style,
            "special_tokens": special_tokens,
        },
    )
)
rule = drawn(
    {},
    {
        "first_epoch_checkpoints": count,
        "subsequent_epochs_spacing": st.sampled_from(["linear", "log"]),
        "log_base": st.integers(2, 9),
        "linear_interval": st.none() | count,
        "min_checkpoint_interval": count,
        "min_checkpoints_per_epoch": st.integers(0, 9),
    },
)
common: Strategies = {
    "label": st.none() | st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=64),
    "tags": st.lists(text, max_size=3),
    "provenance": st.none() | drawn({"source_corpus": text}),
    "split_by": st.sampled_from(["line", "file", "position"]),
    "validation_corpus": st.none() | name,
    "test_corpus": st.none() | name,
    "max_seq_len": st.integers(8, 4096),
    "num_epochs": st.integers(1, 1000),
    "max_steps": st.none() | count,
    "max_seconds": st.none() | positive,
    "batch_size": st.integers(1, 4096) | st.just("auto"),
    "gradient_accumulation": st.integers(1, 1024),
    "optimizer": adam | sgd,
    "learning_rate": positive,
    "lr_schedule": st.sampled_from(["constant", "linear", "cosine"]),
    "gradient_clipping": st.none() | positive,
    "holdout_fraction": st.floats(0, 0.5, exclude_min=True, exclude_max=True),
    "test_fraction": fraction(0.5),
    "seed": st.integers(0, 2**32 - 1),
    "early_stopping": drawn({"enabled": st.booleans(), "patience": st.integers(1, 100)}),
    "device": st.sampled_from(["auto", "cpu", "cuda:1"]),
    "precision": st.sampled_from(["auto", "fp32", "fp16", "bf16"]),
    "compute": drawn({"tf32": st.booleans()}),
    "logging": drawn({"level": st.sampled_from(["DEBUG", "ERROR"])}),
    "checkpoint_schedule": st.none() | st.sets(st.integers(0, 99), min_size=1).map(sorted) | rule,
    "threads": st.integers(0, 8),
    "data_num_workers": st.none() | st.integers(0, 64),
    "data_pin_memory": st.none() | st.booleans(),
    "checkpoint_every_steps": st.none() | count,
    "eval_every_steps": st.none() | count,
    "log_every_steps": count,
    "sample_every_steps": st.none() | count,
}
warmups = (
    st.just(dict[str, object]())
    | drawn({"warmup_steps": st.none() | count})
    | drawn({"warmup_ratio": st.none() | st.floats(0, 1)})
)
families = drawn(
    {"model_family": st.just("char_lstm")},
    {"model": drawn({"hidden_size": count}), "tokenizer": drawn({"method": st.just("char")}, {"min_frequency": count})},
) | drawn(
    {"model_family": st.sampled_from(["lstm", "gru", "rnn"]), "tokenizer": tokenizer_block},
    {"model": sizes},
)
presets = drawn({}, {"model_size": st.sampled_from(["tiny", "small", "base"])})


def one_request(parts: tuple[dict[str, object], ...]) -> TrainRequest:
    fields: dict[str, object] = {}
    for part in parts:
        fields |= part
    if "model_size" in fields:
        fields.pop("model", None)
    return train_request(fields)


@for_all(st.tuples(drawn({"corpus": name}, common), families, warmups, presets).map(one_request))
def test_any_run_written_as_a_file__is_the_same_request_again(request: TrainRequest) -> None:
    effective = resolved(request)
    written = parse_yaml(experiment_yaml(record_of(effective, request)), "f.yaml")
    assert isinstance(written, dict)
    experiment = read_experiment(written, {})
    again = resolved(experiment.request())
    assert request_hash(again) == request_hash(effective)
    assert again == changed(effective, model_size=None)


def test_a_warm_start_written_as_a_file__names_its_parent_and_no_tokenizer_of_its_own() -> None:
    first = train_request(
        {"model_family": "gru", "corpus": "kk", "tokenizer": {"method": "char"}, "model": {"tie_word_embeddings": True}}
    )
    parent = RunManifest(
        run_id="first",
        status="completed",
        request=first,
        effective=resolved(first),
        request_hash="a" * 64,
        timings=Timings(created=now(), finished=now()),
        seed=1,
    )
    stats = TokenizerStats(
        coverage=1,
        oov_rate=0,
        token_count=1,
        char_coverage=1,
        avg_tokens_per_char=1,
        avg_tokens_per_word=1,
        holdout_lines=1,
    )
    tokenizer = TokenizerManifest(
        tokenizer_id="tok-1",
        method="char",
        vocab_size=9,
        special_tokens={},
        normalization=Normalization(),
        corpus=(),
        config=CharTokenizerConfig(),
        stats=stats,
        seed=1,
        split_by="line",
        holdout_fraction=0.1,
        test_fraction=0.1,
        versions={},
        created_at=now(),
        files=(),
    )
    asked: dict[str, object] = {"model_family": "gru", "corpus": "ky", "init_from_run_id": "first"}
    asked["freeze_embeddings"] = True
    request = train_request(asked)
    effective = resolved(request, parent=parent, tokenizer=tokenizer)

    written = parse_yaml(experiment_yaml(record_of(effective, request)), "f.yaml")
    assert isinstance(written, dict)
    experiment = read_experiment(written, {})
    again = resolved(experiment.request(), parent=parent, tokenizer=tokenizer)

    assert value_at(written, "init_from_run_id") == "first"
    assert "tokenizer" not in written
    assert request_hash(again) == request_hash(effective)


@pytest.mark.parametrize("name_of_family", FAMILIES)
def test_run_of_any_family__written_as_a_file_is_the_same_request(name_of_family: str) -> None:
    wide: dict[str, object] = {"model": {"max_position_embeddings": 64, **block(FAMILIES[name_of_family], "model")}}
    for values in ({}, wide if name_of_family in TRANSFORMERS else {"mlm_probability": 0.3}):
        request = request_of_family(name_of_family, **values)
        effective = resolved(request)
        document = parse_yaml(experiment_yaml(record_of(effective, request)), "f.yaml")
        assert isinstance(document, dict)
        again = resolved(read_experiment(document, {}).request())
        assert request_hash(again) == request_hash(effective)
        assert ("max_position_embeddings" in str(document)) == (values == wide)
