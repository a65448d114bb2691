"""Sequences that a model reads token by token, and the state of a sequence."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.contracts.generations import DecodeStep

Floats: TypeAlias = "NDArray[np.float32]"
ModelState = tuple[Tensor, ...]
"""State that a model carries from one chunk of a sequence to the next; dimension 1 of every tensor is B.

Where a state grows with the tokens read, they are dimension 2, and zeros are padding.
"""


class Steps(ABC):
    """Sequences that a model reads token by token, for generation."""

    kind: DecodeStep
    read_bytes: int | None = None
    """The bytes of the weights that a compiled step reads for each token."""

    @property
    @abstractmethod
    def logits(self) -> Floats:
        """The logits (n, V) after the last token of each sequence; the next step may overwrite them."""

    @abstractmethod
    def read(self, ids: Sequence[int], rows: Sequence[int]) -> None:
        """Read one token of each given sequence. The rows are in ascending order."""

    @abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """Drop all sequences but these, which get the rows 0, 1, …"""

    @abstractmethod
    def fork(self) -> Self:
        """Return a copy; tokens that one of them reads do not change the other."""

    @abstractmethod
    def memory_bytes(self) -> int:
        """Return the size of the state and the logits."""


class ForwardSteps(Steps):
    """Steps by `forward_with_state` of a model."""

    kind: DecodeStep = "torch"

    def __init__(
        self, forward: Callable[[Tensor, ModelState], tuple[Tensor, ModelState]], state: ModelState, logits: Tensor
    ) -> None:
        self._forward = forward
        self._state = state
        self._logits = logits

    @property
    def logits(self) -> Floats:
        return as_floats(self._logits)

    def read(self, ids: Sequence[int], rows: Sequence[int]) -> None:
        column = torch.tensor(ids, device=self._state[0].device).unsqueeze(-1)
        with torch.inference_mode():
            if len(rows) == len(self._logits):
                logits, self._state = self._forward(column, self._state)
            else:
                logits, read = self._forward(column, select_rows(self._state, rows))
                others = sorted(set(range(len(self._logits))) - set(rows))
                order: list[int] = np.argsort([*others, *rows]).tolist()
                self._state = select_rows(concatenate_states([select_rows(self._state, others), read]), order)
            of_rows = torch.tensor(rows, dtype=torch.long, device=logits.device)
            self._logits = self._logits.index_copy(0, of_rows, logits[:, -1])

    def keep(self, rows: Sequence[int]) -> None:
        self._state = select_rows(self._state, rows)
        self._logits = self._logits[torch.tensor(rows, dtype=torch.long, device=self._logits.device)]

    def fork(self) -> Self:
        return type(self)(self._forward, self._state, self._logits)

    def memory_bytes(self) -> int:
        return sum(part.nbytes for part in self._state) + self._logits.nbytes


def as_floats(tensor: Tensor) -> Floats:
    """Return a tensor as an array in 32 bits."""
    floats: Floats = tensor.float().cpu().numpy()
    return floats


def concatenate_states(states: Sequence[ModelState]) -> ModelState:
    """Return one state with the sequences of all states, padded to the longest."""
    columns = [[state[i] for state in states] for i in range(len(states[0]))]
    return tuple(torch.cat(_pad_equally(tensors), dim=1) for tensors in columns)


def select_rows(state: ModelState, rows: Sequence[int]) -> ModelState:
    """Return the state of some sequences, in the given order."""
    return tuple(tensor[:, torch.tensor(rows, dtype=torch.long, device=tensor.device)] for tensor in state)


def _pad_equally(tensors: Sequence[Tensor]) -> list[Tensor]:
    longest = max(tensor.shape[2] for tensor in tensors)
    return [functional.pad(tensor, [0, 0] * (tensor.dim() - 3) + [0, longest - tensor.shape[2]]) for tensor in tensors]
