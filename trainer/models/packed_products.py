"""Layers of the transformers library with packed weights, for many passes without gradients."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainer.models.packed_linear import packed_linear

PACKED_ROWS = 1 << 10
"""Rows of the inputs that the order of the weights is for."""


@contextmanager
def packed_layers(*parts: nn.Module) -> Iterator[None]:
    """Replace the linear layers in parts of a model by packed ones, which have no gradients."""
    plain = [
        (parent, name, layer)
        for part in parts
        for parent in list(part.modules())
        for name, layer in parent.named_children()
        if isinstance(layer, (_LINEAR, _CONV1D))
    ]
    try:
        for parent, name, layer in plain:
            weights = dict(layer.named_parameters())
            weight = weights["weight"].t() if isinstance(layer, _CONV1D) else weights["weight"]
            setattr(parent, name, _PackedLayer(weight, weights.get("bias")))
        yield
    finally:
        for parent, name, layer in plain:
            setattr(parent, name, layer)


class _PackedLayer(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Pack the weight (out, in)."""
        super().__init__()
        self.product = packed_linear(weight, bias, rows=PACKED_ROWS)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.product(inputs)


_LINEAR: type[nn.Module] = nn.Linear
_CONV1D: type[nn.Module] = Conv1D  # its weight is (in, out)
