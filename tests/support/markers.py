"""Markers for the parameters of tests."""

from collections.abc import Iterable

import pytest


def slow_except(values: Iterable[object], *quick: object) -> list[object]:
    """Return the parameters of a test: those that are not named as quick are marked slow."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
