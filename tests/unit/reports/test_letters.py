"""Letters with their marks, in pictures and pages, for scripts whose characters are not letters."""

import unicodedata

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from trainer.reports.letters import clusters, font_packages, joined, without_forms

WORDS = [
    "हि|न्दी| |क्ष|त्रि|य",
    "त|त्त्व|म्|अ|सि",  # no conjunct with a vowel
    "বাং|লা",
    "ที่|น้ำ",
    "த|மி|ழ்| |க்|க",
    "ខ្មែ|រ",
    "t͡s|ʰ| |k͡p|˥|˩| |ɔ̃",
    "и́|қ",
    "🏳️\u200d🌈|👩\u200d👩\u200d👧|🇰🇿|🇹🇷|👍🏽|🇰",
    "क्\u200c|ष",
    "a\u0301|\n|b\u0301",
    "ئ|ۇ|ي",
    "\u1112\u1161\u11ab|\u1100\u1100\u119e|가\u11ab|가|나|\u1100|a|\ua960가",  # letters of Korean syllables
    "\u0600١|٢",
    "中|文|한",
    "\u0301|\n|\u0301x",
    "",
]


@pytest.mark.parametrize("letters", WORDS)
def test_letters__keep_their_marks(letters: str) -> None:
    expected = letters.replace("\u0301x", "\u0301|x").split("|") if letters else []
    assert list(clusters("".join(expected))) == expected


@for_all(st.text(st.sampled_from("aक्षि\u0301\u0361\u200d🇰👍🏽\nب"), max_size=20))
def test_letters__are_the_whole_text(text: str) -> None:
    assert "".join(clusters(text)) == text


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("ببب", "initial medial final"),
        ("باب", "initial final isolated"),
        ("ب", "isolated"),
        ("بِب", "initial - final"),
        ("ب ب", "isolated - isolated"),
        ("ب\u200cب", "isolated - isolated"),
        ("ئۇيغۇر", "initial final initial medial final isolated"),
        ("ab", "- -"),
    ],
)
def test_arabic_letters__have_the_forms_of_their_word(word: str, forms: str) -> None:
    shown = joined(word)
    found = [unicodedata.decomposition(char).split()[:1] for char in shown]
    assert " ".join(one[0].strip("<>") if one else "-" for one in found) == forms
    assert without_forms("".join(shown)) == word


def test_packages__are_those_that_have_the_script() -> None:
    assert font_packages(["ह", "中", "😀", "か", "한", "ก"]) == ["fonts-noto-cjk", "fonts-noto-core", "fonts-symbola"]
