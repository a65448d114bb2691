"""Windows over texts that are longer than a model reads at once.

Together the windows of a text score each of its targets once. Every window but the first reads a quarter of its tokens
only as context. A window of a model that reads both sides has as much context behind the tokens that it scores, unless
the text ends there.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


def context_of(window_tokens: int) -> int:
    """Return how many tokens a window reads before those that it scores."""
    return window_tokens // 4


class Windows(NamedTuple):
    """Windows over documents, one entry per window; positions count from the start of the document or the window."""

    document: NDArray[np.int64]
    begin: NDArray[np.int64]
    """The position of the document at which the window begins."""
    length: NDArray[np.int64]
    first: NDArray[np.int64]
    """The first position of the window that is scored."""
    end: NDArray[np.int64]
    """The position of the window behind the last that is scored."""

    def ordered(self, numbers: NDArray[np.int64]) -> "Windows":
        """Return these windows, in this order."""
        return Windows(*(of_windows[numbers] for of_windows in self))


def windows(lengths: NDArray[np.int64], most_tokens: int | None, *, both_sides: bool = False) -> Windows:
    """Cut documents of these lengths into windows of at most so many tokens; None cuts nothing."""
    longest = int(np.max(lengths)) if most_tokens is None else most_tokens
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
