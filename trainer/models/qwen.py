"""Qwen2 of the transformers library: rotary positions, gated layers, grouped-query attention."""

import torch
from torch import nn
from transformers.models.qwen2 import configuration_qwen2, modeling_qwen2

from trainer.contracts.models import Objective, QwenConfig
from trainer.models.transformer import CausalTransformer, vocabulary_fields
from trainer.tokenizers.base import Vocabulary


class QwenModel(CausalTransformer[modeling_qwen2.Qwen2Model]):
    """Qwen2 (Yang et al. 2024)."""

    def __init__(self, config: QwenConfig, vocabulary: Vocabulary, objective: Objective) -> None:
        library = library_config(config, vocabulary)
        body = modeling_qwen2.Qwen2Model(library)
        with torch.device("cpu"):  # rotary frequencies are not stored: they need their values on the device "meta" too
            body.rotary_emb = modeling_qwen2.Qwen2RotaryEmbedding(library)
        super().__init__(config, body, vocabulary, objective, num_key_value_heads=config.num_key_value_heads)

    def input_embedding(self) -> nn.Embedding:
        return self.body.embed_tokens


def library_config(config: QwenConfig, vocabulary: Vocabulary) -> configuration_qwen2.Qwen2Config:
    """Return the config of the transformers library for a model."""
    return configuration_qwen2.Qwen2Config(
        **vocabulary_fields(vocabulary),
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
