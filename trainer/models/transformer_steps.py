"""Causal transformers token by token: keys and values stay in buffers that are allocated ahead."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import assert_never

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.contracts.models import Activation
from trainer.models.base import ModelState, Steps, as_floats
from trainer.models.linear import Floats, linear, numpy_is_faster, packed_linear

_MIN_ROOM_TOKENS = 64

Product = Callable[[Tensor], Tensor]
"""Multiplies inputs (n, inputs) by a matrix of a model and returns outputs (n, outputs); all are in fp32."""


class StepBody(ABC):
    """The layers of a causal transformer, for one token of each of n sequences.

    `weights` are the parameters of the library's model by name, `matrices` those that multiply hidden states, as
    (inputs, outputs). `hidden` has the shape (n, H).
    """

    def __init__(
        self, weights: Mapping[str, Tensor], matrices: Mapping[str, Tensor], num_layers: int, head_size: int
    ) -> None:
        self.num_layers = num_layers
        self._weights = {name: weight.detach() for name, weight in weights.items()}
        self.matrices = {name: matrix.detach() for name, matrix in matrices.items()}
        self.products = {name: fp32_product(matrix) for name, matrix in self.matrices.items()}
        """The product with each matrix; those of another precision may take their place."""
        self._head_size = head_size

    @abstractmethod
    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Map ids (n,) at positions (n,) to hidden states."""

    @abstractmethod
    def queries_keys_values(self, layer: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries (n, heads, D), keys and values (n, key heads, D) of a layer."""

    @abstractmethod
    def output(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return the hidden states after a layer, by those before it and the attended values (n, heads * D)."""

    @abstractmethod
    def normalize(self, hidden: Tensor) -> Tensor:
        """Apply the last normalization."""

    def heads(self, merged: Tensor) -> Tensor:
        """Split vectors (n, heads * D) into heads (n, heads, D)."""
        return merged.view(len(merged), -1, self._head_size)


class TransformerSteps(Steps):
    """A causal transformer that reads one token per sequence."""

    def __init__(self, body: StepBody, head: Product, state: ModelState, context_tokens: int) -> None:
        """`head` is the product with the output layer; `state` is that of a `CausalTransformer`."""
        self._body = body
        self._head = head
        self._context_tokens = context_tokens
        is_read = state[0].squeeze(0)  # (B, P)
        lengths: list[int] = is_read.sum(-1).tolist()
        self._lengths = lengths
        order = is_read.logical_not().int().argsort(dim=-1, stable=True)  # positions read come first
        longest = max(lengths)
        self._buffers: list[Tensor] = []  # keys and values of each layer, (B, heads, room, D)
        for tensor in state[1:]:
            packed = tensor.squeeze(0)[torch.arange(len(lengths)).unsqueeze(-1), order[:, :longest]]
            self._buffers.append(packed.transpose(1, 2))
        self._room = longest

    def read(self, ids: Sequence[int], rows: Sequence[int]) -> Floats:
        lengths = [self._lengths[row] for row in rows]
        longest = max(lengths) + 1
        if longest > self._room:
            self._make_room(longest)
        device = self._buffers[0].device
        places = self._places(rows)
        positions = torch.tensor(lengths, device=device)
        is_whole = len(rows) == len(self._lengths)
        mask: Tensor | None = None
        if min(lengths) + 1 < longest:
            mask = (torch.arange(longest, device=device) <= positions.unsqueeze(-1)).view(len(rows), 1, 1, longest)
        with torch.inference_mode():
            hidden = self._body.embed(torch.tensor(ids, device=device), positions)
            for layer in range(self._body.num_layers):
                keys, values = self._buffers[2 * layer : 2 * layer + 2]
                query, key, value = self._body.queries_keys_values(layer, hidden, positions)
                keys[places, :, positions] = key
                values[places, :, positions] = value
                attended = functional.scaled_dot_product_attention(
                    query.unsqueeze(2),
                    (keys if is_whole else keys[places])[:, :, :longest],
                    (values if is_whole else values[places])[:, :, :longest],
                    attn_mask=mask,
                    enable_gqa=key.shape[1] != query.shape[1],
                )
                hidden = self._body.output(layer, hidden, attended.flatten(1))
            logits = as_floats(self._head(self._body.normalize(hidden)))
        for row in rows:
            self._lengths[row] += 1
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        places = self._places(rows)
        self._buffers = [buffer[places] for buffer in self._buffers]
        self._lengths = [self._lengths[row] for row in rows]

    def _places(self, rows: Sequence[int]) -> Tensor:
        numbers: list[int] = list(rows)
        return torch.tensor(numbers, dtype=torch.long, device=self._buffers[0].device)

    def _make_room(self, tokens: int) -> None:
        """Double the buffers, up to the model's context."""
        self._room = min(max(tokens + _MIN_ROOM_TOKENS, 2 * tokens), self._context_tokens)
        for number, buffer in enumerate(self._buffers):
            self._buffers[number] = functional.pad(buffer, [0, 0, 0, self._room - buffer.shape[2]])


def fp32_product(matrix: Tensor) -> Product:
    """Return the product with a matrix (inputs, outputs)."""
    return partial(_multiply, matrix=matrix)


def _multiply(inputs: Tensor, matrix: Tensor) -> Tensor:
    if not (inputs.is_cpu and numpy_is_faster(len(inputs), matrix.numel())):
        return linear(inputs, matrix.t())
    left: Floats = inputs.numpy()
    right: Floats = matrix.numpy()
    outputs: Floats = np.dot(left, right)
    return torch.from_numpy(outputs)


class Bf16Copy:
    """The matrices of a model in bf16, for its steps: half as many bytes to read for each token."""

    def __init__(self, matrices: Mapping[str, Tensor]) -> None:
        """Copy matrices (inputs, outputs) by name."""
        self.products = {name: _bf16_product(matrix) for name, matrix in matrices.items()}
        self.memory_bytes = sum(torch.bfloat16.itemsize * matrix.numel() for matrix in matrices.values())


def _bf16_product(matrix: Tensor) -> Product:
    """Return the product with a matrix (inputs, outputs): inputs, matrix and outputs are rounded to bf16."""
    multiply = packed_linear(matrix.t().bfloat16(), rows=1)
    return lambda inputs: multiply(inputs.bfloat16()).float()


def multiply_in_bf16() -> None:
    """Multiply two small matrices in bf16. Raises RuntimeError where the CPU cannot."""
    functional.linear(torch.zeros(1, 16, dtype=torch.bfloat16), torch.zeros(16, 16, dtype=torch.bfloat16))


def activation(name: Activation) -> Callable[[Tensor], Tensor]:
    """Return an activation function; gelu_new is the chain of operations that gelu with tanh computes at once."""
    match name:
        case "gelu":
            return functional.gelu
        case "gelu_new" | "gelu_pytorch_tanh":
            return lambda hidden: functional.gelu(hidden, approximate="tanh")
        case "relu":
            return functional.relu
        case "silu":
            return functional.silu
        case "tanh":
            return torch.tanh
        case unknown:
            assert_never(unknown)
