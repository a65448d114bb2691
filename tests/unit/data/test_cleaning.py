"""Cleaning of IPA lines: each step on lines made by hand, the accounts, and sentences of the reference."""

from unicodedata import normalize

import pytest
from hypothesis import strategies
from hypothesis.strategies import SearchStrategy

from tests.support import ROOT
from tests.support.properties import for_all
from tests.support.turkic_lines import DECLARATION_LINES, turkic_lines
from trainer.contracts.corpora import BuildFilter, BuildStep, Removal
from trainer.data.cleaning import (
    ALPHABETS,
    LANGUAGE_SYMBOLS,
    MARKS,
    MIN_LINE_CHARACTERS,
    SYMBOL_MAP,
    Cleaner,
    StepCounts,
)

LINES: SearchStrategy[list[str]] = strategies.lists(strategies.text("bɑeɾaw7é… ", max_size=60), max_size=30)


def words(word: str, count: int) -> str:
    return " ".join([word] * count)


def cleaned(line: str, language: str = "tr") -> str | None:
    return Cleaner(language, StepCounts()).clean(line)


def step(counts: StepCounts, name: str) -> BuildStep:
    return next(each for each in counts.records() if each.step == name)


B57 = "b" * 57  # with three characters that are neither IPA nor common punctuation: exactly 0.95 of IPA


@pytest.mark.parametrize(
    ("line", "language", "expected"),
    [
        ("bɑɾdɑ " * 6, "tr", words("bɑrdɑ", 6)),
        ("bada " * 7, "tr", words("bɑdɑ", 7)),
        ("bada " * 7, "uz", words("bada", 7)),
        (f"{B57}\u201c\u201c\u201d", "tr", B57),
        (f"{B57}\u201c\u201c\u201d\u201d", "tr", None),
        ("b" * 40 + "12.3, «b» – b!", "tr", "b" * 40 + " b b"),  # digits and common punctuation do not count
        ("b" * 29, "tr", None),
        ("baba " * 6, "tr", None),  # 29 characters and a space
        ("b" * 30, "tr", "b" * 30),
    ],
)
def test_line__is_unified_or_dropped(line: str, language: str, expected: str | None) -> None:
    assert cleaned(line, language) == expected


def test_foreign_words_and_other_characters__are_removed_and_counted() -> None:
    counts = StepCounts()
    line = words("bɑdɑ", 10)
    assert Cleaner("tr", counts).clean(f"{line} (web), bɑdɑ") == f"{line} bɑdɑ", "Turkish has no w"
    removed = step(counts, "foreign_words")
    assert (removed.changes, removed.characters_in - removed.characters_out) == (1, len(" (web),"))
    counts = StepCounts()
    assert Cleaner("kk", counts).clean("bɑdɑ, 12 bɑdɑ-bɑdɑ. bɑdɑ bɑdɑ bɑdɑ bɑdɑ!") == words("bɑdɑ", 7)
    replaced = step(counts, "other_characters")
    assert (replaced.changes, replaced.characters_in, replaced.characters_out) == (6, 41, 35)


def test_repeated_line__is_dropped_after_cleaning() -> None:
    counts = StepCounts()
    cleaner = Cleaner("tr", counts, ["e" * 30])
    found = [cleaner.clean(line) for line in ("b" * 30, "b" * 30 + ".", "e" * 30)]
    assert found == ["b" * 30, None, None], "the last was kept before an interruption"
    repeated = step(counts, "repeated_lines")
    assert (repeated.lines_in, repeated.lines_out, repeated.characters_out) == (3, 1, 31)


@for_all(LINES)
def test_accounts__each_step_begins_with_the_result_of_the_last(lines: list[str]) -> None:
    counts = StepCounts()
    cleaner = Cleaner("tr", counts)
    kept = [line for line in map(cleaner.clean, lines) if line is not None]
    names = ("symbol_map", "ipa_share", "foreign_words", "other_characters", "short_lines", "repeated_lines")
    steps = [step(counts, name) for name in names]
    sizes = [(each.lines_in, each.characters_in) for each in steps]
    left = [(each.lines_out, each.characters_out) for each in steps]
    assert sizes == [(len(lines), sum(map(len, lines)) + len(lines)), *left[:-1]]
    assert left[-1] == (counts.kept_lines, counts.kept_characters) == (len(kept), sum(map(len, kept)) + len(kept))
    assert StepCounts(counts.records()).records() == counts.records(), "stored and read again"


@for_all(LINES)
def test_cleaned_lines__are_of_the_alphabet_and_stay_as_they_are(lines: list[str]) -> None:
    cleaner, again = Cleaner("tr", StepCounts()), Cleaner("tr", StepCounts())
    kept = [line for line in map(cleaner.clean, lines) if line is not None]
    assert [again.clean(line) for line in kept] == kept
    for line in kept:
        assert not normalize("NFD", line).strip(ALPHABETS["tr"] + MARKS + " ")
        assert line == " ".join(line.split())
        assert len(line) >= MIN_LINE_CHARACTERS


IPA_MARKS = "ˈˌːˑʰʱʲʷˠˤˀʼ˞ⁿˡ\u0361\u035c\u0303\u0325\u032c\u0329\u032f\u0301\u0300\u030b˥˩ꜜ‿"
"""Stress, length, aspiration, other modifiers, ties, nasals, voice, syllables, tones and the linking mark."""


def letters_of(language: str) -> list[str]:
    """Return the letters that the symbol map leaves as they are."""
    return sorted(set(ALPHABETS[language]) - SYMBOL_MAP.keys() - LANGUAGE_SYMBOLS.get(language, {}).keys())


def marked_words(language: str) -> SearchStrategy[tuple[str, list[str]]]:
    """Return words of a language with marks at any place."""
    word: SearchStrategy[str] = strategies.text("".join(letters_of(language)) + IPA_MARKS, min_size=1, max_size=12)
    drawn: SearchStrategy[list[str]] = strategies.lists(word, max_size=8)
    return drawn.map(lambda found: (language, found))


MARKED: SearchStrategy[tuple[str, list[str]]] = strategies.sampled_from([*ALPHABETS]).flatmap(marked_words)


@for_all(MARKED)
def test_phonetic_marks__are_never_lost_in_any_language(case: tuple[str, list[str]]) -> None:
    language, marked = case
    line = " ".join([letters_of(language)[0] * MIN_LINE_CHARACTERS, *marked])
    assert cleaned(line, language) == cleaned(normalize("NFD", line), language) == normalize("NFC", line)


FILTERED: dict[BuildFilter, str] = {
    **{"ipa_share": "b" * 40 + " ќќќќ", "foreign_words": words("wɑdɑ", 8), "other_characters": words("bɑdɑ, 12", 5)},
    **{"short_lines": "bɑdɑ", "repeated_lines": words("bɑdɑ", 8)},
}


@pytest.mark.parametrize(("name", "line"), FILTERED.items())
def test_filter_that_is_off__removes_nothing(name: BuildFilter, line: str) -> None:
    counts, off = StepCounts(), StepCounts()
    before = [line] if name == "repeated_lines" else []
    foreign: tuple[BuildFilter, ...] = ("foreign_words", "other_characters") if name == "ipa_share" else ()
    assert Cleaner("tr", counts, before, foreign).clean(line) != line
    assert Cleaner("tr", off, before, (name, *foreign, "other_characters")).clean(line) == line
    assert [*off.removals()] == []
    assert name in {each.step for each in counts.removals()}


def test_removals__are_shares_of_the_input_of_a_step() -> None:
    counts = StepCounts()
    cleaner = Cleaner("tr", counts)
    for line in ("b" * 30, "b" * 29 + " " + "w" * 9, "e" * 19):
        cleaner.clean(line)
    # 31 + 40 + 20 characters with the ends of the lines; of the second line 10 go, then it is short as the third
    foreign, short = counts.removals()
    assert foreign == Removal(step="foreign_words", characters=10, share=10 / 91)
    assert short == Removal(step="short_lines", characters=50, share=50 / 81)


@pytest.mark.parametrize("language", ALPHABETS)
def test_lines__are_cleaned_as_by_the_reference(language: str) -> None:
    for line in turkic_lines(language):
        # the reference takes an accented letter of the usual spelling for a foreign one, not for one with a mark
        raw = "".join("ж" if normalize("NFD", letter) != letter else letter for letter in line.ipa)
        assert cleaned(raw, language) == (line.clean or None)


def test_bundled_declaration__has_the_same_28_passages_in_every_language() -> None:
    files = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / "corpora" / "udhr_ipa").iterdir()}
    assert files.keys() == ALPHABETS.keys()
    for language, text in files.items():
        declaration = turkic_lines(language)[:DECLARATION_LINES]
        cleaner = Cleaner(language, StepCounts())
        assert text.splitlines()[:DECLARATION_LINES] == [cleaner.normalize(line.ipa) for line in declaration]
        assert text.count("\n") == 28
