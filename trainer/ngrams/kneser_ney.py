"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, https://dash.harvard.edu/handle/1/25104739).

p(w | h) = (c(hw) - D(c(hw)) + sum over v of D(c(hv)) p(w | h')) / c(h), where h' is h without its first token. D is
one of three discounts, for counts of 1, 2, and more. Below the highest order c counts the different tokens before an
n-gram. As in KenLM and SRILM, an n-gram at the start of a document, which has no token before it, keeps its count
there. The unigrams are interpolated with equal probabilities of all tokens that a text can have.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.tokenizers import SpecialIds
from trainer.ngrams.counts import Counts, Ids, Keys, NgramCounts

Discounts: TypeAlias = tuple[float, float, float]
"""Discounts of n-grams that are counted once, twice, and more often."""
Nodes: TypeAlias = "NDArray[np.int64]"
"""Numbers of n-grams in their order; -1 for an n-gram that was not counted."""
Probabilities: TypeAlias = "NDArray[np.float64]"

FALLBACK: Discounts = (0.5, 1.0, 1.5)
"""Discounts where the counts are too few for the closed form, as in KenLM."""
MIN_PROBABILITY = float(np.finfo(np.float32).tiny)
"""Stands for 0, the probability of a token that is never predicted, where a logarithm is needed."""
_CHUNK_TOKENS = 1 << 18


class NgramTables(NamedTuple):
    """The n-grams of a model: `keys` of each order as in NgramCounts, and the counts that its formula has."""

    keys: tuple[Keys, ...]
    counts: tuple[Counts, ...]


def tables_of(counts: NgramCounts, order: int) -> NgramTables:
    """Return the tables of a model of an order, at most that of the counts."""
    return NgramTables(counts.keys[:order], (*counts.continuations[: order - 1], counts.occurrences[order - 1]))


def closed_form(counts: Counts) -> Discounts | None:
    """Return the discounts of an order by the numbers of n-grams that are counted once, twice, three and four times.

    None where they do not give three discounts above 0 (Chen and Goodman 1998, equation 26).
    """
    once, twice, thrice, four_times = (int(np.count_nonzero(counts == count)) for count in range(1, 5))
    if not (once and twice and thrice):
        return None
    y = once / (once + 2 * twice)
    discounts = 1 - 2 * y * twice / once, 2 - 3 * y * thrice / twice, 3 - 4 * y * four_times / thrice
    return discounts if min(discounts) > 0 else None


class KneserNey:
    """An n-gram model of a vocabulary.

    The probabilities of all tokens after any context add to 1; tokens that no text has ([BOS], padding, masks) have
    probability 0.
    """

    def __init__(
        self, tables: NgramTables, discounts: tuple[Discounts, ...], vocab_size: int, special_ids: SpecialIds
    ) -> None:
        self.order = len(tables.keys)
        self.tables = tables
        self.discounts = discounts
        self.vocab_size = vocab_size
        self.special_ids = special_ids
        self._totals: list[NDArray[np.int64]] = []
        """Sum of the counts of the n-grams that continue each n-gram, by its order from 0 on."""
        self._shares: list[Probabilities] = []
        """Weight of the lower order after each n-gram, by its order from 0 on; 1 where no n-gram continues it."""
        sizes = [1, *(len(keys) for keys in tables.keys)]
        for keys, counts, size, of_order in zip(tables.keys, tables.counts, sizes, discounts, strict=False):
            prefixes: Nodes = keys // vocab_size
            totals: Probabilities = np.bincount(prefixes, counts, size)
            discounted: Probabilities = np.bincount(prefixes, _discounts(counts, of_order), size)
            self._totals.append(totals.astype(np.int64))
            self._shares.append(np.where(totals > 0, discounted / np.maximum(totals, 1), 1.0))
        uniform = is_predicted(vocab_size, special_ids).astype(np.float64)
        uniform /= np.sum(uniform)
        self._unigrams: Probabilities = self._share_of_counts(1, np.arange(vocab_size), np.zeros(vocab_size, np.int64))
        self._unigrams += self._shares[0][0] * uniform

    def losses_nats(self, ids: Ids) -> Probabilities:
        """Return the loss of each predicted token of a split, in order."""
        contexts = self.read_contexts(np.full((1, 1), self.special_ids.start), self.no_context(1))[:, -1]
        found: list[Probabilities] = []
        for start in range(0, len(ids), _CHUNK_TOKENS):
            chunk: NDArray[np.int64] = ids[np.newaxis, start : start + _CHUNK_TOKENS].astype(np.int64)
            nodes = self.read(chunk, contexts)
            before = np.concatenate([contexts[:, np.newaxis], nodes[:, :-1, : self.order - 1]], axis=1)
            probabilities = self._of_targets(nodes[0], before[0])
            if self.special_ids.line_start is not None:
                probabilities = probabilities[chunk[0] != self.special_ids.line_start]
            found.append(-np.log(np.maximum(probabilities, MIN_PROBABILITY)))
            contexts = nodes[:, -1, : self.order - 1]
        return np.concatenate(found) if found else np.zeros(0)

    def distribution(self, contexts: NDArray[np.int64]) -> Probabilities:
        """Return the probabilities (N, V) of the next token after contexts (N, n - 1) of ids, -1 before the first."""
        before = self.no_context(len(contexts))
        return self.probabilities(self.read_contexts(contexts, before)[:, -1] if self.order > 1 else before)

    def no_context(self, rows: int) -> Nodes:
        """Return the contexts (B, n - 1) before the first token."""
        return np.full((rows, self.order - 1), -1, dtype=np.int64)

    def read(self, ids: NDArray[np.int64], contexts: Nodes) -> Nodes:
        """Return the n-grams (B, T, n) of the orders 1 to n that end with each of the ids (B, T).

        `contexts` (B, n - 1) are those that end before the first id.
        """
        return self._read(ids, contexts, self.order)

    def read_contexts(self, ids: NDArray[np.int64], contexts: Nodes) -> Nodes:
        """Return the contexts (B, T, n - 1) after each of the ids (B, T): the n-grams of the orders below n."""
        return self._read(ids, contexts, self.order - 1)

    def _read(self, ids: NDArray[np.int64], contexts: Nodes, orders: int) -> Nodes:
        found: Nodes = np.empty((*ids.shape, orders), dtype=np.int64)
        found[..., :1] = ids[..., np.newaxis]
        for order in range(2, orders + 1):
            before = np.concatenate([contexts[:, order - 2, np.newaxis], found[:, :-1, order - 2]], axis=1)
            found[..., order - 1] = _find(self.tables.keys[order - 1], before, ids, self.vocab_size)
        return found

    def probabilities(self, contexts: Nodes) -> Probabilities:
        """Return the probabilities (N, V) of the next token after contexts (N, n - 1), as `read` returns them."""
        weights: Probabilities = np.ones(len(contexts))
        parts: list[tuple[NDArray[np.int64], NDArray[np.int64], Probabilities]] = []
        for order in range(self.order, 1, -1):
            nodes = contexts[:, order - 2]
            rows: NDArray[np.int64] = np.flatnonzero(nodes >= 0)
            keys, first_key = self.tables.keys[order - 1], nodes[rows] * self.vocab_size
            begins: NDArray[np.int64] = np.searchsorted(keys, first_key)
            sizes: NDArray[np.int64] = np.searchsorted(keys, first_key + self.vocab_size) - begins
            row: NDArray[np.int64] = np.repeat(rows, sizes)
            children: Nodes = np.arange(len(row)) + np.repeat(begins - np.cumsum(sizes) + sizes, sizes)
            share = weights[row] * self._share_of_counts(order, children, nodes[row])
            parts.append((row, keys[children] % self.vocab_size, share))
            weights[rows] *= self._shares[order - 1][nodes[rows]]
        found: Probabilities = weights[:, np.newaxis] * self._unigrams
        for row, tokens, share in parts:
            found[row, tokens] += share  # a token occurs once in a row
        return found

    def _share_of_counts(self, order: int, nodes: Nodes, contexts: Nodes) -> Probabilities:
        """Return (c(hw) - D(c(hw))) / c(h) of n-grams hw, given the numbers of their contexts h."""
        counts = self.tables.counts[order - 1][nodes]
        totals = self._totals[order - 1][contexts]
        return (counts - _discounts(counts, self.discounts[order - 1])) / np.maximum(totals, 1)

    def _of_targets(self, nodes: Nodes, contexts: Nodes) -> Probabilities:
        """Return the probability of each target (T,), given the n-grams (T, n) that end with it and those before it."""
        found: Probabilities = self._unigrams[nodes[:, 0]]
        for order in range(2, self.order + 1):
            known: NDArray[np.int64] = np.flatnonzero(contexts[:, order - 2] >= 0)
            found[known] *= self._shares[order - 1][contexts[known, order - 2]]
            counted: NDArray[np.int64] = np.flatnonzero(nodes[:, order - 1] >= 0)
            found[counted] += self._share_of_counts(order, nodes[counted, order - 1], contexts[counted, order - 2])
        return found


def is_predicted(vocab_size: int, special_ids: SpecialIds) -> NDArray[np.bool_]:
    """Return for each token of a vocabulary whether a text can have it."""
    predicted: NDArray[np.bool_] = np.ones(vocab_size, dtype=np.bool_)
    marks = [special_ids.bos, special_ids.pad, special_ids.mask]
    if special_ids.newline is not None:
        marks.append(special_ids.eos)
    predicted[[mark for mark in marks if mark is not None and mark != special_ids.line_end]] = False
    return predicted


def _discounts(counts: Counts, discounts: Discounts) -> Probabilities:
    of_count: Probabilities = np.array([0.0, *discounts])
    return of_count[np.minimum(counts, 3)]


def _find(keys: Keys, prefixes: Nodes, ids: NDArray[np.int64], vocab_size: int) -> Nodes:
    """Return the numbers of the n-grams that are made of prefixes and ids."""
    found: Nodes = np.full(ids.shape, -1, dtype=np.int64)
    is_known: NDArray[np.bool_] = prefixes >= 0
    wanted: Keys = prefixes[is_known] * vocab_size + ids[is_known]
    places: NDArray[np.int64] = np.searchsorted(keys, wanted)
    is_found: NDArray[np.bool_] = places < len(keys)
    is_found[is_found] = keys[places[is_found]] == wanted[is_found]
    found[is_known] = np.where(is_found, places, -1)
    return found
