"""Lines of a split as documents: each is read from its own start to its [EOS], for evaluation (DEC D59).

A document that is longer than a model reads at once is read in windows, which together score each target once. Every
window but the first reads a quarter of its tokens only as context. A window of a model that reads both sides has as
much context behind what it scores, unless its document ends there.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.contracts.tokenizers import SpecialIds
from trainer.inference.windows import Windows, windows
from trainer.tokenizers.base import Ids
from trainer.training.batches import NO_TARGET, Batch, Masking, pieces, release


class Documents:
    """The documents of a split: what a model reads of each, and what it predicts.

    A causal model reads [BOS] line (or, without a [BOS], the [EOS] before the line, and the line) and predicts line
    [EOS]. A masked model reads all of [BOS] line [EOS] and predicts its masked tokens, which follow from the seed and
    the number of the line.
    """

    def __init__(self, ids: Ids, special_ids: SpecialIds, masking: Masking | None = None) -> None:
        self._ids = ids
        self._special_ids = special_ids
        self._masking = masking

    def blocks(self, most_tokens: int | None) -> Iterator["Block"]:
        """Yield all documents in blocks of about a million ids, cut into windows of at most so many tokens."""
        number = 0
        for ends in line_ends(self._ids, self._special_ids.eos):
            is_masked, before = self._masking is not None, 0 if self._special_ids.bos is None else 1
            origins: NDArray[np.int64] = ends[:-1] + before
            lengths: NDArray[np.int64] = np.diff(ends) + (is_masked - before)
            cut = windows(lengths, most_tokens, both_sides=is_masked)
            longest_first = np.argsort(-cut.length, kind="stable")
            yield Block(self._ids, self._special_ids, self._masking, origins, number, cut.ordered(longest_first))
            number += len(origins)


class Block:
    """Windows of some documents, the longest first."""

    def __init__(
        self,
        ids: Ids,
        special_ids: SpecialIds,
        masking: Masking | None,
        origins: NDArray[np.int64],
        first_number: int,
        cut: Windows,
    ) -> None:
        self._ids = ids
        self._special_ids = special_ids
        self._masking = masking
        self._origins = origins
        self._first_number = first_number
        self._windows = cut
        self.lengths: list[int] = cut.length.tolist()
        """How many tokens each window reads, in falling order."""

    def batch(self, row: int, count: int, start: int = 0, stop: int | None = None) -> Batch:
        """Return windows side by side, from one position up to another or to the end of the longest of them.

        Masked windows are read whole.
        """
        taken = self._windows.ordered(np.arange(row, row + count))
        positions: NDArray[np.int64] = np.arange(start, self.lengths[row] if stop is None else stop)
        document_positions: NDArray[np.int64] = taken.begin[:, np.newaxis] + positions  # (B, T)
        stored: NDArray[np.int64] = self._origins[taken.document][:, np.newaxis] + document_positions
        is_read: NDArray[np.bool_] = positions < taken.length[:, np.newaxis]
        is_scored: NDArray[np.bool_] = (positions >= taken.first[:, np.newaxis]) & (
            positions < taken.end[:, np.newaxis]
        )
        inputs = np.where(is_read, self._read(stored), self._special_ids.filler)
        lengths: NDArray[np.int64] = np.clip(taken.length - start, 0, len(positions))
        if self._masking is None:
            targets = torch.from_numpy(np.where(is_scored, self._read(stored + 1), NO_TARGET))
            read = torch.from_numpy(inputs)
        else:
            numbers: NDArray[np.int64] = self._first_number + taken.document
            read, targets = self._masking.apply(inputs, numbers, 0, begins=taken.begin, candidates=is_scored)
        release(self._ids)
        is_padded = int(np.min(lengths)) < len(positions)
        return Batch(
            read,
            targets,
            int(torch.count_nonzero(targets != NO_TARGET)),
            torch.from_numpy(lengths) if is_padded else None,
        )

    def _read(self, stored: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids by where they are stored; the first line of a tokenizer without [BOS] is read from an [EOS] before it."""
        found: NDArray[np.int64] = self._ids[np.clip(stored, 0, len(self._ids) - 1)].astype(np.int64)
        found[stored < 0] = self._special_ids.start
        return found


def line_ends(ids: Ids, eos: int) -> Iterator[NDArray[np.int64]]:
    """Yield where lines end: the end of the line before (-1 before the first), then the ends of some lines."""
    last_end: NDArray[np.int64] = np.full(1, -1, dtype=np.int64)
    start = 0
    for piece in pieces(ids):
        is_end: NDArray[np.bool_] = piece == eos
        ends: NDArray[np.int64] = np.flatnonzero(is_end) + start
        start += len(piece)
        if len(ends):
            yield np.concatenate([last_end, ends])
            last_end = ends[-1:]
