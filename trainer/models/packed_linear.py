"""Linear functions whose weight is stored in the order in which oneDNN reads it."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

_Multiply: TypeAlias = "Callable[[Tensor, Tensor, Tensor | None, str, list[float], str], Tensor]"


def packed_linear(weight: Tensor, bias: Tensor | None = None, *, rows: int) -> Callable[[Tensor], Tensor]:
    """Return the linear function of a weight (outputs, inputs), for inputs of its type, and best for so many rows.

    It has no gradients, and keeps a copy of the weight. For bf16 on a CPU without AVX-512, for float64, on another
    device, and where torch lacks oneDNN there is no such order, and the weight is used as it is.
    """
    try:
        pack: Callable[[Tensor, int], Tensor] = torch.ops.mkldnn._reorder_linear_weight
        multiply: _Multiply = torch.ops.mkldnn._linear_pointwise
        packed = pack(weight, rows)
    except (AttributeError, RuntimeError):  # AttributeError: torch without oneDNN
        return partial(functional.linear, weight=weight, bias=bias)
    return lambda inputs: multiply(inputs, packed, bias, "none", [], "")
