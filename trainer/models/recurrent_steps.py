"""Recurrent models token by token on the CPU: a product per layer, and all else in numpy, whose calls cost less."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.contracts.models import RnnConfig
from trainer.models.base import ModelState, Steps
from trainer.models.linear import Floats, product_into

_MAX_GATES = 1 << 22
"""Numbers in a table of the first layer's gates, a row per token."""

_tanh: Callable[[Floats, Floats], Floats] = np.tanh
_multiply: Callable[[Floats, Floats, Floats], Floats] = np.multiply


class _Product(NamedTuple):
    """A linear map: weight (inputs, outputs) and bias (outputs)."""

    weight: Floats
    bias: Floats

    def of(self, inputs: Floats) -> Floats:
        """Map inputs (n, inputs) to outputs (n, outputs)."""
        outputs = _empty(len(inputs), len(self.bias))
        product_into(inputs, self.weight, outputs)()
        outputs += self.bias
        return outputs


class _Gates(NamedTuple):
    """Order of a cell's gates in the merged product."""

    sources: tuple[tuple[int | None, int | None], ...]
    """Two of torch's gates for each gate: one gives the weights of the input, one those of the last output.

    Gates are named by their number in torch; None: the weights are 0.
    """
    halved: int
    """First gates, of which the cell takes the sigmoid: sigmoid(x) = (tanh(x / 2) + 1) / 2."""


class _Layer(ABC):
    """A layer of n sequences: its product, and the buffers of a step.

    The product maps the layer's input and its last output, side by side, to the gates.
    """

    GATES: ClassVar[_Gates]

    def __init__(self, product: _Product, inputs: Floats, cell: Floats) -> None:
        """Take the inputs (n, inputs), of which the last H are the last output, and the cell state (n, H)."""
        self._product, self.inputs, self.cell = product, inputs, cell
        size: int = cell.shape[1]
        self._below, self.output = inputs[:, :-size], inputs[:, -size:]
        self.gates = _empty(len(inputs), len(product.bias))
        self._multiply = product_into(inputs, product.weight, self.gates)
        self.parts = [self.gates[:, start : start + size] for start in range(0, len(product.bias), size)]
        self.halved = self.gates[:, : self.GATES.halved * size]

    def read(self, below: Floats) -> Floats:
        """Read the outputs (n, inputs - H) of the layer below; return the outputs (n, H), until the next step."""
        self._below[:] = below
        return self.advance(self._product.bias)

    def advance(self, bias: Floats) -> Floats:
        """Return the outputs (n, H) by a bias of the gates: (G), or (n, G) if the bias has the layer's input in it."""
        self._multiply()
        self.gates += bias
        self._activate()
        return self.output

    def of_rows(self, rows: Sequence[int]) -> "_Layer":
        """Return this layer with a copy of some sequences."""
        return type(self)(self._product, self.inputs[rows], self.cell[rows])

    @abstractmethod
    def _activate(self) -> None:
        """Turn the gates into the next output and cell state, in place."""


class _Lstm(_Layer):
    GATES = _Gates(((0, 0), (1, 1), (3, 3), (2, 2)), halved=3)  # torch has i, f, g, o

    def _activate(self) -> None:
        cell, sigmoids, (in_gate, forget_gate, out_gate, new) = self.cell, self.halved, self.parts
        _tanh(self.gates, self.gates)
        sigmoids += 1
        sigmoids *= 0.5
        in_gate *= new
        cell *= forget_gate
        cell += in_gate
        _tanh(cell, new)
        _multiply(new, out_gate, self.output)


class _Gru(_Layer):
    GATES = _Gates(((0, 0), (1, 1), (2, None), (None, 2)), halved=2)  # torch has r, z, n; the parts of n stay apart

    def _activate(self) -> None:
        output, sigmoids, (reset, update, new, from_output) = self.output, self.halved, self.parts
        _tanh(sigmoids, sigmoids)
        sigmoids += 1
        sigmoids *= 0.5
        from_output *= reset
        new += from_output
        _tanh(new, new)
        output -= new
        output *= update
        output += new


class _Rnn(_Layer):
    GATES = _Gates(((0, 0),), halved=0)

    def _activate(self) -> None:
        _tanh(self.gates, self.output)


class MergedWeights:
    """The weights of a unidirectional recurrent model as its steps need them, which keep them unchanged."""

    def __init__(self, config: RnnConfig, weights: Mapping[str, Tensor]) -> None:
        """`weights` are the parameters of a `RecurrentModel` by name."""
        with torch.no_grad():
            self.layers = [_merged_layer(config, weights, layer) for layer in range(config.num_layers)]
            self.inputs = _array(weights["embedding.weight"])
            self.head = _head(config, weights)
        first = self.layers[0]
        self.are_gates = len(self.inputs) * len(first.bias) <= _MAX_GATES
        """True if `inputs` has a row of the first layer's gates per token, but for the part of its last output."""
        if self.are_gates:
            of_token, of_output = np.split(first.weight, [config.embedding_size])
            self.inputs = _Product(of_token, first.bias).of(self.inputs)
            self.layers[0] = _Product(of_output.copy("K"), first.bias)

    def memory_bytes(self) -> int:
        products = self.layers + self.head
        return self.inputs.nbytes + sum(product.weight.nbytes for product in products)


class RecurrentSteps(Steps):
    """A unidirectional recurrent model that reads one token per sequence."""

    def __init__(self, config: RnnConfig, weights: MergedWeights, state: ModelState) -> None:
        """`state` is that of a `RecurrentModel`."""
        self._inputs, self._are_gates, self._head = weights.inputs, weights.are_gates, weights.head
        self._layers: list[_Layer] = []
        for product, output, cell in zip(weights.layers, state[0].unbind(), state[-1].unbind(), strict=True):
            below = torch.empty(len(output), len(product.weight) - config.hidden_size)
            inputs = _array(torch.cat([below, output], dim=1))
            self._layers.append(_LAYERS[config.architecture](product, inputs, _array(cell.clone())))

    def read(self, ids: Sequence[int], rows: Sequence[int]) -> Floats:
        if len(rows) == len(self._layers[0].inputs):
            return self._step(ids, self._layers)
        layers = [layer.of_rows(rows) for layer in self._layers]
        logits = self._step(ids, layers)
        for whole, part in zip(self._layers, layers, strict=True):
            whole.inputs[rows], whole.cell[rows] = part.inputs, part.cell
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        self._layers = [layer.of_rows(rows) for layer in self._layers]

    def _step(self, ids: Sequence[int], layers: Sequence[_Layer]) -> Floats:
        inputs: Floats = self._inputs.take(ids, axis=0)
        first, *others = layers
        outputs = first.advance(inputs) if self._are_gates else first.read(inputs)
        for layer in others:
            outputs = layer.read(outputs)
        for product in self._head:
            outputs = product.of(outputs)
        return outputs


def _empty(rows: int, columns: int) -> Floats:
    return np.empty((rows, columns), dtype=np.float32)


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.contiguous().numpy()
    return array


def _merged_layer(config: RnnConfig, weights: Mapping[str, Tensor], layer: int) -> _Product:
    """Merge the weights of a layer."""
    size, (sources, halved) = config.hidden_size, _LAYERS[config.architecture].GATES
    inputs = weights[f"layers.weight_ih_l{layer}"].shape[1]
    weight, bias = torch.zeros(len(sources), size, inputs + size), torch.zeros(len(sources), size)
    for part, kind, gates in (
        (weight[..., :inputs], "ih", [of_input for of_input, _ in sources]),
        (weight[..., inputs:], "hh", [of_output for _, of_output in sources]),
    ):
        by_gate = weights[f"layers.weight_{kind}_l{layer}"].view(-1, *part.shape[1:])
        bias_by_gate = weights[f"layers.bias_{kind}_l{layer}"].view(-1, size)
        for place, gate in enumerate(gates):
            if gate is not None:
                part[place] = by_gate[gate]
                bias[place] += bias_by_gate[gate]
    weight[:halved] *= 0.5
    bias[:halved] *= 0.5
    return _product(weight.flatten(0, 1), bias.flatten())


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
    """Return the product with a weight (outputs, inputs), kept in that order, in which few rows are read fastest."""
    return _Product(_array(weight).T, _array(bias))


_LAYERS: dict[str, type[_Layer]] = {"lstm": _Lstm, "gru": _Gru, "rnn": _Rnn}
