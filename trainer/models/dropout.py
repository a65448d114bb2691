"""Dropout with masks that are cheap to draw on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional

_DRAWS = 1 << 16
"""Values of a 16-bit random number; torch draws four of them in the time of one Bernoulli variable."""


def dropout(inputs: Tensor, probability: float, *, is_training: bool) -> Tensor:
    """Set each number to 0 with a probability, scale the others by 1 / (1 - probability) (Srivastava et al. 2014).

    On a CPU the probability is rounded to a multiple of 2 ** -16, and the masks come from torch's default generator.
    """
    if inputs.device.type != "cpu" or not is_training or not probability:
        return functional.dropout(inputs, probability, training=is_training)
    dropped = min(round(probability * _DRAWS), _DRAWS - 1)
    draws = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
    mask = torch.empty(inputs.shape, dtype=inputs.dtype)
    torch.ge(draws[: inputs.numel()].view(inputs.shape), dropped - _DRAWS // 2, out=mask)  # 0 and 1 in one pass
    return inputs * mask.mul_(_DRAWS / (_DRAWS - dropped))


class Dropout(nn.Dropout):
    """A module of `dropout`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return dropout(inputs, self.p, is_training=self.training)
