"""Running texts: the places of units in them."""

import re
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import TypeAlias

from trainer.contracts.sequences import joined

Span: TypeAlias = tuple[int, int]
"""The places of the first character and behind the last one."""
_SIGNS = re.compile(
    r"(?P<unseen>[\u00ad\u200b-\u200d\u2060\ufe0e\ufe0f\ufeff])"
    r"|(?P<quote>''|``|[\"'`\u00b4\u02b9\u02bc\u2018-\u201f\u2032\u2033\u2039\u203a\u00ab\u00bb])"
    r"|(?P<dash>-{1,3}|[\u2010-\u2015\u2212])"
    r"|(?P<dots>\u2026)"
    r"|.",
    re.DOTALL,
)
"""A sign of a text, by the kind of those that stand for each other."""
_FORMS = {"unseen": "", "quote": "'", "dash": "-", "dots": "..."}


def joined_words(words: Sequence[str], separator: str | None) -> tuple[str, Sequence[Span]]:
    """Join words with separators, and return the text with the places of the words; None as in `joined`."""
    parts = joined(words, separator)
    ends = accumulate(map(len, parts))
    return "".join(parts), [(end - len(word), end) for word, end in zip(words, ends, strict=True)]


def places_in(running: str, words: Sequence[str]) -> Sequence[Span]:
    """Return the places of words in a text in their order; none if one is not in it.

    Words that follow each other with white space alone between them are taken first; otherwise a word is not found
    within a longer one if it stands by itself too. Words that are not all in the text as they are written are found in
    its normal form: without case and invisible characters, with one quotation mark, apostrophe, dash and ellipsis.
    """
    places = _found(running, words)
    if len(places) == len(words):
        return places
    form, spans = _form(running)
    places = _found(form, [_form(word)[0] for word in words])
    places = [(spans[start][0], spans[end - 1][1]) for start, end in places]
    is_apart = all(one[1] <= two[0] for one, two in pairwise(places))
    return places if is_apart and len(places) == len(words) else []


def first_absent(running: str, words: Sequence[str]) -> str | None:
    """Return the first word that is not in a text in its order; None if no word is in it at all."""
    form, plain = _form(running)[0], [_form(word)[0] for word in words]
    if not any(word and word in form for word in plain):
        return None
    return [*words, words[-1]][len(_found(form, plain))]


def _form(text: str) -> tuple[str, Sequence[Span]]:
    """Return the normal form of a text, and for each of its characters the place of the sign that it comes from."""
    parts: list[str] = []
    spans: list[Span] = []
    for sign in _SIGNS.finditer(text):
        part = _FORMS[sign.lastgroup] if sign.lastgroup else sign[0].casefold().replace("i\u0307", "i")
        parts.append(part)
        spans += [sign.span()] * len(part)
    return "".join(parts), spans


def _found(running: str, words: Sequence[str]) -> Sequence[Span]:
    """Return the places of words, up to the first that is not found."""
    places = _found_by(running, words, _next)
    return places if len(places) == len(words) else _found_by(running, words, _by_itself)


def _found_by(running: str, words: Sequence[str], find: Callable[[str, str, int], int]) -> Sequence[Span]:
    places: list[Span] = []
    end = 0
    for word in words:
        start = find(running, word, end) if word else -1
        if start < 0:
            break
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
