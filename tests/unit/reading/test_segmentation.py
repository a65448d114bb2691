"""Word boundaries by cues, of a language whose surprisals and entropies are known, and by closed forms."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

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
    for values, firsts, expected in (
        ((1, 3, 2, 2, 5), "|....", ".|..|"),
        ((1, 2, 2, 1, 2, 3), "|.....", ".|...|"),
        ((3, 2, 1), "|..", "..."),
        ((1,), "|", "."),
        ((1, 3, 4, 5), "|.|.", ".|.|"),  # two lines
    ):
        assert as_bools(peaks(floats(*values), flags(firsts))) == as_bools(flags(expected))


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
    assert (result.n_lines, result.n_boundaries) == (30, 30 * 7)
    for cue in ("surprisal", "entropy"):
        for rule in ("peak", "threshold"):
            score = score_of(result, "language", cue, rule)
            assert score.precision is not None
            shares = [score.precision, score.recall, score.f1]
            assert [(share.low, share.value, share.high) for share in shares] == [(1, 1, 1)] * 3
            assert (score.n_right, score.n_predicted) == (210, 210)
            assert score.f1_minus_chance is not None and score.f1_minus_chance.low > 0.2
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
    half = 1.96 * math.sqrt(score.recall.value * (1 - score.recall.value) / 500)
    assert score.recall.value == pytest.approx(0.7, abs=2 * half)
    assert score.recall.low == pytest.approx(score.recall.value - half, abs=0.008)
    assert score.recall.high == pytest.approx(score.recall.value + half, abs=0.008)
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
    slopes = [2 / (1 + score.recall.value) ** 2 for score in (run, ngram)]  # of F1 = 2 r / (1 + r)
    hits = [[bool(line.surprisal.item(2)) for line in of_lines] for of_lines in cues.values()]
    differences = [slopes[0] * hits[0][line] - slopes[1] * hits[1][line] for line in range(500)]
    half = 1.96 * stdev(differences) / math.sqrt(500)
    assert found.low == pytest.approx(found.value - half, abs=0.008)
    assert found.high == pytest.approx(found.value + half, abs=0.008)


def test_difference_of_equal_cues__is_exactly_zero() -> None:
    lines = [unspaced("ab ab")] * 20
    cues = noisy_cues(lines, 0.5, np.random.Generator(np.random.PCG64(5)))
    result = segmentation(lines, {"m": cues, "3-gram": cues})
    assert [one.f1_minus_ngram for one in result.scores] == [Share(value=0, low=0, high=0)] * 4 + [None] * 4
    assert {one.f1_minus_ngram for one in segmentation(lines, {"m": cues}).scores} == {None}


def normal_cues(lines: Sequence[UnspacedLine], draws: np.random.Generator, shift: float = 0.0) -> list[LineCues]:
    """Normal cues, higher at boundaries by a shift."""
    found: list[LineCues] = []
    for line in lines:
        values: Floats = draws.normal(size=1 + len(line.is_boundary))
        values[1:] += np.where(line.is_boundary, shift, 0.0)
        found.append(LineCues(values, None))
    return found


def f1_by_hand(lines: Sequence[UnspacedLine], values: Sequence[Sequence[float]], folds: Sequence[int]) -> float:
    """Each fifth with the threshold that is best on the others, of all that there are."""
    right = predicted = true = 0
    for fold in set(folds):
        places = [
            (value, bool(boundary), folds[number] == fold)
            for number, line in enumerate(lines)
            for value, boundary in zip(values[number], as_bools(line.is_boundary), strict=True)
        ]
        others = [(value, boundary) for value, boundary, is_scored in places if not is_scored]

        def f1(threshold: float, others: Sequence[tuple[float, bool]] = others) -> float:
            above = [boundary for value, boundary in others if value >= threshold]
            return 2 * sum(above) / (len(above) + sum(boundary for _, boundary in others))

        best = max(sorted({value for value, _, _ in places}, reverse=True), key=f1)
        scored = [(value >= best, boundary) for value, boundary, is_scored in places if is_scored]
        right += sum(is_above and boundary for is_above, boundary in scored)
        predicted += sum(is_above for is_above, _ in scored)
        true += sum(boundary for _, boundary in scored)
    return 2 * right / (predicted + true)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_threshold__of_each_fifth_is_the_best_on_the_others(shift: float) -> None:
    draws = np.random.Generator(np.random.PCG64(6))
    lines = [unspaced(drawn_line(draws, 6)) for _ in range(12)]
    cues = normal_cues(lines, draws, shift)
    order: list[int] = np.random.Generator(np.random.PCG64(0)).permutation(12).tolist()
    folds = {line: place * 5 // 12 for place, line in enumerate(order)}
    values = [[one.surprisal.item(place) for place in range(1, len(one.surprisal))] for one in cues]
    score = score_of(segmentation(lines, {"m": cues}), "m", "surprisal", "threshold")
    assert score.f1.value == pytest.approx(f1_by_hand(lines, values, [folds[line] for line in range(12)]))


def noise(seed: int) -> tuple[BoundaryScore, BoundaryScore]:
    """Peaks and values above a threshold of normal noise in 40 lines of 30 places, of which a sixth are boundaries."""
    draws = np.random.Generator(np.random.PCG64(seed))
    lines = [UnspacedLine("", np.arange(31), draws.random(30) < 1 / 6) for _ in range(40)]
    peak, threshold = segmentation(lines, {"m": normal_cues(lines, draws)}).scores
    return peak, threshold


def test_noise__is_not_above_its_chance() -> None:
    """By the exact binomial distribution, 95 % of 20 are 16 or more in 99.7 % of the samples."""
    tables = [noise(seed) for seed in range(20)]
    for rule, expected in enumerate((2 * (1 / 3) * (1 / 6) / (1 / 3 + 1 / 6), 2 * (1 / 6) / (1 + 1 / 6))):
        scores = [table[rule] for table in tables]
        chances = [one.chance for one in scores if one.chance is not None]
        differences = [one.f1_minus_chance for one in scores if one.f1_minus_chance is not None]
        assert sum(one.value for one in chances) / 20 == pytest.approx(expected, abs=0.02)
        widths = [fmean(one.high - one.low for one in shares) for shares in (differences, chances)]
        assert widths[0] == pytest.approx(widths[1], rel=0.3), "both are the deviation of shuffled cues"
        held = [chance.low <= score.f1.value <= chance.high for chance, score in zip(chances, scores, strict=True)]
        assert sum(held) >= 16 and sum(one.low <= 0 <= one.high for one in differences) >= 16
        assert [one.value for one in differences] == pytest.approx(
            [score.f1.value - chance.value for chance, score in zip(chances, scores, strict=True)]
        )


def test_result__depends_on_the_seed_only() -> None:
    assert noise(3) == noise(3)


def test_long_texts__have_fewer_shuffles_with_the_same_range() -> None:
    draws = np.random.Generator(np.random.PCG64(8))
    lines = [UnspacedLine("", np.arange(10_001), draws.random(10_000) < 0.25) for _ in range(11)]
    score = score_of(segmentation(lines, {"m": normal_cues(lines, draws)}), "m", "surprisal", "peak")
    assert score.chance is not None
    # peaks of noise are a third of the places
    assert score.chance.value == pytest.approx(2 * (1 / 3) * 0.25 / (1 / 3 + 0.25), abs=0.003)
    assert 0.0002 < score.chance.high - score.chance.low < 0.02


def test_many_lines__and_values_are_resampled_in_groups_and_levels() -> None:
    draws = np.random.Generator(np.random.PCG64(7))
    lines = [UnspacedLine("", np.arange(13), draws.random(12) < 0.25) for _ in range(1000)]
    score = score_of(segmentation(lines, {"m": normal_cues(lines, draws, 2.0)}), "m", "surprisal", "threshold")
    # the best threshold of two normal distributions 2 apart, a quarter and three quarters of the places
    above = [math.erfc((step / 100 - 2) / math.sqrt(2)) / 2 for step in range(300)]
    noise_above = [math.erfc(step / 100 / math.sqrt(2)) / 2 for step in range(300)]
    best = max(2 * a / 4 / (a / 4 + 3 * b / 4 + 1 / 4) for a, b in zip(above, noise_above, strict=True))
    assert score.f1.value == pytest.approx(best, abs=0.03)
    assert 0.005 < score.f1.high - score.f1.low < 0.05
    threshold = score.threshold_nats
    assert threshold is not None and 0.8 < threshold < 1.8


def test_cue_without_peaks__has_no_precision() -> None:
    lines = [unspaced("ab ab")] * 10
    level = [LineCues(floats(1, 1, 1, 1), floats(1, 1, 1, 1)) for _ in lines]
    score = score_of(segmentation(lines, {"m": level}), "m", "surprisal", "peak")
    assert (score.precision, score.recall.value, score.f1.value) == (None, 0, 0)


@pytest.mark.parametrize(("texts", "message"), [(["ab ab"] * 9 + ["a"], "9 lines"), (["abab"] * 20, "too few spaces")])
def test_text__that_is_too_short_or_has_no_spaces_is_refused(texts: list[str], message: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, message):
        segmentation([unspaced(text) for text in texts], {})
