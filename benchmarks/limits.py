"""Limits of this machine, measured as a contestant: products of matrices, and reads from memory.

    python -m benchmarks.limits gemm|SHAPE fp32|bf16
    python -m benchmarks.limits memory

`gemm` multiplies large matrices. A shape's products are those of a training step in their own sizes, without those of
the output layer and of attention.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.shapes import SHAPES, Shape
from benchmarks.turns import repeated, serve
from trainer.system.hardware import default_threads

_SIZE = 2048
_MEMORY_FLOATS = 1 << 26


def main(kind: str, precision: str = "fp32") -> None:
    torch.set_num_threads(default_threads())
    if kind == "memory":
        numbers = torch.ones(_MEMORY_FLOATS)

        def read() -> int:
            numbers.sum()
            return 4 * _MEMORY_FLOATS

        serve(lambda: repeated(read))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    products = [(1, _SIZE, _SIZE, _SIZE)] if kind == "gemm" else products_of(SHAPES[kind])
    multiply = multiplications(products, dtype)
    serve(lambda: repeated(multiply))


def products_of(shape: Shape) -> list[tuple[int, int, int, int]]:
    """Return the products of a training step: how often, and the rows, the inputs and the outputs of each one."""
    tokens, width = shape.rows * shape.length, shape.hidden_size
    if shape.is_lstm:
        inputs = [shape.embedding_size, *[width] * (shape.layers - 1)]
        layers = [(1, tokens, size, 4 * width) for size in inputs]
        steps = [(shape.layers * shape.length, shape.rows, width, 4 * width)]
        recurrent_weights = [(shape.layers, width, tokens, 4 * width)]
        backward = [(count, rows, outputs, size) for count, rows, size, outputs in layers + steps]
        weights = [(count, size, rows, outputs) for count, rows, size, outputs in layers]
        return layers + steps + backward + weights + recurrent_weights
    sizes = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    layers = [(shape.layers, tokens, size, outputs) for size, outputs in sizes]
    backward = [(count, rows, outputs, size) for count, rows, size, outputs in layers]
    return layers + backward + [(count, size, rows, outputs) for count, rows, size, outputs in layers]


def multiplications(products: list[tuple[int, int, int, int]], dtype: torch.dtype) -> Callable[[], int]:
    """Return a function that does all products and returns the number of operations."""
    factors: list[tuple[int, Tensor, Tensor]] = []
    for count, rows, inputs, outputs in products:
        factors.append((count, torch.randn(rows, inputs, dtype=dtype), torch.randn(inputs, outputs, dtype=dtype)))
    results = [torch.empty(rows, outputs, dtype=dtype) for _, rows, _, outputs in products]

    def multiply() -> int:
        for (count, left, right), result in zip(factors, results, strict=True):
            for _ in range(count):
                torch.mm(left, right, out=result)
        return sum(2 * count * rows * inputs * outputs for count, rows, inputs, outputs in products)

    return multiply


if __name__ == "__main__":
    main(*sys.argv[1:])
