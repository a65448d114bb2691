"""Limits of this machine, measured as a contestant: products of matrices.

    python -m benchmarks.limits gemm|SHAPE|sampling-ROWS fp32|bf16

`gemm` multiplies large matrices. A shape's products are those of a training step in their own sizes, `sampling` has
those of a step of the LSTM that samples some sequences; both leave out the output layer and attention. Each product is
done by the library that is fastest for it: MKL, oneDNN with packed weights, or numpy's. All have one thread, or as many
as torch has.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks.shapes import SHAPES, Shape
from benchmarks.turns import repeated, serve
from trainer.models.linear import packed_linear
from trainer.models.steps import Floats, as_floats
from trainer.system.hardware import default_threads

_SIZE = 2048
_TRIALS = 5
_dot: Callable[[Floats, Floats, Floats], Floats] = np.dot


def main(kind: str, precision: str = "fp32") -> None:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    with torch.inference_mode():
        serve(_fastest_threads(_products(kind), dtype))


def _fastest_threads(products: list[tuple[int, int, int, int]], dtype: torch.dtype) -> Callable[[], float]:
    """Return a measurement of the products with one thread or with all, whichever is faster."""
    seconds: dict[int, float] = {}
    for threads in {1, default_threads()}:
        torch.set_num_threads(threads)
        seconds[threads] = _least_seconds(multiplications(products, dtype))
    torch.set_num_threads(min(seconds, key=seconds.__getitem__))
    multiply = multiplications(products, dtype)
    return lambda: repeated(multiply)


def _products(kind: str) -> list[tuple[int, int, int, int]]:
    if kind == "gemm":
        return [(1, _SIZE, _SIZE, _SIZE)]
    name, _, rows = kind.partition("-")
    return sampling_products(int(rows)) if name == "sampling" else products_of(SHAPES[kind])


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


def sampling_products(rows: int) -> list[tuple[int, int, int, int]]:
    """Return the products of a step of the LSTM that samples so many sequences, as `products_of` does."""
    width = SHAPES["lstm"].hidden_size
    above = [(1, rows, 2 * width, 4 * width)] * (SHAPES["lstm"].layers - 1)
    return [(1, rows, width, 4 * width), *above]  # a table has what a token adds to the first layer


def operations(products: list[tuple[int, int, int, int]]) -> int:
    """Return the number of floating-point operations."""
    return sum(2 * count * rows * inputs * outputs for count, rows, inputs, outputs in products)


def multiplications(products: list[tuple[int, int, int, int]], dtype: torch.dtype) -> Callable[[], int]:
    """Return a function that does all products, each by the fastest library, and returns the number of operations."""
    fastest = [(count, _fastest_product(*sizes, dtype=dtype)) for count, *sizes in products]

    def multiply() -> int:
        for count, product in fastest:
            for _ in range(count):
                product()
        return operations(products)

    return multiply


def _fastest_product(rows: int, inputs: int, outputs: int, *, dtype: torch.dtype) -> Callable[[], object]:
    left, right = torch.randn(rows, inputs, dtype=dtype), torch.randn(inputs, outputs, dtype=dtype)
    result = torch.empty(rows, outputs, dtype=dtype)
    products: list[Callable[[], object]] = [
        partial(torch.mm, left, right, out=result),
        partial(packed_linear(right.t(), rows=rows), left),
    ]
    if dtype == torch.float32:
        products.append(partial(_dot, as_floats(left), as_floats(right), as_floats(result)))
    return min(products, key=_least_seconds)


def _least_seconds(product: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(_TRIALS):
        begin = time.perf_counter()
        product()
        times.append(time.perf_counter() - begin)
    return min(times)


if __name__ == "__main__":
    main(*sys.argv[1:])
