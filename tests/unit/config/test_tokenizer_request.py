"""The request for a tokenizer: its fields, its methods, its id."""

from collections.abc import Mapping

import pytest

from tests.support import tiny_request
from tests.support.refusals import refused
from tests.support.runs import record
from tests.support.tiny_models import char_tokenizer
from trainer.config.presets import resolve
from trainer.config.tokenizer_request import config_of, record_of_run, run_source, tokenizer_id_of
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
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

Fields = dict[str, object]


def request(**fields: object) -> TokenizerTrainRequest:
    return parse(TokenizerTrainRequest, {"method": "char", "corpora": ["a"], **fields})


def refs(*digits: str) -> tuple[CorpusRef, ...]:
    return tuple(CorpusRef(name=f"text {digit}", sha256=digit * 64, bytes=1) for digit in digits)


def test_request__has_the_defaults_of_the_contract() -> None:
    asked: Fields = request().model_dump(mode="json", exclude_none=True)
    assert asked == {
        **{"method": "char", "corpora": ["a"], "normalization": {"form": "NFC", "lowercase": False}, "seed": 42},
        **{"documents": "line", "holdout_fraction": 0.1, "test_fraction": 0.1, "threads": 0},
    }


WRONG: dict[str, list[object]] = {
    **{"method": [None], "corpora": [[], ["a"] * 17, [""], "a"], "vocab_size": [0], "min_frequency": [0]},
    **{"normalization": [{"form": "NFD"}], "holdout_fraction": [0, 0.5], "test_fraction": [0.5], "split_by": ["word"]},
    **{"seed": [-1], "threads": [-1], "label": ["", "a\nb"], "special_tokens": [3], "vocabulary": [7]},
}


@pytest.mark.parametrize("field", WRONG)
def test_request__wrong_and_unknown_fields_are_refused_by_name(field: str) -> None:
    for value in WRONG[field]:
        with refused(ErrorCode.INVALID_INPUT, field):
            request(**{field: value})


LETTERS = "`special_tokens.bos_token` must be letters"
BAD_NAMES: list[tuple[Mapping[str, object], str]] = [
    *(({"bos_token": name}, LETTERS) for name in ("", "<>", "<.>", "a", "<a b>", "<a:1>", "<é>", "##a", "<a>\n")),
    ({"bos_token": 3}, "`special_tokens.bos_token` must be text"),
    ({"begin": "<b>"}, "unknown field `special_tokens.begin`"),
    ({"eos_token": "<e>", "sep_token": "<e>"}, "`eos_token` or `sep_token`, not both"),
    ({"bos_token": "<a>", "eos_token": "<a>"}, "must have different names: one is given twice"),
    ({"mask_token": "[CLS]"}, "must have different names: [CLS] is already the `bos_token`"),
]


@pytest.mark.parametrize(("names", "sentence"), BAD_NAMES)
def test_special_tokens__that_cannot_be_distinguished_are_refused(names: Mapping[str, object], sentence: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, sentence):
        request(special_tokens=names)


def test_unknown_method__is_refused_with_the_known_ones() -> None:
    for method in ("morse", "character", ""):
        with refused(ErrorCode.UNSUPPORTED_BACKEND, "must be one of char"):
            config_of(request(method=method))


LOWERCASE = Normalization(lowercase=True)
RARE: Fields = {"vocab_size": 9, "min_frequency": 2, "normalization": {"lowercase": True}}
CONFIGS: list[tuple[Fields, TokenizerConfig]] = [
    ({"method": "char"}, CharTokenizerConfig(vocab_size=None, min_frequency=1)),
    ({"method": "char", "special_tokens": {}}, CharTokenizerConfig()),
    ({"method": "char", **RARE}, CharTokenizerConfig(vocab_size=9, min_frequency=2, normalization=LOWERCASE)),
    ({"method": "word"}, WordTokenizerConfig(vocab_size=None, min_frequency=1)),
    ({"method": "word", "special_tokens": {}}, WordTokenizerConfig()),
    ({"method": "bpe"}, BpeTokenizerConfig(vocab_size=8000, min_frequency=1)),
    ({"method": "wordpiece"}, WordPieceTokenizerConfig(vocab_size=8000, min_frequency=2)),
    ({"method": "sentencepiece"}, SentencePieceTokenizerConfig(model_type="unigram", vocab_size=8000)),
]


@pytest.mark.parametrize(("fields", "config"), CONFIGS)
def test_every_method__has_its_own_defaults(fields: Fields, config: TokenizerConfig) -> None:
    assert config_of(request(**fields)) == config


OTHERS_OPTIONS: list[tuple[str, str, object]] = [("char", "special_style", "bert"), ("word", "model_type", "bpe")]
OTHERS_OPTIONS += [("bpe", "model_type", "bpe"), ("wordpiece", "byte_fallback", True)]
OTHERS_OPTIONS += [("byte", "min_frequency", 2), ("sentencepiece", "min_frequency", 2)]
RENAMED: Fields = {"bos_token": "<b>"}


@pytest.mark.parametrize(
    ("method", "option", "value", "sentence"),
    [
        *((*row, f"`{row[1]}` is not an option of method '{row[0]}': leave it out") for row in OTHERS_OPTIONS),
        ("char", "special_tokens", RENAMED, "`special_tokens` must be null: this method keeps its own"),
        ("word", "special_tokens", RENAMED, "`special_tokens` must be null: this method keeps its own"),
    ],
)
def test_option_of_another_method__is_refused(method: str, option: str, value: object, sentence: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, sentence):
        config_of(request(method=method, **{option: value}))


def test_id__differs_for_whatever_changes_the_result_and_for_nothing_else() -> None:
    changes: list[Fields] = [{}, {"vocab_size": 9}, {"min_frequency": 2}, {"normalization": {"lowercase": True}}]
    changes += [{"holdout_fraction": 0.02}, {"documents": "stream"}, {"seed": 1}]
    different = [tokenizer_id_of(request(**fields), refs("0")) for fields in changes]
    different += [tokenizer_id_of(request(), refs(*digits)) for digits in ("1", "01", "10")]
    assert len(set(different)) == len(different)
    assert tokenizer_id_of(request(label="x", threads=3, corpora=["b"]), refs("0")) == different[0]
    assert tokenizer_id_of(request(), (changed(refs("0")[0], name="other", bytes=7),)) == different[0]


@pytest.mark.parametrize("method", ["bpe", "wordpiece", "sentencepiece"])
def test_id__counts_special_tokens_and_takes_an_empty_map_as_none(method: str) -> None:
    def id_of(**fields: object) -> str:
        return tokenizer_id_of(request(method=method, **fields), refs("0"))

    named: Fields = {"unk_token": "<u>", "pad_token": "<p>"}
    assert id_of(special_tokens={}) == id_of(special_tokens=None) == id_of()
    assert id_of(special_tokens=named) == id_of(special_tokens=dict(reversed(named.items()))) != id_of()


def test_id__is_the_same_in_every_release() -> None:
    # SHA-256 of {"method":"char","config":{},"corpora":["0…0"],"split":["line",0.1,0.1,42]}, then of bpe
    assert tokenizer_id_of(request(), refs("0")) == "char-0c373da65e55d39c"
    assert tokenizer_id_of(request(method="bpe"), refs("0")) == "bpe-d39758c738b52b3f"


def effective(*texts: CorpusRef | None, **fields: object) -> EffectiveRequest:
    corpus, validation, test = (*(texts or refs("0")), None, None)[:3]
    assert corpus is not None
    return resolve(tiny_request(**fields), corpus=corpus, validation_corpus=validation, test_corpus=test)


def test_source_of_a_runs_tokenizer__counts_only_fields_that_change_it() -> None:
    zero, one = refs("0", "1")
    char: Fields = {"method": "char"}
    changes: list[Fields] = [{"tokenizer": {**char, "vocab_size": 9}}, {"split_seed": 1}]
    changes += [{"tokenizer": {**char, "normalization": {"lowercase": True}}}]
    changes += [{"holdout_fraction": 0.2}, {"test_fraction": 0.2}]
    changes += [{"split_by": "position"}, {"documents": "stream", "split_by": "position"}]
    different = [effective(), effective(one), effective(zero, one), effective(zero, None, one)]
    different += [effective(**fields) for fields in changes]
    assert len({run_source(run) for run in different}) == len(different)
    same = effective(changed(zero, name="other"), seed=7, batch_size=2, label="x")
    assert run_source(same) == run_source(effective())


def test_tokenizer_of_a_run__has_its_folder_or_its_corpus_as_label() -> None:
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
    split: Fields = {"holdout_fraction": 0.2, "test_fraction": 0.3, "split_by": "position"}
    run, manifest = record(), char_tokenizer(["ab", "c"], ["a b"], mask_token=True, **RARE).manifest
    trained = changed(run.effective, **split, split_seed=7, documents="stream")
    stored = record_of_run(changed(run, effective=trained), manifest)
    assert stored.request == request(corpora=["text"], label="text", documents="stream", seed=7, **RARE, **split)
    assert (stored.tokenizer_id, stored.created_at) == (manifest.tokenizer_id, manifest.created_at)
    assert stored.corpora == (run.effective.corpus,)
