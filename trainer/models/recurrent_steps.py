"""Recurrent models token by token on the CPU: a product per layer in numpy, whose calls cost less than torch's."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, assert_never

import numpy as np
import torch
from torch import Tensor

from trainer.contracts.models import RnnConfig
from trainer.models.base import Floats, ModelState, Steps, multiply

Cell: TypeAlias = "Callable[[Floats, Floats, Floats], None]"
"""Turns gates (n, G) into the next output (n, H) and cell state (n, H), both in place; overwrites the gates."""

_tanh: Callable[[Floats, Floats], Floats] = np.tanh
_multiply: Callable[[Floats, Floats, Floats], Floats] = np.multiply


class _Product(NamedTuple):
    """A linear map: weight (inputs, outputs) and bias (outputs)."""

    weight: Floats
    bias: Floats

    def of(self, inputs: Floats) -> Floats:
        """Map inputs (n, inputs) to outputs (n, outputs)."""
        outputs = multiply(inputs, self.weight)
        outputs += self.bias
        return outputs


class RecurrentSteps(Steps):
    """A unidirectional recurrent model that reads one token per sequence.

    Each layer has one product: its input and its last output, side by side, times the merged weights.
    """

    def __init__(self, config: RnnConfig, weights: Mapping[str, Tensor], state: ModelState) -> None:
        """`weights` are the parameters of a `RecurrentModel` by name, `state` is its state."""
        with torch.no_grad():
            self._embedding = _array(weights["embedding.weight"])
            self._layers = [_merged_layer(config, weights, layer) for layer in range(config.num_layers)]
            self._head = _head(config, weights)
        self._cell = _CELLS[config.architecture]
        self._size = config.hidden_size
        room = (torch.empty(state[0].shape[1], len(layer.weight) - self._size) for layer in self._layers)
        self._inputs = [_array(torch.cat(both, dim=1)) for both in zip(room, state[0].unbind(), strict=True)]
        self._cells = [_array(cell.clone()) for cell in state[-1].unbind()]

    def read(self, ids: Sequence[int], rows: Sequence[int]) -> Floats:
        if len(rows) == len(self._cells[0]):
            return self._step(ids, self._inputs, self._cells)
        inputs, cells = _rows(self._inputs, rows), _rows(self._cells, rows)
        logits = self._step(ids, inputs, cells)
        for whole, part in zip(self._inputs + self._cells, inputs + cells, strict=True):
            whole[rows] = part
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        self._inputs, self._cells = _rows(self._inputs, rows), _rows(self._cells, rows)

    def _step(self, ids: Sequence[int], inputs: list[Floats], cells: list[Floats]) -> Floats:
        below: Floats = self._embedding[ids]
        for layer, both, cell in zip(self._layers, inputs, cells, strict=True):
            both[:, : -self._size] = below
            below = both[:, -self._size :]
            self._cell(layer.of(both), below, cell)
        for product in self._head:
            below = product.of(below)
        return below


def _rows(arrays: Sequence[Floats], rows: Sequence[int]) -> list[Floats]:
    return [array[rows] for array in arrays]


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.contiguous().numpy()
    return array


def _merged_layer(config: RnnConfig, weights: Mapping[str, Tensor], layer: int) -> _Product:
    """Merge the weights of a layer, its gates in the order of its cell.

    Gates with a sigmoid are halved, since sigmoid(x) = (tanh(x / 2) + 1) / 2: then one tanh serves all gates.
    """
    names = (f"layers.{kind}_l{layer}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    by_gate = [_by_gate(weights[name], config.hidden_size) for name in names]
    of_input, of_output, input_bias, output_bias = by_gate
    bias = input_bias + output_bias  # each (gates, H)
    match config.architecture:
        case "lstm":  # torch has the gates i, f, g, o
            gates = 0, 1, 3, 2
            order = torch.tensor(gates)
            merged = torch.cat([of_input, of_output], dim=-1)[order]
            bias = bias[order]
            halved = 3
        case "gru":  # torch has r, z, n; the two parts of n stay apart
            merged = torch.cat([of_input, of_output], dim=-1)
            new_input, new_output = merged[2:].clone(), merged[2:].clone()
            new_input[..., -config.hidden_size :] = 0
            new_output[..., : -config.hidden_size] = 0
            merged = torch.cat([merged[:2], new_input, new_output])
            bias = torch.cat([bias[:2], input_bias[2:], output_bias[2:]])
            halved = 2
        case "rnn":
            merged = torch.cat([of_input, of_output], dim=-1)
            halved = 0
        case unknown:
            assert_never(unknown)
    merged[:halved] *= 0.5
    bias[:halved] *= 0.5
    return _product(merged.flatten(0, 1), bias.flatten())


def _by_gate(weight: Tensor, size: int) -> Tensor:
    return weight.view(-1, size, weight.shape[1]) if weight.dim() == 2 else weight.view(-1, size)


def _head(config: RnnConfig, weights: Mapping[str, Tensor]) -> list[_Product]:
    """Return the products from the last output to the logits; one instead of two for a small vocabulary."""
    projection, bias = weights["projection.weight"], weights["projection.bias"]
    if not config.tie_word_embeddings:
        return [_product(projection, bias)]
    embedding, head_bias = weights["embedding.weight"], weights["head_bias"]
    if embedding.shape[0] * projection.shape[1] > embedding.numel() + projection.numel():
        return [_product(projection, bias), _product(embedding, head_bias)]
    return [_product(embedding @ projection, embedding @ bias + head_bias)]


def _product(weight: Tensor, bias: Tensor) -> _Product:
    """Return the product with the weight (outputs, inputs) of a linear layer."""
    return _Product(_array(weight.t()), _array(bias))


def _lstm(gates: Floats, output: Floats, cell: Floats) -> None:
    size: int = cell.shape[1]
    _tanh(gates, gates)
    gates[:, : 3 * size] += 1  # twice the sigmoids
    in_gate, forget_gate, out_gate, new = (gates[:, i * size : (i + 1) * size] for i in range(4))
    in_gate *= new
    cell *= forget_gate
    cell += in_gate
    cell *= 0.5
    _tanh(cell, new)
    out_gate *= 0.5
    _multiply(new, out_gate, output)


def _gru(gates: Floats, output: Floats, cell: Floats) -> None:
    size: int = cell.shape[1]
    sigmoids = gates[:, : 2 * size]
    _tanh(sigmoids, sigmoids)
    sigmoids += 1
    sigmoids *= 0.5
    reset, update, new, from_output = (gates[:, i * size : (i + 1) * size] for i in range(4))
    from_output *= reset
    new += from_output
    _tanh(new, new)
    output -= new
    output *= update
    output += new


def _rnn(gates: Floats, output: Floats, cell: Floats) -> None:
    _tanh(gates, output)


_CELLS: dict[str, Cell] = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}
