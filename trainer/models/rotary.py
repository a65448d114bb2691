"""LLaMA and Qwen2 of the transformers library: rotary positions, gated layers, grouped-query attention."""

from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.llama import configuration_llama, modeling_llama
from transformers.models.qwen2 import configuration_qwen2, modeling_qwen2

from trainer.contracts.models import LlamaConfig, Objective, QwenConfig
from trainer.models.transformer import CausalTransformer, library_activation, vocabulary_fields
from trainer.models.transformer_steps import StepBody, activation
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

    def step_body(self) -> StepBody:
        return _RotaryBody(self.config, self.body)

    def input_embedding(self) -> nn.Embedding:
        return self.body.embed_tokens


class _RotaryBody(StepBody):
    def __init__(
        self, config: LlamaConfig | QwenConfig, body: modeling_llama.LlamaModel | modeling_qwen2.Qwen2Model
    ) -> None:
        weights = dict(body.named_parameters())
        self._epsilon: float = body.config.rms_norm_eps
        matrices = {name: weight.t() for name, weight in weights.items() if name.endswith("_proj.weight")}
        super().__init__(weights, matrices, config.num_layers, config.hidden_size // config.num_attention_heads)
        self._activation = activation(config.activation_function)
        embedding = weights["embed_tokens.weight"]
        positions = torch.arange(config.max_position_embeddings, device=embedding.device).unsqueeze(0)
        table: tuple[Tensor, Tensor] = body.rotary_emb(embedding, positions)
        self._cosines, self._sines = (part.squeeze(0).unsqueeze(1) for part in table)  # each (positions, 1, D)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        return self._weights["embed_tokens.weight"][ids]

    def queries_keys_values(self, layer: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normalized = self._normalize(f"layers.{layer}.input_layernorm", hidden)
        names = (f"layers.{layer}.self_attn.{part}_proj" for part in "qkv")
        query, key, value = (self.heads(self._linear(name, normalized)) for name in names)
        return self._rotate(query, positions), self._rotate(key, positions), value

    def output(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        hidden = hidden + self._linear(f"layers.{layer}.self_attn.o_proj", attended)
        normalized = self._normalize(f"layers.{layer}.post_attention_layernorm", hidden)
        gate, up = (self._linear(f"layers.{layer}.mlp.{part}_proj", normalized) for part in ("gate", "up"))
        return hidden + self._linear(f"layers.{layer}.mlp.down_proj", self._activation(gate) * up)

    def normalize(self, hidden: Tensor) -> Tensor:
        return self._normalize("norm", hidden)

    def _rotate(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Rotate vectors (n, heads, D) by their positions (n,) (Su et al. 2021)."""
        first, second = vectors.chunk(2, dim=-1)
        return vectors * self._cosines[positions] + torch.cat((-second, first), dim=-1) * self._sines[positions]

    def _normalize(self, name: str, hidden: Tensor) -> Tensor:
        weight = self._weights[f"{name}.weight"]
        return functional.rms_norm(hidden, list(weight.shape), weight, self._epsilon)

    def _linear(self, name: str, inputs: Tensor) -> Tensor:
        outputs, bias = self.products[f"{name}.weight"](inputs), self._weights.get(f"{name}.bias")
        return outputs if bias is None else outputs.add_(bias)


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
