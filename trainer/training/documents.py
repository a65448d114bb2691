"""A split as documents for evaluation, cut into windows of at most a model's context."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.contracts.intervals import MAX_LINE_GROUPS
from trainer.contracts.tokenizers import SpecialIds
from trainer.inference.windows import Windows, windows
from trainer.tokenizers.base import Ids
from trainer.training.batches import NO_TARGET, Batch, Masking, id_chunks, release


class Documents(NamedTuple):
    """Documents of a split.

    A causal model reads [BOS] line and predicts line [EOS]; without a [BOS] it reads the [EOS] before the line instead.
    A stream is one document, which is predicted from a newline before it.
    A masked model reads [BOS] line [EOS] and predicts the masked tokens, which depend on the seed and the line number.
    """

    ids: Ids
    special_ids: SpecialIds
    masking: Masking | None = None

    def blocks(self, max_tokens: int | None, group_ends: NDArray[np.int64]) -> Iterator["Block"]:
        """Yield all documents in blocks of about a million ids, cut into windows of at most `max_tokens`."""
        number = 0
        for ends in self._ends():
            is_masked, before = self.masking is not None, 0 if self.special_ids.line_start is None else 1
            origins: NDArray[np.int64] = ends[:-1] + before
            lengths: NDArray[np.int64] = np.diff(ends) + (is_masked - before)
            cut = windows(lengths, max_tokens, both_sides=is_masked)
            ordered = cut.ordered(np.argsort(-cut.length, kind="stable"))  # the longest first
            window_lengths: list[int] = ordered.length.tolist()
            yield Block(self, origins, number, ordered, window_lengths, group_ends)
            number += len(origins)

    def _ends(self) -> Iterator[NDArray[np.int64]]:
        """Yield the positions of the last ids of documents, as `line_ends` does for lines."""
        if self.special_ids.newline is None:
            return line_ends(self.ids, self.special_ids.eos)
        ends: list[NDArray[np.int64]] = [np.arange(-1, len(self.ids), len(self.ids))]
        return iter(ends)

    def group_ends(self) -> NDArray[np.int64]:
        """Return the position of the last id of each group of lines (groups,)."""
        end = self.special_ids.line_end
        lines = sum(len(ends) - 1 for ends in line_ends(self.ids, end))
        last_lines: NDArray[np.int64] = group_bounds(lines)[1:] - 1
        found: list[NDArray[np.int64]] = []
        number = 0
        for ends in line_ends(self.ids, end):
            numbers: NDArray[np.int64] = last_lines[(last_lines >= number) & (last_lines < number + len(ends) - 1)]
            found.append(ends[numbers - number + 1])
            number += len(ends) - 1
        return np.concatenate(found)

    def ids_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the ids at positions of the split; position -1 is the token before its first line."""
        ids: NDArray[np.int64] = self.ids[np.clip(positions, 0, len(self.ids) - 1)].astype(np.int64)
        ids[positions < 0] = self.special_ids.start
        return ids


class Block(NamedTuple):
    """Windows of some documents, the longest first. `lengths` are their numbers of tokens, in descending order."""

    documents: Documents
    origins: NDArray[np.int64]
    """Position of the first token of each document in the split."""
    first_number: int
    """Number of the first document."""
    windows: Windows
    lengths: list[int]
    group_ends: NDArray[np.int64]
    """Position of the last id of each group of lines in the split."""

    def batch(self, row: int, count: int, start: int = 0, stop: int | None = None) -> tuple[Batch, Tensor]:
        """Return a batch (B, T) of `count` windows from `row` on, and the group of lines of each target (B, T).

        The windows are read from position `start` up to `stop`. The default `stop` is the end of the longest window.
        Masked windows must be read completely.
        """
        ids, special_ids, masking = self.documents
        taken = self.windows.ordered(np.arange(row, row + count))
        positions: NDArray[np.int64] = np.arange(start, self.lengths[row] if stop is None else stop)
        document_positions: NDArray[np.int64] = taken.begin[:, np.newaxis] + positions  # (B, T)
        stored: NDArray[np.int64] = self.origins[taken.document][:, np.newaxis] + document_positions
        is_read: NDArray[np.bool_] = positions < taken.length[:, np.newaxis]
        is_scored: NDArray[np.bool_] = (positions >= taken.first[:, np.newaxis]) & (
            positions < taken.end[:, np.newaxis]
        )
        inputs = np.where(is_read, self.documents.ids_at(stored), special_ids.filler)
        lengths: NDArray[np.int64] = np.clip(taken.length - start, 0, len(positions))
        padded = torch.from_numpy(lengths) if int(np.min(lengths)) < len(positions) else None
        if masking is None:
            targets = torch.from_numpy(np.where(is_scored, self.documents.ids_at(stored + 1), NO_TARGET))
            read = torch.from_numpy(inputs)
        else:
            numbers: NDArray[np.int64] = self.first_number + taken.document
            read, targets = masking.apply(inputs, numbers, 0, begins=taken.begin, candidates=is_scored)
        release(ids)
        target_positions: NDArray[np.int64] = stored + (masking is None)
        groups: NDArray[np.int64] = np.searchsorted(self.group_ends, target_positions)
        groups = np.minimum(groups, len(self.group_ends) - 1)  # behind the end there are no targets
        count = int(torch.count_nonzero(targets != NO_TARGET))
        return Batch(read, targets, count, padded), torch.from_numpy(groups)


def group_bounds(lines: int) -> NDArray[np.int64]:
    """Return the number of the first line of each group of lines, and the number of lines (groups + 1,)."""
    groups = min(lines, MAX_LINE_GROUPS)
    numbers: NDArray[np.int64] = np.arange(groups + 1, dtype=np.int64)
    return numbers * lines // groups


def line_ends(ids: Ids, end: int) -> Iterator[NDArray[np.int64]]:
    """Yield positions of line ends: that of the previous line (-1 before the first), then those of some lines."""
    last_end: NDArray[np.int64] = np.full(1, -1, dtype=np.int64)
    start = 0
    for chunk in id_chunks(ids):
        is_end: NDArray[np.bool_] = chunk == end
        ends: NDArray[np.int64] = np.flatnonzero(is_end) + start
        start += len(chunk)
        if len(ends):
            yield np.concatenate([last_end, ends])
            last_end = ends[-1:]
