"""LLaMA and Qwen2 of the transformers library: rotary positions, gated layers, grouped-query attention."""

from collections.abc import Iterator
from typing import overload

import torch
from torch import Tensor, nn
from transformers.models.llama import configuration_llama, modeling_llama
from transformers.models.qwen2 import configuration_qwen2, modeling_qwen2

from trainer.contracts.generations import GenerationPrecision
from trainer.contracts.models import LlamaConfig, Objective, QwenConfig
from trainer.models.dropout import Dropout
from trainer.models.linear_layers import LinearLayer
from trainer.models.step_program import FUNCTIONS, StepProgram, pad_parts, padded
from trainer.models.transformer import CausalTransformer, library_activation, vocabulary_fields
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
        self.config = config
        if config.dropout:
            self._add_dropout(config.dropout)

    def _add_dropout(self, probability: float) -> None:
        """Drop out of the embedding and of what each part of a layer adds, as GPT-2 does; the library drops nothing."""
        self.body.embed_tokens = DroppedEmbedding(self.body.embed_tokens, probability)
        parts: Iterator[tuple[str, nn.Module]] = self.body.named_modules()
        for name, part in parts:
            if isinstance(part, LinearLayer) and name.endswith(("self_attn.o_proj", "mlp.down_proj")):
                part.dropout = Dropout(probability)

    def step_program(self, precision: GenerationPrecision) -> StepProgram:
        config, weights = self.config, dict(self.body.named_parameters())
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        head_size, epsilon = config.hidden_size // heads, float(self.body.config.rms_norm_eps)
        program, width = self.empty_program(precision), padded(head_size)
        hidden, normal = program.floats(config.hidden_size), program.floats(config.hidden_size)
        merged, attended = program.floats((heads + 2 * groups) * width), program.floats(heads * width)
        gate, up = program.floats(config.intermediate_size), program.floats(config.intermediate_size)
        embedding = weights["embed_tokens.weight"]
        positions = torch.arange(config.max_position_embeddings).unsqueeze(0)
        table: tuple[Tensor, Tensor] = self.body.rotary_emb(embedding, positions)
        rotary = table[0].squeeze(0), table[1].squeeze(0)  # each (positions, head_size)
        program.embed(program.matrix(embedding), hidden)
        for layer in range(config.num_layers):
            of_layer = {name.removeprefix(f"layers.{layer}."): weight for name, weight in weights.items()}
            parts = [f"self_attn.{part}_proj" for part in "qkv"]
            weight = torch.cat([pad_parts(of_layer[f"{part}.weight"], head_size) for part in parts])
            biases = [of_layer[name] for part in parts if (name := f"{part}.bias") in of_layer]
            bias = torch.cat([pad_parts(each, head_size) for each in biases]) if biases else None
            program.norm(of_layer["input_layernorm.weight"], None, hidden, normal, epsilon)
            program.product(weight, bias, normal, merged)
            program.attend(self.key_values, layer, heads, merged, attended, rotary)
            of_heads = pad_parts(of_layer["self_attn.o_proj.weight"].t(), head_size).t()
            program.product(of_heads, of_layer.get("self_attn.o_proj.bias"), attended, hidden, adds=True)
            program.norm(of_layer["post_attention_layernorm.weight"], None, hidden, normal, epsilon)
            program.product(of_layer["mlp.gate_proj.weight"], None, normal, gate)
            program.product(of_layer["mlp.up_proj.weight"], None, normal, up)
            program.gate(gate, up, config.intermediate_size, FUNCTIONS[config.activation_function])
            program.product(of_layer["mlp.down_proj.weight"], None, gate, hidden, adds=True)
        program.norm(weights["norm.weight"], None, hidden, normal, epsilon)
        program.logits(self.head_weight(), None, normal)
        return program

    def input_embedding(self) -> nn.Embedding:
        return self.body.embed_tokens


class DroppedEmbedding(nn.Embedding):
    """An embedding with the weights of another, and dropout of its vectors."""

    def __init__(self, embedding: nn.Embedding, probability: float) -> None:
        weight = embedding.weight
        super().__init__(len(weight), embedding.embedding_dim, embedding.padding_idx, _weight=weight)
        self.dropout = Dropout(probability)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors (…, H) of ids."""
        dropped: Tensor = self.dropout(super().forward(ids))
        return dropped


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
        hidden_act=library_activation(config.activation_function),
        attention_dropout=config.attention_dropout,
        tie_word_embeddings=config.tie_word_embeddings,
    )
