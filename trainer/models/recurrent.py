"""LSTM, GRU and RNN language models in one direction: embedding, layers, head.

The untied form is the classic word model: dropout after the embedding, between layers and before the output. The tied
form projects the last layer to the size of the embedding and uses the embedding as head (Press & Wolf 2017,
https://arxiv.org/abs/1608.05859); it drops out between layers only.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional, init

from trainer.contracts.models import Architecture, Objective, RnnConfig
from trainer.models.base import LanguageModel, State


class RecurrentModel(LanguageModel):
    """Implements LanguageModel; the state is (hidden,) or (hidden, cell), each (layers, B, H)."""

    objective: Objective = "causal_lm"

    def __init__(self, config: RnnConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, config.embedding_size)
        self.layers = _LAYERS[config.architecture](
            config.embedding_size,
            config.hidden_size,
            config.num_layers,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
            batch_first=True,
        )
        self.outer_dropout = nn.Dropout(0.0 if config.tied else config.dropout)
        self.projection = nn.Linear(config.hidden_size, config.embedding_size if config.tied else vocab_size)
        if config.tied:
            self.head_bias = nn.Parameter(torch.empty(vocab_size))
        self._initialize()

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.forward_with_state(ids, self.initial_state(len(ids)))[0]

    def initial_state(self, batch: int) -> State:
        weight = self.embedding.weight
        zeros = torch.zeros(self.config.num_layers, batch, self.config.hidden_size, device=weight.device)
        return (zeros, zeros) if self.config.architecture == "lstm" else (zeros,)

    def forward_with_state(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        embedded: Tensor = self.embedding(ids)  # (B, T, E)
        embedded = self.outer_dropout.forward(embedded)
        if self.config.architecture == "lstm":
            of_lstm: tuple[Tensor, State] = self.layers(embedded, state)
            hidden, state = of_lstm
        else:
            of_others: tuple[Tensor, Tensor] = self.layers(embedded, state[0])
            hidden, state = of_others[0], of_others[1:]
        projected: Tensor = self.projection(self.outer_dropout.forward(hidden))  # (B, T, E) or (B, T, V)
        if self.config.tied:
            projected = functional.linear(projected, self.embedding.weight, self.head_bias)  # (B, T, V)
        return projected, state

    def input_embedding(self) -> nn.Embedding:
        return self.embedding

    def _initialize(self) -> None:
        """Input weights Xavier, recurrent weights orthogonal, biases zero; embedding U(-0.1, 0.1), if tied N(0, 1).

        A head of small vectors learns slowly: Tiny Shakespeare, 160 steps, 2.47 nats with U(-0.1, 0.1), 1.77 with
        N(0, 1). The projection before it is small instead, so that a fresh model is near the uniform distribution.
        """
        for name, weight in self.named_parameters():
            if name == "embedding.weight" and self.config.tied:
                init.normal_(weight)
            elif name == "embedding.weight":
                init.uniform_(weight, -0.1, 0.1)
            elif "bias" in name:
                init.zeros_(weight)
            elif "weight_hh" in name:
                init.orthogonal_(weight)
            elif name == "projection.weight" and self.config.tied:
                init.xavier_uniform_(weight, gain=0.5 / math.sqrt(self.config.embedding_size))
            else:
                init.xavier_uniform_(weight)


class _Layers(Protocol):
    """The constructor of torch's recurrent layers, which torch leaves untyped."""

    def __call__(
        self, input_size: int, hidden_size: int, num_layers: int, *, dropout: float, batch_first: bool
    ) -> nn.Module: ...


_LSTM: _Layers = nn.LSTM
_GRU: _Layers = nn.GRU
_RNN: _Layers = nn.RNN
_LAYERS: dict[Architecture, _Layers] = {"lstm": _LSTM, "gru": _GRU, "rnn": _RNN}
