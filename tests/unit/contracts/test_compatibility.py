"""Incompatible request fields are refused with one sentence; model sizes are those of the family."""

from typing import get_args

import pytest

from tests.support.families import CAUSAL, FAMILIES, TRANSFORMERS, effective_of, request_of
from tests.support.tiny_models import char_tokenizer
from trainer.config.compatibility import check_generates, is_unidirectional
from trainer.config.presets import request_hash, resolve
from trainer.config.train_request import train_request
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import PRESETS, BertConfig, Gpt2Config, LlamaConfig, ModelFamily, QwenConfig
from trainer.contracts.runs import CorpusRef, EffectiveRequest, TrainRequest
from trainer.contracts.tokenizers import (
    BpeTokenizerConfig,
    CharTokenizerConfig,
    SentencePieceTokenizerConfig,
    SpecialTokens,
    TokenizerConfig,
    WordPieceTokenizerConfig,
    WordTokenizerConfig,
)

CORPUS = CorpusRef(name="kk", sha256="a" * 64, bytes=10)
CHAR: dict[str, object] = {"corpus": "kk", "tokenizer": {"method": "char"}}


def effective(**fields: object) -> EffectiveRequest:
    request = parse(TrainRequest, CHAR | fields)
    return resolve(request, corpus=CORPUS, validation_corpus=None, test_corpus=None)


def refused(**fields: object) -> tuple[ErrorCode, str, str]:
    """Code, path and sentence, the same at the edge and where the request is resolved."""
    with pytest.raises(AppError) as at_the_edge:
        train_request(CHAR | fields)
    with pytest.raises(AppError) as resolved:
        effective(**fields)
    assert at_the_edge.value.message == resolved.value.message
    [problem] = at_the_edge.value.details
    return at_the_edge.value.code, problem.path, problem.message


def refusal(**fields: object) -> tuple[ErrorCode, str]:
    with pytest.raises(AppError) as caught:
        effective(**fields)
    return caught.value.code, caught.value.message


NOT_BEHIND = "must be 'causal_lm' for {}: it cannot see what comes after a masked token"
IN_SIGHT = "must be false: with causal_lm the model would see what it is to predict"
BOTH_SIDES: dict[str, object] = {"bidirectional": True}
MATRIX: list[tuple[dict[str, object], str, str]] = [
    ({"model_family": "bert", "objective": "causal_lm"}, "objective", "must be 'masked_lm' for bert: it reads both"),
    ({"model_family": "gpt2", "objective": "masked_lm"}, "objective", NOT_BEHIND.format("gpt2")),
    ({"model_family": "llama", "objective": "masked_lm"}, "objective", NOT_BEHIND.format("llama")),
    ({"model_family": "qwen", "objective": "masked_lm"}, "objective", NOT_BEHIND.format("qwen")),
    ({"model_family": "lstm", "model": BOTH_SIDES}, "model.bidirectional", IN_SIGHT),
    ({"model_family": "gru", "model": BOTH_SIDES}, "model.bidirectional", IN_SIGHT),
    ({"model_family": "rnn", "model": BOTH_SIDES}, "model.bidirectional", IN_SIGHT),
    (
        {"model_family": "char_lstm", "objective": "masked_lm", "model": BOTH_SIDES},
        "model.bidirectional",
        "must be false for char_lstm, which has one direction: take lstm",
    ),
    (
        {"model_family": "char_lstm", "tokenizer": {"method": "bpe"}},
        "tokenizer.method",
        "must be 'char' for char_lstm: take lstm for another tokenizer",
    ),
    (
        {"model_family": "gru", "compute": {"gradient_checkpointing": True}},
        "compute.gradient_checkpointing",
        "is for transformers",
    ),
    ({"model_family": "bert", "sample_every_steps": 5}, "sample_every_steps", "must be left out"),
]


@pytest.mark.parametrize(("fields", "path", "sentence"), MATRIX)
def test_pair__that_cannot_be_trained_is_refused(fields: dict[str, object], path: str, sentence: str) -> None:
    code, found, message = refused(**fields)
    assert (code, found) == (ErrorCode.MODEL_INCOMPATIBLE, path)
    assert message.startswith(f"`{path}` {sentence}")


@pytest.mark.parametrize("name", FAMILIES)
def test_pair__that_can_be_trained_is_taken(name: str) -> None:
    effective_of(name)
    given: dict[str, object] = request_of(name).model_dump(mode="json", exclude_unset=True)
    train_request(given)


METHOD_OF = {"lstm": "word", "gru": "word", "rnn": "word", "gpt2": "bpe", "llama": "bpe", "qwen": "bpe"}


@pytest.mark.parametrize(("family", "method"), [("char_lstm", "char"), ("bert", "wordpiece"), *METHOD_OF.items()])
def test_tokenizer_options_without_a_method__are_of_the_one_that_the_model_has(family: str, method: str) -> None:
    options: dict[str, object] = {"model_family": family, "tokenizer": {"normalization": {"lowercase": True}}}
    request = train_request(CHAR | options)
    assert request.tokenizer is not None and request.tokenizer.method == method


def test_one_direction__may_be_trained_to_fill_gaps() -> None:
    run = effective(model_family="lstm", objective="masked_lm")
    assert (run.objective, run.tokenizer) == ("masked_lm", CharTokenizerConfig(mask_token=True))


def test_sides__are_one_for_all_but_bert_and_two_directions() -> None:
    one_sided = [name for name in FAMILIES if is_unidirectional(effective_of(name).model)]
    assert one_sided == CAUSAL


def test_bert__predicts_masked_tokens_where_nothing_else_is_asked() -> None:
    run = effective(model_family="bert")
    assert (run.objective, run.mlm_probability) == ("masked_lm", 0.15)


def test_generation__is_refused_for_a_model_that_fills_gaps() -> None:
    check_generates("causal_lm")
    with pytest.raises(AppError, match="cannot generate text") as caught:
        check_generates("masked_lm")
    assert caught.value.code is ErrorCode.MODEL_INCOMPATIBLE


def test_mask_token__is_made_by_a_masked_run_and_missed_in_a_tokenizer_without_one() -> None:
    without: dict[str, object] = {"method": "char", "mask_token": False}
    assert refusal(model_family="bert", tokenizer=without) == (
        ErrorCode.MODEL_INCOMPATIBLE,
        "`tokenizer.mask_token` must be true: masked_lm needs the token.",
    )
    with_mask: dict[str, object] = {"method": "char", "mask_token": True}
    assert effective(model_family="bert", tokenizer=with_mask).tokenizer == CharTokenizerConfig(mask_token=True)
    request = parse(TrainRequest, {"corpus": "kk", "model_family": "bert", "tokenizer_id": "char-1"})
    for lacking, manifest in (
        (True, char_tokenizer(["ab"]).manifest),
        (False, char_tokenizer(["ab"], mask_token=True).manifest),
    ):
        named: dict[str, object] = {"tokenizer_id": "char-1"}
        given = manifest.model_copy(update=named)
        if lacking:
            with pytest.raises(AppError, match="mask token, which 'char-1' has not") as caught:
                resolve(request, corpus=CORPUS, validation_corpus=None, test_corpus=None, tokenizer=given)
            assert caught.value.code is ErrorCode.MODEL_INCOMPATIBLE
        else:
            resolve(request, corpus=CORPUS, validation_corpus=None, test_corpus=None, tokenizer=given)


STYLES: list[tuple[dict[str, object], TokenizerConfig]] = [
    ({"model_family": "gpt2"}, BpeTokenizerConfig(special_style="gpt2")),
    ({"model_family": "bert"}, WordPieceTokenizerConfig(special_style="bert")),
    ({"model_family": "lstm"}, WordTokenizerConfig()),
    ({"model_family": "llama", "tokenizer": {"method": "wordpiece"}}, WordPieceTokenizerConfig(special_style="gpt2")),
    (
        {"model_family": "bert", "tokenizer": {"method": "sentencepiece"}},
        SentencePieceTokenizerConfig(special_style="bert"),
    ),
    (
        {"model_family": "lstm", "objective": "masked_lm", "tokenizer": {"method": "bpe"}},
        BpeTokenizerConfig(special_style="gpt2_mask"),
    ),
    (
        {"model_family": "bert", "tokenizer": {"method": "bpe", "special_style": "gpt2_mask"}},
        BpeTokenizerConfig(special_style="gpt2_mask"),
    ),
    (
        {
            "model_family": "bert",
            "tokenizer": {"method": "bpe", "special_style": "gpt2", "special_tokens": {"mask_token": "<gap>"}},
        },
        BpeTokenizerConfig(special_style="gpt2", special_tokens=parse(SpecialTokens, {"mask_token": "<gap>"})),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), STYLES)
def test_tokenizer__is_that_of_the_family_with_its_special_tokens_unless_others_are_asked_for(
    fields: dict[str, object], expected: TokenizerConfig
) -> None:
    request = parse(TrainRequest, {"corpus": "kk", **fields})
    run = resolve(request, corpus=CORPUS, validation_corpus=None, test_corpus=None)
    assert run.tokenizer == expected


def test_tokenizer__without_a_mask_token_is_refused_where_gaps_are_filled() -> None:
    word: dict[str, object] = {"method": "word"}
    assert refusal(model_family="lstm", objective="masked_lm", tokenizer=word) == (
        ErrorCode.MODEL_INCOMPATIBLE,
        "`tokenizer.method` must not be 'word': masked_lm needs a mask token, and words have none.",
    )
    plain: dict[str, object] = {"method": "bpe", "special_style": "gpt2"}
    assert refusal(model_family="bert", tokenizer=plain) == (
        ErrorCode.MODEL_INCOMPATIBLE,
        "`tokenizer.special_style` must be 'gpt2_mask' or 'bert': masked_lm needs a mask token.",
    )


def test_presets__every_family_has_every_size_and_unknown_ones_are_refused() -> None:
    families: tuple[ModelFamily, ...] = get_args(ModelFamily)
    for family in families:
        for size in ("tiny", "small", "base", "paper"):
            assert effective(model_family=family, model_size=size).model_size == size
        assert refusal(model_family=family, model_size="huge") == (
            ErrorCode.INVALID_MODEL_SIZE,
            "`model_size` must be one of tiny, small, base, paper, you gave 'huge'.",
        )
    assert {len(sizes) for sizes in PRESETS.values()} == {4}


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_tiny_transformer__is_two_layers_of_64_with_two_heads(family: str) -> None:
    model = effective(model_family=family, model_size="tiny", max_seq_len=48).model
    assert isinstance(model, (Gpt2Config, BertConfig, LlamaConfig, QwenConfig))
    assert (model.num_layers, model.hidden_size, model.num_attention_heads) == (2, 64, 2)
    assert model.max_position_embeddings == 48
    assert model.activation_function == ("silu" if family in ("llama", "qwen") else "gelu")


SIZES: list[tuple[dict[str, object], str]] = [
    (
        {"model_family": "gpt2", "model": {"hidden_size": 64, "num_attention_heads": 3}},
        "`hidden_size` must be divisible by `num_attention_heads`; 64 is not by 3",
    ),
    (
        {"model_family": "bert", "model": {"hidden_size": 64, "embedding_size": 32}},
        "`model.embedding_size` is not a size of bert, which has architecture, hidden_size, num_layers",
    ),
    (
        {"model_family": "qwen", "model": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 3}},
        "`num_attention_heads` must be divisible by `num_key_value_heads`; 4 is not by 3",
    ),
    (
        {"model_family": "llama", "model": {"hidden_size": 6, "num_attention_heads": 2, "num_key_value_heads": 2}},
        "must be even, as positions turn pairs of numbers; it is 3",
    ),
    (
        {"model_family": "llama", "model": {"dropout": 0.1}},
        "`dropout` must be 0, as this architecture has `attention_dropout` only; you gave 0.1",
    ),
    ({"model_family": "gpt2", "model": {"tie_word_embeddings": False}}, "`model.tie_word_embeddings` must be True"),
    (
        {"model_family": "gpt2", "model": {"initialization": "torch"}},
        "`model.initialization` is not a size of gpt2, which has",
    ),
    (
        {"model_family": "lstm", "model": {"num_attention_heads": 2}},
        "`model.num_attention_heads` is not a size of lstm, which has architecture,",
    ),
]


@pytest.mark.parametrize(("fields", "sentence"), SIZES)
def test_sizes__that_do_not_fit_are_refused_with_both_named(fields: dict[str, object], sentence: str) -> None:
    code, message = refusal(**fields)
    assert code is ErrorCode.INVALID_INPUT
    assert sentence in message


def test_rows__longer_than_the_positions_are_refused() -> None:
    code, message = refusal(model_family="gpt2", max_seq_len=64, model={"max_position_embeddings": 32})
    assert code is ErrorCode.MODEL_INCOMPATIBLE
    assert message.startswith("`max_seq_len` is 64, but `model.max_position_embeddings` is 32: make")
    assert effective(model_family="gpt2", max_seq_len=32, model={"max_position_embeddings": 64}).max_seq_len == 32


def test_hash__counts_what_changes_the_result() -> None:
    plain = effective(model_family="lstm")
    same = effective(model_family="lstm", mlm_probability=0.4, compute={}, model={"bidirectional": False})
    assert request_hash(plain) != request_hash(same)  # a model block takes away the defaults of the family
    assert request_hash(effective(model_family="lstm", mlm_probability=0.4)) == request_hash(plain)
    masked = effective(model_family="lstm", objective="masked_lm")
    assert request_hash(masked) != request_hash(plain)
    assert request_hash(effective(model_family="lstm", objective="masked_lm", mlm_probability=0.4)) != request_hash(
        masked
    )


def test_configs__know_their_defaults() -> None:
    sizes = {"num_layers": 1, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    one = parse(Gpt2Config, sizes | {"max_position_embeddings": 8})
    other = parse(LlamaConfig, sizes | {"max_position_embeddings": 8, "num_key_value_heads": 2})
    assert (one.tie_word_embeddings, other.tie_word_embeddings, one.sizes()) == (True, False, "8/8/1, 2 heads")
