"""The interface of language models, the same for every architecture."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.contracts.models import Objective
from trainer.models.linear import IS_INTEL, Floats
from trainer.models.threads import MIN_PRODUCTS, MIN_RECURRENT_PRODUCTS, MIN_ROWS, ThreadChoice, Work
from trainer.tokenizers.base import Vocabulary

ModelState = tuple[Tensor, ...]
"""State that a model carries from one chunk of a sequence to the next; dimension 1 of every tensor is B.

Where a state grows with the tokens read, they are dimension 2, and zeros are padding.
"""


_UNCHANGED: AbstractContextManager[None] = nullcontext()


class LanguageModel(nn.Module, ABC):
    """Maps ids to logits: of the next token for causal_lm, of the token at each position for masked_lm."""

    context_tokens: int | None = None
    """Maximum number of tokens read at once; None: unlimited."""
    generates_in_bf16 = False
    """True for models with `bf16_steps`."""
    threads_are_fixed = False
    """True: all work but the small products of a generation has the threads that torch has."""

    def __init__(self, vocabulary: Vocabulary, objective: Objective) -> None:
        super().__init__()
        if vocabulary.size <= 0:
            raise ValueError(f"vocab_size must be > 0, got {vocabulary.size}")
        self.vocabulary = vocabulary
        self.vocab_size = vocabulary.size
        self.objective = objective
        self._thread_choices: dict[Work, ThreadChoice] = {}

    @property
    def carries_unlimited_state(self) -> bool:
        """True for models that read a line of any length exactly, chunk by chunk."""
        return self.objective == "causal_lm" and self.context_tokens is None

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map ids (B, T) to logits (B, T, V), from an empty state; ids after the lengths (B,) are padding."""
        return self.logits(self.hidden_states(ids, lengths))

    @abstractmethod
    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map ids (B, T) to the input (B, T, H) of the output layer, as `forward` reads them."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states (…, H) to logits (…, V)."""

    @abstractmethod
    def input_embedding(self) -> nn.Embedding:
        """Return the table that maps ids to vectors."""

    def initial_state(self, batch: int) -> ModelState:
        """Return the state before the first token. Raises ValueError for models that carry no state."""
        raise _no_state()

    def forward_with_state(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        """Map ids (B, T) to logits (B, T, V) and the state after them. Raises ValueError as `initial_state` does."""
        raise _no_state()

    def steps(self, state: ModelState) -> "Steps":
        """Return the steps after a state, of one token per sequence. They overwrite the state."""
        return ForwardSteps(self, state)

    def bf16_steps(self, state: ModelState) -> "Steps":
        """Return `steps` whose products with weights round inputs, weights and outputs to bf16; all else is in fp32.

        The first call copies the weights, and the model keeps the copy. Raises ValueError for recurrent models.
        """
        raise ValueError("recurrent models generate in fp32 only")

    def packed_products(self) -> AbstractContextManager[None]:
        """Return a context in which the products of a transformer have packed weights and no gradients."""
        return nullcontext()

    def threads(self, work: Work) -> ThreadChoice:
        """Return the choice of threads for a kind of work; this process keeps it, with the speeds that it measured."""
        if work not in self._thread_choices:
            self._thread_choices[work] = ThreadChoice()
        return self._thread_choices[work]

    def computing(self, work: Work, rows: int, tokens: int) -> AbstractContextManager[None]:
        """Return a context that computes work on `tokens` with the threads that are faster for it.

        `rows` is the number of rows of the smallest product.
        """
        is_generation, is_recurrent = work == "generation", self.context_tokens is None
        if (is_generation and is_recurrent and rows == 1) or not self.input_embedding().weight.is_cpu:
            return _UNCHANGED  # by numpy, or by the GPU
        has_few_rows = 1 < rows < MIN_ROWS or 1 < tokens < MIN_ROWS or self.vocab_size < MIN_ROWS
        if is_recurrent:
            is_small = has_few_rows or rows * self._product_weights < MIN_RECURRENT_PRODUCTS
        else:
            is_small = has_few_rows or tokens * self._product_weights < MIN_PRODUCTS
        is_fixed = self.threads_are_fixed
        needs_threads = is_generation and IS_INTEL  # on Intel's CPUs one core reads memory slowly
        return self.threads(work).computing(
            tokens,
            is_small=is_small and not needs_threads and (is_generation or not is_fixed),
            is_fixed=is_fixed or (needs_threads and has_few_rows),
        )

    def product_rows(self, ids: Tensor, lengths: Tensor | None = None) -> int:
        """Return the number of rows of the smallest product on ids (B, T), of which lengths (B,) are no padding."""
        return ids.numel()

    @cached_property
    def _product_weights(self) -> int:
        return self.parameter_count() - self.input_embedding().weight.numel()

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass to save memory."""
        raise ValueError("gradient checkpointing is for transformers")

    def memory_bytes(self) -> int:
        """Return the size of the parameters and of the copy of them that generation keeps."""
        return sum(parameter.nbytes for parameter in self.parameters())

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


class Steps(ABC):
    """Sequences that a model reads token by token, for generation: as `forward_with_state` does, but faster."""

    @abstractmethod
    def read(self, ids: Sequence[int], rows: Sequence[int]) -> Floats:
        """Read one token of each given sequence; return the logits (n, V) after it. The rows are in ascending order."""

    @abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """Drop all sequences but these, which get the rows 0, 1, …"""


class ForwardSteps(Steps):
    """Steps by `forward_with_state`."""

    def __init__(self, model: LanguageModel, state: ModelState) -> None:
        self._model = model
        self._state = state

    def read(self, ids: Sequence[int], rows: Sequence[int]) -> Floats:
        column = torch.tensor(ids, device=self._state[0].device).unsqueeze(-1)
        with torch.inference_mode():
            if len(rows) == self._state[0].shape[1]:
                logits, self._state = self._model.forward_with_state(column, self._state)
            else:
                logits, read = self._model.forward_with_state(column, select_rows(self._state, rows))
                others = sorted(set(range(self._state[0].shape[1])) - set(rows))
                order: list[int] = np.argsort([*others, *rows]).tolist()
                self._state = select_rows(concatenate_states([select_rows(self._state, others), read]), order)
            return as_floats(logits[:, -1])

    def keep(self, rows: Sequence[int]) -> None:
        self._state = select_rows(self._state, rows)


def as_floats(tensor: Tensor) -> Floats:
    """Return a tensor as an array in 32 bits."""
    floats: Floats = tensor.float().cpu().numpy()
    return floats


def check_ids(ids: Tensor, max_tokens: int | None = None) -> None:
    """Raise ValueError unless the ids have the shape (B, T) with T <= max_tokens, TypeError unless they are int64."""
    if ids.dim() != 2:
        raise ValueError(f"Expected x with shape (B, T), got {tuple(ids.shape)}")
    if ids.dtype != torch.long:
        raise TypeError(f"Expected x of dtype torch.int64, got {ids.dtype}")
    if max_tokens is not None and ids.shape[1] > max_tokens:
        raise ValueError(f"Expected x with {max_tokens} tokens at most, got {ids.shape[1]}")


def concatenate_states(states: Sequence[ModelState]) -> ModelState:
    """Return one state with the sequences of all states, padded to the longest."""
    columns = [[state[i] for state in states] for i in range(len(states[0]))]
    return tuple(torch.cat(_pad_equally(tensors), dim=1) for tensors in columns)


def select_rows(state: ModelState, rows: Sequence[int]) -> ModelState:
    """Return the state of some sequences, in the given order."""
    return tuple(tensor[:, torch.tensor(rows, dtype=torch.long, device=tensor.device)] for tensor in state)


def is_read(lengths: Tensor, ids: Tensor) -> Tensor:
    """Return a mask (B, T) of the ids (B, T) that are tokens and not padding, by the lengths (B,)."""
    return torch.arange(ids.shape[1], device=ids.device) < lengths.to(ids.device).unsqueeze(-1)


def _pad_equally(tensors: Sequence[Tensor]) -> list[Tensor]:
    longest = max(tensor.shape[2] for tensor in tensors)
    return [functional.pad(tensor, [0, 0] * (tensor.dim() - 3) + [0, longest - tensor.shape[2]]) for tensor in tensors]


def _no_state() -> ValueError:
    return ValueError("a model that reads both sides of a token carries no state")
