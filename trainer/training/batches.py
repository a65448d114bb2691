"""Rows of inputs and targets for training. Evaluation reads documents instead (trainer/training/documents.py).

causal_lm: the ids of a split are [BOS] line [EOS] of all lines, one after another. Row r reads the T ids from r * T on,
from an empty state, and predicts the next id at each position: target[t] is input[t + 1]. A [BOS] and the end of the
ids are no targets. Without a [BOS] the ids are line [EOS], and the first id is predicted from the last [EOS].
A stream is read in the same way, with its newlines in place of [EOS].

Each epoch cuts the rows at other places, so that a token is predicted from more or fewer of those before it: it starts
less than a row later and reads what it has left out at its end.

masked_lm: row r reads the same ids with some of them masked, and predicts the masked ids at their own positions. The
seed, the row and the epoch determine the masks, so that a resumed training sees the same masks.
"""

import math
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
"""Target of a position without a loss; the default `ignore_index` of torch's cross-entropy."""
_CHUNK_IDS = 1 << 20
_ROWS_PER_READ = 64
_MAX_RESIDENT_BYTES = 64 << 20
_MASKED_SHARE, _REPLACED_SHARE = 0.8, 0.1
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
"""The fractional parts of its multiples lie evenly in [0, 1), however many are taken (Weyl's sequence)."""

RowNumbers: TypeAlias = "NDArray[np.int64 | np.uint32]"


class Batch(NamedTuple):
    """Inputs and targets, each (B, T) int64, and the number of targets that are predicted."""

    inputs: Tensor
    targets: Tensor
    tokens: int
    lengths: Tensor | None = None
    """Number of ids in each row before its padding (B,), on the CPU; None if no row is padded."""

    def to(self, device: torch.device) -> "Batch":
        inputs, targets = (tensor.to(device, non_blocking=True) for tensor in (self.inputs, self.targets))
        return Batch(inputs, targets, self.tokens, self.lengths)


class Masking:
    """Masking of tokens as in BERT (Devlin et al. 2019): 80 % of the chosen tokens become the mask token, 10 % become
    a random token and 10 % are unchanged. Special tokens are never chosen and never inserted.

    The seed, the draw, the number of the row or line and the position in it determine what happens to a token.
    """

    def __init__(self, vocabulary: Vocabulary, mask: int, probability: float, seed: int) -> None:
        self._is_special: NDArray[np.bool_] = np.zeros(vocabulary.size, dtype=np.bool_)
        self._is_special[vocabulary.special_ids.all] = True
        self._ordinary: NDArray[np.int64] = np.flatnonzero(~self._is_special)
        self._mask, self._probability, self._seed = mask, probability, seed

    def apply(
        self,
        ids: NDArray[np.int64],
        rows: RowNumbers,
        draw: int,
        *,
        begins: NDArray[np.int64] | None = None,
        candidates: NDArray[np.bool_] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return inputs and targets (B, T) for the ids (B, T) of these rows; each draw has other masks.

        `begins` (B,) are the positions of the ids in their rows, if they are windows. Only `candidates` (B, T) become
        targets. Every row with a candidate that is not a special token gets at least one target.
        """
        columns: NDArray[np.int64] = np.arange(ids.shape[1])
        begin: NDArray[np.int64] = np.zeros(len(ids), dtype=np.int64) if begins is None else begins
        positions: NDArray[np.int64] = begin[:, np.newaxis] + columns  # (B, T)
        numbers = self._random(rows, positions, draw)
        choice, numbers = _share(numbers), _splitmix(numbers)
        way, numbers = _share(numbers), _splitmix(numbers)
        is_special: NDArray[np.bool_] = self._is_special[ids]
        is_candidate = ~is_special if candidates is None else ~is_special & candidates
        nearest: NDArray[np.int64] = np.argmin(np.where(is_candidate, choice, 2.0), axis=1)
        is_nearest: NDArray[np.bool_] = columns == nearest[:, np.newaxis]
        is_chosen: NDArray[np.bool_] = ~is_special & (choice < self._probability) | is_candidate & is_nearest
        indices: NDArray[np.int64] = (_share(numbers) * len(self._ordinary)).astype(np.int64)
        masked: NDArray[np.int64] = np.where(way < _MASKED_SHARE + _REPLACED_SHARE, self._ordinary[indices], ids)
        masked = np.where(way < _MASKED_SHARE, self._mask, masked)
        inputs = np.where(is_chosen, masked, ids)
        targets = np.where(is_chosen & is_candidate, ids, NO_TARGET)
        return torch.from_numpy(inputs), torch.from_numpy(targets)

    def _random(self, rows: RowNumbers, positions: NDArray[np.int64], draw: int) -> NDArray[np.uint64]:
        """Return a random number for each position (B, T)."""
        draw_seed: NDArray[np.uint64] = _splitmix(np.full(1, self._seed, dtype=np.uint64)) + draw
        row_seeds: NDArray[np.uint64] = _splitmix(draw_seed) + rows.astype(np.uint64)
        position_seeds: NDArray[np.uint64] = _splitmix(row_seeds)[:, np.newaxis] + positions.astype(np.uint64)
        return _splitmix(position_seeds)


def _splitmix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the SplitMix64 number of each number (Steele et al. 2014, https://doi.org/10.1145/2660193.2660195)."""
    mixed: NDArray[np.uint64] = numbers + 0x9E3779B97F4A7C15
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = _xor_shift(mixed, shift) * factor
    return _xor_shift(mixed, 31)


def _xor_shift(numbers: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    mixed: NDArray[np.uint64] = np.bitwise_xor(numbers, np.right_shift(numbers, bits))
    return mixed


def _share(numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return random numbers as floats in [0, 1)."""
    shares: NDArray[np.float64] = np.right_shift(numbers, 11).astype(np.float64) * 2.0**-53
    return shares


def masking(effective: EffectiveRequest, vocabulary: Vocabulary, seed: int) -> Masking | None:
    """Return the masking of a run, drawn by a seed: `seed` in training, `split_seed` in evaluations.

    Returns None for causal_lm. Raises MODEL_INCOMPATIBLE without a mask token.
    """
    if effective.objective == "causal_lm":
        return None
    mask = vocabulary.special_ids.mask
    if mask is None:
        raise AppError(ErrorCode.MODEL_INCOMPATIBLE, "masked_lm needs a tokenizer with a mask token.")
    return Masking(vocabulary, mask, effective.mlm_probability, seed)


class Rows:
    """A split as rows of T inputs and targets; the last row is padded."""

    def __init__(self, ids: Ids, length: int, special_ids: SpecialIds, masking: Masking | None = None) -> None:
        self._ids, self._length, self._special_ids, self._masking = ids, length, special_ids, masking
        self._num_extra_ids = 1 if special_ids.line_start is None else 0
        self._line_start = NO_TARGET if special_ids.line_start is None else special_ids.line_start
        self._predictions = len(ids) + self._num_extra_ids - 1

    def __len__(self) -> int:
        return -(-self._predictions // self._length)

    def batch(self, rows: RowNumbers, epoch: int = 0) -> Batch:
        """Return the batch of these rows in an epoch, counted from 0; the epoch chooses the cuts and the masks."""
        begins = rows.astype(np.int64)[:, np.newaxis] * self._length
        places: NDArray[np.int64] = begins + np.arange(self._length)  # (B, T)
        end = self._predictions if self._masking is None else self._predictions + 1
        has_ended: NDArray[np.bool_] = places >= end
        positions: NDArray[np.int64] = (places + self._first(epoch)) % end - self._num_extra_ids
        inputs = self._read(positions)
        inputs[has_ended] = self._special_ids.filler
        read: NDArray[np.int64] = np.minimum(end - begins[:, 0], self._length)
        lengths = None if int(np.min(read)) == self._length else torch.from_numpy(read)
        if self._masking is not None:
            seen, targets = self._masking.apply(inputs, rows, epoch + 1)
        else:
            following = self._read(positions + 1)
            begins_line: NDArray[np.bool_] = following == self._line_start
            following[has_ended | begins_line] = NO_TARGET
            seen, targets = torch.from_numpy(inputs), torch.from_numpy(following)
        return Batch(seen, targets, int(torch.count_nonzero(targets != NO_TARGET)), lengths)

    def _first(self, epoch: int) -> int:
        """Return the place in the text at which an epoch begins; 0 in a text of one row, which has no cuts."""
        return int(self._length * (epoch * _GOLDEN_RATIO % 1)) if len(self) > 1 else 0

    def _read(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the ids at positions (B, T); -1 is the last one."""
        ids = np.empty(positions.shape, dtype=np.int64)
        for start in range(0, len(ids), _ROWS_PER_READ):
            ids[start : start + _ROWS_PER_READ] = self._ids[positions[start : start + _ROWS_PER_READ]]
            release(self._ids)
        return ids


class BatchReader:
    """Batches of training rows in the random order of each epoch.

    `workers` threads, if any, prepare the batches of the next step. `pin` copies them to where a GPU can fetch them.
    `share` is the rank of this process and the number of processes, each of which reads its rows of every batch. A
    process that has none reads another's row without its targets.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        batch_size: int,
        batches_per_step: int,
        seed: int,
        workers: int = 0,
        pin: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._rows, self._seed, self._pin = rows, seed, pin
        self._rank, self._processes = share
        self._batch_size, self._rows_per_step = batch_size, batch_size * batches_per_step
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

    def rows_of_step(self, position: int) -> int:
        """Return the number of rows that all processes read in a step."""
        return min(self._rows_per_step, len(self._rows) - position)

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
        own = rows[self._rank :: self._processes]
        batch = self._rows.batch(own if len(own) else rows[:1], epoch)
        if not len(own):
            batch = batch._replace(targets=torch.full_like(batch.targets, NO_TARGET), tokens=0)
        return batch._replace(inputs=pinned(batch.inputs), targets=pinned(batch.targets)) if self._pin else batch


def epoch_order(rows: int, seed: int, epoch: int) -> NDArray[np.uint32]:
    """Return the order of the rows in an epoch: a permutation (rows,) of the seed and the epoch."""
    order = np.arange(rows, dtype=np.uint32)
    np.random.Generator(np.random.PCG64([seed, epoch])).shuffle(order)
    return order


def id_chunks(ids: Ids) -> Iterator[Ids]:
    """Yield the ids of a split in order, in chunks of about a million."""
    for start in range(0, len(ids), _CHUNK_IDS):
        yield ids[start : start + _CHUNK_IDS]
        release(ids)


def release(ids: Ids) -> None:
    """Release the resident pages of a large mapped file: reading a byte can map a MiB, which counts as memory."""
    mapped: object = ids.base
    if isinstance(mapped, mmap) and len(mapped) > _MAX_RESIDENT_BYTES:
        mapped.madvise(MADV_DONTNEED)
