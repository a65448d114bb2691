"""Sections of texts, and the shuffling of their characters."""

from random import Random

from hypothesis import strategies
from hypothesis.strategies import SearchStrategy

from tests.support.properties import for_all
from trainer.contracts.experiments import TextOptions
from trainer.contracts.tokenizers import Normalization
from trainer.experiments.sections import cut_sections, shuffle_sections

NFC = Normalization()
_sections: SearchStrategy[list[str]] = strategies.lists(strategies.text("abcɑʃ ", max_size=30))


def test_cut__drops_short_lines_and_ends_before_the_maximum() -> None:
    lines = ["abcd", "abc", "abcdef", "abcd", "abcdefgh"]
    assert cut_sections(lines, TextOptions(min_characters=4)) == ["abcd", "abcdef", "abcd", "abcdefgh"]
    assert cut_sections(lines, TextOptions(min_characters=4, max_characters=14)) == ["abcd", "abcdef", "abcd"]
    assert cut_sections(lines, TextOptions(min_characters=4, max_characters=13)) == ["abcd", "abcdef"]
    assert cut_sections(lines, TextOptions(min_characters=5, max_characters=1)) == ["abcdef"]
    assert cut_sections([], TextOptions()) == []


def test_shuffle__draws_from_pythons_random_by_language_and_number() -> None:
    expected = list("bcdefgh")
    Random("kk:1").shuffle(expected)
    assert shuffle_sections(["abc", "bcdefgh"], "kk", NFC)[1] == "".join(expected)
    assert shuffle_sections(["abc", "bcdefgh"], "ky", NFC)[1] != "".join(expected)


def test_shuffle__gives_normalized_text() -> None:
    shuffled = shuffle_sections(["u\u0308" * 30], "kk", NFC)[0]
    assert "u\u0308" not in shuffled
    assert "\u00fc" in shuffled


@for_all(_sections)
def test_shuffle__keeps_the_characters_of_each_section(sections: list[str]) -> None:
    shuffled = shuffle_sections(sections, "kk", NFC)
    assert [sorted(section) for section in shuffled] == [sorted(section) for section in sections]
