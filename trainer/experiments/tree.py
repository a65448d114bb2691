"""Average-linkage tree (UPGMA) of the languages, by their symmetric distances."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.experiments import TreeJoin


def average_linkage(languages: Sequence[str], distances: Mapping[tuple[str, str], float]) -> tuple[TreeJoin, ...]:
    """Return the joins of the tree, from the closest to the last; at least two languages."""
    from scipy.cluster.hierarchy import linkage  # takes 0.3 s to import

    condensed: list[float] = [distances[a, b] for i, a in enumerate(languages) for b in languages[i + 1 :]]
    joined: NDArray[np.float64] = linkage(np.array(condensed, dtype=np.float64), method="average")
    rows: list[list[float]] = joined.tolist()
    clusters: list[tuple[str, ...]] = [(language,) for language in languages]
    joins: list[TreeJoin] = []
    for left, right, height, _ in rows:
        join = TreeJoin(left=clusters[int(left)], right=clusters[int(right)], height=height)
        clusters.append(join.left + join.right)
        joins.append(join)
    return tuple(joins)


def joins_first(tree: Sequence[TreeJoin], groups: Iterable[Iterable[str]]) -> bool:
    """Return True if the languages of each group join each other before any other language joins them."""
    clusters = {frozenset(join.left + join.right) for join in tree}
    return all(frozenset(group) in clusters for group in groups)
