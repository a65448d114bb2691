"""What training, scoring and generation ask of a language model, whatever its architecture."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.contracts.models import Objective
from trainer.tokenizers.base import Vocabulary

State = tuple[Tensor, ...]
"""What a model carries from one stretch of a sequence to the next; B is dimension 1 of every tensor.

Where a state grows with what was read, that is dimension 2, and zeros there are nothing that was read.
"""


class LanguageModel(nn.Module, ABC):
    """Ids to logits: of each next token with causal_lm, of the token at each place with masked_lm."""

    context_tokens: int | None = None
    """How many tokens are read at once, at most; None: as many as there are."""

    def __init__(self, vocabulary: Vocabulary, objective: Objective) -> None:
        super().__init__()
        if vocabulary.size <= 0:
            raise ValueError(f"vocab_size must be > 0, got {vocabulary.size}")
        self.vocabulary = vocabulary
        self.vocab_size = vocabulary.size
        self.objective = objective

    @abstractmethod
    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map ids (B, T) to logits (B, T, V), from an empty state; padding behind the lengths (B,) changes none."""

    @abstractmethod
    def input_embedding(self) -> nn.Embedding:
        """Return the table that turns ids into vectors."""

    def initial_state(self, batch: int) -> State:
        """Return the state before the first token."""
        raise _reads_both_sides()

    def forward_with_state(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ids (B, T) to logits (B, T, V) and the state after the last of them."""
        raise _reads_both_sides()

    def checkpoint_gradients(self) -> None:
        """Keep less for the backward pass, and compute it again there."""
        raise ValueError("gradient checkpointing is for transformers")

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def checked(ids: Tensor, most_tokens: int | None = None) -> Tensor:
    """Return the ids; raises ValueError or TypeError unless they are (B, T) integers, of T tokens at most."""
    if ids.dim() != 2:
        raise ValueError(f"Expected x with shape (B, T), got {tuple(ids.shape)}")
    if ids.dtype != torch.long:
        raise TypeError(f"Expected x of dtype torch.int64, got {ids.dtype}")
    if most_tokens is not None and ids.shape[1] > most_tokens:
        raise ValueError(f"Expected x with {most_tokens} tokens at most, got {ids.shape[1]}")
    return ids


def joined(states: Sequence[State]) -> State:
    """The state of all sequences of some states, one after another."""
    parts = [[state[place] for state in states] for place in range(len(states[0]))]
    return tuple(torch.cat(_equally_long(of_place), dim=1) for of_place in parts)


def rows_of(state: State, rows: Sequence[int]) -> State:
    """The state of some sequences, in this order."""
    return tuple(part[:, torch.tensor(rows, dtype=torch.long, device=part.device)] for part in state)


def is_read(lengths: Tensor, ids: Tensor) -> Tensor:
    """Return (B, T): where there is a token, and not padding behind it."""
    return torch.arange(ids.shape[1], device=ids.device) < lengths.to(ids.device).unsqueeze(-1)


def _equally_long(parts: Sequence[Tensor]) -> list[Tensor]:
    longest = max(part.shape[2] for part in parts)
    return [functional.pad(part, [0, 0] * (part.dim() - 3) + [0, longest - part.shape[2]]) for part in parts]


def _reads_both_sides() -> ValueError:
    return ValueError("a model that reads both sides of a token carries no state")
