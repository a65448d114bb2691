"""Dropout: the share that is kept, the mean that stays, and draws that do not depend on each other."""

import math

import pytest
import torch

from trainer.models.dropout import dropout


@pytest.mark.parametrize("probability", [1e-9, 0.1, 0.25, 0.5, 0.9, 0.999999])
def test_dropout__keeps_the_given_share_and_the_mean(probability: float) -> None:
    torch.manual_seed(3)
    numbers = torch.rand(401, 997) + 1  # an odd count: the last draw of 64 bits is used in part
    dropped = dropout(numbers, probability, is_training=True)
    kept = dropped != 0
    rounded = min(round(probability * 2**16), 2**16 - 1) / 2**16
    count = numbers.numel()
    deviation = math.sqrt(count * rounded * (1 - rounded))
    assert abs(float(kept.sum()) - count * (1 - rounded)) <= 5 * deviation
    assert torch.allclose(dropped[kept], numbers[kept] / (1 - rounded))
    assert torch.equal(dropout(numbers, probability, is_training=False), numbers)


def test_dropout__draws_every_place_by_itself() -> None:
    torch.manual_seed(3)
    kept = torch.stack([dropout(torch.ones(61), 0.5, is_training=True) for _ in range(4000)]) != 0
    shares = kept.double().mean(0)
    pairs = torch.corrcoef(kept.double().t()) - torch.eye(61)
    assert float((shares - 0.5).abs().max()) < 0.045  # six standard deviations
    assert float(pairs.abs().max()) < 0.095
