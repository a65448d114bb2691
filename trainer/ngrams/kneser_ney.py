"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, https://dash.harvard.edu/handle/1/25104739).

p(w | h) = (c(hw) - D(c(hw)) + sum over v of D(c(hv)) p(w | h')) / c(h), where h' is h without its first token. D is
one of three discounts, for counts of 1, 2, and more. Below the highest order c counts the different tokens before an
n-gram. As in KenLM and SRILM, an n-gram at the start of a document, which has no token before it, keeps its count
there. The unigrams are interpolated with equal probabilities of all tokens that a text can have.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.tokenizers import SpecialIds
from trainer.ngrams.counts import Counts, Ids, Keys, NgramCounts

Discounts: TypeAlias = tuple[float, float, float]
"""Discounts of n-grams that are counted once, twice, and more often."""
Nodes: TypeAlias = "NDArray[np.int64]"
"""Numbers of n-grams in their order; -1 for an n-gram that was not counted."""
Floats: TypeAlias = "NDArray[np.float64]"

FALLBACK: Discounts = (0.5, 1.0, 1.5)
"""Discounts where the counts are too few for the closed form, as in KenLM."""
MIN_PROBABILITY = float(np.finfo(np.float32).tiny)
"""Stands for 0, the probability of a token that is never predicted, where a logarithm is needed."""
CHUNK_TOKENS = 1 << 18
"""Tokens whose probabilities are computed at once."""


class NgramTables(NamedTuple):
    """The n-grams of a model: `keys` of each order as in NgramCounts, and the counts that its formula has."""

    keys: tuple[Keys, ...]
    counts: tuple[Counts, ...]


def tables_of(counts: NgramCounts, order: int) -> NgramTables:
    """Return the tables of a model of an order, at most that of the counts."""
    return NgramTables(counts.keys[:order], (*counts.continuations[: order - 1], counts.occurrences[order - 1]))


def closed_form(counts: Counts) -> Discounts:
    """Return the discounts of an order by the numbers of n-grams that are counted once, twice, three and four times.

    Returns FALLBACK where they do not give three discounts above 0 (Chen and Goodman 1998, equation 26).
    """
    up_to_five: Counts = np.minimum(counts, 5)
    times: list[int] = np.bincount(up_to_five, minlength=5).tolist()
    _, once, twice, thrice, four_times, *_ = times
    if not (once and twice and thrice):
        return FALLBACK
    y = once / (once + 2 * twice)
    discounts = 1 - 2 * y * twice / once, 2 - 3 * y * thrice / twice, 3 - 4 * y * four_times / thrice
    return discounts if min(discounts) > 0 else FALLBACK


class ContextSums(NamedTuple):
    """Sums over the n-grams of one order with the same context, for contexts (N,)."""

    totals: Counts
    """Sum of their counts (N,); 0 if there are none."""
    kinds: Counts
    """Number of those with a count of one, of two, and of three or more (N, 3)."""

    def of(self, contexts: Nodes) -> "ContextSums":
        """Return the sums for contexts, of which those that were not counted have none."""
        is_known: NDArray[np.bool_] = contexts >= 0
        known: Counts = is_known.astype(np.int32)
        totals: Counts = self.totals[contexts] * known
        kinds: Counts = self.kinds[contexts] * known[:, np.newaxis]
        return ContextSums(totals, kinds)

    def lower_shares(self, discounts: Discounts) -> Floats:
        """Return the weight of the next lower order after each context (N,)."""
        totals: Counts = np.maximum(self.totals, 1)
        shares: Floats = _weighted(self.kinds, discounts) / totals
        is_continued: NDArray[np.bool_] = self.totals > 0
        return np.where(is_continued, shares, 1.0)


class TargetCounts(NamedTuple):
    """Counts of one order that give the probabilities of targets (T,)."""

    counts: Counts
    """Count of the n-gram that ends with each target."""
    sums: ContextSums
    """Sums for the context of each target."""

    def linear(self, lower: Floats) -> tuple[Floats, Floats]:
        """Return b (T,) and x (T, 3) of the probabilities b + x D, given those of the lower order (T,)."""
        slopes: Floats = self.sums.kinds * lower[:, np.newaxis]
        counted: NDArray[np.int64] = np.flatnonzero(self.counts)
        kinds: Counts = np.minimum(self.counts[counted], 3) - 1
        slopes[counted, kinds] -= 1
        totals: Counts = np.maximum(self.sums.totals, 1)
        slopes /= totals[:, np.newaxis]
        is_continued: NDArray[np.bool_] = self.sums.totals > 0
        base: Floats = np.where(is_continued, self.counts / totals, lower)
        return base, slopes


class Targets(NamedTuple):
    """Targets (T,) with all that gives their probabilities but the discounts."""

    uniform: Floats
    """Probabilities that the unigrams are interpolated with."""
    orders: tuple[TargetCounts, ...]

    def probabilities(self, discounts: Sequence[Discounts]) -> list[Floats]:
        """Return the probabilities (T,) of each order from 0 on."""
        found = [self.uniform]
        for counts, of_order in zip(self.orders, discounts, strict=True):
            base, slopes = counts.linear(found[-1])
            found.append(base + _weighted(slopes, of_order))
        return found


class KneserNey:
    """An n-gram model of a vocabulary.

    The probabilities of all tokens after any context add to 1. Tokens that no text has ([BOS], padding, masks) have
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
        sizes = [1, *(len(keys) for keys in tables.keys)]
        columns = zip(tables.keys, tables.counts, sizes, strict=False)
        self._sums = [_context_sums(keys // vocab_size, counts, size) for keys, counts, size in columns]
        """Sums for each n-gram as a context, by its order from 0 on."""
        predicted = is_predicted(vocab_size, special_ids)
        self._uniform: Floats = predicted / np.count_nonzero(predicted)
        tokens: Nodes = np.arange(vocab_size)[:, np.newaxis]
        self.unigrams = self._targets(tokens, tokens[:, :0]).probabilities(discounts[:1])[1]
        """Probabilities (V,) without a context."""

    def losses_nats(self, ids: Ids) -> Floats:
        """Return the loss of each predicted token of a split, in order."""
        found: list[Floats] = [np.zeros(0)]
        for targets in self.targets(ids):
            probabilities: Floats = np.maximum(targets.probabilities(self.discounts)[-1], MIN_PROBABILITY)
            found.append(-np.log(probabilities))
        return np.concatenate(found)

    def targets(self, ids: Ids) -> Iterator[Targets]:
        """Yield the predicted tokens of a split, chunk by chunk."""
        line_start = self.special_ids.line_start
        start: Nodes = np.full((1, 1), self.special_ids.start)
        contexts: Nodes = self.read_contexts(start, self.no_context(1))[:, -1]
        for begin in range(0, len(ids), CHUNK_TOKENS):
            chunk: Nodes = ids[begin : begin + CHUNK_TOKENS].astype(np.int64)
            nodes: Nodes = self._read(chunk[np.newaxis], contexts, self.order)[0]
            after: list[Nodes] = [contexts, nodes[:, : self.order - 1]]
            before: Nodes = np.concatenate(after)[:-1]
            contexts = nodes[-1:, : self.order - 1]
            if line_start is not None:
                is_target: NDArray[np.bool_] = chunk != line_start
                nodes, before = nodes[is_target], before[is_target]
            yield self._targets(nodes, before)

    def distribution(self, contexts: NDArray[np.int64]) -> Floats:
        """Return the probabilities (N, V) of the next token after contexts (N, n - 1) of ids, -1 before the first."""
        before = self.no_context(len(contexts))
        return self.probabilities(self.read_contexts(contexts, before)[:, -1] if self.order > 1 else before)

    def no_context(self, rows: int) -> Nodes:
        """Return the contexts (B, n - 1) before the first token."""
        return np.full((rows, self.order - 1), -1, dtype=np.int64)

    def read_contexts(self, ids: NDArray[np.int64], contexts: Nodes) -> Nodes:
        """Return the contexts (B, T, n - 1) after each of the ids (B, T): the n-grams below order n that end there.

        `contexts` (B, n - 1) are those before the first id.
        """
        return self._read(ids, contexts, self.order - 1)

    def probabilities(self, contexts: Nodes) -> Floats:
        """Return the probabilities (N, V) of the next token after contexts (N, n - 1), as `read_contexts` has them."""
        weights: Floats = np.ones(len(contexts))
        parts: list[tuple[Nodes, Nodes, Floats]] = []
        for order in range(self.order, 1, -1):
            keys, counts = self.tables.keys[order - 1], self.tables.counts[order - 1]
            of_order: list[float] = [0, *self.discounts[order - 1]]
            discounts: Floats = np.array(of_order)
            nodes: Nodes = contexts[:, order - 2]
            begins: Nodes = np.searchsorted(keys, nodes * self.vocab_size)
            sizes: Nodes = np.searchsorted(keys, (nodes + 1) * self.vocab_size)
            sizes -= begins
            rows: Nodes = np.repeat(np.arange(len(nodes)), sizes)
            ends: Nodes = np.cumsum(sizes)
            begins += sizes
            begins -= ends
            continued: Nodes = begins[rows]
            continued += np.arange(len(rows))
            sums = self._sums[order - 1].of(nodes)
            found: Counts = counts[continued]
            kinds: Counts = np.minimum(found, 3)
            totals: Counts = np.maximum(sums.totals[rows], 1)
            shares: Floats = weights[rows] * (found - discounts[kinds]) / totals
            tokens: Nodes = keys[continued] % self.vocab_size
            parts.append((rows, tokens, shares))
            weights = weights * sums.lower_shares(self.discounts[order - 1])
        probabilities: Floats = weights[:, np.newaxis] * self.unigrams
        for rows, tokens, shares in parts:
            probabilities[rows, tokens] += shares  # a row has a token once
        return probabilities

    def tokens_of(self, order: int, numbers: Nodes) -> NDArray[np.int64]:
        """Return the tokens (N, k) of n-grams of an order k."""
        found: NDArray[np.int64] = np.empty((len(numbers), order), dtype=np.int64)
        for position in range(order - 1, -1, -1):
            numbers, found[:, position] = np.divmod(self.tables.keys[position][numbers], self.vocab_size)
        return found

    def ngram_probabilities(self, tokens: NDArray[np.int64]) -> Floats:
        """Return the probability (N,) of the last token of n-grams (N, k), k > 1, given the tokens before it."""
        orders = tokens.shape[1]
        nodes = self._read(tokens, self.no_context(len(tokens)), orders)
        return self._targets(nodes[:, -1], nodes[:, -2, :-1]).probabilities(self.discounts[:orders])[-1]

    def lower_shares(self, order: int, numbers: Nodes) -> Floats:
        """Return the weight (N,) of shorter contexts after n-grams of an order below the highest."""
        return self._sums[order].of(numbers).lower_shares(self.discounts[order])

    def _read(self, ids: NDArray[np.int64], contexts: Nodes, orders: int) -> Nodes:
        """Return the n-grams (B, T, orders) that end with each id."""
        found: Nodes = np.empty((len(ids), ids.shape[1], orders), dtype=np.int64)
        found[..., :1] = ids[..., np.newaxis]
        for order in range(2, orders + 1):
            before: Nodes = np.concatenate([contexts[:, order - 2, np.newaxis], found[:, :-1, order - 2]], axis=1)
            found[..., order - 1] = _find(self.tables.keys[order - 1], before, ids, self.vocab_size)
        return found

    def _targets(self, nodes: Nodes, contexts: Nodes) -> Targets:
        """Return targets, given the n-grams (T, n) that end with them and those (T, n - 1) that end before them."""
        context: Nodes = np.zeros(len(nodes), dtype=np.int64)
        orders: list[TargetCounts] = []
        for order in range(nodes.shape[1]):
            found: Nodes = nodes[:, order]
            is_counted: NDArray[np.bool_] = found >= 0
            if order:
                context = contexts[:, order - 1]
            counts: Counts = self.tables.counts[order][found] * is_counted
            orders.append(TargetCounts(counts, self._sums[order].of(context)))
        return Targets(self._uniform[nodes[:, 0]], tuple(orders))


def is_predicted(vocab_size: int, special_ids: SpecialIds) -> NDArray[np.bool_]:
    """Return for each token of a vocabulary whether a text can have it."""
    marks = {special_ids.bos, special_ids.pad, special_ids.mask}
    if special_ids.newline is not None:
        marks.add(special_ids.eos)
    never = [mark for mark in marks if mark is not None and mark != special_ids.line_end]
    return np.isin(np.arange(vocab_size), never, invert=True)


def _context_sums(prefixes: Nodes, counts: Counts, size: int) -> ContextSums:
    """Return the sums for contexts with the numbers 0 to `size`, given the contexts of all n-grams and their counts."""
    totals: Counts = np.bincount(prefixes, counts, size).astype(np.int32)
    kinds: Counts = np.empty((size, 3), dtype=np.int32)
    of_ngrams: Counts = np.minimum(counts, 3)
    for kind in range(3):
        is_kind: NDArray[np.bool_] = of_ngrams == kind + 1
        kinds[:, kind] = np.bincount(prefixes[is_kind], minlength=size)
    return ContextSums(totals, kinds)


def _weighted(kinds: "Floats | Counts", discounts: Discounts) -> Floats:
    """Return the sums (N,) of columns (N, 3) times the discounts, on every machine in the same order."""
    found: Floats = np.zeros(len(kinds))
    for column, discount in enumerate(discounts):
        of_kind: Floats = kinds[:, column].astype(np.float64)
        found += of_kind * discount
    return found


def _find(keys: Keys, prefixes: Nodes, ids: NDArray[np.int64], vocab_size: int) -> Nodes:
    """Return the numbers of the n-grams that are made of prefixes and ids."""
    found: Nodes = np.full(ids.shape, -1, dtype=np.int64)
    is_known: NDArray[np.bool_] = prefixes >= 0
    wanted: Keys = prefixes[is_known] * vocab_size + ids[is_known]
    places: Nodes = np.searchsorted(keys[:-1], wanted)
    is_found: NDArray[np.bool_] = keys[places] == wanted
    found[is_known] = np.where(is_found, places, -1)
    return found
