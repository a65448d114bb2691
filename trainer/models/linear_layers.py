"""Our layers in place of those of the transformers library's models: faster linear layers, exact normalizations.

torch's gradients of the weight and bias of a layer normalization are sums that each thread makes for its rows, so the
order of the additions changes with the number of threads. Here one thread makes them: the gradients do not depend on
that number, and of 768 rows of 128 numbers two threads would save a fifth of the time (measured).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, FunctionCtx
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from trainer.models.dropout import Dropout
from trainer.models.linear import is_tracing, linear, packed_linear
from trainer.models.threads import using_threads

_Normalize: TypeAlias = "Callable[[Tensor, Tensor, Tensor, float], Tensor]"
_NativeNorm: TypeAlias = "Callable[[Tensor, list[int], Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]]"
_NativeGradient: TypeAlias = (
    "Callable[[Tensor, Tensor, list[int], Tensor, Tensor, Tensor, Tensor, list[bool]], tuple[Tensor, Tensor, Tensor]]"
)


class LayerNorm(nn.Module):
    """A layer normalization with the weights of one of torch, under their names."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        weights = dict(layer.named_parameters())
        self.weight, self.bias = weights["weight"], weights["bias"]
        self._epsilon: float = getattr(layer, "eps")  # noqa: B009  (untyped in torch)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalize inputs (…, H)."""
        if torch.is_grad_enabled() and inputs.is_cpu and inputs.dtype == self.weight.dtype and not is_tracing():
            return _normalize(inputs, self.weight, self.bias, self._epsilon)
        return functional.layer_norm(inputs, self.weight.shape, self.weight, self.bias, self._epsilon)


class _LayerNorm(Function):
    def __init__(self) -> None:
        """Nothing creates objects of this class; torch's own signature is untyped."""

    @staticmethod
    def forward(ctx: FunctionCtx, inputs: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        norm: _NativeNorm = torch.ops.aten.native_layer_norm
        normalized, mean, deviation = norm(inputs, [inputs.shape[-1]], weight, bias, epsilon)
        ctx.save_for_backward(inputs, weight, bias, mean, deviation)
        return normalized

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        saved: tuple[Tensor, ...] = getattr(ctx, "saved_tensors")  # noqa: B009  (untyped in torch)
        inputs, weight, bias, mean, deviation = saved
        norm_gradient: _NativeGradient = torch.ops.aten.native_layer_norm_backward
        shape = [inputs.shape[-1]]
        with using_threads(1):
            return *norm_gradient(gradient, inputs, shape, mean, deviation, weight, bias, [True, True, True]), None


_normalize: _Normalize = _LayerNorm.apply


PACKED_ROWS = 1 << 10
"""Rows of the inputs that the order of packed weights is for."""
_LINEAR: type[nn.Module] = nn.Linear
_LAYER_NORM: type[nn.Module] = nn.LayerNorm
_CONV1D: type[nn.Module] = Conv1D  # its weight is (inputs, outputs)


class LinearLayer(nn.Module):
    """A linear layer with the weights of one of the library, under their names."""

    packed: Callable[[Tensor], Tensor] | None = None
    """The same function without gradients, while many passes have the same weights."""

    bias: nn.Parameter | None
    dropout: Dropout | None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        weights = dict(layer.named_parameters())
        self.weight = weights["weight"]
        self.register_parameter("bias", weights.get("bias"))
        self._is_transposed = isinstance(layer, _CONV1D)
        self.dropout = None

    def forward(self, inputs: Tensor) -> Tensor:
        if self.packed is not None:
            return self.packed(inputs)
        outputs = linear(inputs, self._weight(), self.bias)
        if self.dropout is not None:
            outputs = self.dropout(outputs)
        return outputs

    def pack(self) -> None:
        self.packed = packed_linear(self._weight(), self.bias, rows=PACKED_ROWS)

    def _weight(self) -> Tensor:
        """Return the weight (outputs, inputs)."""
        return self.weight.t() if self._is_transposed else self.weight


def replace_layers(*parts: nn.Module) -> None:
    """Replace the linear layers, layer normalizations and dropouts in parts of a model of the library by ours."""
    for part in parts:
        for parent in list(part.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, (_LINEAR, _CONV1D)):
                    setattr(parent, name, LinearLayer(layer))
                elif isinstance(layer, _LAYER_NORM):
                    setattr(parent, name, LayerNorm(layer))
                elif isinstance(layer, nn.Dropout):
                    setattr(parent, name, Dropout(layer.p))


@contextmanager
def packed_layers(*parts: nn.Module) -> Iterator[None]:
    """Pack the weights of the linear layers in parts of a model, for many passes without gradients."""
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, LinearLayer)]
    try:
        for layer in layers:
            layer.pack()
        yield
    finally:
        for layer in layers:
            layer.packed = None
