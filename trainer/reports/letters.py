"""Letters as people see them: characters with their marks, the joined forms of Arabic, and packages of fonts."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, pairwise

_JOINER, _NON_JOINER, _VIRAMA_CLASS = "\u200d", "\u200c", 9
_DOUBLE_CLASSES = (233, 234)
"""Combining classes of marks over or under two letters, such as the tie bar of t͡s."""
_VOWELS_AM = "\u0e33\u0eb3"
"""Vowels of Thai and Lao that Unicode calls letters; their ring stands over the letter before."""
_CONJUNCT_SCRIPTS = frozenset("DEVANAGARI BENGALI GUJARATI ORIYA TELUGU KANNADA MALAYALAM KHMER".split())
"""Scripts in which a virama joins two consonants to one sign."""
_VOWELS = frozenset("A AA AE AI AU AW AY E EE I II L LL O OE OO OOE R RR U UE UU UUE".split())
"""Last words of the names of their vowels: DEVANAGARI LETTER SHORT E."""
_PREPENDED = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Signs that surround the number or the word after them."""
_LEADING = (("\u1100", "\u115f"), ("\ua960", "\ua97f"))
_LATER = (("\u1160", "\u11ff"), ("\ud7b0", "\ud7ff"))
_SYLLABLES = (("\uac00", "\ud7a3"),)
"""The first letters of Korean syllables, the later ones, and syllables that are one character."""


def _arabic_forms() -> dict[str, dict[str, str]]:
    """Return the presentation forms of each Arabic letter by their names in Unicode, such as `<final>`."""
    forms: dict[str, dict[str, str]] = {}
    for number in chain(range(0xFB50, 0xFDD0), range(0xFE70, 0xFF00)):
        name, *letters = unicodedata.decomposition(chr(number)).split() or [""]
        if len(letters) == 1:
            forms.setdefault(chr(int(letters[0], 16)), {})[name] = chr(number)
    return forms


_PASSED = ("Mn", "Cf")
"""Categories of marks, across which Arabic letters join."""
_FORMS = _arabic_forms()
_LETTERS = {form: letter for letter, forms in _FORMS.items() for form in forms.values()}
_CJK_NAMES = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "KANGXI", "IDEOGRAPHIC")


def clusters(text: str) -> Iterator[str]:
    """Yield the letters of a text, each with its marks: the clusters of Unicode, and two letters below a tie bar.

    A conjunct of an Indic script and a sequence of emoji are one letter.
    """
    start = 0
    for at, (before, char) in enumerate(pairwise(text), 1):
        if not _continues(text, at, before, char):
            yield text[start:at]
            start = at
    if text:
        yield text[start:]


def _continues(text: str, at: int, before: str, char: str) -> bool:
    """Return whether a character belongs to the letter of the character before it."""
    if char in "\r\n" or before in "\r\n":
        return False
    if unicodedata.category(char)[0] == "M" or char in (_JOINER, _NON_JOINER) or char in _VOWELS_AM:
        return True
    if "\U0001f3fb" <= char <= "\U0001f3ff" or "\U000e0020" <= char <= "\U000e007f":  # skin tones, tags of flags
        return True
    if _is_in(before, (*_LEADING, *_LATER, *_SYLLABLES) if _is_in(char, _LATER) else _LEADING):
        return _is_in(char, (*_LEADING, *_LATER, *_SYLLABLES))
    if before in _PREPENDED:
        return True
    if _is_flag_letter(char):
        first = at
        while first > 0 and _is_flag_letter(text[first - 1]):
            first -= 1
        return (at - first) % 2 == 1
    if not char.isalpha():
        return before == _JOINER and unicodedata.category(char) == "So"
    marks = before if before != _JOINER else text[at - 2 : at - 1]
    combining = unicodedata.combining(marks) if marks else 0
    is_virama = combining == _VIRAMA_CLASS and unicodedata.name(marks, "").split()[0] in _CONJUNCT_SCRIPTS
    return (is_virama and _is_consonant(char)) or unicodedata.combining(before) in _DOUBLE_CLASSES


def _is_consonant(char: str) -> bool:
    """Return whether a letter of an Indic script is none of its vowels."""
    return unicodedata.name(char, "?").split()[-1] not in _VOWELS


def _is_in(char: str, ranges: Iterable[tuple[str, str]]) -> bool:
    return any(first <= char <= last for first, last in ranges)


def _is_flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def joined(text: str) -> list[str]:
    """Return each character of a text, Arabic letters in the form that they have between their neighbours."""
    shown = list(text)
    letters = [at for at, char in enumerate(text) if char == _NON_JOINER or unicodedata.category(char) not in _PASSED]
    none: Mapping[str, str] = {}
    around = [none, *(_FORMS.get(text[at], none) for at in letters), none]
    for at, before, own, after in zip(letters, around, around[1:], around[2:], strict=False):
        from_before = "<initial>" in before and "<final>" in own
        to_after = "<final>" in after and "<initial>" in own
        name = ("<medial>" if to_after else "<final>") if from_before else "<initial>" if to_after else "<isolated>"
        shown[at] = own.get(name, text[at])
    return shown


def without_forms(text: str) -> str:
    """Return a text with plain letters in place of the forms of `joined`."""
    return "".join(_LETTERS.get(char, char) for char in text)


def font_packages(signs: Iterable[str]) -> list[str]:
    """Return the packages of Debian and Ubuntu whose fonts have signs."""
    return sorted({_package(char) for sign in signs for char in sign})


def _package(char: str) -> str:
    if unicodedata.name(char, "").startswith(_CJK_NAMES):
        return "fonts-noto-cjk"
    return "fonts-symbola" if unicodedata.category(char) in ("So", "Sk") else "fonts-noto-core"
