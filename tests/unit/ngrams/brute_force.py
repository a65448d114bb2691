"""Interpolated modified Kneser-Ney in plain dictionaries, written from the formulas."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import log

import numpy as np

from trainer.contracts.tokenizers import SpecialIds
from trainer.ngrams.counts import Ids
from trainer.tokenizers.base import ids_type

Gram = tuple[int, ...]


def as_ids(tokens: Sequence[int], vocab_size: int) -> Ids:
    return np.array(tokens, dtype=ids_type(vocab_size))


def documents_of(tokens: Sequence[int], special: SpecialIds) -> list[list[int]]:
    """Return each document with the token before its first target."""
    if special.newline is not None:
        return [[special.newline, *tokens]] if tokens else []
    lines: list[list[int]] = [[]]
    for token in tokens:
        lines[-1].append(token)
        if token == special.eos:
            lines.append([])
    assert lines.pop() == []
    return lines if special.bos is not None else [[special.eos, *line] for line in lines]


class BruteForce:
    """The model of an order; `predicted` are the tokens that a text can have."""

    def __init__(
        self, documents: Sequence[Sequence[int]], order: int, predicted: set[int], discounts: Sequence[Sequence[float]]
    ) -> None:
        self.order = order
        self.predicted = predicted
        self.discounts = discounts
        self.counts = [_counts(documents, n, is_highest=n == order) for n in range(1, order + 1)]
        self.continued: list[dict[Gram, list[int]]] = []
        for counts in self.counts:
            continued: dict[Gram, list[int]] = defaultdict(list)
            for gram, count in counts.items():
                continued[gram[:-1]].append(count)
            self.continued.append(continued)

    def probability(self, context: Gram, token: int) -> float:
        """Return p(token | context) of a context that is complete or begins with the start of a document."""
        return self._of_order(min(self.order, len(context) + 1), context, token)

    def _of_order(self, n: int, context: Gram, token: int) -> float:
        if n == 0:
            return 1 / len(self.predicted) if token in self.predicted else 0.0
        given = context[len(context) - n + 1 :]
        lower = self._of_order(n - 1, context, token)
        of_context = self.continued[n - 1].get(given)
        if of_context is None:
            return lower
        count = self.counts[n - 1][*given, token]
        left = sum(self._discount(n, each) for each in of_context)
        return (count - self._discount(n, count) + left * lower) / sum(of_context)

    def _discount(self, n: int, count: int) -> float:
        return (0.0, *self.discounts[n - 1])[min(count, 3)]

    def losses_nats(self, documents: Sequence[Sequence[int]]) -> list[float]:
        found: list[float] = []
        for document in documents:
            for i in range(1, len(document)):
                context = tuple(document[max(0, i - self.order + 1) : i])
                found.append(-log(self.probability(context, document[i])))
        return found


def _counts(documents: Sequence[Sequence[int]], n: int, *, is_highest: bool) -> Counter[Gram]:
    """Return occurrences for the highest order, else different tokens before; at a document's start, occurrences."""
    occurrences = Counter[Gram]()
    before: dict[Gram, set[int]] = defaultdict(set)
    at_start = Counter[Gram]()
    for document in documents:
        for end in range(max(2, n), len(document) + 1):  # the last token is a target
            gram = tuple(document[end - n : end])
            occurrences[gram] += 1
            if end == n:
                at_start[gram] += 1
            else:
                before[gram].add(document[end - n - 1])
    if is_highest:
        return occurrences
    return Counter({gram: len(before[gram]) + at_start[gram] for gram in occurrences})


def closed_form(counts: Sequence[int]) -> tuple[float, float, float] | None:
    """Return Chen and Goodman's discounts; None where one is not above 0."""
    n1, n2, n3, n4 = (counts.count(wanted) for wanted in (1, 2, 3, 4))
    if 0 in (n1, n2, n3):
        return None
    y = n1 / (n1 + 2 * n2)
    discounts = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
    return discounts if min(discounts) > 0 else None
