"""The code of MKL's functions is chosen before threads share a call."""

import math

import pytest
import torch

from tests.support.families import FAMILIES, POSITIONS, VOCABULARY, config_of
from tests.support.torch_calls import TorchCalls
from trainer.models import build

FUNCTIONS = "acos asin atan cos erf erfc erfinv exp lgamma log log10 log2 sin sqrt tan tanh".split()
"""Those that torch takes from MKL for numbers in a row (ATen/cpu/vml.h)."""


@pytest.mark.parametrize("name", FAMILIES)
def test_first_call__of_each_function_has_one_number(name: str) -> None:
    config, objective = config_of(name)
    sizes: dict[str, int] = {}
    """The number of numbers in the first call of each function."""

    def note(function: str, args: tuple[object, ...]) -> None:
        if function in FUNCTIONS:
            shape: tuple[int, ...] = getattr(args[0], "shape")  # noqa: B009  (of any tensor)
            sizes.setdefault(function, math.prod(shape))

    with TorchCalls(note):
        model = build(config, VOCABULARY, objective)
        logits = model.forward(torch.randint(5, VOCABULARY.size, (3, POSITIONS)))
        torch.autograd.backward([logits.log_softmax(-1).exp().sum()])
    assert sizes.keys() >= {"cos", "exp", "sin", "tanh"}
    assert set(sizes.values()) == {1}
