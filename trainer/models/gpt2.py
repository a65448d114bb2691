"""GPT-2 of the Hugging Face library, with its embedding as head."""

from collections.abc import Callable
from importlib import import_module

from trainer.contracts.models import Gpt2Config, Objective
from trainer.models.transformer import Body, CausalTransformer, LibraryConfig, MakeConfig, of_vocabulary
from trainer.tokenizers.base import Vocabulary

_make_config: MakeConfig = import_module("transformers.models.gpt2.configuration_gpt2").GPT2Config
_make_body: Callable[[LibraryConfig], Body] = import_module("transformers.models.gpt2.modeling_gpt2").GPT2Model


class Gpt2Model(CausalTransformer):
    """Implements LanguageModel."""

    def __init__(self, config: Gpt2Config, vocabulary: Vocabulary, objective: Objective) -> None:
        body = _make_body(library_config(config, vocabulary))
        super().__init__(config, body, vocabulary, objective, num_key_value_heads=config.num_attention_heads)


def library_config(config: Gpt2Config, vocabulary: Vocabulary) -> LibraryConfig:
    """The same config as the library has it."""
    return _make_config(
        **of_vocabulary(vocabulary),
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
