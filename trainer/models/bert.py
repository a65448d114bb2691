"""BERT of the transformers library, with its head for masked tokens."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from transformers.models.bert import configuration_bert, modeling_bert

from trainer.contracts.models import BertConfig, Objective
from trainer.models.attention import use_products
from trainer.models.base import LanguageModel, check_ids, is_read
from trainer.models.linear import linear
from trainer.models.linear_layers import packed_layers, replace_layers
from trainer.models.transformer import checkpoint_activations, library_activation, vocabulary_fields
from trainer.tokenizers.base import Vocabulary

_BertTransform: Callable[[configuration_bert.BertConfig], nn.Module] = modeling_bert.BertPredictionHeadTransform


class BertModel(LanguageModel):
    """BERT (Devlin et al. 2019); it reads complete sequences and carries no state."""

    def __init__(self, config: BertConfig, vocabulary: Vocabulary, objective: Objective) -> None:
        super().__init__(vocabulary, objective)
        self.context_tokens = config.max_position_embeddings
        library = library_config(config, vocabulary)
        self.body = modeling_bert.BertModel(library, add_pooling_layer=False)
        use_products(self.body)
        positions = torch.arange(config.max_position_embeddings, device="cpu").unsqueeze(0)
        # these buffers are not stored with the weights: they need their values on the device "meta" too
        self.body.embeddings.register_buffer("position_ids", positions, persistent=False)
        self.body.embeddings.register_buffer("token_type_ids", torch.zeros_like(positions), persistent=False)
        self.transform = _BertTransform(library)
        for name, weight in self.transform.named_parameters():
            if name == "dense.weight":
                nn.init.normal_(weight, std=0.02)
            elif name == "dense.bias":
                nn.init.zeros_(weight)
        replace_layers(self.body, self.transform)
        self.head_bias = nn.Parameter(torch.zeros(vocabulary.size))

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        check_ids(ids, self.context_tokens)
        mask = None if lengths is None else is_read(lengths, ids)  # (B, T)
        output: tuple[Tensor] = self.body(ids, attention_mask=mask, return_dict=False)
        return output[0]

    def logits(self, hidden: Tensor) -> Tensor:
        transformed: Tensor = self.transform(hidden)
        return linear(transformed, self.input_embedding().weight, self.head_bias)

    def input_embedding(self) -> nn.Embedding:
        return self.body.embeddings.word_embeddings

    def packed_products(self) -> AbstractContextManager[None]:
        return packed_layers(self.body, self.transform)

    def checkpoint_gradients(self) -> None:
        checkpoint_activations(self.body)


def library_config(config: BertConfig, vocabulary: Vocabulary) -> configuration_bert.BertConfig:
    """Return the config of the transformers library for a model."""
    return configuration_bert.BertConfig(
        **vocabulary_fields(vocabulary),
        max_position_embeddings=config.max_position_embeddings,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        hidden_act=library_activation(config.activation_function),
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.attention_dropout,
        type_vocab_size=config.type_vocab_size,
    )
