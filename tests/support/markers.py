"""Markers for the parameters of tests."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

Value = TypeVar("Value")


def slow_except(values: Iterable[object], *quick: object) -> list[object]:
    """Return the parameters of a test: those that are not named as quick are marked slow."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]


def slow_repeats(values: Iterable[Value], kind: Callable[[Value], str]) -> list[object]:
    """Return the parameters of a test: all but the first of each kind are marked slow."""
    seen: set[str] = set()
    parameters: list[object] = []
    for value in values:
        is_first = kind(value) not in seen
        seen.add(kind(value))
        parameters.append(value if is_first else pytest.param(value, marks=pytest.mark.slow))
    return parameters
