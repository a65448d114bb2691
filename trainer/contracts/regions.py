"""Positions of regions in a text: as words between white space, else beside punctuation, else inside a word."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple
from unicodedata import category, normalize

_IN_WORDS = frozenset("'`\u2018\u2019\uff07\u055a-\u2010\u2011\u00ad\u05be\u05f3\u05f4\u00b7")
"""Apostrophes, hyphens, and signs of Hebrew and Catalan that belong to a word if letters stand on both sides."""
_IN_NUMBERS = frozenset(".,")
_ZERO_WIDTH_JOINERS = frozenset("\u200c\u200d")
_CONTINUING = frozenset("\u0e33\u0eb3\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
"""A vowel of Thai and Lao, and the skin tones of emoji."""

Level = Literal["between_spaces", "beside_punctuation", "inside_word"]


class Occurrence(NamedTuple):
    """A part of a text that is canonically equivalent to a region."""

    start: int
    end: int
    level: Level


class Placement(NamedTuple):
    """The best occurrences of regions one after the other, and how many other choices there are."""

    occurrences: tuple[Occurrence, ...]
    """Ends before the first region that is not found."""
    n_choices: int
    """Ways to place the regions with equally few of them inside words; 0 if there is none."""
    n_compared: int
    """Occurrences of all regions."""


class _Chain(NamedTuple):
    """An occurrence of a region, and those of the regions after it."""

    first: Occurrence
    rest: "_Chain | None"


class _Best(NamedTuple):
    """The best placement of a region and of those after it, from an occurrence on."""

    n_inside: int
    n_beside: int
    n_choices: int
    chain: _Chain | None


def best_placement(text: str, regions: Sequence[str], max_occurrences: int) -> Placement | None:
    """Place regions that are not empty, in order and without overlap; None for more occurrences than the limit.

    The best placement has the fewest regions inside words, then the most between white space, then stands first.
    """
    decomposed, places = _decomposed(text)
    found: list[list[Occurrence]] = []
    n_compared = 0
    for region in regions:
        of_region = _occurrences(text, normalize("NFD", region), decomposed, places)
        found.append([*islice(of_region, max_occurrences - n_compared + 1)])
        n_compared += len(found[-1])
        if n_compared > max_occurrences:
            return None
    best = _best(found)
    if best is None:
        return Placement(_first_ones(found), 0, n_compared)
    chosen: list[Occurrence] = []
    chain = best.chain
    while chain is not None:
        chosen.append(chain.first)
        chain = chain.rest
    return Placement(tuple(chosen), best.n_choices, n_compared)


def occurrences_of(text: str, region: str) -> list[Occurrence]:
    """Return the occurrences of a region as a word in their order, or those inside words if there are no others."""
    found = [*_occurrences(text, normalize("NFD", region), *_decomposed(text))]
    return [one for one in found if one.level != "inside_word"] or found


def _best(found: Sequence[Sequence[Occurrence]]) -> _Best | None:
    """Return the best placement of regions with their occurrences, from the last region to the first."""
    starts: list[int] = []
    following: list[_Best | None] = [_Best(0, 0, 1, None)]
    for of_region in reversed(found):
        best: list[_Best | None] = [None]
        for occurrence in reversed(of_region):
            after = following[bisect_left(starts, occurrence.end)]
            best.append(_better(occurrence, after, best[-1]))
        following, starts = best[::-1], [one.start for one in of_region]
    return following[0]


def _better(occurrence: Occurrence, after: _Best | None, other: _Best | None) -> _Best | None:
    """Return the better of the placements from an occurrence on and of those without it, with the choices of both."""
    if after is None:
        return other
    own = _Best(
        after.n_inside + (occurrence.level == "inside_word"),
        after.n_beside + (occurrence.level == "beside_punctuation"),
        after.n_choices,
        _Chain(occurrence, after.chain),
    )
    if other is None or own.n_inside != other.n_inside:
        return own if other is None or own.n_inside < other.n_inside else other
    better = own if own.n_beside <= other.n_beside else other
    return better._replace(n_choices=own.n_choices + other.n_choices)


def _first_ones(found: Sequence[Sequence[Occurrence]]) -> tuple[Occurrence, ...]:
    """Return the first occurrence of each region after that of the one before it, up to one that has none there."""
    chosen: list[Occurrence] = []
    end = 0
    while first := next((one for one in found[len(chosen)] if one.start >= end), None):
        chosen.append(first)
        end = first.end
    return tuple(chosen)


def _occurrences(text: str, region: str, decomposed: str, places: Sequence[int]) -> Iterator[Occurrence]:
    """Yield the occurrences of a decomposed region that begin and end between characters with their marks."""
    start = decomposed.find(region)
    while start >= 0:
        first, past = places[start], places[start + len(region)]
        if first >= 0 and past >= 0:
            yield Occurrence(first, past, _level(text, first, past))
        start = decomposed.find(region, start + 1)


def _decomposed(text: str) -> tuple[str, list[int]]:
    """Return a text in NFD, and for each position in it that of the text, or -1 between a character and its mark."""
    if text.isascii():
        return text, [*range(len(text) + 1)]
    starts = [place for place, character in enumerate(text) if not place or not _continues(character)]
    parts: list[str] = []
    places: list[int] = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        parts.append(normalize("NFD", text[start:end]))
        places += [start, *[-1] * (len(parts[-1]) - 1)]
    return "".join(parts), [*places, len(text)]


def _continues(character: str) -> bool:
    """Return whether a character is written as one with the one before it: a mark, or a later part of a syllable."""
    is_jamo = "\u1160" <= character <= "\u11ff" or "\ud7b0" <= character <= "\ud7ff"
    return is_jamo or character in _CONTINUING or category(character).startswith("M")


def _level(text: str, start: int, end: int) -> Level:
    if _is_in_word(text, start) or _is_in_word(text, end):
        return "inside_word"
    beside = text[start - 1 : start] + text[end : end + 1]
    return "between_spaces" if not beside or beside.isspace() else "beside_punctuation"


def _is_in_word(text: str, place: int) -> bool:
    """Return whether a word or number goes on across a position."""
    if not 0 < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    if _is_part_of_word(before):
        return _is_part_of_word(after) or _joins(before, after, text[place + 1 : place + 2])
    return place > 1 and _is_part_of_word(after) and _joins(text[place - 2], before, after)


def _joins(first: str, joint: str, second: str) -> bool:
    """Return whether a sign between two characters makes them one word or number."""
    if joint in _IN_NUMBERS:
        return first.isdigit() and second.isdigit()
    return joint in _IN_WORDS and second != "" and _is_part_of_word(first) and _is_part_of_word(second)


def _is_part_of_word(character: str) -> bool:
    """Return whether a character is a letter, a digit, a mark, a modifier such as a tone letter, or a joiner."""
    if character.isalnum() or character in _ZERO_WIDTH_JOINERS:
        return True
    kind = category(character)
    return kind.startswith("M") or kind == "Pc" or (kind == "Sk" and not character.isascii())
