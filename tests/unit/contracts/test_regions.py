"""Positions of regions in texts, against all placements of regions in texts made of characters with their marks."""

from itertools import combinations, product
from random import Random
from unicodedata import normalize

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from trainer.contracts.regions import best_placement, occurrences_of

SCRIPTS = (
    ("e", "\u00e9", "o\u0308\u0303", "t\u0361", "s", "\u02b0", "\u02c8", "\u0259\u02de"),  # Latin and IPA
    ("क", "की", "क्", "ह", "ड़"),
    ("م", "ی", "خ", "بَ", "آ", "\u200c"),
    ("ש", "שׁ", "לָ", "ו"),
    ("ก", "กี", "น้ำ", "ที่"),
    ("и", "й", "е", "ё", "ъ"),
    ("가", "각", "나", "ㅋ"),
)
SIGNS = (" ", " ", ",", "'", "-", "\u201d")
Units = tuple[str, ...]


def units_of(script: Units) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from((*script, *SIGNS)), min_size=1, max_size=9)


def is_letter(units: Units, place: int) -> bool:
    return 0 <= place < len(units) and units[place] not in SIGNS


def is_joint(units: Units, place: int) -> bool:
    """Whether a sign stands between two letters and is written in words."""
    return (
        0 <= place < len(units) and units[place] in "'-" and is_letter(units, place - 1) and is_letter(units, place + 1)
    )


def is_in_word(units: Units, place: int) -> bool:
    before, after = is_letter(units, place - 1), is_letter(units, place)
    return (before and (after or is_joint(units, place))) or (after and is_joint(units, place - 1))


def cost(units: Units, start: int, end: int) -> tuple[int, int]:
    if is_in_word(units, start) or is_in_word(units, end):
        return 1, 0
    beside = units[max(0, start - 1) : start] + units[end : end + 1]
    return 0, int(any(unit != " " for unit in beside))


@for_all_pairs(st.sampled_from(SCRIPTS).flatmap(units_of), st.integers(0, 2**30))
def test_placement__is_the_best_of_all_placements(drawn: list[str], seed: int) -> None:
    random, units = Random(seed), tuple(drawn)
    written = [normalize(random.choice(("NFC", "NFD")), unit) for unit in units]
    regions: list[Units] = []
    for _ in range(random.randint(1, 3)):
        start = random.randrange(len(units))
        regions.append(units[start : start + random.randint(1, 2)])
    if any(region[0] == " " or region[-1] == " " for region in regions):
        return
    named = ["".join(normalize(random.choice(("NFC", "NFD")), unit) for unit in region) for region in regions]
    found = best_placement("".join(written), named, 1000)
    assert found is not None
    spans = [
        [(at, at + len(region)) for at in range(len(units)) if units[at : at + len(region)] == region]
        for region in regions
    ]
    placements = [
        placement
        for placement in product(*spans)
        if all(first[1] <= later[0] for first, later in combinations(placement, 2))
    ]
    ranked = sorted(
        (sum(a for a, _ in costs), sum(b for _, b in costs), placement)
        for placement in placements
        for costs in [[cost(units, *span) for span in placement]]
    )
    assert found.n_choices == sum(one[0] == ranked[0][0] for one in ranked)
    assert found.n_compared == sum(map(len, spans))
    if ranked:
        ends = [sum(map(len, written[:place])) for place in range(len(units) + 1)]
        expected = [(ends[start], ends[end]) for start, end in ranked[0][2]]
        assert [(one.start, one.end) for one in found.occurrences] == expected
    else:
        assert len(found.occurrences) < len(regions)


@pytest.mark.parametrize(
    ("text", "region", "starts"),
    [
        ("the he, he", "he", [4, 8]),
        ("the then", "he", [1, 5]),
        ("don't do 'do' re-do do", "do", [6, 10, 20]),
        ("3.5 and 3, 1,000 or 3.", "3", [8, 20]),
        ("a_b b", "b", [4]),
        ("sun\u00adset set rock`n\u2019roll", "set", [8]),
        ("\U0001f44d\U0001f3fd \U0001f44d", "\U0001f44d", [3]),
        ("ne\u0301 ne", "ne", [4]),
        ("ne\u0301", "ne", []),
        ("\u1100\u1161\u11a8", "\uac00", []),
        ("aaa", "aa", [0, 1]),
        ("\u0e19\u0e49\u0e33", "\u0e19\u0e49", []),
    ],
)
def test_occurrences__are_words_unless_there_are_none(text: str, region: str, starts: list[int]) -> None:
    assert [one.start for one in occurrences_of(text, region)] == starts


def test_regions__that_occur_too_often_are_not_compared() -> None:
    assert best_placement("a a a", ["a", "a"], 5) is None
    assert best_placement("a a a", ["a", "a"], 6) is not None
