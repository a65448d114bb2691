"""Cleans lines of IPA text, and counts the lines and characters that each step takes away.

The steps in their order: symbols are unified; lines with few IPA characters are dropped; words with letters that the
language does not have are removed; other characters become a space; short lines and repeated lines are dropped.
Phonetic marks (stress, length, aspiration, ties, tones and all other diacritics of the IPA) are no letters: every step
keeps them, in every language.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from string import ascii_lowercase, digits, punctuation
from typing import get_args
from unicodedata import normalize

from trainer.contracts.corpora import BuildFilter, BuildStep, Removal, StepName

ALPHABETS: Mapping[str, str] = {
    "tr": "bdefhijklmnoprstuvyzøɑɡɯʃʒː͡",
    "az": "bdefhijklmnoprstuvxyzæœɑɟɡɣɯʃʒ͡",
    "kk": "bdefhijklmnopqrstuvwzæŋɑɕəɡɪɵʁʃʊʏʒʔʲː͡χ",
    "ky": "bdefijklmnoprstuvwxyzøŋɑɕɡɯʃʒʔʲː͡θ",
    "uz": "abdefhijklmnopqrstuvxzŋɔɡʁʃʒʔ͡",
    "ug": "bdefhijklmnopqrstuwyzæøŋɑɡʁʃʒ͡χ",
    "fi": "bdefhijklmnoprstuyæøŋɑɡʃʋʒʔː",
}
"""The IPA characters of each language after the symbol map. Another letter marks a foreign word; a mark does not."""
SYMBOL_MAP: Mapping[str, str] = {"ɾ": "r"}
LANGUAGE_SYMBOLS: Mapping[str, Mapping[str, str]] = {"tr": {"a": "ɑ"}}
"""Further replacements in one language, so that equal vowels have equal symbols in all languages."""
MIN_IPA_SHARE = 0.95
MIN_LINE_CHARACTERS = 30

_MARK_RANGES = (
    range(0x2B0, 0x370),  # modifier letters and combining marks: stress, length, aspiration, ties
    range(0x1AB0, 0x1B00),
    range(0x1D2C, 0x1D6B),
    range(0x1D9B, 0x1E00),
    (0x2071, 0x207F, 0x203F),  # superscripts i and n, and the linking mark
    range(0xA700, 0xA720),  # tones
)
MARKS = "".join(map(chr, chain.from_iterable(_MARK_RANGES)))
"""The phonetic marks, which belong to the letter beside them."""

_IPA = ascii_lowercase + "æçðøħŋœβθχ" + "".join(map(chr, range(0x250, 0x2B0))) + MARKS
_NEUTRAL = " " + digits + punctuation.replace("_", "") + "—–…«»‘’"
_EXPECTED = str.maketrans("", "", _IPA + _NEUTRAL)
"""Removes the characters that the share of IPA characters counts as such: digits and common punctuation included."""


class StepCounts:
    """Lines and characters before and after each step of a build."""

    def __init__(self, steps: Iterable[BuildStep] = ()) -> None:
        names: tuple[StepName, ...] = get_args(StepName)
        self._steps: dict[StepName, Counter[str]] = {name: Counter() for name in names}
        for each in steps:
            counts: dict[str, int] = each.model_dump(exclude={"step"})
            self._steps[each.step].update(counts)

    def count(self, step: StepName, before: str, after: str | None, changes: int = 0) -> None:
        """Count a line before a step and after it; None: the step dropped the line."""
        counted = self._steps[step]
        counted["lines_in"] += 1
        counted["characters_in"] += len(before) + 1
        counted["changes"] += changes
        if after is not None:
            counted["lines_out"] += 1
            counted["characters_out"] += len(after) + 1

    @property
    def kept_lines(self) -> int:
        return self._steps["repeated_lines"]["lines_out"]

    @property
    def kept_characters(self) -> int:
        return self._steps["repeated_lines"]["characters_out"]

    def records(self) -> tuple[BuildStep, ...]:
        return tuple(BuildStep(step=name, **counts) for name, counts in self._steps.items())

    def removals(self) -> Iterator[Removal]:
        """Yield the steps that removed characters; the conversions to IPA and to other symbols remove none."""
        for step in self.records():
            characters = step.characters_in - step.characters_out
            if characters > 0 and step.step not in ("blank_lines", "ipa", "symbol_map"):
                yield Removal(step=step.step, characters=characters, share=characters / step.characters_in)


class Cleaner:
    """Cleans the lines of one language, one after the other."""

    def __init__(
        self, language: str, counts: StepCounts, kept: Iterable[str] = (), off: Collection[BuildFilter] = ()
    ) -> None:
        """Start after the lines that have been kept already; `off` are the filters that are not applied."""
        letters = ALPHABETS[language] + MARKS
        self._off = off
        self._alphabet = set(letters) | {" "}
        self._symbols = str.maketrans({**SYMBOL_MAP, **LANGUAGE_SYMBOLS.get(language, {})})
        self._gaps, self._others = re.compile(f"[^{letters}]+"), re.compile(f"[^{letters}\\s]")
        self._counts = counts
        self._kept = set(kept)

    def clean(self, line: str) -> str | None:
        """Return the cleaned line, or None if it is dropped."""
        normalized = self.normalize(line)
        if normalized is None:
            return None
        if "short_lines" not in self._off and len(normalized) < MIN_LINE_CHARACTERS:
            self._counts.count("short_lines", normalized, None)
            return None
        self._counts.count("short_lines", normalized, normalized)
        kept = None if "repeated_lines" not in self._off and normalized in self._kept else normalized
        self._counts.count("repeated_lines", normalized, kept)
        self._kept.add(normalized)
        return kept

    def normalize(self, line: str) -> str | None:
        """Return a line in NFC with IPA characters of its language only, or None if it has too few of them."""
        # in NFD a letter and its mark are two characters
        letters = normalize("NFD", line)
        unified = letters.translate(self._symbols)
        mapped = normalize("NFC", unified)
        self._counts.count("symbol_map", line, mapped, sum(map(str.__ne__, letters, unified)))
        share = 1 - len(unified.translate(_EXPECTED)) / max(1, len(unified))
        if "ipa_share" not in self._off and share < MIN_IPA_SHARE:
            self._counts.count("ipa_share", mapped, None)
            return None
        self._counts.count("ipa_share", mapped, mapped)
        native, removed = (mapped, 0) if "foreign_words" in self._off else self._without_foreign_words(mapped)
        self._counts.count("foreign_words", mapped, native, removed)
        spaced, others = (native, 0) if "other_characters" in self._off else self._without_other_characters(native)
        spaced = " ".join(spaced.split())
        self._counts.count("other_characters", native, spaced, others)
        return spaced

    def _without_foreign_words(self, line: str) -> tuple[str, int]:
        """Return the line without its foreign words, and their number."""
        foreign = {sign for sign in set(normalize("NFD", line)) - self._alphabet if sign.isalpha()}
        if not foreign:
            return line, 0
        words = line.split()
        native = [word for word in words if foreign.isdisjoint(normalize("NFD", word))]
        return " ".join(native), len(words) - len(native)

    def _without_other_characters(self, line: str) -> tuple[str, int]:
        """Return the line with spaces in place of other characters, and their number."""
        letters = normalize("NFD", line)
        return normalize("NFC", self._gaps.sub(" ", letters)), sum(1 for _ in self._others.finditer(letters))
