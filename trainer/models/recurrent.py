"""LSTM, GRU and RNN language models in one direction or two: embedding, layers, head.

The untied form has a linear head. The tied form projects the last layer to the size of the embedding and uses the
embedding as head (Press & Wolf 2017, https://arxiv.org/abs/1608.05859).
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional, init
from torch.nn.utils import rnn

from trainer.contracts.models import Objective, RnnArchitecture, RnnConfig
from trainer.models.base import LanguageModel, State, checked
from trainer.tokenizers.base import Vocabulary


class RecurrentModel(LanguageModel):
    """Implements LanguageModel; the state is (hidden,) or (hidden, cell), each (layers, B, H).

    In two directions it carries no state from one stretch to the next: the way back begins at the end.
    """

    def __init__(self, config: RnnConfig, vocabulary: Vocabulary, objective: Objective) -> None:
        super().__init__(vocabulary, objective)
        self.config = config
        vocab_size, directions = vocabulary.size, 1 + config.bidirectional
        self._states = config.num_layers * directions
        self.embedding = nn.Embedding(vocab_size, config.embedding_size)
        self.layers = _LAYERS[config.architecture](
            config.embedding_size,
            config.hidden_size,
            config.num_layers,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
            batch_first=True,
            bidirectional=config.bidirectional,
        )
        self.outer_dropout = nn.Dropout(config.dropout if config.dropout_places == "all" else 0.0)
        width = config.hidden_size * directions
        self.projection = nn.Linear(width, config.embedding_size if config.tie_word_embeddings else vocab_size)
        if config.tie_word_embeddings:
            self.head_bias = nn.Parameter(torch.zeros(vocab_size))
        if config.initialization == "keyboard":
            self._as_keyboard()
        elif config.tie_word_embeddings:
            self._shrink(self.projection.weight)
            init.zeros_(self.projection.bias)

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        is_packed = self.config.bidirectional and lengths is not None
        return self._run(ids, self._zeros(ids.shape[0]), lengths if is_packed else None)[0]

    def initial_state(self, batch: int) -> State:
        return super().initial_state(batch) if self.config.bidirectional else self._zeros(batch)

    def forward_with_state(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        return super().forward_with_state(ids, state) if self.config.bidirectional else self._run(ids, state)

    def _zeros(self, batch: int) -> State:
        zeros = torch.zeros(self._states, batch, self.config.hidden_size, device=self.embedding.weight.device)
        return (zeros, zeros) if self.config.architecture == "lstm" else (zeros,)

    def _run(self, ids: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        embedded: Tensor = self.embedding(checked(ids))  # (B, T, E)
        embedded = self.outer_dropout.forward(embedded)
        read: Tensor | rnn.PackedSequence = embedded
        if lengths is not None:
            read = rnn.pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        if self.config.architecture == "lstm":
            of_lstm: tuple[Tensor | rnn.PackedSequence, State] = self.layers(read, state)
            found, state = of_lstm
        else:
            of_others: tuple[Tensor | rnn.PackedSequence, Tensor] = self.layers(read, state[0])
            found, state = of_others[0], of_others[1:]
        if isinstance(found, rnn.PackedSequence):
            found, _ = rnn.pad_packed_sequence(found, batch_first=True, total_length=ids.shape[1])
        projected: Tensor = self.projection(self.outer_dropout.forward(found))  # (B, T, E) or (B, T, V)
        if self.config.tie_word_embeddings:
            projected = functional.linear(projected, self.embedding.weight, self.head_bias)  # (B, T, V)
        return projected, state

    def input_embedding(self) -> nn.Embedding:
        return self.embedding

    def _as_keyboard(self) -> None:
        """Input weights Xavier, recurrent weights orthogonal, biases zero; embedding U(-0.1, 0.1), if tied N(0, 1).

        A head of small vectors learns slowly: Tiny Shakespeare, 160 steps, 2.47 nats with U(-0.1, 0.1), 1.77 with
        N(0, 1).
        """
        for name, weight in self.named_parameters():
            if name == "embedding.weight" and self.config.tie_word_embeddings:
                init.normal_(weight)
            elif name == "embedding.weight":
                init.uniform_(weight, -0.1, 0.1)
            elif "bias" in name:
                init.zeros_(weight)
            elif "weight_hh" in name:
                init.orthogonal_(weight)
            elif name == "projection.weight" and self.config.tie_word_embeddings:
                self._shrink(weight)
            else:
                init.xavier_uniform_(weight)

    def _shrink(self, projection: Tensor) -> None:
        """Make the projection before a tied head small, so that a fresh model is near the uniform distribution."""
        init.xavier_uniform_(projection, gain=0.5 / math.sqrt(self.config.embedding_size))


class _Layers(Protocol):
    """The constructor of torch's recurrent layers, which torch leaves untyped."""

    def __call__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        dropout: float,
        batch_first: bool,
        bidirectional: bool,
    ) -> nn.Module: ...


_LSTM: _Layers = nn.LSTM
_GRU: _Layers = nn.GRU
_RNN: _Layers = nn.RNN
_LAYERS: dict[RnnArchitecture, _Layers] = {"lstm": _LSTM, "gru": _GRU, "rnn": _RNN}
