"""Permutation tests of correlations: by hand, against brute force with scipy, and under the null hypothesis."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from math import factorial, sqrt
from random import Random

import numpy as np
import pytest
from scipy.stats import kstest, pearsonr, spearmanr

from trainer.contracts.experiments import Correlation, CorrelationKind, PairSet, PrimaryTest, Rating
from trainer.contracts.intervals import holm
from trainer.experiments.correlation import DRAWN_PERMUTATIONS, ExcessTable, correlations, language_permutations

Matrix = dict[tuple[str, str], float]
PRIMARY = PrimaryTest(model="lstm", kind="passages", mode="skip")
SIX = "abcdef"
BRANCHES = {"a": "x", "b": "x", "c": "y", "d": "y", "e": "z"}


def random_matrix(languages: str, seed: int) -> Matrix:
    rng = Random(seed)
    return {(a, b): 0.0 if a == b else rng.random() for a in languages for b in languages}


def rated(means: Mapping[tuple[str, str], float]) -> list[Rating]:
    return [Rating(listener=a, language=b, mean_rating=mean) for (a, b), mean in means.items()]


def result_of(
    excess: Matrix, ratings: Sequence[Rating], branches: Mapping[str, str] | None = None
) -> dict[tuple[CorrelationKind, PairSet], Correlation]:
    table = ExcessTable("lstm", "passages", "skip", excess)
    found = correlations([table], ratings, branches or {}, PRIMARY)
    return {(row.statistic, row.pairs): row for row in found}


def equal_pairs(names: Sequence[str]) -> list[bool]:
    return [a == b for a in names for b in names]


def brute_force(
    excess: Matrix, means: Matrix, statistic: CorrelationKind, branches: Mapping[str, str]
) -> tuple[float, float]:
    """Return r and p over the rated pairs that are not in one branch, from permutations that keep the branches."""
    pairs = [(a, b) for a, b in means if a != b and branches.get(a, a) != branches.get(b, b)]
    languages = sorted({language for pair in pairs for language in pair})

    def r_of(moved: Mapping[str, str]) -> float:
        x, y = [excess[moved[a], moved[b]] for a, b in pairs], [means[pair] for pair in pairs]
        return float(pearsonr(x, y).statistic if statistic == "pearson" else spearmanr(x, y).statistic)

    def is_kept(moved: Mapping[str, str]) -> bool:
        before = [branches.get(language, language) for language in languages]
        after = [branches.get(moved[language], moved[language]) for language in languages]
        return equal_pairs(before) == equal_pairs(after)

    every = [dict(zip(languages, order, strict=True)) for order in permutations(languages)]
    found = [r_of(moved) for moved in every if is_kept(moved)]
    return found[0], sum(abs(r) >= abs(found[0]) - 1e-12 for r in found) / len(found)


def test_three_languages__have_p_in_sixths() -> None:
    # deviations of the excess: a and b are close in both directions; ratings say the same, and nothing about order
    close = {("a", "b"): 1.0, ("b", "a"): 1.0}
    excess = {(a, b): 0.0 if a == b else close.get((a, b), 2.0) for a in "abc" for b in "abc"}
    ratings = rated({pair: 5 - value for pair, value in excess.items()})
    found = result_of(excess, ratings)
    assert found.keys() == {("pearson", "all"), ("spearman", "all")}
    for row in found.values():
        assert row.r == pytest.approx(-1.0)
        assert row.p == pytest.approx(2 / 6), "exchanging a and b changes nothing"
        assert (row.n_languages, row.n_pairs, row.n_permutations) == (3, 6, 6)
    of_order = rated({("a", "b"): 4, ("b", "c"): 0, ("a", "c"): 2, ("c", "a"): 2})
    one_way = result_of({**excess, ("b", "c"): 3.0}, of_order)
    assert one_way["pearson", "all"].p == pytest.approx(1 / 6)


@pytest.mark.parametrize("statistic", ["pearson", "spearman"])
@pytest.mark.parametrize("n_missing", [0, 7], ids=["all pairs rated", "pairs missing"])
@pytest.mark.parametrize("pairs", ["all", "across_branches"])
def test_test__equals_brute_force(statistic: CorrelationKind, n_missing: int, pairs: PairSet) -> None:
    excess, means = random_matrix(SIX, 1), random_matrix(SIX, 2)
    for pair in list(means)[1 : 1 + n_missing]:
        del means[pair]
    means[("a", "f")] = means[("c", "f")]  # equal ratings share a rank
    row = result_of(excess, rated({**means, ("a", "q"): 3.0}), BRANCHES)[statistic, pairs]
    r, p = brute_force(excess, means, statistic, BRANCHES if pairs == "across_branches" else {})
    assert row.r == pytest.approx(r)
    assert row.p == pytest.approx(p)
    assert row.n_permutations == (factorial(6) if pairs == "all" else 16)
    n_all, n_within = (30, 4) if n_missing == 0 else (25, 2)
    assert row.n_pairs == n_all - n_within * (pairs == "across_branches")


def test_unrated_language__is_not_permuted() -> None:
    means = {pair: value for pair, value in random_matrix(SIX, 4).items() if "f" not in pair}
    assert result_of(random_matrix(SIX, 3), rated(means))["pearson", "all"].n_languages == 5


def test_permutation_with_equal_excesses__counts_as_large() -> None:
    # only the pairs of a, b, c differ; three pairs are rated, and half of the permutations see equal numbers there
    excess = {(a, b): 0.0 if a == b else 1.0 for a in "abc" for b in "abc"} | {("a", "b"): 2.0}
    means = {("a", "b"): 3.0, ("a", "c"): 1.0, ("b", "c"): 2.0}
    row = result_of(excess, rated(means))["pearson", "all"]
    # a -> b is on a rated pair in three permutations, where r is that of (2, 1, 1) in some order; else all are equal
    assert row.r == pytest.approx(pearsonr([2.0, 1.0, 1.0], [3.0, 1.0, 2.0]).statistic)
    assert row.p == pytest.approx((1 + 1 + 3) / 6), "the observed one, that of rating 1, and three without r"


def test_few_pairs_or_equal_ratings__have_no_correlation() -> None:
    few, none = {("a", "b"): 1.0, ("b", "a"): 2.0}, {("x", "y"): 1.0, ("x", "x"): 2.0}
    for means in (few, none, {("a", "b"): 5.0, ("b", "a"): 5.0, ("a", "c"): 5.0}):
        found = result_of(random_matrix("abc", 5), rated(means), {"a": "x", "b": "x"})
        assert {(row.r, row.p, row.p_holm) for row in found.values()} == {(None, None, None)}
        assert [row.is_primary for row in found.values()].count(True) == 1


@pytest.mark.parametrize("blocks", ["a" * 9, "aabbccdef", "aaaaaaabb"], ids=["one", "pairs", "two sizes"])
def test_more_languages__have_drawn_permutations_that_keep_the_blocks(blocks: str) -> None:
    found = language_permutations(blocks)
    assert found.shape == (DRAWN_PERMUTATIONS + 1, 9)
    places: list[list[int]] = found[:2000].tolist()
    assert places[0] == list(range(9))
    assert all(sorted(order) == list(range(9)) for order in places)
    for order in places:
        assert equal_pairs([blocks[place] for place in order]) == equal_pairs(blocks)
    assert len({tuple(order) for order in places}) > 250
    assert np.array_equal(found, language_permutations(blocks)), "the same are drawn each time"
    assert all(len({order[place] for order in places}) > 1 for place in range(9))


def test_drawn_permutations__give_the_p_of_all_of_them() -> None:
    # a star: language a is far from all others in both matrices; p is the chance that a stays: 1 in 9
    excess = {(a, b): 0.0 if a == b else 1.0 + ("a" in (a, b)) for a in "abcdefghi" for b in "abcdefghi"}
    row = result_of(excess, rated(excess))["pearson", "all"]
    assert row.r == pytest.approx(1.0)
    assert row.n_permutations == DRAWN_PERMUTATIONS + 1
    assert row.p == pytest.approx(1 / 9, abs=5 * sqrt(1 / 9 * 8 / 9 / DRAWN_PERMUTATIONS))


def test_p__is_uniform_under_the_null() -> None:
    """Rows and columns have effects of their own, so that the pairs of a language depend on each other."""

    def with_effects(seed: int) -> Matrix:
        rng = Random(seed)
        listener, text = [{language: rng.gauss(0, 1) for language in "abcde"} for _ in range(2)]
        return {(a, b): rng.random() + listener[a] + text[b] for a in "abcde" for b in "abcde"}

    draws = [result_of(with_effects(2 * n), rated(with_effects(2 * n + 1)), BRANCHES) for n in range(400)]
    for statistic, pairs in draws[0]:
        found, rng = [draw[statistic, pairs].p or 0.0 for draw in draws], Random(0)
        steps = factorial(5) if pairs == "all" else 8
        spread = [p - rng.random() / steps for p in found]  # p is a multiple of 1 / steps
        assert float(kstest(spread, "uniform").pvalue) > 0.01
        share = sum(p <= 0.25 for p in found) / 400
        assert share == pytest.approx(0.25, abs=3 * sqrt(0.25 * 0.75 / 400))
    assert len(draws[0]) == 4


def test_one_test__is_primary_and_the_others_are_adjusted() -> None:
    lstm, gru = (random_matrix(SIX, seed) for seed in (0, 1))
    tables = [ExcessTable("lstm", "passages", "skip", lstm), ExcessTable("gru", "passages", "skip", gru)]
    primary = PrimaryTest(model="gru", kind="passages", mode="skip", statistic="pearson", pairs="across_branches")
    found = correlations(tables, rated(random_matrix(SIX, 9)), BRANCHES, primary)
    assert len(found) == 2 * 2 * 2
    [first] = [row for row in found if row.is_primary]
    assert (first.model, first.statistic, first.pairs, first.p_holm) == ("gru", "pearson", "across_branches", None)
    others = [row for row in found if not row.is_primary]
    assert [row.p_holm for row in others] == pytest.approx(holm([row.p or 0.0 for row in others]))
