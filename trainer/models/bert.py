"""BERT of the Hugging Face library, with its head for masked tokens."""

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.contracts.models import BertConfig, Objective
from trainer.models.base import LanguageModel, checked, is_read
from trainer.models.transformer import Body, LibraryConfig, MakeConfig, of_vocabulary
from trainer.tokenizers.base import Vocabulary

_library = import_module("transformers.models.bert.modeling_bert")
_make_config: MakeConfig = import_module("transformers.models.bert.configuration_bert").BertConfig


class _BertBody(Body, Protocol):
    embeddings: nn.Module


class _MakeBody(Protocol):
    def __call__(self, config: LibraryConfig, *, add_pooling_layer: bool) -> _BertBody: ...


_make_body: _MakeBody = _library.BertModel
_make_transform: Callable[[LibraryConfig], nn.Module] = _library.BertPredictionHeadTransform


class BertModel(LanguageModel):
    """Implements LanguageModel; it carries no state."""

    def __init__(self, config: BertConfig, vocabulary: Vocabulary, objective: Objective) -> None:
        super().__init__(vocabulary, objective)
        self.context_tokens = config.max_position_embeddings
        made = library_config(config, vocabulary)
        self.body = _make_body(made, add_pooling_layer=False)
        places = torch.arange(config.max_position_embeddings, device="cpu").unsqueeze(0)
        # they are stored nowhere, so that they are made on no other device either
        self.body.embeddings.register_buffer("position_ids", places, persistent=False)
        self.body.embeddings.register_buffer("token_type_ids", torch.zeros_like(places), persistent=False)
        self.transform = _make_transform(made)
        for name, weight in self.transform.named_parameters():
            if name == "dense.weight":
                nn.init.normal_(weight, std=0.02)
            elif name == "dense.bias":
                nn.init.zeros_(weight)
        self.head_bias = nn.Parameter(torch.zeros(vocabulary.size))

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        read = None if lengths is None else is_read(lengths, ids)
        hidden = self.body(checked(ids, self.context_tokens), attention_mask=read).last_hidden_state  # (B, T, H)
        transformed: Tensor = self.transform(hidden)
        return functional.linear(transformed, self.input_embedding().weight, self.head_bias)

    def input_embedding(self) -> nn.Embedding:
        return self.body.get_input_embeddings()

    def checkpoint_gradients(self) -> None:
        self.body.activation_checkpointing_enable()


def library_config(config: BertConfig, vocabulary: Vocabulary) -> LibraryConfig:
    """The same config as the library has it."""
    return _make_config(
        **of_vocabulary(vocabulary),
        max_position_embeddings=config.max_position_embeddings,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        hidden_act=config.activation_function,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.attention_dropout,
        type_vocab_size=config.type_vocab_size,
    )
