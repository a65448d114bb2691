"""Word boundaries in a text by a model: its cues against single forward passes, and what cannot be segmented."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.support import settings_in
from tests.support.answers import log_probabilities, small_tokenizer
from tests.support.families import model_of
from tests.support.refusals import refused
from tests.support.tiny_models import POEM, make_run, tokenizer_of
from tests.unit.inference.test_tokenizations import nats_of, tiny_tokenizer
from trainer.api import Model
from trainer.artifacts.runs import RunStore
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.segmentation import SegmentationResult
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import split_corpus
from trainer.inference.leaks import LeakSearch
from trainer.models.ngram import CountedText, NgramModel
from trainer.reading.segmentation import MAX_SUBWORD_CHARACTERS, Floats, LineCues, segmentation, unspaced
from trainer.tokenizers.base import Tokenizer, vocabulary_of

LINES = [*POEM, "Ağaç, ёлка: “quoted” (twice) 1871.", "ΣΟΦΟΣ and Ж 東"]
TEXT = "\n".join(LINES)
SHORT = ["ab a", "ba b", "a bab", "abab a", "b ab", "a ab", "bab b", "ab ab", "ba ab", "b b a"]


def counts_of(tokenizer: Tokenizer, *, has_spaces: bool = True) -> CountedText:
    ngram = model_of("ngram", vocabulary_of(tokenizer))
    assert isinstance(ngram, NgramModel)
    return CountedText(tokenizer, ngram, ngram, 3, has_spaces)


def model_with(
    tokenizer: Tokenizer, family: str = "lstm", count_text: Callable[[], CountedText] | None = None
) -> Model:
    return Model("run", model_of(family, vocabulary_of(tokenizer)), tokenizer, count_text=count_text)


def cues_by_hand(model: Model, text: str) -> LineCues:
    """Sums over the tokens of each character, and the entropy before the first of them, by one forward pass."""
    tokenizer, start = model.tokenizer, model.tokenizer.special_ids.start
    sizes = [len(character.encode()) if tokenizer.byte_values else 1 for character in text]
    ids = tokenizer.encode(text)
    rows = log_probabilities(model.model, [start, *ids])
    surprisal: list[float] = []
    entropy: list[float] = []
    first = 0
    for size in sizes:
        surprisal.append(-sum(rows[place][ids[place]] for place in range(first, first + size)))
        entropy.append(-math.fsum(math.exp(nats) * nats for nats in rows[first]))
        first += size
    assert first == len(ids)
    return LineCues(np.array(surprisal, dtype=np.float64), np.array(entropy, dtype=np.float64))


def same_scores(found: SegmentationResult, expected: SegmentationResult) -> None:
    assert len(found.scores) == len(expected.scores)
    for one, other in zip(found.scores, expected.scores, strict=True):
        assert (one.model, one.cue, one.rule) == (other.model, other.cue, other.rule)
        assert (one.n_right, one.n_predicted, one.f1.value) == (other.n_right, other.n_predicted, other.f1.value)
        assert one.threshold_nats == pytest.approx(other.threshold_nats, abs=1e-5)


@pytest.mark.parametrize("method", ["char", "byte", "char+", "byte+"])
@pytest.mark.parametrize("family", ["lstm", "gpt2"])
def test_cues__are_those_of_each_line_read_without_its_spaces(method: str, family: str) -> None:
    tokenizer = small_tokenizer(method.removesuffix("+"), "stream" if method.endswith("+") else "line")
    text = TEXT if family == "lstm" else "\n".join(line[:16] for line in LINES)  # within the context
    model = model_with(tokenizer, family)
    lines = [unspaced(line) for line in text.split("\n")]
    found = model.segment(text, seed=3)
    same_scores(found, segmentation(lines, {"run": [cues_by_hand(model, line.text) for line in lines]}, 3))
    assert [one.cue for one in found.scores] == ["surprisal", "surprisal", "entropy", "entropy"]


@pytest.mark.parametrize("method", ["bpe", "sentencepiece"])
def test_surprisal__of_a_character_of_subwords_is_summed_over_all_tokenizations(method: str) -> None:
    tokenizer = tiny_tokenizer(method)
    model = model_with(tokenizer)
    lines = [unspaced(line) for line in SHORT]
    cues: list[LineCues] = []
    for line in lines:
        nats = [nats_of(model.model, tokenizer, line.text[:end]) for end in range(len(line.text) + 1)]
        values = [after - before for before, after in pairwise(nats)]
        cues.append(LineCues(np.array(values, dtype=np.float64), None))
    found = model.segment("\n".join(SHORT))
    same_scores(found, segmentation(lines, {"run": cues}))
    assert [one.cue for one in found.scores] == ["surprisal", "surprisal"]
    assert found.bound_nats == 0


@pytest.mark.parametrize("method", ["char", "bpe"])
def test_ngram__of_the_training_text_is_scored_as_a_run_would_be(method: str) -> None:
    tokenizer = small_tokenizer(method)
    text = "\n".join(POEM)
    found = model_with(tokenizer, count_text=lambda: counts_of(tokenizer)).segment(text)
    alone = model_with(tokenizer, "ngram").segment(text)
    beside = [one for one in found.scores if one.model == "3-gram"]
    assert [(one.cue, one.rule, one.f1) for one in beside] == [
        (one.cue, one.rule, one.f1) for one in alone.scores if one.model == "run"
    ]
    of_run = [one for one in found.scores if one.model == "run"]
    for one, other in zip(of_run, beside, strict=True):
        assert one.f1_minus_ngram is not None
        assert one.f1_minus_ngram.value == pytest.approx(one.f1.value - other.f1.value, abs=1e-12)
    assert (found.has_ngram, found.is_trained_with_spaces, alone.has_ngram) == (True, True, False)
    apart = model_with(tokenizer, count_text=lambda: counts_of(tokenizer, has_spaces=False)).segment(text)
    assert not apart.is_trained_with_spaces
    itself = model_with(tokenizer, "ngram", count_text=lambda: counts_of(tokenizer)).segment(text)
    assert {one.model for one in itself.scores} == {"run"} and itself.is_ngram and itself.has_ngram


@pytest.mark.parametrize("method", ["char", "byte", "bpe", "sentencepiece"])
@pytest.mark.parametrize(
    ("line", "n_places", "n_boundaries"),
    [
        ("ab\t cd  e ", 4, 2),
        ("ab cd\r", 3, 1),
        ("ab\u00a0c\u2028d", 3, 2),
        ("a\u0308b c", 2, 1),  # one character with its mark
        ("q\u0308b c", 2, 1),  # two characters, one letter with its mark
        ("\U0001f469\u200d\U0001f467 ab", 2, 1),  # joined emoji
        ("हिन्दी क्षत्रिय", 4, 1),  # conjuncts
        ("t\u0361sa ɔ\u0303\u0301", 2, 1),
        ("\u1112\u1161\u11ab \u1100\u1161", 1, 1),  # syllables of letters, of old Korean for instance
        ("שָׁלוֹם לְ", 4, 1),
        ("السلام عليكم", 10, 1),
        ("می\u200cروم به", 6, 1),  # a non-joiner separates nothing
        ("ខ្ញុំ\u200bទៅ \u200bផ្សារ", 3, 2),  # zero-width spaces do
        ("我 喜欢", 2, 1),
        ("\ufb01re \ufb02y", 4, 1),  # ligatures are characters
    ],
)
def test_lines__of_any_script_keep_their_characters(method: str, line: str, n_places: int, n_boundaries: int) -> None:
    found = model_with(small_tokenizer(method)).segment(f"{line}\n" * 20)
    assert (found.n_lines, found.n_places, found.n_boundaries) == (20, 20 * n_places, 20 * n_boundaries)


def test_word_ends__inside_a_letter_with_its_marks_are_left_out() -> None:
    """The virama at the end of a word joins it to the next one."""
    found = model_with(small_tokenizer("char")).segment("तत् त्वम् असि\n" * 10)
    assert (found.n_places, found.n_boundaries, found.n_inside) == (10 * 4, 10, 10)


def test_lines_of_zero_width_spaces__are_left_out() -> None:
    found = model_with(small_tokenizer("char")).segment("ab a\n\u200b\n" * 10)
    assert (found.n_lines, found.n_places) == (10, 20)


def test_cues_of_letters__are_sums_and_the_entropy_before_the_first() -> None:
    nats = [1.0, 2.0, 4.0, 8.0]
    values: Floats = np.array(nats, dtype=np.float64)
    found = LineCues(values, values).of_letters(unspaced("q\u0308cd").starts)
    assert found.entropy is not None
    assert [found.surprisal.item(i) for i in range(3)] == [3, 4, 8]
    assert [found.entropy.item(i) for i in range(3)] == [1, 4, 8]
    assert LineCues(values, None).of_letters(unspaced("abcd").starts).entropy is None


def test_lower_case__can_be_longer() -> None:
    tokenizer = tokenizer_of("char", POEM, normalization={"lowercase": True})
    found = model_with(tokenizer).segment("\u0130I AB\n" * 10)  # the first letter becomes two characters
    assert (found.n_places, found.n_boundaries) == (10 * 3, 10), "i with a dot is one letter"


@pytest.mark.parametrize("has_spaces", [True, False])
def test_lines_of_the_training_text__are_found_with_their_spaces_and_without(tmp_path: Path, has_spaces: bool) -> None:
    settings = settings_in(tmp_path)
    folder = settings.app.data_root / "corpus"
    folder.mkdir(parents=True)
    lines = TEXT.split("\n")
    of_run = make_run(folder, lines if has_spaces else ["".join(line.split()) for line in lines], test_fraction=0.0)
    corpora = CorpusStore(settings)
    [train] = split_corpus(corpora, of_run.effective).lines("train")
    search = LeakSearch("run", of_run.effective, RunStore(settings.app.artifacts_root), corpora)
    model = Model("run", model_of("lstm", vocabulary_of(of_run.tokenizer)), of_run.tokenizer, find_leak=search)
    leak = model.segment(TEXT).leak
    assert leak is not None and leak.is_large
    assert leak.lines == leak.plain_lines == pytest.approx((train.count("\n") + 1) / len(lines))


def test_text_that_is_gone__leaves_the_ngram_out() -> None:
    def count_text() -> CountedText:
        raise AppError(ErrorCode.DATA_NOT_FOUND, "The corpus is gone.")

    found = model_with(small_tokenizer("char"), count_text=count_text).segment(TEXT)
    assert {one.model for one in found.scores} == {"run"}
    assert not found.has_ngram and not found.is_trained_with_spaces


def test_counts__of_unknown_characters_and_of_lines_beyond_the_context() -> None:
    found = model_with(small_tokenizer("char"), "gpt2").segment("\n".join(["the sun Ж was 東"] * 9 + ["a sun " * 10]))
    assert (found.n_unknown, found.n_cut) == (18, 1)


@pytest.mark.parametrize(
    ("method", "family", "text", "code", "message"),
    [
        ("word", "lstm", TEXT, ErrorCode.MODEL_INCOMPATIBLE, "This run's tokens are words"),
        ("char", "bert", TEXT, ErrorCode.MODEL_INCOMPATIBLE, "needs a run trained with causal_lm"),
        ("char", "lstm", "\n".join(POEM[:9]), ErrorCode.INVALID_INPUT, "The text has 9 lines of two characters"),
        ("char", "lstm", "thesun\n" * 10, ErrorCode.INVALID_INPUT, "too few spaces"),
        ("char", "lstm", f"{TEXT}\nmoon \u0301e", ErrorCode.INVALID_INPUT, "Line 13 has a word that begins with"),
        ("bpe", "lstm", "the sun\n" * MAX_SUBWORD_CHARACTERS, ErrorCode.PAYLOAD_TOO_LARGE, "at most 20,000"),
    ],
)
def test_segmentation__is_refused_with_one_sentence(
    method: str, family: str, text: str, code: ErrorCode, message: str
) -> None:
    model = model_with(small_tokenizer(method), family)
    with refused(code, message):
        model.segment(text)
