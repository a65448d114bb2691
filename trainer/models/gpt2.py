"""GPT-2 of the transformers library, with its embedding as head."""

from torch import Tensor, nn
from torch.nn import functional
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2Model

from trainer.contracts.models import Gpt2Config, Objective
from trainer.models.transformer import CausalTransformer, library_activation, vocabulary_fields
from trainer.models.transformer_steps import StepBody, activation
from trainer.tokenizers.base import Vocabulary


class Gpt2Model(CausalTransformer[GPT2Model]):
    """GPT-2 (Radford et al. 2019)."""

    def __init__(self, config: Gpt2Config, vocabulary: Vocabulary, objective: Objective) -> None:
        body = GPT2Model(library_config(config, vocabulary))
        super().__init__(config, body, vocabulary, objective)
        self.config = config

    def step_body(self) -> StepBody:
        return _Gpt2Body(self.config, self.body)

    def input_embedding(self) -> nn.Embedding:
        return self.body.wte


class _Gpt2Body(StepBody):
    def __init__(self, config: Gpt2Config, body: GPT2Model) -> None:
        self._epsilon: float = body.config.layer_norm_epsilon
        weights = dict(body.named_parameters())
        matrices = {name: weight for name, weight in weights.items() if name.startswith("h.") and weight.dim() == 2}
        super().__init__(weights, matrices, config.num_layers, config.hidden_size // config.num_attention_heads)
        self._activation = activation(config.activation_function)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        weights = self._weights
        return weights["wte.weight"][ids] + weights["wpe.weight"][positions]

    def queries_keys_values(self, layer: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        merged = self._linear(f"h.{layer}.attn.c_attn", self._normalize(f"h.{layer}.ln_1", hidden))
        query, key, value = merged.chunk(3, dim=-1)
        return self.heads(query), self.heads(key), self.heads(value)

    def output(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        hidden = hidden + self._linear(f"h.{layer}.attn.c_proj", attended)
        inner = self._linear(f"h.{layer}.mlp.c_fc", self._normalize(f"h.{layer}.ln_2", hidden))
        return hidden + self._linear(f"h.{layer}.mlp.c_proj", self._activation(inner))

    def normalize(self, hidden: Tensor) -> Tensor:
        return self._normalize("ln_f", hidden)

    def _normalize(self, name: str, hidden: Tensor) -> Tensor:
        weight = self._weights[f"{name}.weight"]
        return functional.layer_norm(hidden, weight.shape, weight, self._weights[f"{name}.bias"], self._epsilon)

    def _linear(self, name: str, inputs: Tensor) -> Tensor:
        return self.products[f"{name}.weight"](inputs).add_(self._weights[f"{name}.bias"])


def library_config(config: Gpt2Config, vocabulary: Vocabulary) -> GPT2Config:
    """Return the config of the transformers library for a model."""
    return GPT2Config(
        **vocabulary_fields(vocabulary),
        n_positions=config.max_position_embeddings,
        n_embd=config.hidden_size,
        n_layer=config.num_layers,
        n_head=config.num_attention_heads,
        n_inner=config.intermediate_size,
        activation_function=library_activation(config.activation_function),
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.attention_dropout,
        tie_word_embeddings=config.tie_word_embeddings,
    )
