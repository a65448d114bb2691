"""LSTM, GRU and RNN language models, unidirectional or bidirectional: embedding, layers, head.

An untied model has a linear head. A tied model projects the last layer to the size of the embedding and uses the
embedding as its head (Press & Wolf 2017, https://arxiv.org/abs/1608.05859).
"""

import math
from collections.abc import Mapping
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional, init
from torch.nn.utils import rnn

from trainer.contracts.generations import GenerationPrecision
from trainer.contracts.models import Objective, RnnConfig
from trainer.models.base import LanguageModel, check_ids
from trainer.models.dropout import dropout
from trainer.models.linear import Linear, linear
from trainer.models.step_program import StepProgram, pad_parts, padded
from trainer.models.steps import ModelState
from trainer.native.library import Kind, Operation
from trainer.tokenizers.base import Vocabulary

_MAX_GATES = 1 << 22
"""Numbers in a table of the first layer's gates, a row per token, with which a step reads no weights for its input."""
_PACKED_ROWS = 2
"""Counts for any number of rows that decreases from one time step to the next."""


class RecurrentModel(LanguageModel):
    """A recurrent model; its state is (hidden,) or (hidden, cell), each (layers, B, H).

    A bidirectional model carries no state, because its backward layers start at the end of the sequence.
    """

    def __init__(self, config: RnnConfig, vocabulary: Vocabulary, objective: Objective) -> None:
        super().__init__(vocabulary, objective)
        self.config = config
        vocab_size, directions = vocabulary.size, 1 + config.bidirectional
        self.embedding = nn.Embedding(vocab_size, config.embedding_size)
        self.layers = _layers(config)
        width = config.hidden_size * directions
        self.projection = Linear(width, config.embedding_size if config.tie_word_embeddings else vocab_size)
        if config.tie_word_embeddings:
            self.head_bias = nn.Parameter(torch.zeros(vocab_size))
        if config.initialization == "keyboard":
            self._initialize_as_keyboard()
        elif config.tie_word_embeddings:
            self._initialize_small(self.projection.weight)
            init.zeros_(self.projection.bias)

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        if self._trains_layers(ids, lengths):
            return self.logits(self._train_layers(ids)).transpose(0, 1)
        return super().forward(ids, lengths)

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        if self._trains_layers(ids, lengths):
            return self._train_layers(ids).transpose(0, 1)
        is_packed = self.config.bidirectional and lengths is not None
        return self._run(ids, self._zeros(ids.shape[0]), lengths if is_packed else None)[0]

    def logits(self, hidden: Tensor) -> Tensor:
        projected: Tensor = self.projection(hidden)  # (…, E) or (…, V)
        if self.config.tie_word_embeddings:
            projected = linear(projected, self.embedding.weight, self.head_bias)
        return projected

    def product_rows(self, ids: Tensor, lengths: Tensor | None = None) -> int:
        is_packed = self.config.bidirectional and lengths is not None  # then time steps have fewer and fewer rows
        return min(len(ids), _PACKED_ROWS) if is_packed else len(ids)

    def initial_state(self, batch: int) -> ModelState:
        return super().initial_state(batch) if self.config.bidirectional else self._zeros(batch)

    def forward_with_state(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        if self.config.bidirectional:
            return super().forward_with_state(ids, state)
        hidden, state = self._run(ids, state)
        return self.logits(hidden), state

    def step_program(self, precision: GenerationPrecision) -> StepProgram:
        return _step_program(self.config, dict(self.named_parameters()), precision)

    def _zeros(self, batch: int) -> ModelState:
        layers = self.config.num_layers * (1 + self.config.bidirectional)
        zeros = torch.zeros(layers, batch, self.config.hidden_size, device=self.embedding.weight.device)
        return (zeros, zeros) if self.config.architecture == "lstm" else (zeros,)

    def _run(self, ids: Tensor, state: ModelState, lengths: Tensor | None = None) -> tuple[Tensor, ModelState]:
        """Map ids (B, T) to hidden states (B, T, H) and the state after them."""
        check_ids(ids)
        embedded: Tensor = self.embedding(ids)  # (B, T, E)
        embedded = self._outer_dropout(embedded)
        inputs: Tensor | rnn.PackedSequence = embedded
        if lengths is not None:
            inputs = rnn.pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        if self.config.architecture == "lstm":
            lstm_output: tuple[Tensor | rnn.PackedSequence, ModelState] = self.layers(inputs, state)
            hidden, state = lstm_output
        else:
            output: tuple[Tensor | rnn.PackedSequence, Tensor] = self.layers(inputs, state[0])
            hidden, state = output[0], output[1:]
        if isinstance(hidden, rnn.PackedSequence):
            hidden, _ = rnn.pad_packed_sequence(hidden, batch_first=True, total_length=ids.shape[1])
        return self._outer_dropout(hidden), state

    def _trains_layers(self, ids: Tensor, lengths: Tensor | None) -> bool:
        is_packed = self.config.bidirectional and lengths is not None
        return self.training and not is_packed and ids.device.type == "cpu"

    def _train_layers(self, ids: Tensor) -> Tensor:
        """Map ids (B, T) to hidden states (T, B, H), as `self.layers` does; on a CPU this way is faster to train.

        The time comes first, as the layers compute, and `dropout` draws the masks between the layers.
        """
        check_ids(ids)
        config, (state, *_) = self.config, self._zeros(len(ids))
        directions = 1 + config.bidirectional
        hidden = self._outer_dropout(self.embedding.forward(ids.t()))  # (T, B, E)
        weights: list[list[nn.Parameter]] = self.layers.all_weights
        for layer in range(config.num_layers):
            if layer:
                hidden = dropout(hidden, config.dropout, is_training=True)
            first = layer * directions
            of_layer: list[Tensor] = [weight for each in weights[first : first + directions] for weight in each]
            options = True, 1, 0.0, True, config.bidirectional, False
            empty = state[first : first + directions]
            match config.architecture:
                case "lstm":
                    hidden = torch.lstm(hidden, (empty, empty), of_layer, *options)[0]
                case "gru":
                    hidden = torch.gru(hidden, empty, of_layer, *options)[0]
                case "rnn":
                    hidden = torch.rnn_tanh(hidden, empty, of_layer, *options)[0]
                case unknown:
                    assert_never(unknown)
        return self._outer_dropout(hidden)

    def _outer_dropout(self, hidden: Tensor) -> Tensor:
        """Drop numbers before the first layer and after the last, if the config has dropout there."""
        probability = self.config.dropout if self.config.dropout_places == "all" else 0.0
        return dropout(hidden, probability, is_training=self.training)

    def input_embedding(self) -> nn.Embedding:
        return self.embedding

    def head_weight(self) -> Tensor:
        return super().head_weight() if self.config.tie_word_embeddings else self.projection.weight

    def _initialize_as_keyboard(self) -> None:
        """Initialize input weights by Xavier, recurrent weights orthogonally, biases by 0, embeddings by U(-0.1, 0.1).

        A tied embedding is N(0, 1), because a head of small vectors learns slowly: after 160 steps on Tiny Shakespeare
        the loss is 2.47 nats with U(-0.1, 0.1) and 1.77 with N(0, 1).
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
                self._initialize_small(weight)
            else:
                init.xavier_uniform_(weight)

    def _initialize_small(self, projection: Tensor) -> None:
        """Initialize the projection before a tied head near zero: an untrained model predicts almost uniformly."""
        init.xavier_uniform_(projection, gain=0.5 / math.sqrt(self.config.embedding_size))


def _layers(config: RnnConfig) -> nn.RNNBase:
    sizes = config.embedding_size, config.hidden_size, config.num_layers
    dropout = config.dropout if config.num_layers > 1 else 0.0
    match config.architecture:
        case "lstm":
            return nn.LSTM(*sizes, batch_first=True, dropout=dropout, bidirectional=config.bidirectional)
        case "gru":
            return nn.GRU(*sizes, batch_first=True, dropout=dropout, bidirectional=config.bidirectional)
        case "rnn":
            return nn.RNN(*sizes, batch_first=True, dropout=dropout, bidirectional=config.bidirectional)
        case _:
            assert_never(config.architecture)


def _step_program(config: RnnConfig, weights: Mapping[str, Tensor], precision: GenerationPrecision) -> StepProgram:
    """Return the operations of a unidirectional model; `weights` are its parameters by name."""
    size, kind = config.hidden_size, Kind[config.architecture.upper()] if config.architecture != "rnn" else Kind.TANH
    embedding, projection = weights["embedding.weight"], weights["projection.weight"]
    program = StepProgram(len(embedding), precision)
    program.states = [[program.floats(size) for _ in range(config.num_layers)] for _ in range(1 + (kind == Kind.LSTM))]
    outputs, cells, is_gru = program.states[0], program.states[-1], kind == Kind.GRU
    gates = [program.floats(len(pad_parts(weights["layers.bias_ih_l0"], size))) for _ in range(1 + is_gru)]
    source = program.floats(config.embedding_size)
    for layer in range(config.num_layers):
        of_input, of_output = (
            pad_parts(program.matrix(weights[f"layers.weight_{side}_l{layer}"]), size) for side in ("ih", "hh")
        )
        input_bias, output_bias = (pad_parts(weights[f"layers.bias_{side}_l{layer}"], size) for side in ("ih", "hh"))
        # GRU's gate of the new state multiplies the part of the last output, which has its own bias therefore
        bias = input_bias if is_gru else input_bias + output_bias
        if layer == 0 and len(embedding) * len(of_input) <= _MAX_GATES:
            program.embed(_product(program.matrix(embedding), of_input.t()) + bias, gates[0])
        elif is_gru or layer == 0:
            if layer == 0:
                program.embed(program.matrix(embedding), source)
            program.product(of_input, bias, source, gates[0])
        if is_gru:
            program.product(of_output, output_bias, outputs[layer], gates[1])
        elif layer == 0:
            program.product(of_output, None, outputs[0], gates[0], adds=True)
        else:  # the last outputs of both layers lie side by side
            of_both = torch.cat([functional.pad(of_input, [0, outputs[layer] - source - size]), of_output], dim=1)
            program.product(of_both, bias, source, gates[0])
        other = cells[layer] if kind == Kind.LSTM else gates[-1]
        program.add(Operation(kind, outputs[layer], padded(size), input=gates[0], other=other))
        source = outputs[layer]
    bias = weights["projection.bias"]
    if not config.tie_word_embeddings:
        program.logits(projection, bias, source)
        return program
    head_bias = weights["head_bias"]
    is_smaller = len(embedding) * size <= embedding.numel() + projection.numel()
    if is_smaller and precision == "fp32":  # one product instead of two
        program.logits(_product(embedding, projection), embedding @ bias + head_bias, source)
    else:
        projected = program.floats(config.embedding_size)
        program.product(projection, bias, source, projected)
        program.logits(embedding, head_bias, projected)
    return program


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply in double precision: rounded to floats, the products of different machines are almost always equal."""
    return (left.detach().double() @ right.detach().double()).float()
