"""Hypothesis' `given` with types for strict mypy."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from hypothesis import given
from hypothesis.strategies import SearchStrategy

A = TypeVar("A")
B = TypeVar("B")


class _ForAll(Protocol):
    def __call__(self, drawn: SearchStrategy[A], /) -> Callable[[Callable[[A], None]], Callable[[], None]]: ...


class _ForAllPairs(Protocol):
    def __call__(
        self, first: SearchStrategy[A], second: SearchStrategy[B], /
    ) -> Callable[[Callable[[A, B], None]], Callable[[], None]]: ...


for_all: _ForAll = given
for_all_pairs: _ForAllPairs = given
