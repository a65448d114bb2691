"""Causal transformers of the transformers library: their forward pass, their cache as a state, and their head.

The library's models are used without their heads. The library initializes its weights, from torch's default generator.
Nothing is downloaded.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Generic, TypedDict, TypeVar

import torch
from packaging.version import Version
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

from trainer.contracts.generations import GenerationPrecision
from trainer.contracts.models import Activation, Gpt2Config, LlamaConfig, Objective, QwenConfig
from trainer.models.attention import use_products
from trainer.models.base import LanguageModel, check_ids
from trainer.models.linear import linear, packed_linear
from trainer.models.linear_layers import PACKED_ROWS, packed_layers, replace_layers
from trainer.models.step_program import KeyValueShape, StepProgram
from trainer.models.steps import ModelState
from trainer.tokenizers.base import Vocabulary

_set_verbosity_error: Callable[[], None] = logging.set_verbosity_error
_set_verbosity_error()
_CACHE = "cache" if Version(version("transformers")) >= Version("5.24") else "past_key_values"
"""The library's name of the argument for the keys and values before a text."""


class VocabularyFields(TypedDict):
    """Fields of a library config that describe the vocabulary; `use_cache` is given with each call instead."""

    vocab_size: int
    bos_token_id: int | None
    eos_token_id: int
    pad_token_id: int | None
    use_cache: bool


def vocabulary_fields(vocabulary: Vocabulary) -> VocabularyFields:
    ids = vocabulary.special_ids
    return VocabularyFields(
        vocab_size=vocabulary.size, bos_token_id=ids.bos, eos_token_id=ids.eos, pad_token_id=ids.pad, use_cache=False
    )


def library_activation(name: Activation) -> str:
    """Return the library's name of an activation; for gelu_new the name of the same function in one operation."""
    return "gelu_pytorch_tanh" if name == "gelu_new" else name


def checkpoint_activations(body: PreTrainedModel) -> None:
    """Make a model of the library recompute its activations in the backward pass."""
    renamed = "activation_checkpointing_enable"  # in version 5.23
    enable: Callable[[], None] = getattr(body, renamed if hasattr(body, renamed) else "gradient_checkpointing_enable")
    enable()


Body = TypeVar("Body", bound=PreTrainedModel)


class CausalTransformer(LanguageModel, Generic[Body]):
    """A causal transformer; its state is a mask of the positions read (1, B, P), then keys and values of each layer.

    Keys and values have the shape (1, B, P, heads, D). A position that was not read is padding of a shorter sequence.
    """

    reads_trees = True

    def __init__(
        self, config: Gpt2Config | LlamaConfig | QwenConfig, body: Body, vocabulary: Vocabulary, objective: Objective
    ) -> None:
        super().__init__(vocabulary, objective)
        self.context_tokens = config.max_position_embeddings
        replace_layers(body)
        use_products(body)
        self.body = body
        heads = config.num_attention_heads if isinstance(config, Gpt2Config) else config.num_key_value_heads
        head_size = config.hidden_size // config.num_attention_heads
        self.key_values = KeyValueShape(config.num_layers, heads, head_size, config.max_position_embeddings)
        self.head: nn.Linear | None = None
        self._packed_head: Callable[[Tensor], Tensor] | None = None
        if not config.tie_word_embeddings:
            self.head = nn.Linear(config.hidden_size, vocabulary.size, bias=False)
            nn.init.normal_(self.head.weight, std=0.02)

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        check_ids(ids, self.context_tokens)
        output: tuple[Tensor] = self.body(ids, use_cache=False, return_dict=False)
        return output[0]

    def tree_hidden_states(self, ids: Tensor, depths: Tensor, ends: Tensor) -> Tensor:
        check_ids(ids)
        nodes = torch.arange(ids.shape[1], device=ids.device)
        is_ancestor = (nodes <= nodes.unsqueeze(-1)) & (nodes.unsqueeze(-1) < ends.unsqueeze(1))  # (B, N, N)
        output: tuple[Tensor] = self.body(
            ids, attention_mask=is_ancestor.unsqueeze(1), position_ids=depths, use_cache=False, return_dict=False
        )
        return output[0]

    def logits(self, hidden: Tensor) -> Tensor:
        if self._packed_head is not None:
            return self._packed_head(hidden)
        return linear(hidden, self.head_weight())

    def initial_state(self, batch: int) -> ModelState:
        weight = self.input_embedding().weight
        is_read = torch.zeros(1, batch, 0, dtype=torch.bool, device=weight.device)
        shape = 1, batch, 0, self.key_values.groups, self.key_values.head_size
        empty = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        return (is_read, *[empty] * (2 * self.key_values.layers))

    def forward_with_state(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        check_ids(ids, self.context_tokens)
        past = state[0].squeeze(0)  # (B, P)
        is_read = torch.cat([past, torch.ones_like(ids, dtype=torch.bool)], dim=1)  # (B, P + T)
        positions = past.sum(-1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device)  # (B, T)
        tensors = [tensor.squeeze(0).transpose(1, 2) for tensor in state[1:]]  # each (B, heads, P, D)
        cache = DynamicCache(list(zip(tensors[::2], tensors[1::2], strict=True)))
        output: tuple[Tensor, Iterable[tuple[Tensor, Tensor, None]]] = self.body(
            ids,
            attention_mask=is_read,
            position_ids=positions,
            use_cache=True,
            return_dict=False,
            **{_CACHE: cache},
        )
        hidden, layers = output
        grown = [tensor.transpose(1, 2).unsqueeze(0) for keys, values, _ in layers for tensor in (keys, values)]
        return self.logits(hidden), (is_read.unsqueeze(0), *grown)

    def empty_program(self, precision: GenerationPrecision) -> StepProgram:
        """Return a step program without operations."""
        return StepProgram(self.vocab_size, precision, key_values=self.key_values)

    def head_weight(self) -> Tensor:
        return super().head_weight() if self.head is None else self.head.weight

    @contextmanager
    def packed_products(self) -> Iterator[None]:
        self._packed_head = packed_linear(self.head_weight(), rows=PACKED_ROWS)
        try:
            with packed_layers(self.body):
                yield
        finally:
            self._packed_head = None

    def checkpoint_gradients(self) -> None:
        checkpoint_activations(self.body)
