"""LLaMA and Qwen2 of the Hugging Face library: rotary positions, gated layers, shared keys and values."""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple, Protocol

import torch
from torch import nn

from trainer.contracts.models import LlamaConfig, Objective, QwenConfig
from trainer.models.transformer import Body, CausalTransformer, LibraryConfig, MakeConfig, of_vocabulary
from trainer.tokenizers.base import Vocabulary


class _RotaryBody(Body, Protocol):
    rotary_emb: nn.Module


class _Classes(NamedTuple):
    """The library's classes for one architecture."""

    config: MakeConfig
    body: Callable[[LibraryConfig], _RotaryBody]
    rotary: Callable[[LibraryConfig], nn.Module]


class LlamaModel(CausalTransformer):
    """Implements LanguageModel."""

    def __init__(self, config: LlamaConfig | QwenConfig, vocabulary: Vocabulary, objective: Objective) -> None:
        classes = _classes("llama", "Llama") if isinstance(config, LlamaConfig) else _classes("qwen2", "Qwen2")
        made = library_config(config, vocabulary)
        body = classes.body(made)
        with torch.device("cpu"):  # its numbers are stored nowhere, so that they are made on no other device either
            body.rotary_emb = classes.rotary(made)
        super().__init__(config, body, vocabulary, objective, num_key_value_heads=config.num_key_value_heads)


def library_config(config: LlamaConfig | QwenConfig, vocabulary: Vocabulary) -> LibraryConfig:
    """The same config as the library has it."""
    classes = _classes("llama", "Llama") if isinstance(config, LlamaConfig) else _classes("qwen2", "Qwen2")
    return classes.config(
        **of_vocabulary(vocabulary),
        max_position_embeddings=config.max_position_embeddings,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        hidden_act=config.activation_function,
        attention_dropout=config.attention_dropout,
        tie_word_embeddings=config.tie_word_embeddings,
    )


def _classes(module: str, name: str) -> _Classes:
    configs = import_module(f"transformers.models.{module}.configuration_{module}")
    models = import_module(f"transformers.models.{module}.modeling_{module}")
    config: MakeConfig = getattr(configs, f"{name}Config")
    body: Callable[[LibraryConfig], _RotaryBody] = getattr(models, f"{name}Model")
    rotary: Callable[[LibraryConfig], nn.Module] = getattr(models, f"{name}RotaryEmbedding")
    return _Classes(config, body, rotary)
