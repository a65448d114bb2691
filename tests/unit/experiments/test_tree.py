"""The average-linkage tree by hand, and against joining the two nearest clusters again and again."""

from itertools import combinations
from math import sqrt

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from trainer.contracts.experiments import TreeJoin
from trainer.experiments.validity import average_linkage, joins_first

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
"""Their square roots keep means of different pairs apart."""


def both_orders(pairs: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return pairs | {(b, a): nats for (a, b), nats in pairs.items()}


def test_tree__joins_as_by_hand() -> None:
    distances = both_orders({("a", "b"): 2, ("a", "c"): 6, ("a", "d"): 10, ("b", "c"): 8, ("b", "d"): 9, ("c", "d"): 4})
    tree = average_linkage(["a", "b", "c", "d"], distances)
    assert tree == (
        TreeJoin(left=("a",), right=("b",), height=2.0),
        TreeJoin(left=("c",), right=("d",), height=4.0),
        TreeJoin(left=("a", "b"), right=("c", "d"), height=(6 + 10 + 8 + 9) / 4),
    )
    assert joins_first(tree, [["a", "b"], ["d", "c"]])
    assert not joins_first(tree, [["a", "b"], ["b", "c"]])


@for_all(st.lists(st.integers(min_value=-1000, max_value=1000), min_size=10, max_size=10, unique=True))
def test_tree__is_that_of_joining_the_nearest_clusters(nats: list[int]) -> None:
    pairs = combinations("abcde", 2)
    distances = both_orders(
        {pair: number + sqrt(prime) for pair, number, prime in zip(pairs, nats, PRIMES, strict=True)}
    )
    clusters: list[frozenset[str]] = [frozenset(language) for language in "abcde"]
    expected: list[tuple[set[frozenset[str]], float]] = []
    while len(clusters) > 1:
        means = {
            (a, b): sum(distances[x, y] for x in a for y in b) / (len(a) * len(b)) for a, b in combinations(clusters, 2)
        }
        left, right = min(means, key=means.__getitem__)
        expected.append(({left, right}, means[left, right]))
        clusters = [cluster for cluster in clusters if cluster not in (left, right)] + [left | right]
    tree = average_linkage(list("abcde"), distances)
    for join, (children, height) in zip(tree, expected, strict=True):
        assert {frozenset(join.left), frozenset(join.right)} == children
        assert join.height == pytest.approx(height, abs=1e-9)
