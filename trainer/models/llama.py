"""LLaMA of the transformers library: rotary positions, gated layers, grouped-query attention."""

import torch
from torch import nn
from transformers.models.llama import configuration_llama, modeling_llama

from trainer.contracts.models import LlamaConfig, Objective
from trainer.models.transformer import CausalTransformer, vocabulary_fields
from trainer.tokenizers.base import Vocabulary


class LlamaModel(CausalTransformer[modeling_llama.LlamaModel]):
    """LLaMA (Touvron et al. 2023)."""

    def __init__(self, config: LlamaConfig, vocabulary: Vocabulary, objective: Objective) -> None:
        library = library_config(config, vocabulary)
        body = modeling_llama.LlamaModel(library)
        with torch.device("cpu"):  # rotary frequencies are not stored: they need their values on the device "meta" too
            body.rotary_emb = modeling_llama.LlamaRotaryEmbedding(library)
        super().__init__(config, body, vocabulary, objective, num_key_value_heads=config.num_key_value_heads)

    def input_embedding(self) -> nn.Embedding:
        return self.body.embed_tokens


def library_config(config: LlamaConfig, vocabulary: Vocabulary) -> configuration_llama.LlamaConfig:
    """Return the config of the transformers library for a model."""
    return configuration_llama.LlamaConfig(
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
