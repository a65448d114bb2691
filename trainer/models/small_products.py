"""Products with the few rows of a generation step: by numpy, which starts sooner, or by torch, which has threads.

On Intel's CPUs torch's threads gain even for one row, because a core alone reads memory slowly; measured on Xeons with
AMX. On AMD's CPUs a core reads fast, and to wake another one takes longer than its share of a small product.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from trainer.models.base import Floats
from trainer.models.linear import IS_INTEL, linear, onednn_pays

_dot: Callable[[Floats, Floats, Floats], Floats] = np.dot
_MAX_NUMPY_PRODUCTS, _MAX_INTEL_NUMPY_PRODUCTS = 1 << 17, 1 << 15
"""Largest number of multiplications for numpy, which has one thread; without Intel also all products with one row."""


def numpy_is_faster(rows: int, weights: int) -> bool:
    """Return True if numpy multiplies so many rows by a matrix of so many weights faster than torch."""
    is_small = rows * weights <= (_MAX_INTEL_NUMPY_PRODUCTS if IS_INTEL else _MAX_NUMPY_PRODUCTS)
    return is_small or (rows == 1 and not IS_INTEL)


def product_into(inputs: Floats, weight: Floats, outputs: Floats) -> Callable[[], object]:
    """Return a function that multiplies inputs (n, inputs) by a weight (inputs, outputs) into outputs (n, outputs).

    The arrays are read and written at each call; the outputs are contiguous.
    """
    if numpy_is_faster(len(inputs), weight.size):
        return partial(_dot, inputs, weight, outputs)
    left, right, result = torch.from_numpy(inputs), torch.from_numpy(weight), torch.from_numpy(outputs)
    if onednn_pays(len(inputs), weight.size):
        return lambda: result.copy_(linear(left, right.t()))
    return partial(torch.mm, left, right, out=result)
