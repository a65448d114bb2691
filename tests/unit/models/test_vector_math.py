"""The code of MKL's functions is chosen before threads share a call."""

import math
from collections.abc import Mapping
from typing import Protocol

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.support.families import FAMILIES, POSITIONS, VOCABULARY, config_of
from trainer.models import build

FUNCTIONS = "acos asin atan cos erf erfc erfinv exp lgamma log log10 log2 sin sqrt tan tanh".split()
"""Those that torch takes from MKL for numbers in a row (ATen/cpu/vml.h)."""


class Function(Protocol):
    __name__: str

    def __call__(self, *args: object, **keywords: object) -> object: ...


class FirstCalls(TorchFunctionMode):
    """The number of numbers in the first call of each function."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}

    def __torch_function__(
        self,
        func: Function,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func.__name__ in FUNCTIONS:
            shape: tuple[int, ...] = getattr(args[0], "shape")  # noqa: B009  (of any tensor)
            self.sizes.setdefault(func.__name__, math.prod(shape))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", FAMILIES)
def test_first_call__of_each_function_has_one_number(name: str) -> None:
    config, objective = config_of(name)
    first_calls = FirstCalls()
    with first_calls:
        model = build(config, VOCABULARY, objective)
        logits = model.forward(torch.randint(5, VOCABULARY.size, (3, POSITIONS)))
        torch.autograd.backward([logits.log_softmax(-1).exp().sum()])
    assert first_calls.sizes.keys() >= {"cos", "exp", "sin", "tanh"}
    assert set(first_calls.sizes.values()) == {1}
