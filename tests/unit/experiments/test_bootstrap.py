"""The bootstrap against the same resamples drawn and summed in plain Python."""

from math import ceil, floor, sqrt
from random import Random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.properties import for_all_pairs
from trainer.contracts.intervals import Interval
from trainer.experiments import bootstrap
from trainer.experiments.bootstrap import Difference, IndexStream, Pooled, Statistic, intervals

Scores = list[tuple[float, int]]
"""Sum of losses and number of positions of each section."""
Seeds = list[Scores]


@for_all_pairs(
    st.integers(min_value=0, max_value=2**32), st.lists(st.integers(min_value=1, max_value=70), min_size=1, max_size=3)
)
def test_bootstrap__draws_the_indices_of_pythons_random(seed: int, sizes: list[int]) -> None:
    reference = Random(seed)
    stream = IndexStream(seed)
    for count in (1, 4, 2):  # the stream continues where the block before has ended
        expected = [[[reference.randrange(size) for _ in range(size)] for size in sizes] for _ in range(count)]
        for sample, drawn in enumerate(stream.draw(sizes, count)):
            found: list[list[int]] = drawn.tolist()
            assert found == [resample[sample] for resample in expected]


def random_scores(n: int, seed: int, n_seeds: int) -> Seeds:
    """Return losses of several seeds at the same positions."""
    rng = Random(seed)
    positions = [rng.randrange(1, 40) for _ in range(n)]
    return [[(rng.uniform(1, 90), n_scored) for n_scored in positions] for _ in range(n_seeds)]


def pooled(seeds: Seeds) -> Pooled:
    losses, positions = [[loss for loss, _ in scores] for scores in seeds], [float(n) for _, n in seeds[0]]
    return Pooled(np.array(losses, dtype=np.float64), np.array(positions, dtype=np.float64))


def ratio(seeds: Seeds, indices: list[int]) -> float:
    losses = sum(scores[i][0] for scores in seeds for i in indices) / len(seeds)
    return losses / sum(seeds[0][i][1] for i in indices)


def interval_by_hand(seed: int, differences: list[tuple[Seeds, Seeds]], *, are_linked: bool) -> Interval:
    rng, of_seeds = Random(seed), Random(2**32 + seed)
    n_seeds = len(differences[0][0])
    values: list[float] = []
    for _ in range(2000):
        value = 0.0
        first = second = list(range(n_seeds))
        if n_seeds > 1:
            first = second = [of_seeds.randrange(n_seeds) for _ in range(n_seeds)]
            if not are_linked:
                second = [of_seeds.randrange(n_seeds) for _ in range(n_seeds)]
        for plus, minus in differences:
            indices = [rng.randrange(len(plus[0])) for _ in plus[0]]
            value += ratio([plus[k] for k in first], indices) - ratio([minus[k] for k in second], indices)
        values.append(value)
    values.sort()
    return Interval(low=values[floor(0.025 * 1999)], high=values[ceil(0.975 * 1999)])


@pytest.mark.parametrize(
    ("at_once", "n_seeds", "are_linked"),
    [(2_000_000, 1, False), (1000, 1, True), (2_000_000, 3, False), (1000, 2, False), (1000, 5, True)],
)
def test_bootstrap__gives_the_intervals_of_plain_python(
    monkeypatch: pytest.MonkeyPatch, at_once: int, n_seeds: int, *, are_linked: bool
) -> None:
    monkeypatch.setattr(bootstrap, "_NUMBERS_AT_ONCE", at_once)
    a, b, c = (random_scores(7, number, n_seeds) for number in (1, 2, 3))
    d, e = (random_scores(9, number, n_seeds) for number in (4, 5))
    cases: list[tuple[int, list[tuple[Seeds, Seeds]]]] = [(0, [(a, b)]), (3, [(a, c)]), (0, [(d, e)]), (0, [(c, b)])]
    cases += [(1, [(a, b), (d, e)]), (1, [(a, b), (c, b)])]
    statistics = [
        Statistic(seed, tuple(Difference(pooled(plus), pooled(minus)) for plus, minus in differences), are_linked)
        for seed, differences in cases
    ]
    found = intervals(statistics)
    for interval, (seed, differences) in zip(found, cases, strict=True):
        expected = interval_by_hand(seed, differences, are_linked=are_linked)
        assert interval.low == pytest.approx(expected.low, abs=1e-9)
        assert interval.high == pytest.approx(expected.high, abs=1e-9)


def coverage(n_seeds: int, seed_sd: float, *, has_seeds: bool) -> float:
    """Return the share of 400 experiments whose interval covers the true difference of two models.

    The losses of each model vary over 40 sections (variance 1/2) and over its trainings; the true difference, over all
    sections and trainings, is 0. Without `has_seeds` the bootstrap gets the means over trainings.
    """
    rng = np.random.default_rng(5)

    def model() -> Pooled:
        sections: NDArray[np.float64] = rng.normal(0, sqrt(1 / 2), (1, 40))
        trainings: NDArray[np.float64] = rng.normal(0, seed_sd, (n_seeds, 1))
        losses: NDArray[np.float64] = sections + trainings
        return Pooled(losses if has_seeds else np.mean(losses, axis=0, keepdims=True), np.ones(40))

    found = intervals([Statistic(0, (Difference(model(), model()),)) for _ in range(400)])
    return fmean([float(each.low <= 0 <= each.high) for each in found])


def test_interval__of_seeds_and_sections_covers_the_difference_more_often() -> None:
    # the mean over 5 trainings of each model spreads as much as the mean over sections: 1 / 40 = 2 * sd ** 2 / 5
    seed_sd = sqrt(5 / 80)
    # sections alone have half of the variance: 2 * Phi(1.96 / 2 ** 0.5) - 1 = 0.834
    assert coverage(5, seed_sd, has_seeds=False) == pytest.approx(0.834, abs=0.05)
    assert coverage(5, seed_sd, has_seeds=True) > 0.89
    assert coverage(20, seed_sd, has_seeds=True) == pytest.approx(0.95, abs=0.03)
