"""Rows of inputs and targets: the one place where what is predicted from what is decided (DEC D50).

The ids are [BOS] line [EOS] of all lines in a row. Row r of length T reads the T ids from r * T and predicts, at each
of its places, the id that follows: target[t] is input[t + 1]. Where a [BOS] follows, or nothing any more, there is no
target. Every row starts from an empty state.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.tokenizers.base import BOS, PAD, Ids

NO_TARGET = -100
"""Stands in a target for "counted in no loss"; torch's cross-entropy leaves it out by default."""


class Batch(NamedTuple):
    """Inputs and targets, each (B, T) int64, and how many of the targets are predicted."""

    inputs: Tensor
    targets: Tensor
    tokens: int

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.inputs.to(device), self.targets.to(device), self.tokens)


class Rows:
    """A split as rows of T targets; the last row is padded."""

    def __init__(self, ids: Ids, length: int) -> None:
        self._ids = ids
        self._length = length

    def __len__(self) -> int:
        return -(-(len(self._ids) - 1) // self._length)

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        places: NDArray[np.int64] = rows[:, np.newaxis] * self._length + np.arange(self._length + 1)  # (B, T + 1)
        beyond = places >= len(self._ids)
        row_ids: NDArray[np.int64] = self._ids[np.minimum(places, len(self._ids) - 1)].astype(np.int64)
        row_ids[beyond] = PAD
        ids = torch.from_numpy(row_ids)
        targets = ids[:, 1:].clone()
        targets[(targets == BOS) | (targets == PAD)] = NO_TARGET
        return Batch(ids[:, :-1].contiguous(), targets, int(torch.count_nonzero(targets != NO_TARGET)))


def epoch_order(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the rows in an epoch: a permutation that depends on the seed and the epoch only."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)
