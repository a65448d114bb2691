"""Running texts: the places of units in them."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeAlias

from trainer.contracts.sequences import joined

Span: TypeAlias = tuple[int, int]
"""The places of the first character and behind the last one."""


def joined_words(words: Sequence[str], separator: str) -> tuple[str, Sequence[Span]]:
    """Join words with separators, and return the text with the places of the words."""
    parts = joined(words, separator)
    ends = accumulate(map(len, parts))
    return "".join(parts), [(end - len(word), end) for word, end in zip(words, ends, strict=True)]


def places_in(running: str, words: Sequence[str]) -> Sequence[Span]:
    """Return the places of words in a text in their order; none if one is not in it.

    Words that follow each other with white space alone between them are taken first; otherwise a word is not found
    within a longer one if it stands by itself too.
    """
    return _found(running, words, _next) or _found(running, words, _by_itself)


def _found(running: str, words: Sequence[str], find: Callable[[str, str, int], int]) -> Sequence[Span]:
    places: list[Span] = []
    end = 0
    for word in words:
        start = find(running, word, end)
        if start < 0:
            return []
        end = start + len(word)
        places.append((start, end))
    return places


def _next(running: str, word: str, start: int) -> int:
    """Return the place of a word that follows after white space; -1 if it does not."""
    while running[start : start + 1].isspace():
        start += 1
    return start if running.startswith(word, start) else -1


def _by_itself(running: str, word: str, start: int) -> int:
    """Return the next place of a word by itself, else the next place; -1 without one."""
    first = place = running.find(word, start)
    while place >= 0:
        before, after = running[max(0, place - 1) : place + 1], running[place + len(word) - 1 : place + len(word) + 1]
        if not (place and before.isalnum()) and not (len(after) > 1 and after.isalnum()):
            return place
        place = running.find(word, place + 1)
    return first
