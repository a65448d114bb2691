"""The decode step of a model as a program for `trainer.native`: operations with the weights in the order of reading."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from trainer.contracts.generations import GenerationPrecision
from trainer.contracts.models import Activation
from trainer.native.library import BLOCK, LOGITS, OUTPUTS, PANEL, Function, Kind, Operation

FUNCTIONS: Mapping[Activation, Function] = {
    "gelu": Function.GELU,
    "gelu_new": Function.GELU_TANH,  # a chain of operations that gelu with tanh computes at once
    "gelu_pytorch_tanh": Function.GELU_TANH,
    "relu": Function.RELU,
    "silu": Function.SILU,
    "tanh": Function.TANH,
}


class KeyValueShape:
    """Sizes of the keys and values that attention keeps of each token."""

    def __init__(self, layers: int, groups: int, head_size: int, context_tokens: int) -> None:
        self.layers, self.groups, self.head_size, self.context_tokens = layers, groups, head_size, context_tokens
        self.width = padded(head_size)


class StepProgram:
    """The operations of one token; each part of a model adds its own.

    The numbers of a sequence lie in a row of memory. First come the parts of the state, which the next token needs.
    """

    def __init__(
        self, vocabulary: int, precision: GenerationPrecision = "fp32", *, key_values: KeyValueShape | None = None
    ) -> None:
        self.vocabulary = vocabulary
        self.precision = precision
        self.key_values = key_values
        self.operations: list[Operation] = []
        self.row_floats = 0
        self.states: list[list[int]] = []
        """Offsets in a row for each tensor of a recurrent model's state, by layer."""
        self.read_bytes = 0
        """The bytes of the matrices that each token reads."""
        self._tensors: list[Tensor] = []

    def floats(self, size: int) -> int:
        """Return the offset in a row of so many numbers, from now on reserved."""
        offset = self.row_floats
        self.row_floats += padded(size, OUTPUTS)
        return offset

    def add(self, operation: Operation) -> None:
        self.operations.append(operation)

    def matrix(self, weight: Tensor) -> Tensor:
        """Return a matrix of the model as the precision rounds it, in fp32."""
        weight = weight.detach()
        return weight.bfloat16().float() if self.precision == "bf16" else weight

    def embed(self, table: Tensor, output: int, positions: Tensor | None = None) -> None:
        """Look up a row of a table (V, n) for the id, and add that of the position, if there is such a table."""
        of_positions = self._address(positions)
        self.add(Operation(Kind.EMBED, output, table.shape[1], weights=self._address(table), more=of_positions))

    def product(
        self,
        weight: Tensor,
        bias: Tensor | None,
        source: int,
        output: int,
        *,
        activation: Function = Function.NONE,
        adds: bool = False,
    ) -> None:
        """Multiply the numbers at an offset by a weight (outputs, inputs), after which they may add to the output."""
        outputs, inputs = padded(len(weight), OUTPUTS), weight.shape[1]
        matrix = packed(weight.bfloat16() if self.precision == "bf16" else weight)
        self.read_bytes += matrix.nbytes
        self.add(
            Operation(
                Kind.PRODUCT,
                output,
                outputs,
                input=source,
                size=inputs,
                weights=self._address(matrix),
                bias=self._address(None if bias is None else functional.pad(bias, [0, outputs - len(bias)])),
                activation=activation,
                is_bf16=self.precision == "bf16",
                adds=adds,
            )
        )

    def logits(self, weight: Tensor, bias: Tensor | None, source: int) -> None:
        """Multiply by the output layer (V, inputs)."""
        self.product(weight, bias, source, LOGITS)

    def norm(self, weight: Tensor, bias: Tensor | None, source: int, output: int, epsilon: float) -> None:
        """Normalize: with a bias as a layer normalization, without one by the root of the mean square."""
        size = len(weight)
        kind = Kind.RMS_NORM if bias is None else Kind.LAYER_NORM
        norm = Operation(kind, output, size, input=source, size=size, weights=self._address(weight))
        self.add(norm._replace(bias=self._address(bias), epsilon=epsilon))

    def attend(
        self,
        shape: KeyValueShape,
        layer: int,
        heads: int,
        source: int,
        output: int,
        rotary: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Attend to the tokens read, by queries, keys and values side by side; each head is padded to `width`.

        `rotary` are cosines and sines (positions, head_size) for queries and keys.
        """
        self.add(
            Operation(
                Kind.ATTEND,
                output,
                input=source,
                heads=heads,
                groups=shape.groups,
                head_size=shape.head_size,
                width=shape.width,
                layer=layer,
                weights=self._address(None if rotary is None else rotary[0]),
                more=self._address(None if rotary is None else rotary[1]),
                scale=1 / math.sqrt(shape.head_size),
            )
        )

    def gate(self, gate: int, up: int, size: int, activation: Function) -> None:
        """Multiply the activated gate by the numbers at `up`, in place."""
        self.add(Operation(Kind.GATE, gate, padded(size), input=gate, other=up, activation=activation))

    def packed_operations(self) -> Tensor:
        return torch.frombuffer(bytearray(b"".join(map(Operation.packed, self.operations))), dtype=torch.uint8)

    def _address(self, tensor: Tensor | None) -> int:
        """Return the address of numbers that lie side by side as long as the program lives."""
        if tensor is None:
            return 0
        self._tensors.append(tensor.detach().contiguous())
        return self._tensors[-1].data_ptr()


def padded(size: int, block: int = BLOCK) -> int:
    """Round up to whole blocks."""
    return -(-size // block) * block


def pad_parts(weight: Tensor, size: int) -> Tensor:
    """Pad each gate or head of a weight or bias (parts * size, …) to whole blocks."""
    by_part = weight.detach().reshape(-1, size, *weight.shape[1:])
    missing = padded(size) - size
    return functional.pad(by_part, [0, 0] * (by_part.dim() - 2) + [0, missing]).flatten(0, 1)


def packed(weight: Tensor) -> Tensor:
    """Return a weight (outputs, inputs) as panels (inputs, outputs of the panel), the last one narrower.

    In bf16, outputs that are 16 apart lie side by side: 32 bits of both become two floats by a shift and a mask.
    """
    matrix = functional.pad(weight.detach(), [0, 0, 0, padded(len(weight), OUTPUTS) - len(weight)])
    outputs, inputs = matrix.shape
    whole = outputs // PANEL * PANEL
    result = torch.empty(outputs * inputs, dtype=matrix.dtype)
    result[: whole * inputs] = matrix[:whole].reshape(-1, PANEL, inputs).transpose(1, 2).flatten()
    result[whole * inputs :] = matrix[whole:].t().flatten()
    return result if result.dtype == torch.float32 else result.view(-1, 2, OUTPUTS // 2).transpose(1, 2).flatten()
