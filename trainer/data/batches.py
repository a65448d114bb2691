"""Rows of inputs and targets: the one place where what is predicted from what is decided (DEC D50).

The ids are [BOS] line [EOS] of all lines in a row. Row r of length T reads the T ids from r * T and predicts, at each
of its places, the id that follows: target[t] is input[t + 1]. Where a [BOS] follows, or nothing any more, there is no
target. Every row starts from an empty state.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from mmap import MADV_DONTNEED, mmap
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.device import pinned
from trainer.tokenizers.base import BOS, PAD, Ids

NO_TARGET = -100
"""Stands in a target for "counted in no loss"; torch's cross-entropy leaves it out by default."""
_PIECE_IDS = 1 << 20
_ROWS_AT_A_TIME = 64
_KEPT_BYTES = 64 << 20

RowNumbers: TypeAlias = "NDArray[np.int64 | np.uint32]"


class Batch(NamedTuple):
    """Inputs and targets, each (B, T) int64, and how many of the targets are predicted."""

    inputs: Tensor
    targets: Tensor
    tokens: int

    def to(self, device: torch.device) -> "Batch":
        inputs, targets = (tensor.to(device, non_blocking=True) for tensor in (self.inputs, self.targets))
        return Batch(inputs, targets, self.tokens)


class Rows:
    """A split as rows of T targets; the last row is padded."""

    def __init__(self, ids: Ids, length: int) -> None:
        self._ids = ids
        self._length = length

    def __len__(self) -> int:
        return -(-(len(self._ids) - 1) // self._length)

    def batch(self, rows: RowNumbers) -> Batch:
        begins = rows.astype(np.int64)[:, np.newaxis] * self._length
        places: NDArray[np.int64] = begins + np.arange(self._length + 1)  # (B, T + 1)
        row_ids = np.empty(places.shape, dtype=np.int64)
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            end = start + _ROWS_AT_A_TIME
            row_ids[start:end] = self._ids[np.minimum(places[start:end], len(self._ids) - 1)]
            release(self._ids)
        row_ids[places >= len(self._ids)] = PAD
        ids = torch.from_numpy(row_ids)
        targets = ids[:, 1:].clone()
        targets[(targets == BOS) | (targets == PAD)] = NO_TARGET
        return Batch(ids[:, :-1].contiguous(), targets, int(torch.count_nonzero(targets != NO_TARGET)))


class BatchReader:
    """Batches of rows, which threads (where there are any) gather one step ahead; `pin` is for copies to a GPU."""

    def __init__(self, rows: Rows, *, workers: int, pin: bool) -> None:
        self._rows = rows
        self._pin = pin
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._ahead: dict[bytes, Future[Batch]] = {}

    def read(self, taken: Sequence[RowNumbers], then: Sequence[RowNumbers]) -> list[Batch]:
        """Return the batches of the rows taken now, and begin with those that are probably taken next."""
        ready = [self._ahead.get(rows.tobytes()) for rows in taken]
        batches = [f.result() if f else self._gather(rows) for rows, f in zip(taken, ready, strict=True)]
        if self._pool is not None:
            self._ahead = {rows.tobytes(): self._pool.submit(self._gather, rows) for rows in then}
        return batches

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _gather(self, rows: RowNumbers) -> Batch:
        batch = self._rows.batch(rows)
        return Batch(pinned(batch.inputs), pinned(batch.targets), batch.tokens) if self._pin else batch


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
