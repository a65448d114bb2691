"""Linear functions: by MKL, which torch takes by default, or by oneDNN, whichever is faster.

On AMD's CPUs MKL does without AVX-512, and oneDNN is up to 2.4 times as fast for many rows. With AVX-512, oneDNN
multiplies packed weights, in the order in which it reads them, 1.2 to 1.7 times as fast as MKL; without, it is slower.
That was measured on AMD's CPUs and on Xeons with AMX.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, FunctionCtx
from torch.nn import functional

from trainer.system.hardware import cpu_name

_has_onednn: Callable[[], bool] = torch.backends.mkldnn.is_available
_is_scripting: Callable[[], bool] = torch._C._is_tracing
_is_exporting: Callable[[], bool] = torch.compiler.is_exporting
_HAS_AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
MKL_LACKS_AVX512 = _HAS_AVX512 and "Intel" not in cpu_name() and _has_onednn()
_MIN_ROWS, _MIN_MULTIPLICATIONS = 8, 1 << 22
"""Rows and multiplications of a product from which on oneDNN is faster, which reorders the weight each time."""
_Multiply: TypeAlias = "Callable[[Tensor, Tensor, Tensor | None, str, list[float], str], Tensor]"
_Linear: TypeAlias = "Callable[[Tensor, Tensor, Tensor | None], Tensor]"


def is_tracing() -> bool:
    """Return True while torch writes what a model does into a graph."""
    return _is_scripting() or _is_exporting()


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map inputs (…, inputs) to outputs (…, outputs) by a weight (outputs, inputs) and a bias (outputs)."""
    function = _linear_by_onednn if _onednn_multiplies(inputs, weight) else functional.linear
    return function(inputs, weight, bias)


class Linear(nn.Linear):
    """torch's layer of `linear`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)


def _onednn_multiplies(inputs: Tensor, weight: Tensor) -> bool:
    """Return True for large products in 32 bits that are not traced: a traced graph runs on other machines."""
    if not MKL_LACKS_AVX512 or is_tracing():
        return False
    rows = inputs.numel() // max(1, inputs.shape[-1])
    return (
        rows >= _MIN_ROWS
        and rows * weight.numel() >= _MIN_MULTIPLICATIONS
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


class _OnednnLinear(Function):
    """The linear function and its gradients, each by one product."""

    def __init__(self) -> None:
        """Nothing creates objects of this class; torch's own signature is untyped."""

    @staticmethod
    def forward(ctx: FunctionCtx, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight, *([] if bias is None else [bias]))
        return _product(inputs, weight, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        saved: tuple[Tensor, ...] = getattr(ctx, "saved_tensors")  # noqa: B009  (untyped in torch)
        inputs, weight, *bias = saved
        rows, columns = inputs.flatten(0, -2), gradient.flatten(0, -2)  # (n, inputs), (n, outputs)
        if rows.shape[1] < columns.shape[1]:  # oneDNN is faster with the smaller matrix as the inputs
            of_weight = _product(rows.t(), columns.t()).t()
        else:
            of_weight = _product(columns.t(), rows.t())
        return _product(gradient, weight.t()), of_weight, columns.sum(0) if bias else None


_linear_by_onednn: _Linear = _OnednnLinear.apply


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    multiply: _Multiply = torch.ops.mkldnn._linear_pointwise
    return multiply(inputs, weight, bias, "none", [], "")


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
