"""Linear layers of the transformers library's models, with faster products, and the exchange of its layers for ours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainer.models.dropout import Dropout
from trainer.models.layer_norm import LayerNorm
from trainer.models.linear import linear
from trainer.models.packed_linear import packed_linear

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

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        weights = dict(layer.named_parameters())
        self.weight = weights["weight"]
        self.register_parameter("bias", weights.get("bias"))
        self._is_transposed = isinstance(layer, _CONV1D)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.packed is not None:
            return self.packed(inputs)
        return linear(inputs, self._weight(), self.bias)

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
