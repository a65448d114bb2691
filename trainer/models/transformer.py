"""What the transformers of the Hugging Face library have in common: how they are made, asked and carried on.

The library's models are taken without their heads and its weights are drawn by itself, from torch's default generator.
Nothing is downloaded. mypy reads none of it, which would take a minute: the protocols here say what is used.
"""

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.contracts.models import Gpt2Config, LlamaConfig, Objective, QwenConfig
from trainer.models.base import LanguageModel, State, checked
from trainer.tokenizers.base import Vocabulary

os.environ["HF_HUB_OFFLINE"] = "1"
_speak_of_errors_only: Callable[[], None] = import_module("transformers.utils.logging").set_verbosity_error
_speak_of_errors_only()


class LibraryConfig(Protocol):
    """A config of the library, whatever its architecture."""

    def to_json_string(self) -> str: ...


class MakeConfig(Protocol):
    def __call__(self, **values: object) -> LibraryConfig: ...


def of_vocabulary(vocabulary: Vocabulary) -> dict[str, object]:
    """What each config of the library says of the vocabulary; whether a cache is kept is said at each call."""
    ids = vocabulary.special_ids
    return {
        "vocab_size": vocabulary.size,
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "pad_token_id": ids.pad,
        "use_cache": False,
    }


class _Cache(Protocol):
    """Keys and values of what was read, of each layer (B, heads, P, D)."""

    @property
    def layers(self) -> "Sequence[_CachedLayer]": ...


class _CachedLayer(Protocol):
    @property
    def keys(self) -> Tensor: ...
    @property
    def values(self) -> Tensor: ...


class _Output(Protocol):
    @property
    def last_hidden_state(self) -> Tensor: ...
    @property
    def past_key_values(self) -> _Cache: ...


class Body(Protocol):
    """A model of the library without a head."""

    def __call__(self, ids: Tensor, **options: object) -> _Output: ...
    def get_input_embeddings(self) -> nn.Embedding: ...
    def activation_checkpointing_enable(self) -> None: ...


class _MakeCache(Protocol):
    def __call__(self, data: Sequence[tuple[Tensor, Tensor]]) -> _Cache: ...


_make_cache: _MakeCache = import_module("transformers.cache_utils").DynamicCache


class CausalTransformer(LanguageModel):
    """Implements LanguageModel; the state is which places were read (1, B, P), then keys and values of each layer.

    Those are (1, B, P, heads, D). A place that was not read fills up a shorter sequence of the batch.
    """

    def __init__(
        self,
        config: Gpt2Config | LlamaConfig | QwenConfig,
        body: Body,
        vocabulary: Vocabulary,
        objective: Objective,
        *,
        num_key_value_heads: int,
    ) -> None:
        super().__init__(vocabulary, objective)
        self.context_tokens = config.max_position_embeddings
        self.body = body
        self._cached = 2 * config.num_layers
        self._cached_shape = num_key_value_heads, config.hidden_size // config.num_attention_heads
        self.head: nn.Linear | None = None
        if not config.tie_word_embeddings:
            self.head = nn.Linear(config.hidden_size, vocabulary.size, bias=False)
            nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        output = self.body(checked(ids, self.context_tokens), use_cache=False)
        return self._logits(output.last_hidden_state)

    def initial_state(self, batch: int) -> State:
        weight = self.input_embedding().weight
        read = torch.zeros(1, batch, 0, dtype=torch.bool, device=weight.device)
        nothing = torch.zeros(1, batch, 0, *self._cached_shape, dtype=weight.dtype, device=weight.device)
        return (read, *[nothing] * self._cached)

    def forward_with_state(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        before = state[0].squeeze(0)  # (B, P)
        read = torch.cat([before, torch.ones_like(checked(ids, self.context_tokens), dtype=torch.bool)], dim=1)
        positions = before.sum(-1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device)  # (B, T)
        parts = [part.squeeze(0).transpose(1, 2) for part in state[1:]]  # each (B, heads, P, D)
        cache = _make_cache(list(zip(parts[::2], parts[1::2], strict=True)))
        output = self.body(ids, attention_mask=read, position_ids=positions, past_key_values=cache, use_cache=True)
        layers = output.past_key_values.layers
        grown = [part.transpose(1, 2).unsqueeze(0) for layer in layers for part in (layer.keys, layer.values)]
        return self._logits(output.last_hidden_state), (read.unsqueeze(0), *grown)

    def input_embedding(self) -> nn.Embedding:
        return self.body.get_input_embeddings()

    def checkpoint_gradients(self) -> None:
        self.body.activation_checkpointing_enable()

    def _logits(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.input_embedding().weight if self.head is None else self.head.weight)
