"""Counts of all n-grams of a text, in sorted arrays.

A window is a target token with the tokens before it, the nearest first, packed into one integer. Chunks of windows are
sorted, counted and merged, so that memory grows with the different windows and not with the text. In sorted windows all
occurrences of an n-gram are neighbours, whatever its order, so that the counts of every order follow from one pass.
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.tokenizers import SpecialIds

Ids: TypeAlias = "NDArray[np.uint8 | np.uint16 | np.uint32]"
Keys: TypeAlias = "NDArray[np.int64]"
Counts: TypeAlias = "NDArray[np.int32]"
Numbers: TypeAlias = "NDArray[np.int32]"
"""Tokens, or positions of n-grams in the arrays of their order."""

MAX_NGRAMS = 14_000_000
"""Largest number of different windows of all orders together, with which the memory stays below a gigabyte.

A text with more of them is counted up to a lower order.
"""
CHUNK_TOKENS = 1 << 21
_KEY_BITS = 63


class NgramCounts(NamedTuple):
    """Counts of the n-grams of the orders 1 to n, as a trie.

    An n-gram of order k > 1 has the key p V + w: its last token is w, and its first k - 1 tokens have the number p in
    order k - 1. `keys[k - 1]` are in ascending order. Order 1 has every token of the vocabulary (V,), also those that
    do not occur.
    """

    keys: tuple[Keys, ...]
    occurrences: tuple[Counts, ...]
    continuations: tuple[Counts, ...]
    """Number of different tokens before each n-gram of the orders 1 to n - 1.

    An occurrence at the start of a document, with no token before it, counts by itself.
    """

    @property
    def order(self) -> int:
        return len(self.keys)


def count_ngrams(ids: Ids, vocab_size: int, special_ids: SpecialIds, max_order: int) -> NgramCounts:
    """Count the n-grams that end with a predicted token and begin in the same document, up to an order.

    The order is lower where a text has no longer n-grams, and where they would be more than MAX_NGRAMS.
    """
    return _forward(_orders(_count_windows(_Text(ids, vocab_size, special_ids), max_order)), vocab_size)


class _Text(NamedTuple):
    ids: Ids
    vocab_size: int
    special_ids: SpecialIds

    def digits(self, start: int, stop: int, before: int) -> NDArray[np.int64]:
        """Return id + 1 of the tokens from `start - before` to `stop`; 0 before the first document's start token."""
        digits: NDArray[np.int64] = np.zeros(before + stop - start, dtype=np.int64)
        first = start - before
        known = self.ids[max(first, 0) : stop]
        digits[len(digits) - len(known) :] = known
        digits[len(digits) - len(known) :] += 1
        if first < 0:
            digits[-first - 1] = self.special_ids.start + 1
        return digits


class _Windows(NamedTuple):
    """Different windows of some length, in ascending order, with their counts.

    A window has a digit of `bits` bits for each token, that of the target first: id + 1, or 0 before the start of a
    document. Where a key is full, the number of the window in `heads` replaces the digits so far.
    """

    keys: Keys
    counts: Counts
    length: int
    bits: int
    heads: dict[int, Keys]
    """Shorter windows by their length."""

    def shorter(self) -> "tuple[_Windows, NDArray[np.int64]]":
        """Return the windows without their last digits, and for each of them the position of the first such window."""
        keys: Keys = self.keys >> self.bits
        heads = {**self.heads}
        if self.length - 1 in heads:
            keys = heads.pop(self.length - 1)[keys]
        firsts = _firsts(keys)
        counts: Counts = np.add.reduceat(self.counts, firsts, dtype=np.int32)
        return _Windows(keys[firsts], counts, self.length - 1, self.bits, heads), firsts


def _count_windows(text: _Text, length: int) -> _Windows:
    bits = text.vocab_size.bit_length()
    heads: dict[int, Keys] = {}
    used = 0
    for position in range(length):
        if used + bits > _KEY_BITS:
            head = _count_packed(text, position, bits, heads)
            heads = {**heads, position: head.keys}
            if head.length < position or _size(heads) + len(head.keys) > MAX_NGRAMS:
                return head  # longer windows are no fewer
            used = len(head.keys).bit_length()
        used += bits
    return _count_packed(text, length, bits, heads)


def _size(heads: Mapping[int, Keys]) -> int:
    return sum(map(len, heads.values()))


def _count_packed(text: _Text, length: int, bits: int, heads: dict[int, Keys]) -> _Windows:
    """Count the windows of a length, or of a shorter one where there are more than MAX_NGRAMS with the heads."""
    empty: Keys = np.zeros(0, dtype=np.int64)
    found = _Windows(empty, empty.astype(np.int32), length, bits, heads)
    for start in range(0, len(text.ids), CHUNK_TOKENS):
        keys = _packed(text, start, min(start + CHUNK_TOKENS, len(text.ids)), found)
        keys.sort()
        firsts = _firsts(keys)
        counts: Counts = np.diff(firsts, append=len(keys)).astype(np.int32)
        found = _merged(found, keys[firsts], counts)
        while len(found.keys) + _size(found.heads) > MAX_NGRAMS and found.length > 1:
            found, _ = found.shorter()
    return found


def _packed(text: _Text, start: int, stop: int, like: _Windows) -> Keys:
    """Return the windows of all targets of a chunk, in the order of the text."""
    digits = text.digits(start, stop, like.length)
    special_ids = text.special_ids
    keys: Keys = np.zeros(stop - start, dtype=np.int64)
    is_inside: NDArray[np.bool_] = np.ones(len(keys), dtype=np.bool_)
    for position in range(like.length):
        if position in like.heads:
            keys = np.searchsorted(like.heads[position], keys)
        digit: Keys = digits[like.length - position :][: len(keys)]
        keys <<= like.bits
        keys += digit * is_inside
        if position and special_ids.newline is None:  # a line has begun; a stream begins once
            is_later: NDArray[np.bool_] = digit != special_ids.start + 1
            is_inside &= is_later
    if special_ids.line_start is None:
        return keys
    is_target: NDArray[np.bool_] = digits[like.length :] != special_ids.line_start + 1
    return keys[is_target]


def _firsts(keys: Keys) -> NDArray[np.int64]:
    """Return the position of the first of each run of equal keys."""
    is_first: NDArray[np.bool_] = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    return np.flatnonzero(is_first)


def _merged(windows: _Windows, keys: Keys, counts: Counts) -> _Windows:
    """Return the windows with more of them, which are different and in ascending order."""
    places: NDArray[np.int64] = np.searchsorted(windows.keys, keys)
    is_known: NDArray[np.bool_] = places < len(windows.keys)
    is_equal: NDArray[np.bool_] = windows.keys[places[is_known]] == keys[is_known]
    is_known[is_known] = is_equal
    windows.counts[places[is_known]] += counts[is_known]
    new_places: NDArray[np.int64] = places[~is_known]
    all_keys: Keys = np.insert(windows.keys, new_places, keys[~is_known])
    all_counts: Counts = np.insert(windows.counts, new_places, counts[~is_known])
    return windows._replace(keys=all_keys, counts=all_counts)


class _Order(NamedTuple):
    """The n-grams of an order, sorted by their last token, then by the token before it, and so on."""

    first_tokens: Numbers
    suffixes: Numbers
    """The number of each n-gram without its first token in the order below, the token itself in order 1."""
    occurrences: Counts
    continuations: Counts

    def keys(self, vocab_size: int) -> Keys:
        """Return the suffixes times the size of the vocabulary plus the first tokens, which are in ascending order."""
        return _keys(self.suffixes, self.first_tokens, vocab_size)


def _orders(windows: _Windows) -> list[_Order]:
    """Return the orders from 1 on that have n-grams, as many as have at most MAX_NGRAMS windows together."""
    orders: list[_Order] = []
    sizes: list[int] = []
    continuations = windows.counts
    for length in range(windows.length, 0, -1):
        last_digits: Keys = windows.keys & ((1 << windows.bits) - 1)
        digits: Numbers = last_digits.astype(np.int32)
        is_ngram: NDArray[np.bool_] = digits > 0
        if orders:
            numbers = digits
            if length > 1:
                numbers = np.cumsum(is_ngram, dtype=np.int32)
            suffixes: Numbers = numbers[orders[-1].suffixes]
            suffixes -= 1
            orders[-1] = orders[-1]._replace(suffixes=suffixes)
        counts = windows.counts
        windows, firsts = windows.shorter()
        repeats: NDArray[np.int64] = np.diff(firsts, append=len(counts))
        every: Numbers = np.arange(len(firsts), dtype=np.int32)
        groups: Numbers = np.repeat(every, repeats)
        first_tokens: Numbers = digits[is_ngram] - np.int32(1)
        if len(first_tokens):
            orders.append(_Order(first_tokens, groups[is_ngram], counts[is_ngram], continuations[is_ngram]))
            sizes.append(len(counts))
        at_start: Counts = np.where(is_ngram, np.int32(1), counts)
        continuations = np.add.reduceat(at_start, firsts, dtype=np.int32)
    fitting = sum(size <= MAX_NGRAMS for size in accumulate(reversed(sizes)))
    return orders[::-1][: max(1, fitting)]


def _forward(orders: list[_Order], vocab_size: int) -> NgramCounts:
    """Return the counts as a trie, in which n-grams with the same first tokens are neighbours."""
    tokens: Numbers = np.arange(vocab_size, dtype=np.int32)
    keys: list[Keys] = [tokens.astype(np.int64)]
    occurrences, continuations = [np.zeros_like(tokens)], [np.zeros_like(tokens)]
    for order in orders[:1]:
        occurrences[0][order.first_tokens] = order.occurrences
        continuations[0][order.first_tokens] = order.continuations
    empty = np.zeros_like(tokens)
    below, places = _Order(tokens, empty, empty, empty), keys[0]
    last_tokens, prefixes = tokens, empty
    for order in orders[1:]:
        numbers: Numbers = np.empty(len(places), dtype=np.int32)
        every: Numbers = np.arange(len(places), dtype=np.int32)
        numbers[places] = every
        wanted = _keys(prefixes[order.suffixes], order.first_tokens, vocab_size)
        prefixes = np.searchsorted(below.keys(vocab_size), wanted).astype(np.int32)
        last_tokens = last_tokens[order.suffixes]
        wanted = _keys(numbers[prefixes], last_tokens, vocab_size)
        places = np.argsort(wanted)
        keys.append(wanted[places])
        occurrences.append(order.occurrences[places])
        continuations.append(order.continuations[places])
        below = order
    return NgramCounts(tuple(keys), tuple(occurrences), tuple(continuations[:-1]))


def _keys(high: Numbers, low: Numbers, vocab_size: int) -> Keys:
    keys: Keys = high.astype(np.int64)
    keys *= vocab_size
    keys += low
    return keys
