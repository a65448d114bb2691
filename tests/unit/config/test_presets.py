"""A request is resolved as the requirements say, and its hash counts what determines the result."""

import re

import pytest

from tests.support.tiny_models import char_tokenizer, tokenizer_of
from trainer.artifacts.runs import manifest_of
from trainer.config.presets import request_hash, resolve
from trainer.config.validation import parse
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import RnnConfig
from trainer.contracts.runs import CorpusRef, EffectiveRequest, RunManifest, RunRecord, TrainRequest
from trainer.contracts.tokenizers import CharTokenizerConfig, TokenizerManifest

CORPUS = CorpusRef(name="kk", sha256="a" * 64, bytes=10)


def effective(corpus: CorpusRef = CORPUS, /, **fields: object) -> EffectiveRequest:
    request = parse(TrainRequest, {"model_family": "char_lstm", "corpus": "kk", **fields})
    return resolve(request, corpus=corpus, validation_corpus=None, test_corpus=None)


def recurrent(run: EffectiveRequest) -> RnnConfig:
    assert isinstance(run.model, RnnConfig)
    return run.model


def refusal(**fields: object) -> tuple[ErrorCode, str]:
    with pytest.raises(AppError) as caught:
        effective(**fields)
    return caught.value.code, caught.value.message


def test_char_lstm__has_the_defaults_of_its_family() -> None:
    run = effective()
    model = recurrent(run)
    assert (model.architecture, model.embedding_size, model.hidden_size, model.num_layers) == ("lstm", 128, 256, 2)
    assert (model.dropout, model.tie_word_embeddings) == (0.1, True)
    assert (run.max_seq_len, run.batch_size, run.learning_rate, run.optimizer.name) == (256, 64, 2e-3, "adamw")
    assert (run.holdout_fraction, run.test_fraction, run.gradient_clipping) == (0.05, 0.10, 1.0)
    assert (run.num_epochs, run.seed, run.tokenizer.method, run.threads) == (5, 42, "char", 0)


@pytest.mark.parametrize("family", ["lstm", "gru", "rnn"])
def test_word_model_defaults__hold_for_a_family_without_sizes(family: str) -> None:
    run = effective(model_family=family)
    model = recurrent(run)
    assert (model.embedding_size, model.hidden_size, model.num_layers, model.dropout) == (256, 512, 2, 0.2)
    assert (run.max_seq_len, run.batch_size, run.learning_rate, run.optimizer.name) == (30, 64, 1e-3, "adam")
    assert (run.tokenizer.method, run.gradient_clipping, model.tie_word_embeddings) == ("word", 1.0, False)


def test_general_defaults__hold_for_lstm_with_sizes() -> None:
    run = effective(model_family="gru", model={"hidden_size": 32}, tokenizer={"method": "char"})
    assert (run.model.architecture, run.model.hidden_size, run.model.tie_word_embeddings) == ("gru", 32, False)
    assert (run.max_seq_len, run.batch_size, run.learning_rate) == (512, "auto", 5e-4)
    assert (run.holdout_fraction, run.test_fraction) == (0.1, 0.1)


def test_given_values__win_over_family_defaults_and_null_is_a_value() -> None:
    run = effective(gradient_clipping=None, model={"hidden_size": 64}, batch_size=8)
    assert isinstance(run.model, RnnConfig)
    assert (run.model.hidden_size, run.model.embedding_size) == (64, 128)
    assert (run.gradient_clipping, run.batch_size) == (None, 8)


def test_optimizer__spells_torch_defaults_out() -> None:
    assert effective().optimizer.betas == (0.9, 0.999)
    assert effective(optimizer={"name": "sgd"}).optimizer.eps is None
    assert effective(optimizer={"name": "adam", "eps": 1e-6}).optimizer.eps == 1e-6


def test_weight_decay__leaves_biases_and_norms_alone_unless_asked_and_says_so() -> None:
    def excluded(**optimizer: object) -> tuple[str, ...]:
        return effective(optimizer=optimizer).optimizer.weight_decay_exclude

    assert excluded() == excluded(name="sgd") == ("bias", "norm")
    assert excluded(weight_decay_exclude=[]) == ()
    assert excluded(weight_decay_exclude=["norm", "embedding", "norm"]) == ("embedding", "norm")
    assert refusal(optimizer={"weight_decay_exclude": ["head"]}) == (
        ErrorCode.INVALID_INPUT,
        "`optimizer.weight_decay_exclude.0` must be 'bias', 'embedding' or 'norm', you gave 'head'.",
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"min_learning_rate": 1e-4},
            "`min_learning_rate` has no effect with `lr_schedule` 'constant': leave it out, or take 'linear' or"
            " 'cosine'.",
        ),
        (
            {"min_learning_rate": 0.01, "lr_schedule": "cosine"},
            "`min_learning_rate` is 0.01 but must not exceed `learning_rate`, which is 0.002.",
        ),
        ({"min_learning_rate": -1}, "`min_learning_rate` must be greater than or equal to 0, you gave -1."),
    ],
)
def test_min_learning_rate__that_no_schedule_comes_down_to_is_refused(fields: dict[str, object], sentence: str) -> None:
    assert refusal(**fields) == (ErrorCode.INVALID_INPUT, sentence)


def test_first_weights_and_places_of_dropout__are_named_as_each_preset_has_them() -> None:
    def said(**fields: object) -> tuple[str, str, bool]:
        model = recurrent(effective(tokenizer={"method": "char"}, **fields))
        return model.initialization, model.dropout_places, model.tie_word_embeddings

    assert said(model_family="gru") == ("keyboard", "all", False)
    assert said(model_family="gru", model_size="base") == ("torch", "all", False)
    assert said(model_family="lstm", model={"tie_word_embeddings": True}) == ("keyboard", "between_layers", True)
    assert said(model_family="char_lstm") == ("keyboard", "between_layers", True)
    assert said(model_family="lstm", model_size="paper") == ("torch", "between_layers", False)
    assert said(model_family="char_lstm", model_size="paper") == ("torch", "between_layers", False)
    given: dict[str, object] = {"initialization": "torch", "dropout_places": "all"}
    assert said(model_family="char_lstm", model=given) == ("torch", "all", True)
    assert "says between_layers" in refusal(model_family="lstm", model_size="paper", model=given)[1]
    assert "`model.dropout_places` is not a size of gpt2" in refusal(model_family="gpt2", model=given)[1]


def test_refusals__name_what_does_not_fit() -> None:
    assert refusal(model_size="huge")[0] is ErrorCode.INVALID_MODEL_SIZE
    assert "tiny, small, base" in refusal(model_size="huge")[1]
    assert refusal(model={"architecture": "gru"})[1].startswith("`model.architecture` must be 'lstm'")
    assert "give one of both" in refusal(model_size="tiny", model={"hidden_size": 3})[1]


def test_frozen_embeddings__without_a_run_to_take_them_from_are_refused() -> None:
    code, sentence = refusal(freeze_embeddings=True)
    assert code is ErrorCode.INVALID_INPUT
    assert sentence.startswith("`freeze_embeddings` needs `init_from_run_id`")


@pytest.mark.parametrize(
    ("family", "hidden_size", "expected"),
    [("gpt2", 128, 512), ("bert", 64, 256), ("llama", 128, 384), ("llama", 96, 256), ("qwen", 64, 192)],
)
def test_intermediate_size__that_is_not_given_follows_from_the_hidden_size(
    family: str, hidden_size: int, expected: int
) -> None:
    """4 x the hidden size; llama and qwen 8/3 of it, rounded up to a multiple of 64: 341.3 to 384, 256.0 stays."""
    heads: dict[str, object] = {"hidden_size": hidden_size, "num_attention_heads": 2}
    shared: dict[str, object] = {"num_key_value_heads": 1} if family in ("llama", "qwen") else {}

    def inner(**fields: object) -> object:
        sizes: dict[str, object] = dict(effective(model_family=family, **fields).model)
        return sizes["intermediate_size"]

    assert inner(model={**heads, **shared}) == expected
    assert inner(model={**heads, **shared, "intermediate_size": 100}) == 100


@pytest.mark.parametrize(("family", "expected"), [("gpt2", 3072), ("llama", 11008), ("qwen", 4864)])
def test_intermediate_size__of_a_preset_stays_where_its_width_is_repeated(family: str, expected: int) -> None:
    paper = effective(model_family=family, model_size="paper").model
    run = effective(model_family=family, model_size="paper", model={"hidden_size": paper.hidden_size})
    sizes: dict[str, object] = dict(run.model)
    assert sizes["intermediate_size"] == expected


def parent_of(fields: dict[str, object]) -> tuple[RunManifest, TokenizerManifest]:
    """A completed run of these fields, and its tokenizer."""
    run = effective(**fields)
    record = RunRecord(
        run_id="parent",
        user_id=None,
        created_at=now(),
        request=parse(TrainRequest, {"model_family": "char_lstm", "corpus": "kk", **fields}),
        effective=run,
        request_hash=request_hash(run),
    )
    config: dict[str, object] = run.tokenizer.model_dump(mode="json")
    tokenizer = char_tokenizer(["ab"], ["a"], **config)
    return manifest_of(record, "completed"), tokenizer.manifest


def child(parent_fields: dict[str, object], **fields: object) -> EffectiveRequest:
    parent, tokenizer = parent_of(parent_fields)
    values: dict[str, object] = {"model_family": "char_lstm", "corpus": "kk", "init_from_run_id": "parent", **fields}
    return resolve(
        parse(TrainRequest, values),
        corpus=CORPUS,
        validation_corpus=None,
        test_corpus=None,
        parent=parent,
        tokenizer=tokenizer,
    )


SMALL_LSTM: dict[str, object] = {
    "model_family": "lstm",
    "model": {"embedding_size": 16, "hidden_size": 24, "num_layers": 1, "dropout": 0.1},
    "tokenizer": {"method": "char", "min_frequency": 2},
}


def test_warm_start__takes_sizes_and_tokenizer_from_its_parent_and_all_else_from_the_request() -> None:
    run = child(SMALL_LSTM, model_family="lstm", learning_rate=0.7, model={"dropout": 0.3})
    parent, tokenizer = parent_of(SMALL_LSTM)
    changed: dict[str, object] = {"dropout": 0.3}
    assert run.model == parent.effective.model.model_copy(update=changed)
    assert (run.tokenizer, run.tokenizer_id) == (CharTokenizerConfig(min_frequency=2), tokenizer.tokenizer_id)
    assert (run.init_from_run_id, run.learning_rate) == ("parent", 0.7)


def test_warm_start__may_spell_out_what_its_parent_has() -> None:
    same = child(SMALL_LSTM, **SMALL_LSTM)
    assert same.model == effective(**SMALL_LSTM).model
    assert child({}, model_size="small").model == effective().model


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"model_family": "gru"},
            "`model_family` is 'gru', but its parent run 'parent' has",
        ),
        (
            {"model_family": "lstm", "model": {"bidirectional": True}, "objective": "masked_lm"},
            "`model.bidirectional` would be True, but its parent run 'parent' has False",
        ),
        ({"model": {"hidden_size": 25}}, "`model.hidden_size` would be 25, but its parent run 'parent'"),
        ({"model": {"tie_word_embeddings": True}}, "`model.tie_word_embeddings` would be True"),
        ({"model_size": "tiny"}, "`model.embedding_size` would be 32"),
        ({"tokenizer": {"method": "char"}}, "`tokenizer` differs from that of the parent run 'parent'"),
        ({"tokenizer_id": "char-0"}, "`tokenizer_id` is 'char-0', but its parent run 'parent' has"),
    ],
)
def test_warm_start__refuses_what_does_not_fit_its_parent(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(AppError, match=re.escape(sentence)) as caught:
        child(SMALL_LSTM, **{"model_family": "lstm"} | fields)
    assert caught.value.code is ErrorCode.MODEL_INCOMPATIBLE


def test_optimizer__refuses_values_that_mean_nothing_to_it() -> None:
    assert refusal(optimizer={"name": "sgd", "betas": [0.1, 0.2]}) == (
        ErrorCode.INVALID_INPUT,
        "`optimizer.betas` is not an option of sgd: leave it out.",
    )


def test_tokenizer__is_given_once() -> None:
    with pytest.raises(AppError, match="give `tokenizer` or `tokenizer_id`, not both"):
        effective(tokenizer={"method": "char"}, tokenizer_id="char-0")


def test_hash__does_not_count_labels_names_and_presets() -> None:
    same = [
        effective(label="mine", tags=["a"], provenance={"source_corpus": "web"}),
        effective(CorpusRef(name="other", sha256="a" * 64, bytes=10)),
        effective(model_size="small"),
        effective(optimizer={"betas": [0.9, 0.999]}),
        effective(
            model_family="lstm",
            tokenizer={"method": "char"},
            model={
                "embedding_size": 128,
                "hidden_size": 256,
                "num_layers": 2,
                "dropout": 0.1,
                "tie_word_embeddings": True,
            },
            **{"max_seq_len": 256, "batch_size": 64, "learning_rate": 0.002},
            **{"holdout_fraction": 0.05, "test_fraction": 0.1},
        ),
    ]

    assert {request_hash(run) for run in same} == {request_hash(effective())}


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"num_epochs": 6},
        {"model": {"hidden_size": 255}},
        {"init_from_run_id": "parent"},
        {"data_num_workers": 0},
        {"sample_every_steps": 7},
        {"threads": 2},
    ],
)
def test_hash__counts_what_changes_the_result(fields: dict[str, object]) -> None:
    assert request_hash(effective(**fields)) != request_hash(effective())


def test_hash__counts_frozen_embeddings() -> None:
    frozen = effective(init_from_run_id="parent", freeze_embeddings=True)
    assert request_hash(frozen) != request_hash(effective(init_from_run_id="parent"))


def test_hash__counts_the_text() -> None:
    assert request_hash(effective(CorpusRef(name="kk", sha256="b" * 64, bytes=10))) != request_hash(effective())


def test_char_lstm__refuses_a_trained_tokenizer_of_another_method() -> None:
    words = tokenizer_of("word", ["a b", "b c"]).manifest
    request = parse(TrainRequest, {"model_family": "char_lstm", "corpus": "kk", "tokenizer_id": words.tokenizer_id})
    with pytest.raises(AppError) as caught:
        resolve(request, corpus=CORPUS, validation_corpus=None, test_corpus=None, tokenizer=words)
    assert caught.value.code is ErrorCode.MODEL_INCOMPATIBLE
    assert caught.value.message == (
        f"`model_family` 'char_lstm' takes a 'char' tokenizer only, and '{words.tokenizer_id}' is a 'word' tokenizer:"
        " take lstm."
    )
