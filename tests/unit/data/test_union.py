"""Several texts cut as one: every line once, equal lines together, nothing of one text under another's name."""

from collections import Counter
from pathlib import Path

import pytest

from tests.support.tiny_models import NFC, write
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.corpus import SplitRule, split_labels
from trainer.data.union import CorpusUnion

RULE = SplitRule(holdout_fraction=0.2, test_fraction=0.0, seed=7)
TEXTS = [[f"first {i}" for i in range(40)], ["only", "only"], [f"third {i % 25}" for i in range(50)]]


def union_of(folder: Path, texts: list[list[str]]) -> CorpusUnion:
    paths = [write(folder, lines, f"{number}.txt") for number, lines in enumerate(texts)]
    return CorpusUnion(paths, NFC, RULE, folder)


def test_lines__are_split_as_if_all_stood_in_one_text(tmp_path: Path) -> None:
    union = union_of(tmp_path, TEXTS)

    whole = [line for lines in TEXTS for line in lines]
    labels = split_labels(whole, RULE).tobytes()
    held_out = list(union.all_lines("validation"))
    assert held_out == [line for line, label in zip(whole, labels, strict=True) if label == 1]
    assert len(held_out) == pytest.approx(0.2 * len(whole), abs=2)
    for number, lines in enumerate(TEXTS):
        kept = list(union.lines(number, "train"))
        out = list(union.lines(number, "validation"))
        assert Counter(kept + out) == Counter(lines)
        assert not set(kept) & set(held_out)  # equal lines, of whatever texts, are on one side


def test_text_that_changes_meanwhile__is_an_error(tmp_path: Path) -> None:
    for changed in (TEXTS[0] + ["more"], TEXTS[0][1:]):
        union = union_of(tmp_path, TEXTS)
        write(tmp_path, changed, "0.txt")
        with pytest.raises(AppError, match="has changed") as caught:
            list(union.lines(0, "train"))
        assert caught.value.code is ErrorCode.DATA_NOT_FOUND
