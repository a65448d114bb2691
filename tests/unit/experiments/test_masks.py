"""The positions that are scored, counted by hand."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.experiments.masks import (
    Sections,
    are_among,
    frequent_characters,
    known_characters,
    scored_by_all,
    section_scores,
)
from trainer.experiments.quantities import Scores
from trainer.experiments.text_losses import TextLosses

Token = tuple[int, int, int, float, bool]
"""Section, start, end, loss, unknown."""


def losses_of(tokens: list[Token]) -> TextLosses:
    section = [token[0] for token in tokens]
    start, end = [token[1] for token in tokens], [token[2] for token in tokens]
    nats, is_unknown = [token[3] for token in tokens], [token[4] for token in tokens]
    return TextLosses(
        np.array(section, dtype=np.int64),
        np.array(start, dtype=np.int64),
        np.array(end, dtype=np.int64),
        np.array(nats, dtype=np.float64),
        np.array(is_unknown, dtype=np.bool_),
    )


NAN = float("nan")
TEXT = Sections.of(["kedi", "xa", "q", "aʃq"])
BY_CHARACTER = losses_of(
    [
        (0, 0, 1, NAN, False),
        (0, 1, 2, 1.0, False),
        (0, 2, 3, 2.0, True),
        (0, 3, 4, 4.0, False),
        (1, 0, 1, NAN, True),
        (1, 1, 2, 8.0, False),
        (2, 0, 1, NAN, False),
        (3, 0, 1, NAN, False),
        (3, 1, 2, 16.0, False),
        (3, 2, 3, 32.0, False),
    ]
)
BY_PIECE = losses_of(
    [
        (0, 0, 2, NAN, False),  # ke
        (0, 2, 4, 1.5, False),  # di
        (1, 0, 2, NAN, False),  # xa
        (2, 0, 1, NAN, False),  # q
        (3, 0, 1, NAN, False),  # a
        (3, 1, 2, 0.5, True),  # a byte of ʃ
        (3, 1, 2, 0.25, True),  # another byte of ʃ
        (3, 2, 3, 0.125, False),  # q
    ]
)


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
