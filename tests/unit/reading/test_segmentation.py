"""Word boundaries by cues, of a language whose surprisals and entropies are known, and by closed forms."""

import math
from collections.abc import Sequence
from statistics import stdev

import numpy as np
import pytest

from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.contracts.segmentation import BoundaryScore, SegmentationResult, Share
from trainer.reading.segmentation import (
    Flags,
    Floats,
    LineCues,
    UnspacedLine,
    best_threshold,
    peaks,
    segmentation,
    split_lines,
    unspaced,
)

BIT = math.log(2)


def floats(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


def flags(marks: str) -> Flags:
    found = [mark == "|" for mark in marks]
    return np.array(found, dtype=np.bool_)


def drawn_line(draws: np.random.Generator, n_words: int) -> str:
    """Words of a language in which `abc` and `de` are equally probable everywhere."""
    return " ".join("abc" if draws.random() < 0.5 else "de" for _ in range(n_words))


def as_bools(marks: Flags) -> list[bool]:
    found: list[bool] = marks.tolist()
    return found


def perfect_cues(line: UnspacedLine) -> LineCues:
    """Each word costs one bit, at its first character; all other characters are certain."""
    nats = floats(BIT, *(BIT if starts else 0.0 for starts in as_bools(line.is_boundary)))
    return LineCues(nats, nats)


def score_of(result: SegmentationResult, model: str, cue: str | None = None, rule: str | None = None) -> BoundaryScore:
    [score] = [one for one in result.scores if (one.model, one.cue, one.rule) == (model, cue, rule)]
    return score


def test_unspaced__marks_places_where_white_space_was() -> None:
    line = unspaced(" the  sun\twas ")
    assert line.text == "thesunwas"
    assert as_bools(line.is_boundary) == as_bools(flags("..|..|.."))
    assert [len(unspaced(text).is_boundary) for text in ("a", " ")] == [0, 0]


def test_peaks__rise_and_do_not_rise_further() -> None:
    assert as_bools(peaks(floats(1, 3, 2, 2, 5))) == as_bools(flags("|..|"))
    assert as_bools(peaks(floats(1, 2, 2, 1, 2, 3))) == as_bools(flags("|...|"))
    assert as_bools(peaks(floats(3, 2, 1))) == as_bools(flags(".."))
    assert as_bools(peaks(floats(1))) == []


@pytest.mark.parametrize("seed", range(5))
def test_threshold__has_the_highest_f1_of_all(seed: int) -> None:
    draws = np.random.Generator(np.random.PCG64(seed))
    normal: Floats = draws.normal(size=60)
    values: Floats = np.round(normal, 1)  # with ties
    truth: Flags = draws.random(60) < 0.3

    def f1(threshold: float) -> float:
        predicted: Flags = values > threshold
        n_right, n_predicted = int(np.count_nonzero(predicted & truth)), int(np.count_nonzero(predicted))
        return 2 * n_right / (n_predicted + int(np.count_nonzero(truth)))

    assert f1(best_threshold(values, truth)) == pytest.approx(max(f1(tried / 20) for tried in range(-100, 100)))


def test_threshold__can_be_below_all_values() -> None:
    assert best_threshold(floats(2, 2, 2), flags("|||")) == 1, "between these and 0"
    assert best_threshold(floats(0, 0, 0), flags("|||")) < 0


def test_known_language__is_segmented_without_error() -> None:
    draws = np.random.Generator(np.random.PCG64(1))
    lines = [unspaced(drawn_line(draws, 8)) for _ in range(30)]
    result = segmentation(lines, {"language": [perfect_cues(line) for line in lines]})
    assert (result.n_lines, result.n_tuning_lines, result.n_boundaries) == (24, 6, 24 * 7)
    for cue in ("surprisal", "entropy"):
        for rule in ("peak", "threshold"):
            score = score_of(result, "language", cue, rule)
            assert score.precision is not None
            shares = [score.precision, score.recall, score.f1]
            assert [(share.low, share.value, share.high) for share in shares] == [(1, 1, 1)] * 3
            assert (score.n_right, score.n_predicted) == (168, 168)
        threshold = score_of(result, "language", cue, "threshold").threshold_nats
        assert threshold == pytest.approx(BIT / 2)


def noisy_cues(lines: Sequence[UnspacedLine], share: float, draws: np.random.Generator) -> list[LineCues]:
    """Cues that are high at this share of the boundaries, and nowhere else."""
    found: list[LineCues] = []
    for line in lines:
        is_high: Flags = line.is_boundary & (draws.random(len(line.is_boundary)) < share)
        nats = floats(BIT, *(BIT if high else 0.0 for high in as_bools(is_high)))
        found.append(LineCues(nats, nats))
    return found


def test_interval__of_a_share_of_lines_is_that_of_a_mean() -> None:
    draws = np.random.Generator(np.random.PCG64(2))
    lines = [unspaced("ab ab")] * 500  # one boundary in each line: recall is a share of lines
    score = score_of(segmentation(lines, {"m": noisy_cues(lines, 0.7, draws)}), "m", "surprisal", "peak")
    assert score.precision is not None
    assert score.precision.value == 1
    half = 1.96 * math.sqrt(score.recall.value * (1 - score.recall.value) / 400)
    assert score.recall.value == pytest.approx(0.7, abs=2 * half)
    assert score.recall.low == pytest.approx(score.recall.value - half, abs=0.006)
    assert score.recall.high == pytest.approx(score.recall.value + half, abs=0.006)
    assert score.f1.value == pytest.approx(2 * score.recall.value / (1 + score.recall.value))


def test_difference_from_the_ngram__has_the_interval_of_paired_lines() -> None:
    draws = np.random.Generator(np.random.PCG64(4))
    lines = [unspaced("ab ab")] * 500
    cues = {"m": noisy_cues(lines, 0.7, draws), "3-gram": noisy_cues(lines, 0.4, draws)}
    result = segmentation(lines, cues)
    run, ngram = (score_of(result, model, "surprisal", "peak") for model in cues)
    found = run.f1_minus_ngram
    assert found is not None
    assert found.value == pytest.approx(run.f1.value - ngram.f1.value, abs=1e-12)
    scored = split_lines(lines, 0).scored
    slopes = [2 / (1 + score.recall.value) ** 2 for score in (run, ngram)]  # of F1 = 2 r / (1 + r)
    hits = [[bool(of_lines[number].surprisal.item(2)) for number in scored] for of_lines in cues.values()]
    differences = [slopes[0] * hits[0][line] - slopes[1] * hits[1][line] for line in range(len(scored))]
    half = 1.96 * stdev(differences) / math.sqrt(len(scored))
    assert found.low == pytest.approx(found.value - half, abs=0.008)
    assert found.high == pytest.approx(found.value + half, abs=0.008)


def test_difference_of_equal_cues__is_exactly_zero() -> None:
    lines = [unspaced("ab ab")] * 20
    cues = noisy_cues(lines, 0.5, np.random.Generator(np.random.PCG64(5)))
    result = segmentation(lines, {"m": cues, "3-gram": cues})
    assert [one.f1_minus_ngram for one in result.scores] == [Share(value=0, low=0, high=0)] * 4 + [None] * 5
    assert {one.f1_minus_ngram for one in segmentation(lines, {"m": cues}).scores} == {None}


def test_random_boundaries__are_right_as_often_as_there_are_boundaries() -> None:
    draws = np.random.Generator(np.random.PCG64(3))
    lines = [unspaced(drawn_line(draws, 20)) for _ in range(400)]
    result = segmentation(lines, {})
    score, rate = score_of(result, "random"), result.n_boundaries / result.n_places
    assert score.precision is not None
    for share in (score.precision, score.recall):
        assert share.value == pytest.approx(rate, abs=4 * math.sqrt(rate / result.n_boundaries))
    assert segmentation(lines, {}).scores == result.scores


def test_cue_without_peaks__has_no_precision() -> None:
    lines = [unspaced("ab ab")] * 10
    level = [LineCues(floats(1, 1, 1, 1), floats(1, 1, 1, 1)) for _ in lines]
    score = score_of(segmentation(lines, {"m": level}), "m", "surprisal", "peak")
    assert (score.precision, score.recall.value, score.f1.value) == (None, 0, 0)


@pytest.mark.parametrize(("texts", "message"), [(["ab ab"] * 9 + ["a"], "9 lines"), (["abab"] * 20, "too few spaces")])
def test_text__that_is_too_short_or_has_no_spaces_is_refused(texts: list[str], message: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, message):
        segmentation([unspaced(text) for text in texts], {})
