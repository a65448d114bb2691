"""The interface of language models, the same for every architecture."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import cached_property
from itertools import chain
from typing import Self

import torch
from torch import Tensor, nn

from trainer.contracts.generations import GenerationPrecision
from trainer.contracts.models import ModelConfig, Objective
from trainer.models.compiled_steps import CompiledSteps
from trainer.models.step_program import StepProgram
from trainer.models.steps import ForwardSteps, ModelState, Steps
from trainer.models.threads import (
    MIN_PRODUCTS,
    MIN_READ_BYTES,
    MIN_RECURRENT_PRODUCTS,
    MIN_ROWS,
    ThreadChoice,
    Work,
)
from trainer.native.library import builds
from trainer.tokenizers.base import Vocabulary


class LanguageModel(nn.Module, ABC):
    """Maps ids to logits: of the next token for causal_lm, of the token at each position for masked_lm."""

    context_tokens: int | None = None
    """Maximum number of tokens read at once; None: unlimited."""
    reads_trees = False
    """True: has `tree_hidden_states`."""
    built_from: ModelConfig
    """The config that `build` has built it from."""
    threads_are_fixed = False
    """True: all work but the small products of a generation has the threads that torch has."""

    def __init__(self, vocabulary: Vocabulary, objective: Objective) -> None:
        super().__init__()
        if vocabulary.size <= 0:
            raise ValueError(f"vocab_size must be > 0, got {vocabulary.size}")
        self.vocabulary = vocabulary
        self.vocab_size = vocabulary.size
        self.objective = objective
        self._thread_choices: defaultdict[Work, ThreadChoice] = defaultdict(ThreadChoice)
        self._programs: dict[GenerationPrecision, StepProgram] = {}
        self._rounded: LanguageModel | None = None

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

    def tree_hidden_states(self, ids: Tensor, depths: Tensor, ends: Tensor) -> Tensor:
        """Map ids (B, N), the nodes of prefix trees, to the input (B, N, H) of the output layer, given their ancestors.

        The nodes are in depth-first order; `ends` (B, N) are the positions behind their last descendants. Raises
        ValueError for models that read no trees.
        """
        raise ValueError("only causal transformers read prefix trees")

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states (…, H) to logits (…, V)."""

    def input_embedding(self) -> nn.Embedding:
        """Return the table that maps ids to vectors. Raises ValueError for models of counts, which have none."""
        raise ValueError("a model of counts has no embedding")

    @property
    def device(self) -> torch.device:
        """The device of the weights or counts."""
        return next(chain(self.parameters(), self.buffers())).device

    def head_weight(self) -> Tensor:
        """Return the weight (V, H) of the output layer; here the embedding, which is tied to it."""
        return self.input_embedding().weight

    def initial_state(self, batch: int) -> ModelState:
        """Return the state before the first token. Raises ValueError for models that carry no state."""
        raise _no_state()

    def forward_with_state(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        """Map ids (B, T) to logits (B, T, V) and the state after them. Raises ValueError as `initial_state` does."""
        raise _no_state()

    def steps(self, state: ModelState, logits: Tensor, precision: GenerationPrecision = "fp32") -> Steps:
        """Return the steps after a state and the logits (B, V) that it came with.

        In bf16 each matrix is rounded to it; all else is in fp32.
        """
        program = self._program(precision)
        if program is not None:
            return CompiledSteps(program, builds()[-1], state, logits)
        if precision == "fp32":
            return ForwardSteps(self.forward_with_state, state, logits)
        if self._rounded is None:
            self._rounded = _rounded(self)
        return ForwardSteps(self._rounded.forward_with_state, state, logits)

    def step_program(self, precision: GenerationPrecision) -> StepProgram | None:
        """Return the operations that read a token; None for a model without a compiled step."""
        return None

    def _program(self, precision: GenerationPrecision) -> StepProgram | None:
        """Return the program for this machine, which needs a compiled step and weights in fp32 in its memory."""
        weight = next(self.parameters(), None)
        if weight is None or not (builds() and weight.is_cpu and weight.dtype == torch.float32):
            return None
        if precision not in self._programs and (program := self.step_program(precision)) is not None:
            self._programs[precision] = program
        return self._programs.get(precision)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; training changes the weights, so that their copies for steps are dropped."""
        if mode:
            self._programs.clear()
            self._rounded = None
        return super().train(mode)

    def check_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Raise ValueError for weights with the right names, shapes and dtypes that the model cannot use."""

    def packed_products(self) -> AbstractContextManager[None]:
        """Return a context in which the products of a transformer have packed weights and no gradients."""
        return nullcontext()

    def threads(self, work: Work) -> ThreadChoice:
        """Return the choice of threads for a kind of work; this process keeps it, with the speeds that it measured."""
        return self._thread_choices[work]

    def computing(
        self, work: Work, rows: int, tokens: int, read_bytes: int | None = None
    ) -> AbstractContextManager[None]:
        """Return a context that computes work on `tokens` with the threads that are faster for it.

        `rows` is the number of rows of the smallest product, `read_bytes` that of the weights which a compiled step
        reads.
        """
        if self.device.type != "cpu":
            return nullcontext()
        if read_bytes is not None:
            is_small = rows * read_bytes < MIN_READ_BYTES
            return self.threads(work).computing(tokens, is_small=is_small, is_fixed=self.threads_are_fixed)
        has_few_rows = 1 < rows < MIN_ROWS or 1 < tokens < MIN_ROWS or self.vocab_size < MIN_ROWS
        if self.context_tokens is None:
            is_small = has_few_rows or rows * self._product_weights < MIN_RECURRENT_PRODUCTS
        else:
            is_small = has_few_rows or tokens * self._product_weights < MIN_PRODUCTS
        is_fixed = self.threads_are_fixed
        return self.threads(work).computing(
            tokens, is_small=is_small and (work == "generation" or not is_fixed), is_fixed=is_fixed
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
        """Return the size of the parameters and of the copies of them that generation keeps."""
        copies = sum(program.read_bytes for program in self._programs.values())
        rounded = 0 if self._rounded is None else self._rounded.memory_bytes()
        return sum(parameter.nbytes for parameter in self.parameters()) + copies + rounded

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def check_ids(ids: Tensor, max_tokens: int | None = None) -> None:
    """Raise ValueError unless the ids have the shape (B, T) with T <= max_tokens, TypeError unless they are int64."""
    if ids.dim() != 2:
        raise ValueError(f"Expected x with shape (B, T), got {tuple(ids.shape)}")
    if ids.dtype != torch.long:
        raise TypeError(f"Expected x of dtype torch.int64, got {ids.dtype}")
    if max_tokens is not None and ids.shape[1] > max_tokens:
        raise ValueError(f"Expected x with {max_tokens} tokens at most, got {ids.shape[1]}")


def is_read(lengths: Tensor, ids: Tensor) -> Tensor:
    """Return a mask (B, T) of the ids (B, T) that are tokens and not padding, by the lengths (B,)."""
    return torch.arange(ids.shape[1], device=ids.device) < lengths.to(ids.device).unsqueeze(-1)


def _rounded(model: LanguageModel) -> LanguageModel:
    """Return a copy of a model whose matrices are rounded to bf16."""
    copied = deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.bfloat16())
    return copied


def _no_state() -> ValueError:
    return ValueError("a model that reads both sides of a token carries no state")
