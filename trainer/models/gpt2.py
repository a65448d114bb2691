"""GPT-2 of the transformers library, with its embedding as head."""

from torch import nn
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2Model

from trainer.contracts.models import Gpt2Config, Objective
from trainer.models.transformer import CausalTransformer, vocabulary_fields
from trainer.tokenizers.base import Vocabulary


class Gpt2Model(CausalTransformer[GPT2Model]):
    """GPT-2 (Radford et al. 2019)."""

    def __init__(self, config: Gpt2Config, vocabulary: Vocabulary, objective: Objective) -> None:
        body = GPT2Model(library_config(config, vocabulary))
        super().__init__(config, body, vocabulary, objective)

    def input_embedding(self) -> nn.Embedding:
        return self.body.wte


def library_config(config: Gpt2Config, vocabulary: Vocabulary) -> GPT2Config:
    """Return the config of the transformers library for a model."""
    return GPT2Config(
        **vocabulary_fields(vocabulary),
        n_positions=config.max_position_embeddings,
        n_embd=config.hidden_size,
        n_layer=config.num_layers,
        n_head=config.num_attention_heads,
        n_inner=config.intermediate_size,
        activation_function=config.activation_function,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.attention_dropout,
        tie_word_embeddings=config.tie_word_embeddings,
    )
