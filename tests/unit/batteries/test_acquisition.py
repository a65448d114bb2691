"""Ages of words: known sigmoids, scipy's least squares, and a language whose words are planted at known steps."""

import csv
import math
from collections.abc import Sequence
from io import StringIO
from random import Random
from statistics import correlation, pvariance
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.stats import f

from trainer.batteries.acquisition import acquisitions, fit_acquisition, words_at
from trainer.contracts.development import Acquisition, CheckpointPoint, Misfit, WordScores
from trainer.reports.experiment_tables import csv_text

STEPS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
Numbers: TypeAlias = "NDArray[np.float64]"


def sigmoid(logs: Numbers, start: float, end: float, slope: float, midpoint: float) -> Numbers:
    powers: Numbers = np.exp(slope * (logs - midpoint))
    values: Numbers = end + (start - end) / (1 + powers)
    return values


def curve(start: float, end: float, slope: float, midpoint: float, steps: Sequence[int] = STEPS) -> list[float]:
    offsets = (math.log10(step) - midpoint for step in steps)
    return [end + (start - end) / (1 + math.exp(slope * offset)) for offset in offsets]


def scores_of(curves: dict[str, list[float]], steps: Sequence[int] = STEPS) -> list[WordScores]:
    return [
        WordScores(step=step, word=word, n_contexts=10, nats=nats)
        for word, of_word in curves.items()
        for step, nats in zip(steps, of_word, strict=True)
    ]


def by_word(found: Sequence[Acquisition]) -> dict[str, Acquisition]:
    return {one.word: one for one in found}


@pytest.mark.parametrize("slope", [1.5, 4.0, 12.0])
@pytest.mark.parametrize("midpoint", [0.4, 1.7, 3.1])
def test_fit__recovers_a_known_sigmoid(slope: float, midpoint: float) -> None:
    [fit] = fit_acquisition(STEPS, [curve(9.5, 3.25, slope, midpoint)])
    assert fit is not None
    found = fit.start_nats, fit.end_nats, fit.slope, fit.midpoint, fit.r_squared
    assert found == pytest.approx((9.5, 3.25, slope, midpoint, 1.0), abs=1e-6)
    assert midpoint - 0.02 < fit.low < midpoint < fit.high < midpoint + 0.02, "the grid has 512 midpoints"


def noisy(midpoints: Sequence[float], deviation: float, seed: int = 5) -> list[list[float]]:
    drawn = Random(seed)
    exact = [curve(9.0, 3.0, drawn.uniform(2, 8), midpoint) for midpoint in midpoints]
    return [[nats + drawn.gauss(0, deviation) for nats in of_word] for of_word in exact]


@pytest.mark.parametrize("deviation", [0.05, 0.3, 0.8])
def test_interval__covers_the_true_age_in_95_percent_of_words(deviation: float) -> None:
    midpoints = [0.8 + 1.7 * number / 400 for number in range(400)]
    fits = fit_acquisition(STEPS, noisy(midpoints, deviation))
    covered = [
        fit.low <= midpoint <= fit.high for fit, midpoint in zip(fits, midpoints, strict=True) if fit is not None
    ]
    assert len(covered) == 400 and 0.93 <= sum(covered) / 400 <= 0.99


def share_left(nats: Sequence[float], midpoint: float) -> float:
    """The least share of the variance that a sigmoid with this midpoint leaves, of 1,000 slopes."""
    lowest, highest = math.log(9) / math.log10(2048), 2 * math.log(9) / math.log10(2)
    slopes = (lowest + (highest - lowest) * number / 999 for number in range(1000))
    return 1 - max(correlation(curve(1.0, 0.0, slope, midpoint), nats) for slope in slopes) ** 2


def test_interval__equals_the_profile_by_brute_force() -> None:
    """The midpoints that leave at most 1 + F times the squares of the fit, with F of 1 and n - 4 degrees of freedom."""
    curves, gap = noisy([0.9, 1.2, 1.5, 1.9, 2.1, 2.4], 0.3), math.log10(2048) / 511
    for nats, fit in zip(curves, fit_acquisition(STEPS, curves), strict=True):
        assert fit is not None
        most = (1 - fit.r_squared) * (1 + float(f.ppf(0.95, 1, 8)) / 8)
        assert share_left(nats, fit.low) > most > share_left(nats, fit.low + gap)
        assert share_left(nats, fit.high) > most > share_left(nats, fit.high - gap)


@pytest.mark.parametrize(("midpoint", "ends_at"), [(0.3, 0), (3.0, -1)])
def test_interval__ends_at_the_first_and_the_last_checkpoint(midpoint: float, ends_at: int) -> None:
    points = [CheckpointPoint(step=step, epoch=0, words=7 * step) for step in (0, *STEPS)]
    curves = {f"{seed}": noisy([midpoint], 0.8, seed)[0] for seed in range(40)}
    found = [one for one in acquisitions(scores_of(curves), points) if one.fits]
    ends = [(one.age_steps_low, one.age_steps_high) for one in found]
    assert len(found) > 10 and STEPS[ends_at] in {of_word[ends_at] for of_word in ends}
    for one in found:
        ages = [age for age in (one.age_steps_low, one.age_steps, one.age_steps_high) if age is not None]
        words = [age for age in (one.age_words_low, one.age_words, one.age_words_high) if age is not None]
        assert [1, *ages, 2048] == sorted([1, *ages, 2048]) and words == pytest.approx([7 * age for age in ages])


def test_fit__agrees_with_scipy_on_the_exported_table() -> None:
    drawn = Random(7)
    truth: dict[str, tuple[float, float, float, float]] = {
        f"w{number}": (drawn.uniform(6, 12), drawn.uniform(1, 4), drawn.uniform(2, 10), drawn.uniform(0.6, 2.8))
        for number in range(40)
    }
    noisy = {word: [nats + drawn.gauss(0, 0.2) for nats in curve(*of_word)] for word, of_word in truth.items()}
    scores = scores_of(noisy)
    rows: list[dict[str, str]] = list(csv.DictReader(StringIO(csv_text(WordScores, scores, is_exact=True))))
    span, gap = math.log10(2048), math.log10(2)
    limits = ([-50.0, -50.0, math.log(9) / span, 0.0], [50.0, 50.0, 2 * math.log(9) / gap, span])
    for one in acquisitions(scores, ()):
        logs: Numbers = np.log10([float(row["step"]) for row in rows if row["word"] == one.word])
        of_word = [float(row["nats"]) for row in rows if row["word"] == one.word]
        nats: Numbers = np.array(of_word)
        best, _ = curve_fit(sigmoid, logs, nats, truth[one.word], bounds=limits, xtol=1e-14, ftol=1e-14, gtol=1e-14)
        expected: list[float] = best.tolist()
        residuals: list[float] = (nats - sigmoid(logs, *expected)).tolist()
        explained = 1 - sum(one * one for one in residuals) / (len(of_word) * pvariance(of_word))
        figures = [figure for figure in (one.start_nats, one.end_nats, one.slope) if figure is not None]
        assert figures == pytest.approx(expected[:3], rel=1e-4), one
        assert one.r_squared == pytest.approx(explained, abs=1e-9)
        assert one.age_steps is None or math.log10(one.age_steps) == pytest.approx(expected[3], abs=1e-5)
    assert sum(one.fits for one in acquisitions(scores, ())) > 30


REASONS: dict[Misfit, list[float]] = {
    "no_fall": [3.0, 4.0, 5.0, 5.5, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0],
    "poor_fit": [6.0, 5.0, 7.0, 4.0, 6.0, 5.0, 7.0, 4.0, 6.0, 5.0, 7.0, 4.0],
    "outside": [8.0, 5.0, 4.0, 3.5, 3.2, 3.1, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0],
    "no_plateau": [8.0 - 0.3 * number for number in range(12)],
}


@pytest.mark.parametrize("reason", REASONS)
def test_word__without_a_fit_is_listed_with_its_reason(reason: Misfit) -> None:
    [word] = acquisitions(scores_of({"w": REASONS[reason]}), ())
    assert (word.fits, word.reason, word.age_steps, word.age_words) == (False, reason, None, None)
    assert word.age_steps_low is word.age_steps_high is word.age_words_low is word.age_words_high is None
    assert (word.r_squared is None) == (reason == "no_fall")


@pytest.mark.parametrize(("midpoint", "has_age"), [(2.9, True), (3.1, False), (0.4, True), (0.2, False)])
def test_word__needs_four_fifths_of_its_fall_between_the_checkpoints(midpoint: float, has_age: bool) -> None:
    """With a slope of 5 four fifths are reached ln(4) / 5 after the midpoint: 0.28, before the last step's 3.31."""
    [word] = acquisitions(scores_of({"w": curve(9.0, 3.0, 5.0, midpoint)}), ())
    assert word.reason == (None if has_age else "no_plateau")


def test_word__needs_five_checkpoints_after_step_0() -> None:
    steps = [0, 1, 10, 100, 1000]
    [word] = acquisitions(scores_of({"w": [9.0, 9.0, 6.0, 3.0, 3.0]}, steps), ())
    assert word.reason == "too_few_checkpoints"
    [word] = acquisitions(scores_of({"w": [9.0, 9.0, 8.9, 6.0, 3.1, 3.0]}, [*steps, 10_000]), ())
    assert word.reason is None and word.age_steps == pytest.approx(100, rel=0.05)


def test_jump__is_in_the_middle_between_two_checkpoints() -> None:
    nats = [9.0, 9.0, 9.0, 9.0, 3.0, 3.0, 3.0, 3.0]
    [word] = acquisitions(scores_of({"w": nats}, [1, 2, 4, 8, 128, 256, 512, 1024]), ())
    assert word.age_steps == pytest.approx(32), "the geometric mean of 8 and 128"


def test_step_0__does_not_change_a_fit() -> None:
    nats = curve(9.0, 3.0, 5.0, 2.0)
    with_0 = acquisitions(scores_of({"w": [7.0, *nats]}, [0, *STEPS]), ())
    assert with_0 == acquisitions(scores_of({"w": nats}), ())


def test_words__keep_their_order_and_may_lack_checkpoints() -> None:
    late = [one for one in scores_of({"late": curve(8.0, 2.0, 5.0, 2.0)}) if one.step != 4]
    scores = [*late, *scores_of({"all": curve(8.0, 2.0, 5.0, 1.5)})]
    found = acquisitions(scores, (), {"all": 20.0})
    assert [(one.word, one.frequency_per_million) for one in found] == [("late", 0.0), ("all", 20.0)]
    assert [one.age_steps for one in found] == pytest.approx([100, math.sqrt(1000)])
    assert acquisitions(scores[::-1], ())[0].age_steps == found[1].age_steps, "the order of scores does not matter"
    assert acquisitions((), ()) == ()


def test_age_in_words__is_on_the_line_between_checkpoints() -> None:
    words = [(0, 0), (10, 500), (30, 2500), (40, None)]
    points = [CheckpointPoint(step=step, epoch=0, words=count) for step, count in words]
    assert [words_at(step, points) for step in (5, 10, 15, 30)] == [250, 500, 1000, 2500]
    assert words_at(35, points) is None and words_at(5, ()) is None
    exact = [CheckpointPoint(step=step, epoch=0, words=7 * step) for step in STEPS]
    [word] = acquisitions(scores_of({"w": curve(9.0, 3.0, 5.0, 2.0)}), exact)
    assert word.age_words == pytest.approx(700)
