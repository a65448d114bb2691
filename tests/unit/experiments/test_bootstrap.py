"""The bootstrap against the same resamples drawn and summed in plain Python."""

from math import ceil, floor
from random import Random

import numpy as np
import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from trainer.contracts.intervals import Interval
from trainer.experiments import bootstrap
from trainer.experiments.bootstrap import Difference, IndexStream, Pooled, Statistic, intervals

Scores = list[tuple[float, int]]
"""Sum of losses and number of positions of each section."""


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


def random_scores(n: int, seed: int) -> Scores:
    rng = Random(seed)
    return [(rng.uniform(1, 90), rng.randrange(1, 40)) for _ in range(n)]


def pooled(scores: Scores) -> Pooled:
    losses, positions = [loss for loss, _ in scores], [float(n) for _, n in scores]
    return Pooled(np.array(losses, dtype=np.float64), np.array(positions, dtype=np.float64))


def ratio(scores: Scores, indices: list[int]) -> float:
    return sum(scores[i][0] for i in indices) / sum(scores[i][1] for i in indices)


def interval_by_hand(seed: int, differences: list[tuple[Scores, Scores]]) -> Interval:
    rng = Random(seed)
    values: list[float] = []
    for _ in range(2000):
        value = 0.0
        for plus, minus in differences:
            indices = [rng.randrange(len(plus)) for _ in plus]
            value += ratio(plus, indices) - ratio(minus, indices)
        values.append(value)
    values.sort()
    return Interval(low=values[floor(0.025 * 1999)], high=values[ceil(0.975 * 1999)])


@pytest.mark.parametrize("at_once", [2_000_000, 1000])
def test_bootstrap__gives_the_intervals_of_plain_python(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", at_once)
    a, b, c = random_scores(7, 1), random_scores(7, 2), random_scores(7, 3)
    d, e = random_scores(9, 4), random_scores(9, 5)
    cases: list[tuple[int, list[tuple[Scores, Scores]]]] = [
        (0, [(a, b)]),
        (3, [(a, c)]),
        (0, [(d, e)]),
        (0, [(c, b)]),
        (1, [(a, b), (d, e)]),
        (1, [(a, b), (c, b)]),
    ]

    found = intervals(
        [
            Statistic(seed, tuple(Difference(pooled(plus), pooled(minus)) for plus, minus in differences))
            for seed, differences in cases
        ]
    )

    for interval, (seed, differences) in zip(found, cases, strict=True):
        expected = interval_by_hand(seed, differences)
        assert interval.low == pytest.approx(expected.low, abs=1e-9)
        assert interval.high == pytest.approx(expected.high, abs=1e-9)
