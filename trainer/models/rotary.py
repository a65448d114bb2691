"""LLaMA and Qwen2 of the transformers library: rotary positions, gated layers, grouped-query attention."""

from typing import overload

import torch
from torch import nn
from transformers.models.llama import configuration_llama, modeling_llama
from transformers.models.qwen2 import configuration_qwen2, modeling_qwen2

from trainer.contracts.models import LlamaConfig, Objective, QwenConfig
from trainer.models.transformer import CausalTransformer, vocabulary_fields
from trainer.tokenizers.base import Vocabulary

_LLAMA: type[configuration_llama.LlamaConfig] = configuration_llama.LlamaConfig
_QWEN: type[configuration_qwen2.Qwen2Config] = configuration_qwen2.Qwen2Config


class RotaryModel(CausalTransformer[modeling_llama.LlamaModel | modeling_qwen2.Qwen2Model]):
    """LLaMA (Touvron et al. 2023) or Qwen2 (Yang et al. 2024)."""

    def __init__(self, config: LlamaConfig | QwenConfig, vocabulary: Vocabulary, objective: Objective) -> None:
        body: modeling_llama.LlamaModel | modeling_qwen2.Qwen2Model
        # rotary frequencies are not stored: they need their values on the device "meta" too
        if isinstance(config, LlamaConfig):
            llama = library_config(config, vocabulary)
            body = modeling_llama.LlamaModel(llama)
            with torch.device("cpu"):
                body.rotary_emb = modeling_llama.LlamaRotaryEmbedding(llama)
        else:
            qwen = library_config(config, vocabulary)
            body = modeling_qwen2.Qwen2Model(qwen)
            with torch.device("cpu"):
                body.rotary_emb = modeling_qwen2.Qwen2RotaryEmbedding(qwen)
        super().__init__(config, body, vocabulary, objective)

    def input_embedding(self) -> nn.Embedding:
        return self.body.embed_tokens


@overload
def library_config(config: LlamaConfig, vocabulary: Vocabulary) -> configuration_llama.LlamaConfig: ...
@overload
def library_config(config: QwenConfig, vocabulary: Vocabulary) -> configuration_qwen2.Qwen2Config: ...
def library_config(
    config: LlamaConfig | QwenConfig, vocabulary: Vocabulary
) -> configuration_llama.LlamaConfig | configuration_qwen2.Qwen2Config:
    """Return the config of the transformers library for a model."""
    library = _LLAMA if isinstance(config, LlamaConfig) else _QWEN
    return library(
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
