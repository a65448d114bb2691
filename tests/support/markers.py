"""Markers for the parameters of tests."""

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

import pytest

Value = TypeVar("Value")


def slow_except(values: Iterable[object], *quick: object) -> list[object]:
    """Return the parameters of a test: those that are not named as quick are marked slow."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]


def slow_repeats(values: Collection[Value], kind: Callable[[Value], str]) -> list[object]:
    """Return the parameters of a test: all but the first of each kind are marked slow."""
    firsts: dict[str, Value] = {}
    for value in values:
        firsts.setdefault(kind(value), value)
    return slow_except(values, *firsts.values())
