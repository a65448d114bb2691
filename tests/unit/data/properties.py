"""Hypothesis with types: its own `given` accepts anything, these accept the tests that there are."""

from collections.abc import Callable
from typing import Protocol

import hypothesis
from hypothesis import strategies
from hypothesis.strategies import SearchStrategy

Test = Callable[[str], None]
LinesTest = Callable[[list[str]], None]


class _Given(Protocol):
    def __call__(self, strategy: SearchStrategy[str], /) -> Callable[[Test], Callable[[], None]]: ...


class _GivenLines(Protocol):
    def __call__(self, strategy: SearchStrategy[list[str]], /) -> Callable[[LinesTest], Callable[[], None]]: ...


given_text: _Given = hypothesis.given
given_lines: _GivenLines = hypothesis.given
assigned = strategies.characters(exclude_categories=("Cs", "Cn"), exclude_characters="\x00\n")
"""Characters that every library's Unicode tables know."""
texts: SearchStrategy[str] = strategies.text(assigned, max_size=40)
line_lists: SearchStrategy[list[str]] = strategies.lists(texts, max_size=12)
