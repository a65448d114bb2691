"""Sections of texts, the shuffling of their characters, and the positions that are scored, counted by hand."""

from pathlib import Path
from random import Random

import numpy as np
from hypothesis import strategies
from numpy.typing import NDArray

from tests.support.properties import for_all
from tests.support.refusals import refused
from tests.support.section_losses import losses_of
from tests.support.tiny_models import NFC
from trainer.contracts.errors import ErrorCode
from trainer.contracts.experiments import TextOptions
from trainer.experiments.quantities import Scores
from trainer.experiments.sections import (
    Sections,
    TextLosses,
    are_among,
    cut_sections,
    frequent_characters,
    known_characters,
    scored_by_all,
    section_scores,
    shuffle_sections,
)

NAN = float("nan")
TEXT = Sections.of(["kedi", "xa", "q", "aʃq"])
FIRST = [(0, 0, 1, NAN, False), (0, 1, 2, 1.0, False), (0, 2, 3, 2.0, True), (0, 3, 4, 4.0, False)]
OTHERS = [(1, 0, 1, NAN, True), (1, 1, 2, 8.0, False), (2, 0, 1, NAN, False), (3, 0, 1, NAN, False)]
BY_CHARACTER = losses_of([*FIRST, *OTHERS, (3, 1, 2, 16.0, False), (3, 2, 3, 32.0, False)])
PIECES = [(0, 0, 2, NAN, False), (0, 2, 4, 1.5, False), (1, 0, 2, NAN, False), (2, 0, 1, NAN, False)]  # ke di, xa, q
BYTES = [(3, 0, 1, NAN, False), (3, 1, 2, 0.5, True), (3, 1, 2, 0.25, True)]  # a and two bytes of ʃ
BY_PIECE = losses_of([*PIECES, *BYTES, (3, 2, 3, 0.125, False)])


def numbers(scores: Scores) -> list[tuple[float, int, int]]:
    columns = scores.columns()
    return list(zip(columns.loss_sum, columns.n_scored, columns.n_total, strict=True))


def flags(values: NDArray[np.bool_]) -> str:
    found: list[bool] = values.tolist()
    return "".join("x" if value else "-" for value in found)


def test_unk__scores_every_character_but_the_first() -> None:
    assert numbers(section_scores(TEXT, BY_CHARACTER)) == [(7.0, 3, 3), (8.0, 1, 1), (0.0, 0, 0), (48.0, 2, 2)]
    assert numbers(section_scores(TEXT, BY_PIECE)) == [(1.5, 2, 2), (0.0, 0, 0), (0.0, 0, 0), (0.875, 2, 2)]


def test_skip__scores_characters_that_all_models_know() -> None:
    known = known_characters(TEXT, [BY_CHARACTER, BY_PIECE])
    assert flags(known) == "xx-x" + "-x" + "x" + "x-x"
    assert numbers(section_scores(TEXT, BY_CHARACTER, known)) == [(5.0, 2, 3), (8.0, 1, 1), (0.0, 0, 0), (32.0, 1, 2)]
    # "di" has an unknown d
    assert numbers(section_scores(TEXT, BY_PIECE, known)) == [(0.0, 0, 2), (0.0, 0, 0), (0.0, 0, 0), (0.125, 1, 2)]


def test_skip__can_ask_for_frequent_characters() -> None:
    frequent = frequent_characters(["abca", "da"], 2) & frequent_characters(iter(["aqb", "q"]), 1)
    assert frequent == {"a"}
    assert flags(are_among(TEXT, frequent)) == "----" + "-x" + "-" + "x--"
    assert flags(are_among(TEXT, set())) == "-" * 10


def test_sections__with_nothing_scored_are_dropped_for_all() -> None:
    known = known_characters(TEXT, [BY_CHARACTER, BY_PIECE])
    both = [section_scores(TEXT, losses, known) for losses in (BY_CHARACTER, BY_PIECE)]
    by_character, by_piece = scored_by_all(both, "kk")
    assert by_character.columns().section == by_piece.columns().section == (3,)
    assert numbers(by_character) == [(32.0, 1, 2)]
    assert numbers(by_piece) == [(0.125, 1, 2)]


def test_sections__none_of_which_is_scored_are_an_error() -> None:
    nothing = np.zeros(10, dtype=np.bool_)
    for said in ("'kk'", "Mode unk scores all positions."):
        with refused(ErrorCode.INVALID_INPUT, said):
            scored_by_all([section_scores(TEXT, BY_CHARACTER, nothing)], "kk")


def test_stored_losses__that_were_cut_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "losses" / "one"
    BY_PIECE.save(path)
    path.write_bytes(path.read_bytes()[:-8])
    with refused(ErrorCode.DATA_NOT_FOUND, "damaged: run it again"):
        TextLosses.load(path)


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
    [shuffled] = shuffle_sections(["u\u0308" * 30], "kk", NFC)
    assert "u\u0308" not in shuffled and "\u00fc" in shuffled, "it is normalized"


@for_all(strategies.lists(strategies.text("abcɑʃ ", max_size=30)))
def test_shuffle__keeps_the_characters_of_each_section(sections: list[str]) -> None:
    shuffled = shuffle_sections(sections, "kk", NFC)
    assert [sorted(section) for section in shuffled] == [sorted(section) for section in sections]
