"""What training, scoring and generation ask of a language model, whatever its architecture."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from trainer.contracts.models import Objective

State = tuple[Tensor, ...]
"""What a model carries from one stretch of a sequence to the next; B is dimension 1 of every tensor."""


class LanguageModel(nn.Module, ABC):
    """Ids to the logits of each next token."""

    objective: Objective
    vocab_size: int

    @abstractmethod
    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map ids (B, T) to logits (B, T, V), from an empty state; padding on the right changes none before it."""

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """Return the state before the first token."""

    @abstractmethod
    def forward_with_state(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ids (B, T) to logits (B, T, V) and the state after the last of them."""

    @abstractmethod
    def input_embedding(self) -> nn.Embedding:
        """Return the table that turns ids into vectors."""

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
