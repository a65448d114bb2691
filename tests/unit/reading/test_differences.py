"""Intervals and permutations over texts against closed forms and full enumeration."""

from itertools import product
from math import sqrt
from statistics import fmean, stdev

import numpy as np
import pytest
from scipy.stats import t

from tests.unit.reading.test_mixed import array
from trainer.reading.differences import delta, paired_p, smallest_p
from trainer.reading.mixed import Floats, Levels
from trainer.reading.regression import TrainingCost

FREE = TrainingCost(0.0, 0.0)


def texts_of(sums: list[float], length: int) -> tuple[Floats, Levels]:
    """Return differences of texts of equal length, with their sums, and the texts."""
    texts: Levels = np.arange(len(sums) * length) // length
    differences: Floats = array(*sums)[texts]
    return differences / length, texts


def test_interval_near_0__is_that_of_student_over_texts() -> None:
    sums = [0.5, -2.0, -1.0, 3.0, 1.5, 0.0, -2.5, 1.0, 0.5, 4.0, -0.5, -1.0]
    found = delta(*texts_of(sums, 10), FREE, seed=1)
    quantile, error = float(t.ppf(0.975, 11)), stdev(sums) * sqrt(12)
    assert found.low is not None and found.high is not None
    assert found.estimate == pytest.approx(sum(sums) / 120) == (found.low + found.high) / 2
    assert found.high - found.estimate == pytest.approx(quantile * error / 120, rel=0.03)
    wider = delta(*texts_of(sums, 10), TrainingCost(1.5, 9.0), seed=1)
    assert wider.high is not None
    assert wider.high - wider.estimate == pytest.approx(quantile * sqrt(error**2 + 9.0) / 120, rel=0.03)


def test_interval_of_a_gain__is_symmetric_for_its_square_root() -> None:
    """The standard error of a root is that of the number divided by twice the root (the delta method)."""
    sums = [2.5, 2.0, 1.0, 3.0, 1.5, 0.5, 2.5, 1.0, 0.5, 4.0, 1.5, 1.0]
    cost = TrainingCost(1.5, 2.0)
    found = delta(*texts_of(sums, 10), cost, seed=1)
    assert found.low is not None and found.high is not None
    root = sqrt(sum(sums) + 1.5)
    half = float(t.ppf(0.975, 11)) * sqrt(stdev(sums) ** 2 * 12 + 2.0) / (2 * root)
    assert found.estimate == pytest.approx(sum(sums) / 120)
    assert sqrt(found.low * 120 + 1.5) == pytest.approx(root - half, rel=0.03)
    assert sqrt(found.high * 120 + 1.5) == pytest.approx(root + half, rel=0.03)


def test_interval_of_unequal_texts__is_that_of_a_ratio_of_sums() -> None:
    """The standard error of a ratio is that of its residuals (Cochran 1977, equation 6.4)."""
    rng = np.random.default_rng(5)
    sizes: Levels = rng.integers(20, 60, 40)
    lengths: list[int] = sizes.tolist()
    texts: Levels = np.repeat(np.arange(40), sizes)
    of_texts: Floats = rng.standard_normal(40)[texts]
    differences: Floats = of_texts + rng.standard_normal(len(texts))
    mean = float(np.sum(differences)) / len(texts)
    residuals: Floats = np.bincount(texts, differences - mean).astype(np.float64)
    error = sqrt(float(residuals @ residuals) * 40 / 39) / len(texts)
    found = delta(differences, texts, FREE, seed=1)
    assert found.estimate == pytest.approx(mean) and found.high is not None
    effective = len(texts) ** 2 / sum(size**2 for size in lengths)
    assert found.high - mean == pytest.approx(float(t.ppf(0.975, effective - 1)) * error, rel=0.04)
    assert found == delta(differences, texts, FREE, seed=1)


def test_interval__of_one_long_text_among_short_ones_has_the_quantile_of_one_degree() -> None:
    sizes = [900, 20, 20, 20, 20]
    texts: Levels = np.repeat(np.arange(5), sizes)
    differences = array(0.02, -0.01, -0.01, -0.01, -0.01)[texts]
    found = delta(differences, texts, TrainingCost(1.0, 4.0), seed=1)
    assert found.estimate > 0 and found.low is not None and found.low < 0, "the gain is that of the long text"
    same: Floats = np.full(980, 0.01)
    equal = delta(same, texts, TrainingCost(0.0, 4.0), seed=1)
    assert equal.low is not None and equal.low * 980 == pytest.approx(9.8 - float(t.ppf(0.975, 1)) * 2.0)


def test_permutation__tries_all_signs_of_few_texts() -> None:
    sums = [0.5, 2.0, -1.0, 3.0, 1.5, 0.25, 2.5, 1.0]
    differences, texts = texts_of(sums, 7)
    every = [sum(sign * one for sign, one in zip(signs, sums, strict=True)) for signs in product((-1, 1), repeat=8)]
    expected = sum(abs(one) >= sum(sums) for one in every) / len(every)
    zeros: Floats = np.zeros(len(differences))
    assert paired_p(differences, zeros, texts, seed=0) == paired_p(zeros, differences, texts, seed=1) == expected
    assert paired_p(zeros, zeros, texts, seed=0) == 1


@pytest.mark.parametrize("n_texts", [5, 8, 13, 14])
def test_permutation__is_smallest_where_all_texts_have_one_sign(n_texts: int) -> None:
    differences, texts = texts_of([1.0] * n_texts, 3)
    found = paired_p(differences + 1, 0 * differences, texts, seed=0)
    assert found >= smallest_p(n_texts) and (n_texts > 13 or found == smallest_p(n_texts) == 2.0 ** (1 - n_texts))
    assert n_texts <= 13 or smallest_p(n_texts) == 1 / 10_000


def test_permutation__of_many_texts_is_drawn_and_near_students_t() -> None:
    rng = np.random.default_rng(2)
    sums: list[float] = (rng.standard_normal(60) + 0.25).tolist()
    differences, texts = texts_of(sums, 3)
    zeros: Floats = np.zeros(len(differences))
    found = paired_p(differences, zeros, texts, seed=0)
    expected = 2 * float(t.sf(abs(fmean(sums)) / stdev(sums) * sqrt(60), 59))
    assert found == pytest.approx(expected, abs=0.01) and found == paired_p(differences, zeros, texts, seed=0)
    assert paired_p(differences + 5, zeros, texts, seed=0) == 1 / 10_000
