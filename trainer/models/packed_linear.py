"""Linear functions whose weight is stored in the order in which oneDNN reads it.

On a CPU with AVX-512, oneDNN multiplies such weights in 32 bits 1.2 to 1.7 times as fast as torch's usual kernels do,
which are MKL's (measured on an AMD CPU). Without AVX-512 it is slower.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from trainer.models.base import LanguageModel

_MIN_TOKENS = 1 << 11
"""To pack the weights takes about as long as to read some hundred tokens."""
_Multiply: TypeAlias = "Callable[[Tensor, Tensor, Tensor | None, str, list[float], str], Tensor]"


def packed_linear(weight: Tensor, bias: Tensor | None = None, *, rows: int) -> Callable[[Tensor], Tensor]:
    """Return the linear function of a weight (outputs, inputs), for inputs of its type, and best for so many rows.

    It has no gradients, and keeps a copy of the weight. For bf16 on a CPU without AVX-512, for float64, on another
    device, and where torch lacks oneDNN there is no such order, and the weight is used as it is.
    """
    weight, bias = weight.detach().contiguous(), None if bias is None else bias.detach()
    try:
        pack: Callable[[Tensor, int], Tensor] = torch.ops.mkldnn._reorder_linear_weight
        multiply: _Multiply = torch.ops.mkldnn._linear_pointwise
        packed = pack(weight, rows)
    except (AttributeError, RuntimeError):  # AttributeError: torch without oneDNN
        return partial(functional.linear, weight=weight, bias=bias)
    return lambda inputs: multiply(inputs, packed, bias, "none", [], "")


def packing_pays(model: LanguageModel, tokens: int, cpu_capability: str) -> bool:
    """Return True if a transformer reads so many tokens faster with packed weights, on torch's name for the CPU."""
    weight = model.input_embedding().weight
    is_transformer = model.context_tokens is not None
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return is_transformer and on_cpu and tokens >= _MIN_TOKENS and cpu_capability == "AVX512"
