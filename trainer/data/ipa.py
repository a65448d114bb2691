"""Converts text to IPA with turkic-translit, and compares the result with epitran."""

import re
import unicodedata
from collections.abc import Callable
from difflib import SequenceMatcher
from importlib import import_module
from typing import Protocol

from trainer.contracts.corpora import IpaCheck, IpaDifference
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.installation import command_for

Convert = Callable[[str], str]
"""Converts a text of one language to IPA."""
_EPITRAN_CODES = {
    **{"kk": "kaz-Cyrl", "ky": "kir-Cyrl", "tr": "tur-Latn", "az": "aze-Latn"},
    **{"ug": "uig-Arab", "uz": "uzb-Latn", "fi": "fin-Latn"},
}
_WORD = re.compile(r"[^\W\d_]+(?:['‘’ʻʼ`][^\W\d_]+)*")


class _Epitran(Protocol):
    """The converter of epitran for one language."""

    def transliterate(self, word: str) -> str: ...


def load_turkic_translit() -> Callable[[str], Convert]:
    """Return a function from a language to its conversion, which ends with NFC.

    Raises UNSUPPORTED_BACKEND without the extra `turkic`.
    """
    try:
        to_ipa: Callable[[str, str], str] = import_module("turkic_translit.core").to_ipa
    except ImportError:
        raise _missing("IPA needs turkic-translit", "or build from text in IPA") from None
    return lambda language: _composed(lambda text: to_ipa(text, language))


def load_epitran() -> Callable[[str], Convert]:
    """Return a function from a language to its conversion by epitran, in NFC.

    Raises UNSUPPORTED_BACKEND without the extra `turkic`.
    """
    try:
        new: Callable[[str], _Epitran] = import_module("epitran").Epitran
    except ImportError:
        raise _missing("`--check-ipa` needs epitran", "or leave the option out") from None
    return lambda language: _composed(new(_EPITRAN_CODES[language]).transliterate)


def _composed(convert: Convert) -> Convert:
    """Return a conversion whose texts are in NFC."""
    return lambda text: unicodedata.normalize("NFC", convert(text))


class IpaComparison:
    """Compares the IPA of two converters word by word, and counts the segments that differ."""

    def __init__(self, ours: Convert, other: Convert, start: IpaCheck) -> None:
        self._ours, self._other = ours, other
        self._words, self._differing_words = start.words, start.differing_words
        self._counts = {(each.turkic_translit, each.epitran): each.count for each in start.differences}
        self._examples = {(each.turkic_translit, each.epitran): each.word for each in start.differences}
        self._known: dict[str, list[tuple[str, str]]] = {}

    def add(self, text: str) -> None:
        """Compare the words of a text in its usual spelling."""
        words: list[str] = _WORD.findall(text)
        for word in words:
            differences = self._differences(word)
            self._words += 1
            self._differing_words += bool(differences)
            for difference in differences:
                self._counts[difference] = self._counts.get(difference, 0) + 1
                self._examples.setdefault(difference, word)

    def record(self) -> IpaCheck:
        differences = [
            IpaDifference(turkic_translit=ours, epitran=other, count=count, word=self._examples[ours, other])
            for (ours, other), count in self._counts.items()
        ]
        differences.sort(key=_rank)
        return IpaCheck(words=self._words, differing_words=self._differing_words, differences=tuple(differences))

    def _differences(self, word: str) -> list[tuple[str, str]]:
        if word not in self._known:
            ours, other = self._ours(word), self._other(word)
            opcodes = SequenceMatcher(None, ours, other, autojunk=False).get_opcodes()
            self._known[word] = [(ours[a:b], other[c:d]) for kind, a, b, c, d in opcodes if kind != "equal"]
        return self._known[word]


def _rank(difference: IpaDifference) -> tuple[int, str, str]:
    return -difference.count, difference.turkic_translit, difference.epitran


def _missing(what: str, otherwise: str) -> AppError:
    message = f"{what}: run {command_for('turkic')}, {otherwise}."
    return AppError(ErrorCode.UNSUPPORTED_BACKEND, message)
