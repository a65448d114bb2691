"""A request is resolved as the requirements say, and its hash counts what determines the result."""

from collections.abc import Mapping
from typing import get_args

import pytest

from tests.support.families import EVERY, TRANSFORMERS
from tests.support.families import request_of as family_request
from tests.support.refusals import refused
from tests.support.runs import record
from tests.support.tiny_models import char_tokenizer, tokenizer_of
from trainer.artifacts.runs import manifest_of
from trainer.config.presets import OF_STEPS, check_parts, request_hash, resolve, with_parent
from trainer.config.train_request import train_request
from trainer.config.validation import parse, value_at
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.models import Gpt2Config, LlamaConfig, ModelFamily
from trainer.contracts.runs import CorpusRef, EffectiveRequest, RunManifest, TrainRequest
from trainer.contracts.tokenizers import CharTokenizerConfig, TokenizerManifest

Values = Mapping[str, object]
CORPUS = CorpusRef(name="kk", sha256="a" * 64, bytes=10_000_000)
CHAR: Values = {"method": "char"}
BOTH_SIDES: dict[str, object] = {"model": {"bidirectional": True}}
MASKED: dict[str, object] = {"objective": "masked_lm"}


def request_of(fields: Values) -> TrainRequest:
    return parse(TrainRequest, {"model_family": "char_lstm", "corpus": "kk", **fields})


def effective(corpus: CorpusRef = CORPUS, /, **fields: object) -> EffectiveRequest:
    return resolve(request_of(fields), corpus=corpus)


def of(family: str, **sizes: object) -> dict[str, object]:
    return {"model_family": family, "model": sizes}


def of_tokenizer(family: str, method: str, **fields: object) -> dict[str, object]:
    return {"model_family": family, "tokenizer": {"method": method, **fields}}


WORDS: Values = {
    **{"model.embedding_size": 256, "model.hidden_size": 512, "model.num_layers": 2, "model.dropout": 0.2},
    **{"max_seq_len": 30, "batch_size": 64, "learning_rate": 1e-3, "optimizer.name": "adam"},
    **{"tokenizer.method": "word", "gradient_clipping": 1.0, "model.tie_word_embeddings": False},
}
TWICE = ["norm", "embedding", "norm"]
DEFAULTS: list[tuple[Values, Values]] = [
    (
        {},
        {
            **{"model.architecture": "lstm", "model.embedding_size": 128, "model.hidden_size": 256},
            **{"model.num_layers": 2, "model.dropout": 0.1, "model.tie_word_embeddings": True},
            **{"max_seq_len": 256, "batch_size": 64, "learning_rate": 2e-3, "seed": 42, "threads": 0},
            **{"holdout_fraction": 0.1, "test_fraction": 0.1, "gradient_clipping": 1.0, "tokenizer.method": "char"},
            **{"optimizer.name": "adamw", "optimizer.betas": (0.9, 0.999)},
            "optimizer.weight_decay_exclude": ("bias", "norm"),
        },
    ),
    *(({"model_family": family}, WORDS) for family in ("lstm", "gru", "rnn")),
    (
        {"model_family": "gru", "model": {"hidden_size": 32}, "tokenizer": CHAR},
        {
            **{"model.architecture": "gru", "model.hidden_size": 32, "model.tie_word_embeddings": False},
            **{"max_seq_len": 128, "batch_size": 128, "lr_schedule": "cosine", "warmup_ratio": 0.05},
            **{"holdout_fraction": 0.1, "test_fraction": 0.1},
        },
    ),
    ({"max_steps": 2000, "num_epochs": 3}, {"num_epochs": 3}),
    ({"minutes": 2.0}, {"minutes": 2.0, "max_steps": None, "max_seq_len": 128, "num_epochs": 3, "batch_size": 128}),
    ({"gradient_clipping": None, "batch_size": 8}, {"gradient_clipping": None, "batch_size": 8}),
    ({"model": {"hidden_size": 64}}, {"model.hidden_size": 64, "model.embedding_size": 128}),
    (
        {"model_size": "tiny", "model": {"dropout": 0.3}},
        {"model.embedding_size": 32, "model.hidden_size": 64, "model.dropout": 0.3},
    ),
    (
        {"model_family": "gpt2", "model_size": "tiny", "model": {"hidden_size": 96}, "tokenizer": CHAR},
        {"model.hidden_size": 96, "model.intermediate_size": 384, "model.num_layers": 2},
    ),
    ({"optimizer": {"name": "sgd"}}, {"optimizer.eps": None, "optimizer.weight_decay_exclude": ("bias", "norm")}),
    ({"optimizer": {"name": "adam", "eps": 1e-6}}, {"optimizer.eps": 1e-6}),
    (
        {"optimizer": {"name": "muon"}},
        {"optimizer.momentum": 0.95, "optimizer.weight_decay": 0.1, "optimizer.eps": 1e-8},
    ),
    ({"optimizer": {"weight_decay_exclude": []}}, {"optimizer.weight_decay_exclude": ()}),
    ({"optimizer": {"weight_decay_exclude": TWICE}}, {"optimizer.weight_decay_exclude": ("embedding", "norm")}),
    ({"model_family": "bert"}, {"objective": "masked_lm", "mlm_probability": 0.15}),
    ({"model_family": "gpt2"}, {"tokenizer.method": "bpe", "tokenizer.special_style": "gpt2"}),
    ({"model_family": "bert"}, {"tokenizer.method": "wordpiece", "tokenizer.special_style": "bert"}),
    (of_tokenizer("llama", "wordpiece"), {"tokenizer.special_style": "gpt2"}),
    (of_tokenizer("bert", "sentencepiece"), {"tokenizer.special_style": "bert"}),
    ({**of_tokenizer("lstm", "bpe"), "objective": "masked_lm"}, {"tokenizer.special_style": "gpt2_mask"}),
    (of_tokenizer("bert", "bpe", special_style="gpt2_mask"), {"tokenizer.special_style": "gpt2_mask"}),
    (
        of_tokenizer("bert", "bpe", special_style="gpt2", special_tokens={"mask_token": "<gap>"}),
        {"tokenizer.special_style": "gpt2", "tokenizer.special_tokens.mask_token": "<gap>"},
    ),
    ({**of_tokenizer("lstm", "char"), "objective": "masked_lm"}, {"tokenizer.mask_token": True}),
    (of_tokenizer("bert", "char", mask_token=True), {"tokenizer.mask_token": True}),
    *(
        (
            {"model_family": family, "model_size": "tiny", "max_seq_len": 48, "tokenizer": CHAR},
            {
                **{"model.num_layers": 2, "model.hidden_size": 64, "model.num_attention_heads": 2},
                "model.max_position_embeddings": 48,
                "model.activation_function": "silu" if family in ("llama", "qwen") else "gelu",
            },
        )
        for family in TRANSFORMERS
    ),
    ({**of("gpt2", max_position_embeddings=64), "max_seq_len": 32}, {"model.max_position_embeddings": 64}),
    ({"model_family": "ngram"}, {"model.max_order": 7, "tokenizer.method": "char", "device": "cpu", "num_epochs": 1}),
    ({"model_family": "ngram", "model_size": "unigram"}, {"model.max_order": 1, "model.order": None}),
    (of("ngram", max_order=4), {"model.max_order": 4, "model.ngrams": ()}),
]


@pytest.mark.parametrize(("fields", "expected"), DEFAULTS)
def test_defaults__are_the_familys_and_given_values_win_also_null(fields: Values, expected: Values) -> None:
    run: Values = effective(**fields).model_dump()
    assert {path: value_at(run, path) for path in expected} == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model_family": "gru", "tokenizer": {"method": "word"}}, ("keyboard", "all", False)),
        ({"model_family": "gru"}, ("torch", "all", False)),  # of characters, so not the word model
        ({"model_family": "gru", "model_size": "base"}, ("torch", "all", False)),
        (of("lstm", tie_word_embeddings=True), ("keyboard", "between_layers", True)),
        ({"model_family": "char_lstm"}, ("keyboard", "between_layers", True)),
        ({"model_family": "lstm", "model_size": "paper"}, ("torch", "between_layers", False)),
        ({"model_family": "char_lstm", "model_size": "paper"}, ("torch", "between_layers", False)),
        (of("char_lstm", initialization="torch", dropout_places="all"), ("torch", "all", True)),
    ],
)
def test_first_weights_and_dropout__are_those_of_each_preset(fields: Values, expected: tuple[str, str, bool]) -> None:
    model: Values = dict(effective(**{"tokenizer": CHAR, **fields}).model)
    assert (model["initialization"], model["dropout_places"], model["tie_word_embeddings"]) == expected


def test_presets__every_family_has_every_size() -> None:
    families: tuple[ModelFamily, ...] = get_args(ModelFamily)
    for family in families:
        others = ["unigram", "bigram", "trigram"] if family == "ngram" else ["paper"]
        for size in (sizes := ["tiny", "small", "base", *others]):
            assert effective(model_family=family, model_size=size, tokenizer=CHAR).model_size == size
        with refused(ErrorCode.INVALID_MODEL_SIZE, f"must be one of {', '.join(sizes)}, you gave 'huge'."):
            effective(model_family=family, model_size="huge", tokenizer=CHAR)


def test_configs__know_their_defaults() -> None:
    sizes = {"num_layers": 1, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    sizes["max_position_embeddings"] = 8
    one, other = parse(Gpt2Config, sizes), parse(LlamaConfig, sizes | {"num_key_value_heads": 2})
    assert (one.tie_word_embeddings, other.tie_word_embeddings, one.sizes()) == (True, False, "8/8/1, 2 heads")


def inner_size(family: str, **fields: object) -> object:
    return value_at(dict(effective(model_family=family, **fields).model), "intermediate_size")


@pytest.mark.parametrize(
    ("family", "hidden_size", "expected"),
    [("gpt2", 128, 512), ("bert", 64, 256), ("llama", 128, 384), ("llama", 96, 256), ("qwen", 64, 192)],
)
def test_intermediate_size__follows_from_the_hidden_size(family: str, hidden_size: int, expected: int) -> None:
    """4 x the hidden size; llama and qwen 8/3 of it, rounded up to a multiple of 64: 341.3 to 384, 256.0 stays."""
    sizes: dict[str, object] = {"hidden_size": hidden_size, "num_attention_heads": 2}
    if family in ("llama", "qwen"):
        sizes["num_key_value_heads"] = 1
    assert inner_size(family, model=sizes) == expected
    assert inner_size(family, model={**sizes, "intermediate_size": 100}) == 100


@pytest.mark.parametrize(("family", "expected"), [("gpt2", 3072), ("llama", 11008), ("qwen", 4864)])
def test_intermediate_size__of_a_preset_stays_where_its_width_is_repeated(family: str, expected: int) -> None:
    width = effective(model_family=family, model_size="paper").model.hidden_size
    assert inner_size(family, model_size="paper", model={"hidden_size": width}) == expected


OTHER_WEIGHTS: Values = {"initialization": "torch", "dropout_places": "all"}
ODD_HEADS = of("llama", hidden_size=6, num_attention_heads=2, num_key_value_heads=2)
BY_GROUPS = "`num_attention_heads` must be divisible by `num_key_value_heads`; 4 is not by 3"
TOO_LONG = "`max_seq_len` is 64, but `model.max_position_embeddings` is 32: make"
REFUSED: dict[ErrorCode, list[tuple[Values, str]]] = {
    ErrorCode.INVALID_INPUT: [
        (
            {"min_learning_rate": 1e-4, "lr_schedule": "constant"},
            "`min_learning_rate` has no effect with `lr_schedule` 'constant': leave it out,",
        ),
        ({"min_learning_rate": 0.01, "lr_schedule": "cosine"}, "must not exceed `learning_rate`, which is 0.002."),
        ({"min_learning_rate": -1}, "`min_learning_rate` must be greater than or equal to 0, you gave -1."),
        (
            {"decay_ratio": 0.3},
            "`decay_ratio` has no effect with `lr_schedule` 'cosine': leave it out, or take 'wsd'.",
        ),
        ({"model_family": "gpt2", "model": OTHER_WEIGHTS}, "`model.dropout_places` is not a size of gpt2"),
        ({"optimizer": {"name": "sgd", "betas": [0.1, 0.2]}}, "`optimizer.betas` is not an option of sgd: leave it ou"),
        ({"optimizer": {"momentum": 0.9}}, "`optimizer.momentum` is not an option of adamw: leave it out."),
        ({"optimizer": {"weight_decay_exclude": ["head"]}}, "must be 'bias', 'embedding' or 'norm', you gave"),
        ({"minutes": 2.0, "max_steps": 3}, "give `minutes` or `max_steps`, not both"),
        ({"minutes": 2.0, "max_seconds": 3.0}, "give `minutes` or `max_seconds`, not both"),
        (of("gpt2", hidden_size=64, num_attention_heads=3), "divisible by `num_attention_heads`; 64 is not by 3"),
        (of("bert", hidden_size=64, embedding_size=32), "`model.embedding_size` is not a size of bert, which has arch"),
        (of("qwen", hidden_size=64, num_attention_heads=4, num_key_value_heads=3), BY_GROUPS),
        (ODD_HEADS, "must be even, as positions turn pairs of numbers; it is 3"),
        (of("gpt2", tie_word_embeddings=False), "`model.tie_word_embeddings` must be True"),
        (of("gpt2", initialization="torch"), "is not a size of gpt2, which has"),
        (of("lstm", num_attention_heads=2), "is not a size of lstm, which has archit"),
        (of("lstm", max_order=2), "`model.max_order` is not a size of lstm, which has archit"),
        (of("ngram", hidden_size=2), "`model.hidden_size` is not a size of ngram, which has architecture, max_order."),
    ],
    ErrorCode.MODEL_INCOMPATIBLE: [
        ({**of("gpt2", max_position_embeddings=32), "max_seq_len": 64}, TOO_LONG),
        (of_tokenizer("bert", "char", mask_token=False), "`tokenizer.mask_token` must be true: masked_lm needs the t"),
        ({**of_tokenizer("lstm", "word"), "objective": "masked_lm"}, "must not be 'word': masked_lm needs a mask t"),
        (of_tokenizer("bert", "bpe", special_style="gpt2"), "must be 'gpt2_mask' or 'bert': masked_lm needs a mask to"),
    ],
}


@pytest.mark.parametrize(("code", "fields", "said"), [(code, *row) for code, rows in REFUSED.items() for row in rows])
def test_request__that_fits_no_model_is_refused(code: ErrorCode, fields: Values, said: str) -> None:
    with refused(code, said):
        effective(**fields)


def test_stored_tokenizer__that_fits_no_family_or_objective_is_refused() -> None:
    def take(family: str, manifest: TokenizerManifest) -> EffectiveRequest:
        request = request_of({"model_family": family, "tokenizer_id": "stored-1"})
        named = changed(manifest, tokenizer_id="stored-1")
        return resolve(request, corpus=CORPUS, tokenizer=named)

    with refused(ErrorCode.MODEL_INCOMPATIBLE, "a 'char' tokenizer only, and 'stored-1' is a 'word' tokenizer: take"):
        take("char_lstm", tokenizer_of("word", ["a b", "b c"]).manifest)
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "mask token, which 'stored-1' has not"):
        take("bert", char_tokenizer(["ab"]).manifest)
    assert take("bert", char_tokenizer(["ab"], mask_token=True).manifest).tokenizer_id == "stored-1"


SMALL_LSTM: dict[str, object] = {
    "model_family": "lstm",
    "model": {"embedding_size": 16, "hidden_size": 24, "num_layers": 1, "dropout": 0.1},
    "tokenizer": {"method": "char", "min_frequency": 2},
}


def parent_of(fields: Values) -> tuple[RunManifest, TokenizerManifest]:
    """A completed run of these fields, and its tokenizer."""
    run = effective(**fields)
    config: dict[str, object] = run.tokenizer.model_dump(mode="json")
    parent = changed(record("parent"), request=request_of(fields), effective=run, request_hash=request_hash(run))
    return manifest_of(parent, "completed"), char_tokenizer(["ab"], ["a"], **config).manifest


def child(parent_fields: Values, **fields: object) -> EffectiveRequest:
    parent, tokenizer = parent_of(parent_fields)
    request = request_of({"init_from_run_id": "parent", **fields})
    effective = parent.effective
    return resolve(request, corpus=CORPUS, parent=effective, tokenizer=tokenizer)


def test_warm_start__has_the_sizes_and_the_tokenizer_of_its_parent() -> None:
    run = child(SMALL_LSTM, model_family="lstm", learning_rate=0.7, model={"dropout": 0.3})
    parent, tokenizer = parent_of(SMALL_LSTM)
    assert run.model == changed(parent.effective.model, dropout=0.3)
    assert (run.tokenizer, run.tokenizer_id) == (CharTokenizerConfig(min_frequency=2), tokenizer.tokenizer_id)
    assert (run.init_from_run_id, run.learning_rate) == ("parent", 0.7)
    assert child(SMALL_LSTM, **SMALL_LSTM).model == parent.effective.model, "it may spell out what its parent has"
    assert child({}, model_size="small").model == effective().model


OF_PARENT: Values = {
    **{"documents": "stream", "split_by": "position", "max_seq_len": 32, "split_seed": 7},
    **{"holdout_fraction": 0.2, "test_fraction": 0.3},
}
OF_MASKED: Values = {"objective": "masked_lm", "mlm_probability": 0.3, "max_seq_len": 32}


@pytest.mark.parametrize(
    ("parent", "given", "taken"),
    [
        (OF_PARENT, {}, OF_PARENT),
        (OF_PARENT, {"split_seed": 42, "max_seq_len": 16}, {**OF_PARENT, "split_seed": 42, "max_seq_len": 16}),
        (OF_MASKED, {}, OF_MASKED),
        (OF_MASKED, {"objective": "causal_lm"}, {**OF_MASKED, "objective": "causal_lm"}),
        ({"max_seq_len": 32}, {}, {"max_seq_len": 32}),
    ],
)
def test_warm_start__takes_over_what_it_leaves_out(parent: Values, given: Values, taken: Values) -> None:
    family: Values = {"model_family": "lstm", "tokenizer": CHAR}
    request = request_of({**family, "init_from_run_id": "parent", **given})
    found = with_parent(request, effective(**family, **parent), is_same_corpus=True)
    assert found.request == request_of({**family, "init_from_run_id": "parent", **taken})
    assert {one.field: one.value for one in found.values} == {
        field: value for field, value in taken.items() if field not in given
    }
    assert {one.reason for one in found.values} == {"as in its parent 'parent'"}
    elsewhere = with_parent(request, effective(**family, **parent), is_same_corpus=False)
    assert elsewhere.request.split_by == "line", "another corpus may have no files"
    other = request_of({"model_family": "gru", "init_from_run_id": "parent"})
    assert with_parent(other, effective(**family, **parent), is_same_corpus=True) == (other, ())


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_family": "gru"}, "`model_family` is 'gru', but its parent run 'parent' has"),
        (MASKED | BOTH_SIDES, "`model.bidirectional` would be True, but its parent run 'parent' has False"),
        ({"model": {"hidden_size": 25}}, "`model.hidden_size` would be 25, but its parent run 'parent'"),
        ({"model": {"tie_word_embeddings": True}}, "`model.tie_word_embeddings` would be True"),
        ({"model_size": "tiny"}, "`model.embedding_size` would be 32"),
        ({"tokenizer": CHAR}, "`tokenizer` differs from that of the parent run 'parent'"),
        ({"tokenizer_id": "char-0"}, "`tokenizer_id` is 'char-0', but its parent run 'parent' has"),
    ],
)
def test_warm_start__refuses_fields_that_do_not_fit_its_parent(fields: Values, sentence: str) -> None:
    with refused(ErrorCode.MODEL_INCOMPATIBLE, sentence):
        child(SMALL_LSTM, **{"model_family": "lstm", **fields})


SPELLED_OUT: Values = {
    **{"model_family": "lstm", "tokenizer": CHAR, "max_seq_len": 256, "batch_size": 64, "learning_rate": 0.002},
    **{"holdout_fraction": 0.1, "test_fraction": 0.1, "optimizer": {"name": "adamw"}},
    "model": {"embedding_size": 128, "hidden_size": 256, "num_layers": 2, "dropout": 0.1, "tie_word_embeddings": True},
}
UNCOUNTED: list[Values] = [{"label": "mine", "tags": ["a"], "provenance": {"source_corpus": "web"}}, SPELLED_OUT]
UNCOUNTED += [{"model_size": "small"}, {"optimizer": {"betas": [0.9, 0.999]}}, {"mlm_probability": 0.4}]
COUNTED: list[Values] = [{"seed": 1}, {"num_epochs": 6}, {"model": {"hidden_size": 255}}, {"threads": 2}]
COUNTED += [{"data_num_workers": 0}, {"sample_every_steps": 7}, {"init_from_run_id": "parent"}]
COUNTED += [{"init_from_run_id": "parent", "freeze_embeddings": True}, {"objective": "masked_lm"}]
COUNTED += [{"objective": "masked_lm", "mlm_probability": 0.4}]
COUNTED += [{"ema_decay": 0.9}, {"lr_schedule": "wsd"}, {"lr_schedule": "wsd", "decay_ratio": 0.3}]
COUNTED += [{"optimizer": {"name": "muon", "momentum": momentum}} for momentum in (0.9, 0.95)]
COUNTED += [{"minutes": 2.0}, {"minutes": 3.0}]
COUNTED += [{"checkpoint_schedule": {unit: ["1.5M"]}} for unit in ("steps", "words", "tokens")]


def test_hash__counts_fields_that_change_the_result_and_no_names() -> None:
    same = [effective(**fields) for fields in UNCOUNTED] + [effective(changed(CORPUS, name="other"))]
    assert {request_hash(run) for run in same} == {request_hash(effective())}
    different = [effective(**fields) for fields in COUNTED] + [effective(), effective(changed(CORPUS, sha256="b" * 64))]
    assert len({request_hash(run) for run in different}) == len(different)


NO_STEPS: dict[str, object] = {
    **{"max_seq_len": 64, "num_epochs": 2, "max_steps": 9, "max_seconds": 1.0, "batch_size": 4, "learning_rate": 0.1},
    **{"minutes": 2.0},
    **{"gradient_accumulation": 2, "optimizer": {"name": "sgd"}, "lr_schedule": "cosine", "min_learning_rate": 0.1},
    **{"warmup_steps": 1, "warmup_ratio": 0.1, "gradient_clipping": None, "early_stopping": {"enabled": True}},
    **{"init_from_run_id": "parent", "devices": 2, "strategy": "fsdp", "precision": "bf16", "data_num_workers": 0},
    **{"data_pin_memory": True, "checkpoint_every_steps": 1, "checkpoint_schedule": [1], "eval_every_steps": 1},
    **{"log_every_steps": 1, "sample_every_steps": 1, "decay_ratio": 0.3, "ema_decay": 0.9},
}
"""Values of fields that are about steps, batches and gradients."""
OF_EVERY_RUN = {
    *("model_family", "model_size", "model", "objective", "mlm_probability", "tokenizer", "tokenizer_id", "documents"),
    *("corpus", "validation_corpus", "test_corpus", "holdout_fraction", "test_fraction", "split_by", "split_seed"),
    *("seed", "seeds", "device", "threads", "compute", "logging", "label", "tags", "provenance", "resume"),
    *("allow_same_corpus", "test", "sample_prompts"),
}
"""The other fields, which a model that is counted has too."""
NOT_BEHIND = "must be 'causal_lm' for {}: it cannot see what comes after a masked token"
IN_SIGHT = "must be false: with causal_lm the model would see what it is to predict"
MATRIX: list[tuple[str, dict[str, object], str, str]] = [
    ("bert", {"objective": "causal_lm"}, "objective", "must be 'masked_lm' for bert: it reads both"),
    *((family, MASKED, "objective", NOT_BEHIND.format(family)) for family in ("gpt2", "llama", "qwen")),
    *((family, BOTH_SIDES, "model.bidirectional", IN_SIGHT) for family in ("lstm", "gru", "rnn")),
    ("char_lstm", MASKED | BOTH_SIDES, "model.bidirectional", "must be false for char_lstm, which has one"),
    ("char_lstm", {"tokenizer": {"method": "bpe"}}, "tokenizer.method", "must be 'char' for char_lstm: take lstm for"),
    ("gru", {"compute": {"gradient_checkpointing": True}}, "compute.gradient_checkpointing", "is for transformers"),
    ("bert", {"sample_every_steps": 5}, "sample_every_steps", "must be left out"),
    ("ngram", MASKED, "objective", NOT_BEHIND.format("ngram")),
    ("ngram", {"device": "cuda"}, "device", "must be 'cpu' or 'auto': ngram counts on the CPU"),
    ("ngram", {"compute": {"gradient_checkpointing": True}}, "compute.gradient_checkpointing", "is for transformers"),
    *(
        ("ngram", {field: value}, field, "has no effect with ngram, which counts the text once: leave it out")
        for field, value in NO_STEPS.items()
    ),
]


def test_fields__are_of_every_run_or_of_steps() -> None:
    of_steps = NO_STEPS.keys() | {"freeze_embeddings"}  # which needs `init_from_run_id`
    assert {*TrainRequest.model_fields} - OF_EVERY_RUN == of_steps == {*OF_STEPS}


@pytest.mark.parametrize(("family", "fields", "path", "said"), MATRIX)
def test_parts__that_cannot_be_trained_together_are_refused(family: str, fields: Values, path: str, said: str) -> None:
    with refused(ErrorCode.MODEL_INCOMPATIBLE, f"`{path}` {said}", path):
        check_parts(train_request({"corpus": "kk", "tokenizer": CHAR, "model_family": family, **fields}))


@pytest.mark.parametrize("name", EVERY)
def test_parts__that_can_be_trained_are_taken(name: str) -> None:
    check_parts(family_request(name))
