"""The request for a tokenizer: its fields, its methods, its id."""

import pytest

from tests.support import tiny_request
from tests.support.runs import record
from tests.support.tiny_models import char_tokenizer
from trainer.config.presets import resolve
from trainer.config.tokenizer_request import config_of, record_of_run, run_source, tokenizer_id_of
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef, EffectiveRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.contracts.tokenizers import (
    BpeTokenizerConfig,
    CharTokenizerConfig,
    Normalization,
    SentencePieceTokenizerConfig,
    TokenizerConfig,
    WordPieceTokenizerConfig,
    WordTokenizerConfig,
)

MINIMAL: dict[str, object] = {"method": "char", "corpora": ["a"]}


def request(**fields: object) -> TokenizerTrainRequest:
    return parse(TokenizerTrainRequest, MINIMAL | fields)


def refs(*digits: str) -> tuple[CorpusRef, ...]:
    return tuple(CorpusRef(name=f"text {digit}", sha256=digit * 64, bytes=1) for digit in digits)


def test_request__has_the_defaults_of_the_contract() -> None:
    asked: dict[str, object] = request().model_dump(mode="json")

    assert asked == {
        "method": "char",
        "corpora": ["a"],
        "vocab_size": None,
        "min_frequency": None,
        "normalization": {"form": "NFC", "lowercase": False},
        "model_type": None,
        "byte_fallback": None,
        "special_style": None,
        "special_tokens": None,
        "documents": "line",
        "split_by": None,
        "holdout_fraction": 0.1,
        "test_fraction": 0.1,
        "seed": 42,
        "threads": 0,
        "label": None,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": None},
        {"corpora": []},
        {"corpora": ["a"] * 17},
        {"corpora": [""]},
        {"corpora": "a"},
        {"vocab_size": 0},
        {"min_frequency": 0},
        {"normalization": {"form": "NFD"}},
        {"holdout_fraction": 0},
        {"holdout_fraction": 0.5},
        {"test_fraction": 0.5},
        {"split_by": "word"},
        {"seed": -1},
        {"threads": -1},
        {"label": ""},
        {"label": "a\nb"},
        {"special_tokens": 3},
        {"vocabulary": 7},
    ],
)
def test_request__wrong_and_unknown_fields_are_refused_by_name(wrong: dict[str, object]) -> None:
    [field] = wrong
    with pytest.raises(AppError, match=field) as caught:
        request(**wrong)
    assert caught.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("method", ["morse", "character", ""])
def test_method__that_is_not_there_is_told_with_those_that_are(method: str) -> None:
    with pytest.raises(AppError, match="must be one of char") as caught:
        config_of(request(method=method))
    assert caught.value.code is ErrorCode.UNSUPPORTED_BACKEND


@pytest.mark.parametrize("method", ["char", "word"])
def test_special_tokens_of_characters_and_words__keep_their_names(method: str) -> None:
    with pytest.raises(AppError, match="`special_tokens` must be null: this method keeps its own") as caught:
        config_of(request(method=method, special_tokens={"bos_token": "<b>"}))
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert config_of(request(method=method, special_tokens={})) == config_of(request(method=method))


@pytest.mark.parametrize("method", ["bpe", "wordpiece", "sentencepiece"])
def test_special_tokens__are_part_of_the_id_and_an_empty_map_is_none(method: str) -> None:
    def id_of(**fields: object) -> str:
        return tokenizer_id_of(request(method=method, **fields), refs("0"))

    named: dict[str, object] = {"unk_token": "<u>", "pad_token": "<p>"}
    other_order = dict(reversed(named.items()))
    assert id_of(special_tokens={}) == id_of(special_tokens=None) == id_of()
    assert id_of(special_tokens=named) == id_of(special_tokens=other_order) != id_of()


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({"bos_token": ""}, "`special_tokens.bos_token` must be letters"),
        ({"bos_token": "<>"}, "`special_tokens.bos_token` must be letters"),
        ({"bos_token": "<.>"}, "`special_tokens.bos_token` must be letters"),
        ({"bos_token": "a"}, "`special_tokens.bos_token` must be letters"),
        ({"bos_token": "<a b>"}, "`special_tokens.bos_token` must be letters"),
        ({"bos_token": "<a:1>"}, "`special_tokens.bos_token` must be letters"),
        ({"bos_token": "<é>"}, "`special_tokens.bos_token` must be letters"),
        ({"bos_token": "##a"}, "`special_tokens.bos_token` must be letters"),
        ({"bos_token": "<a>\n"}, "`special_tokens.bos_token` must be letters"),
        ({"bos_token": 3}, "`special_tokens.bos_token` must be text"),
        ({"begin": "<b>"}, "unknown field `special_tokens.begin`"),
        ({"eos_token": "<e>", "sep_token": "<e>"}, "`eos_token` or `sep_token`, not both"),
        ({"bos_token": "<a>", "eos_token": "<a>"}, "must have different names: one is given twice"),
        ({"mask_token": "[CLS]"}, "must have different names: \\[CLS\\] is already the `bos_token`"),
    ],
)
def test_special_tokens__that_would_not_be_told_apart_are_refused(names: object, sentence: str) -> None:
    with pytest.raises(AppError, match=sentence) as caught:
        request(special_tokens=names)
    assert caught.value.code is ErrorCode.INVALID_INPUT


def test_char__takes_its_options_and_keeps_its_special_tokens() -> None:
    asked = request(vocab_size=9, min_frequency=2, normalization={"lowercase": True})
    assert config_of(asked) == CharTokenizerConfig(
        vocab_size=9, min_frequency=2, normalization=Normalization(lowercase=True)
    )
    with pytest.raises(AppError, match="keeps its own") as caught:
        config_of(request(special_tokens={"bos_token": "<s>"}))
    assert caught.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("char", CharTokenizerConfig(vocab_size=None, min_frequency=1)),
        ("word", WordTokenizerConfig(vocab_size=None, min_frequency=1)),
        ("bpe", BpeTokenizerConfig(vocab_size=8000, min_frequency=1)),
        ("wordpiece", WordPieceTokenizerConfig(vocab_size=8000, min_frequency=2)),
        ("sentencepiece", SentencePieceTokenizerConfig(model_type="unigram", vocab_size=8000)),
    ],
)
def test_every_method__has_its_own_defaults(method: str, config: TokenizerConfig) -> None:
    assert config_of(request(method=method)) == config


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("char", "special_style", "bert"),
        ("word", "model_type", "bpe"),
        ("bpe", "model_type", "bpe"),
        ("wordpiece", "byte_fallback", True),
        ("byte", "min_frequency", 2),
        ("sentencepiece", "min_frequency", 2),
    ],
)
def test_option_of_another_method__is_refused(method: str, option: str, value: object) -> None:
    with pytest.raises(AppError, match=f"`{option}` is not an option of method '{method}': leave it out") as caught:
        config_of(request(method=method, **{option: value}))
    assert caught.value.code is ErrorCode.INVALID_INPUT


def test_id__differs_for_whatever_changes_the_result_and_for_nothing_else() -> None:
    one = tokenizer_id_of(request(), refs("0"))
    different = [
        one,
        tokenizer_id_of(request(), refs("1")),
        tokenizer_id_of(request(), refs("0", "1")),
        tokenizer_id_of(request(), refs("1", "0")),
        tokenizer_id_of(request(vocab_size=9), refs("0")),
        tokenizer_id_of(request(min_frequency=2), refs("0")),
        tokenizer_id_of(request(normalization={"lowercase": True}), refs("0")),
        tokenizer_id_of(request(holdout_fraction=0.02), refs("0")),
        tokenizer_id_of(request(documents="stream"), refs("0")),
        tokenizer_id_of(request(seed=1), refs("0")),
    ]

    assert len(set(different)) == len(different)
    assert tokenizer_id_of(request(label="x", threads=3, corpora=["b"]), refs("0")) == one
    renamed = refs("0")[0].model_copy(update=dict[str, object](name="other", bytes=7))
    assert tokenizer_id_of(request(), (renamed,)) == one


def test_id__is_the_same_in_every_release() -> None:
    # SHA-256 of {"method":"char","config":{},"corpora":["0…0"],"split":["line",0.1,0.1,42]}
    assert tokenizer_id_of(request(), refs("0")) == "char-0c373da65e55d39c"
    # the same of {"method":"bpe","config":{}, …}: a map of special tokens that is not given does not count
    assert tokenizer_id_of(request(method="bpe"), refs("0")) == "bpe-d39758c738b52b3f"


def effective(*texts: CorpusRef | None, **fields: object) -> EffectiveRequest:
    corpus, validation, test = (*(texts or refs("0")), None, None)[:3]
    assert corpus is not None
    return resolve(tiny_request(**fields), corpus=corpus, validation_corpus=validation, test_corpus=test)


def test_source_of_a_runs_tokenizer__differs_for_whatever_changes_it_and_for_nothing_else() -> None:
    zero, one = refs("0", "1")
    different = [
        effective(),
        effective(one),
        effective(zero, one),
        effective(zero, None, one),
        effective(tokenizer={"method": "char", "vocab_size": 9}),
        effective(tokenizer={"method": "char", "normalization": {"lowercase": True}}),
        effective(holdout_fraction=0.2),
        effective(test_fraction=0.2),
        effective(split_seed=1),
        effective(split_by="position"),
        effective(documents="stream", split_by="position"),
    ]
    assert len({run_source(run) for run in different}) == len(different)
    same = effective(changed(zero, name="other"), seed=7, batch_size=2, label="x")
    assert run_source(same) == run_source(effective())


def test_tokenizer_of_a_run__has_the_folder_of_its_file_or_its_corpus_as_label() -> None:
    run, (text,) = record(), refs("0")
    manifest = char_tokenizer(["ab"]).manifest
    attached = changed(run.effective, corpus=changed(text, name=text.sha256))
    named = changed(run.effective, corpus=changed(text, name="turkic/kk.txt"))
    mine = tiny_request(label="mine")

    def label(**fields: object) -> str | None:
        return record_of_run(changed(run, **fields), manifest).request.label

    assert label(requested_paths=("tokenizers/kk", "models/kk", "logs"), request=mine) == "tokenizers/kk"
    assert label(requested_paths=("k" * 65, "m", "l")) == "k" * 64
    assert label(requested_paths=("k\u200bk", "m", "l")) is None
    assert label(effective=named, request=mine) == "kk", "runs of other people may have it, too"
    assert label(effective=attached, request=mine) == "mine"
    assert label(effective=attached) is None


def test_record_of_a_runs_tokenizer__is_the_request_that_trains_it_alone() -> None:
    options: dict[str, object] = {"vocab_size": 9, "min_frequency": 2, "normalization": {"lowercase": True}}
    manifest = char_tokenizer(["ab", "c"], ["a b"], mask_token=True, **options).manifest
    split: dict[str, object] = {"holdout_fraction": 0.2, "test_fraction": 0.3, "split_by": "position"}
    run = record()
    stored = record_of_run(
        changed(run, effective=changed(run.effective, **split, split_seed=7, documents="stream")), manifest
    )
    asked = request(corpora=["text"], label="text", documents="stream", seed=7, **options, **split)
    assert stored.request == asked
    assert (stored.tokenizer_id, stored.created_at) == (manifest.tokenizer_id, manifest.created_at)
    assert stored.corpora == (run.effective.corpus,)
