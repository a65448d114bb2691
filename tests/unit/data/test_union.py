"""Several texts cut as one: every line once, equal lines together, nothing of one text under another's name."""

from collections import Counter
from pathlib import Path

import pytest

from tests.support.tiny_models import NFC, lines_in, write
from trainer.data.corpus import SplitRule, line_digests, split_labels
from trainer.data.union import CorpusUnion

RULE = SplitRule(holdout_fraction=0.2, test_fraction=0.0, seed=7)
TEXTS = [[f"first {i}" for i in range(40)], ["only", "only"], [f"third {i % 25}" for i in range(50)]]


def union_of(folder: Path, texts: list[list[str]]) -> CorpusUnion:
    paths = [write(folder, lines, f"{number}.txt") for number, lines in enumerate(texts)]
    return CorpusUnion(paths, NFC, RULE, folder)


def test_lines__are_split_as_if_all_stood_in_one_text(tmp_path: Path) -> None:
    union = union_of(tmp_path, TEXTS)

    whole = [line for lines in TEXTS for line in lines]
    labels = split_labels([line_digests("\n".join(whole).encode(), RULE.seed)], RULE).tobytes()
    held_out = lines_in(union.all_lines("validation"))
    assert held_out == [line for line, label in zip(whole, labels, strict=True) if label == 1]
    assert len(held_out) == pytest.approx(0.2 * len(whole), abs=2)
    for number, lines in enumerate(TEXTS):
        kept = lines_in(union.lines(number, "train"))
        out = lines_in(union.lines(number, "validation"))
        assert Counter(kept + out) == Counter(lines)
        assert not set(kept) & set(held_out)  # equal lines, of whatever texts, are on one side
