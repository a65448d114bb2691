"""Replacement of unknown segments: distances by hand, ties, classes, and the segments of the corpora."""

import unicodedata
from hashlib import sha256

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from trainer.artifacts.experiments import FEATURE_TABLE
from trainer.data.cleaning import ALPHABETS
from trainer.experiments.segments import SEGMENTS, Assimilator

CHART = "iyɨʉɯuɪʏʊeøɘɵɤoəɛœɜɞʌɔæɐaɶɑɒpbtdʈɖcɟkɡqɢʔmɱnɳɲŋɴʙrʀⱱɾɽɸβfvθðszʃʒʂʐçʝxɣχʁħʕhɦɬɮʋɹɻjɰlɭʎʟ"
"""The vowels and the pulmonic consonants of the chart, row by row."""


def rows(known: str, *texts: str) -> list[tuple[str, str | None, float | None, int]]:
    replaced = Assimilator(set(known)).replacements(texts, model="char-lstm", language="kk", seed=3)
    assert all((row.model, row.listener_language, row.seed) == ("char-lstm", "kk", 3) for row in replaced)
    return [(row.character, row.replacement, row.distance, row.count) for row in replaced]


@pytest.mark.parametrize(
    ("segment", "known", "replacement", "distance"),
    [
        ("i", "ɪe", "ɪ", 2),  # one step of height
        ("i", "ɯe", "e", 4),  # close to close-mid is two steps of height; front to back two steps of backness
        ("y", "iu", "i", 1),  # rounding
        ("ɑ", "aɒ", "ɒ", 1),  # rounding, not front and back
        ("q", "kχ", "k", 1),  # a place, not three manners
        ("χ", "qh", "h", 2),
        ("ŋ", "nɡ", "ɡ", 2),  # a manner, not four places
        ("z", "sn", "s", 1),  # voice
        *(("ʋ", "vl", "v", 2), ("w", "vbʍ", "v", 3), ("ɾ", "rd", "r", 0), ("ɕ", "sʃ", "ʃ", 0)),
    ],
)
def test_assimilation__takes_the_nearest_segment(segment: str, known: str, replacement: str, distance: float) -> None:
    assert Assimilator(set(known)).replace(f"x{segment}{known}".removeprefix("x")) == replacement + known
    assert rows(known, segment) == [(segment, replacement, distance, 1)]


def test_assimilation__of_a_tie_takes_the_smaller_code_point() -> None:
    assert Assimilator({"i", "e"}).replace("ɪ") == "e"  # 2 to both; e is U+0065, i is U+0069
    assert Assimilator({"s", "z", "f", "v"}).replace("θ") == "f"
    assert Assimilator({"g", "ɡ"}).replace("ɟ") == "g"


def test_assimilation__stays_within_vowels_and_consonants() -> None:
    assert rows("ptk", "ipa", "aʁ a1 ptk\u0361") == [
        *((" ", None, None, 2), ("1", None, None, 1), ("a", None, None, 3), ("i", None, None, 1), ("ʁ", "k", 8.0, 1)),
        ("\u0361", None, None, 1),
    ]
    assert Assimilator(set("ptk")).replace("aʁ\u0361 1i") == "ak\u0361 1i"


@for_all_pairs(st.text(alphabet=[*CHART, " ", "\u0361", "1"]), st.sets(st.sampled_from(CHART), min_size=1))
def test_assimilation__keeps_length_and_known_characters(text: str, known: set[str]) -> None:
    replaced = Assimilator(known).replace(text)
    assert len(replaced) == len(text)
    for before, after in zip(text, replaced, strict=True):
        assert after == before if before in known or before not in SEGMENTS else after in known | {before}


def test_segments__are_all_of_the_chart_and_all_letters_of_cleaned_corpora() -> None:
    assert set(CHART) <= SEGMENTS
    assert set("gɕʑɥwʍɫ") == SEGMENTS - set(CHART)
    letters = {c for c in "".join(ALPHABETS.values()) if unicodedata.category(c) in ("Ll", "Lo")}
    assert len(letters) > 30
    assert letters <= SEGMENTS


def test_feature_table__changes_with_its_version() -> None:
    everything = "".join(sorted(SEGMENTS))
    table = [(known, rows(known, everything)) for known in everything]
    assert (FEATURE_TABLE, sha256(repr(table).encode()).hexdigest()[:16]) == (1, "0d79d0d16665b1d4"), (
        "the table has changed: increase FEATURE_TABLE, so that no stored losses of the old one are used"
    )
