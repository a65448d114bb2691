"""Windows over texts that are longer than a model reads at once.

The windows of a text score each of its targets once. Every window but the first reads a quarter of its tokens only as
context. A window of a masked model has the same context behind the scored tokens, except at the end of the text.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


def context_of(window_tokens: int) -> int:
    """Return the number of tokens that a window reads before the first scored one."""
    return window_tokens // 4


class Window(NamedTuple):
    """Ids that a model reads at once.

    A causal model scores the ids behind the positions from `first` to before `end`, each given the ids before it. A
    masked model scores the id at `first` while all from there to before `end` are masked.
    """

    ids: list[int]
    first: int
    end: int


class Windows(NamedTuple):
    """Windows over documents, one entry per window; positions count from the start of the document or the window."""

    document: NDArray[np.int64]
    begin: NDArray[np.int64]
    """The position in the document at which the window begins."""
    length: NDArray[np.int64]
    first: NDArray[np.int64]
    """The first scored position of the window."""
    end: NDArray[np.int64]
    """The position behind the last scored one of the window."""

    def ordered(self, numbers: NDArray[np.int64]) -> "Windows":
        """Return the windows with these numbers, in this order."""
        return Windows(*(column[numbers] for column in self))


def windows(lengths: NDArray[np.int64], max_tokens: int | None, *, both_sides: bool = False) -> Windows:
    """Cut documents of these lengths into windows of at most `max_tokens`; None cuts nothing."""
    longest = int(np.max(lengths)) if max_tokens is None else max_tokens
    before = context_of(longest)
    behind = before if both_sides else 0
    stride = longest - before - behind
    counts: NDArray[np.int64] = 1 + np.maximum(-((longest - lengths) // stride), 0)
    windows_before: NDArray[np.int64] = np.cumsum(counts) - counts
    document: NDArray[np.int64] = np.repeat(np.arange(len(lengths)), counts)
    number: NDArray[np.int64] = np.arange(len(document)) - windows_before[document]
    begin: NDArray[np.int64] = number * stride
    left: NDArray[np.int64] = lengths[document] - begin
    length: NDArray[np.int64] = np.minimum(left, longest)
    first: NDArray[np.int64] = np.where(number > 0, before, 0)
    end: NDArray[np.int64] = np.where(left > longest, longest - behind, length)
    return Windows(document, begin, length, first, end)
