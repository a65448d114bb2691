"""Rows of inputs and targets for training (DEC D50).

causal_lm

The ids are [BOS] line [EOS] of all lines in a row. Row r of length T reads the T ids from r * T and predicts, at each
of its places, the id that follows: target[t] is input[t + 1]. Where a [BOS] follows, or nothing any more, there is no
target. Every row starts from an empty state. Without a [BOS] the ids are line [EOS], and the first is predicted from an
[EOS] that stands before them all.

masked_lm

Row r reads the same ids, of which some are masked, and predicts those at their own places. Which ones are masked, and
how, follows from the seed, the row and the number of the epoch, so that a resumed training sees the same.

Evaluation does not use rows: trainer/training/documents.py has what it reads.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from mmap import MADV_DONTNEED, mmap
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.tokenizers import SpecialIds
from trainer.tokenizers.base import Ids, Vocabulary
from trainer.training.device import pinned

NO_TARGET = -100
"""Stands in a target for "counted in no loss"; torch's cross-entropy leaves it out by default."""
_PIECE_IDS = 1 << 20
_ROWS_AT_A_TIME = 64
_KEPT_BYTES = 64 << 20
_MASKED, _REPLACED = 0.8, 0.1

RowNumbers: TypeAlias = "NDArray[np.int64 | np.uint32]"


class Batch(NamedTuple):
    """Inputs and targets, each (B, T) int64, and how many of the targets are predicted."""

    inputs: Tensor
    targets: Tensor
    tokens: int
    lengths: Tensor | None = None
    """How many ids of each row are read (B,), on the CPU; None where no row is padded."""

    def to(self, device: torch.device) -> "Batch":
        inputs, targets = (tensor.to(device, non_blocking=True) for tensor in (self.inputs, self.targets))
        return Batch(inputs, targets, self.tokens, self.lengths)


class Masking:
    """Which tokens of a document are masked (BERT, Devlin et al. 2019): of those chosen, 80 % become the mask token,
    10 % another token, 10 % stay. A special token is never chosen and never put.

    What happens to a token follows from the seed, the draw, the number of its row or line and its position there.
    """

    def __init__(self, vocabulary: Vocabulary, mask: int, probability: float, seed: int) -> None:
        self._is_special: NDArray[np.bool_] = np.zeros(vocabulary.size, dtype=np.bool_)
        self._is_special[vocabulary.special_ids.all] = True
        self._ordinary: NDArray[np.int64] = np.flatnonzero(~self._is_special)
        self._mask = mask
        self._probability = probability
        self._seed = seed

    def apply(
        self,
        ids: NDArray[np.int64],
        rows: RowNumbers,
        draw: int,
        *,
        begins: NDArray[np.int64] | None = None,
        candidates: NDArray[np.bool_] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return inputs and targets (B, T) for the ids (B, T) of these rows; each draw masks them in its own way.

        The ids may be windows that begin at later positions of their rows. Only candidates (B, T) become targets; each
        row of the batch that has an ordinary one gets a target.
        """
        columns: NDArray[np.int64] = np.arange(ids.shape[1])
        begin: NDArray[np.int64] = np.zeros(len(ids), dtype=np.int64) if begins is None else begins
        positions: NDArray[np.int64] = begin[:, np.newaxis] + columns  # (B, T)
        numbers = self._random(rows, positions, draw)
        choice, numbers = _share(numbers), _mixed(numbers)
        way, numbers = _share(numbers), _mixed(numbers)
        is_special: NDArray[np.bool_] = self._is_special[ids]
        is_candidate = ~is_special if candidates is None else ~is_special & candidates
        nearest: NDArray[np.int64] = np.argmin(np.where(is_candidate, choice, 2.0), axis=1)
        is_nearest: NDArray[np.bool_] = columns == nearest[:, np.newaxis]
        is_chosen: NDArray[np.bool_] = ~is_special & (choice < self._probability) | is_candidate & is_nearest
        places: NDArray[np.int64] = (_share(numbers) * len(self._ordinary)).astype(np.int64)
        put: NDArray[np.int64] = np.where(way < _MASKED + _REPLACED, self._ordinary[places], ids)
        put = np.where(way < _MASKED, self._mask, put)
        inputs = np.where(is_chosen, put, ids)
        targets = np.where(is_chosen & is_candidate, ids, NO_TARGET)
        return torch.from_numpy(inputs), torch.from_numpy(targets)

    def _random(self, rows: RowNumbers, positions: NDArray[np.int64], draw: int) -> NDArray[np.int64]:
        """A random number for each position (B, T)."""
        of_draw: NDArray[np.int64] = _mixed(np.full(1, self._seed, dtype=np.int64)) + draw
        of_rows: NDArray[np.int64] = _mixed(of_draw) + rows.astype(np.int64)
        of_positions: NDArray[np.int64] = _mixed(of_rows)[:, np.newaxis] + positions
        return _mixed(of_positions)


def _mixed(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the SplitMix64 number of each number (Steele et al. 2014, https://doi.org/10.1145/2660193.2660195)."""
    mixed: NDArray[np.int64] = numbers + _GOLDEN
    for shift, factor in _MIX:
        mixed = _folded(mixed, shift) * factor
    return _folded(mixed, 31)


_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))
"""The constants of SplitMix64, for signed numbers of the same bits."""


def _right(numbers: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Shift right as if the numbers had no sign."""
    shifted: NDArray[np.int64] = np.right_shift(numbers, bits)
    return np.bitwise_and(shifted, (1 << 64 - bits) - 1)


def _folded(numbers: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    folded: NDArray[np.int64] = np.bitwise_xor(numbers, _right(numbers, bits))
    return folded


def _share(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return random numbers as floats from 0 up to 1."""
    shares: NDArray[np.float64] = _right(numbers, 11).astype(np.float64) * 2.0**-53
    return shares


def masking(effective: EffectiveRequest, vocabulary: Vocabulary) -> Masking | None:
    """How a run masks its rows; None where it predicts next tokens. Raises MODEL_INCOMPATIBLE without a mask token."""
    if effective.objective == "causal_lm":
        return None
    mask = vocabulary.special_ids.mask
    if mask is None:
        raise AppError(ErrorCode.MODEL_INCOMPATIBLE, "masked_lm needs a tokenizer with a mask token.")
    return Masking(vocabulary, mask, effective.mlm_probability, effective.seed)


class Rows:
    """A split as rows of T targets; the last row is padded."""

    def __init__(self, ids: Ids, length: int, special_ids: SpecialIds, masking: Masking | None = None) -> None:
        self._ids = ids
        self._length = length
        self._special_ids = special_ids
        self._masking = masking
        self._before = 1 if special_ids.bos is None else 0
        """How many ids stand before the first."""
        self._line_begin = NO_TARGET if special_ids.bos is None else special_ids.bos

    def __len__(self) -> int:
        return -(-(len(self._ids) + self._before - 1) // self._length)

    def batch(self, rows: RowNumbers, draw: int = 0) -> Batch:
        """Return these rows; where they are masked, draw n is that of epoch n, from 1."""
        begins = rows.astype(np.int64)[:, np.newaxis] * self._length - self._before
        places: NDArray[np.int64] = begins + np.arange(self._length + 1)  # (B, T + 1)
        row_ids = np.empty(places.shape, dtype=np.int64)
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            end = start + _ROWS_AT_A_TIME
            row_ids[start:end] = self._ids[np.clip(places[start:end], 0, len(self._ids) - 1)]
            release(self._ids)
        row_ids[places < 0] = self._special_ids.start
        has_ended: NDArray[np.bool_] = places >= len(self._ids)
        row_ids[has_ended] = self._special_ids.filler
        read: NDArray[np.int64] = np.minimum(len(self._ids) - begins[:, 0], self._length)
        lengths = None if int(np.min(read)) == self._length else torch.from_numpy(read)
        if self._masking is not None:
            inputs, targets = self._masking.apply(row_ids[:, :-1], rows, draw)
            return Batch(inputs, targets, int(torch.count_nonzero(targets != NO_TARGET)), lengths)
        following: NDArray[np.int64] = row_ids[:, 1:].copy()
        begins_line: NDArray[np.bool_] = following == self._line_begin
        following[has_ended[:, 1:] | begins_line] = NO_TARGET
        inputs, targets = torch.from_numpy(row_ids)[:, :-1].contiguous(), torch.from_numpy(following)
        return Batch(inputs, targets, int(torch.count_nonzero(targets != NO_TARGET)), lengths)


class BatchReader:
    """Batches of training rows in the random order of each epoch.

    `workers` threads, if any, prepare the batches of the next step. `pin` copies them to where a GPU can fetch them.
    """

    def __init__(
        self, rows: Rows, *, batch_size: int, batches_per_step: int, seed: int, workers: int = 0, pin: bool = False
    ) -> None:
        self._rows = rows
        self._batch_size = batch_size
        self._rows_per_step = batch_size * batches_per_step
        self._seed = seed
        self._pin = pin
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._order: tuple[int, NDArray[np.uint32]] = (-1, np.empty(0, dtype=np.uint32))
        self._next: dict[tuple[int, int], list[Future[Batch]]] = {}

    def read(self, epoch: int, position: int) -> list[Batch]:
        """Return the batches of a step: rows from a position of an epoch's order on. Epochs are counted from 0."""
        rows = self._rows_of_step(epoch, position)
        prepared = self._next.get((epoch, position))
        batches = [batch.result() for batch in prepared] if prepared else [self._batch(r, epoch) for r in rows]
        if self._pool is not None:
            following = position + sum(map(len, rows))
            self._next = {
                (epoch, following): [
                    self._pool.submit(self._batch, r, epoch) for r in self._rows_of_step(epoch, following)
                ]
            }
        return batches

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _rows_of_step(self, epoch: int, position: int) -> list[NDArray[np.uint32]]:
        if self._order[0] != epoch:
            self._order = epoch, epoch_order(len(self._rows), self._seed, epoch)
        rows = self._order[1][position : position + self._rows_per_step]
        return [rows[i : i + self._batch_size] for i in range(0, len(rows), self._batch_size)]

    def _batch(self, rows: RowNumbers, epoch: int) -> Batch:
        batch = self._rows.batch(rows, epoch + 1)
        return batch._replace(inputs=pinned(batch.inputs), targets=pinned(batch.targets)) if self._pin else batch


def epoch_order(rows: int, seed: int, epoch: int) -> NDArray[np.uint32]:
    """Return the order of the rows in an epoch: a permutation that depends on the seed and the epoch only."""
    order = np.arange(rows, dtype=np.uint32)
    np.random.Generator(np.random.PCG64([seed, epoch])).shuffle(order)
    return order


def pieces(ids: Ids) -> Iterator[Ids]:
    """Yield the ids of a split in order, about a million at a time."""
    for start in range(0, len(ids), _PIECE_IDS):
        yield ids[start : start + _PIECE_IDS]
        release(ids)


def release(ids: Ids) -> None:
    """Let go of what was read of a large mapped file: the system may map a MiB for a byte, and keeps count of it."""
    mapped: object = ids.base
    if isinstance(mapped, mmap) and len(mapped) > _KEPT_BYTES:
        mapped.madvise(MADV_DONTNEED)
