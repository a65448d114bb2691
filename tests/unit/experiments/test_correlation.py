"""Correlations by hand and against scipy."""

from math import sqrt

import pytest
from scipy.stats import pearsonr, spearmanr

from trainer.contracts.experiments import Correlation, Rating
from trainer.experiments.correlation import correlation

EXCESS = {("a", "a"): 0.0, ("a", "b"): 1.0, ("b", "a"): 2.0, ("a", "c"): 3.0, ("c", "a"): 4.0, ("b", "c"): 9.0}


def rated(**means: float) -> list[Rating]:
    return [Rating(listener=pair[0], language=pair[1], mean_rating=mean) for pair, mean in means.items()]


def correlated(ratings: list[Rating]) -> Correlation:
    return correlation("char-lstm", "passages", "skip", EXCESS, ratings)


def test_correlation__is_that_by_hand() -> None:
    # excess 1, 2, 3, 4 against 8, 6, 1, 3: deviations -1.5, -.5, .5, 1.5 and 3.5, 1.5, -3.5, -1.5
    found = correlated(rated(ab=8, ba=6, ac=1, ca=3, aa=99, bx=5))

    assert (found.model, found.kind, found.mode, found.n) == ("char-lstm", "passages", "skip", 4)
    assert found.pearson_r == pytest.approx((-5.25 - 0.75 - 1.75 - 2.25) / sqrt(5 * 29))
    assert found.spearman_rho == pytest.approx(1 - 6 * (9 + 1 + 4 + 4) / (4 * 15))  # ranks 4, 3, 1, 2


def test_correlation__has_the_p_values_of_scipy() -> None:
    found = correlated(rated(ab=8, ba=6, ac=1, ca=3, bc=3))

    x, y = [1.0, 2.0, 3.0, 4.0, 9.0], [8.0, 6.0, 1.0, 3.0, 3.0]
    pearson, spearman = pearsonr(x, y), spearmanr(x, y)
    assert found.pearson_r == pytest.approx(float(pearson.statistic))
    assert found.pearson_p == pytest.approx(float(pearson.pvalue))
    assert found.spearman_rho == pytest.approx(float(spearman.statistic))
    assert found.spearman_p == pytest.approx(float(spearman.pvalue))


@pytest.mark.parametrize(
    ("ratings", "n"), [(rated(ab=1, ba=2), 2), (rated(ab=5, ba=5, ac=5, ca=5), 4), (rated(xy=1, yx=2, xx=3), 0)]
)
def test_correlation__of_few_pairs_or_equal_ratings_is_none(ratings: list[Rating], n: int) -> None:
    found = correlated(ratings)

    assert found.n == n
    assert (found.pearson_r, found.pearson_p, found.spearman_rho, found.spearman_p) == (None, None, None, None)
