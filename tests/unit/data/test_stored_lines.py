"""Lines in a temporary file: read as they were stored, as often as one likes, all of them or those of some labels."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.properties import for_all, for_all_pairs
from tests.support.strategies import any_line_lists
from tests.support.tiny_models import lines_in
from trainer.data.corpus import StoredLines
from trainer.data.text import TextBlock


def blocks_of(lines: list[str]) -> list[TextBlock]:
    texts = ["\n".join(lines), "ascii\nonly", "\n".join(reversed(lines))]
    return [TextBlock(text, text.encode()) for text in texts]


@for_all(any_line_lists)
def test_lines__are_read_as_they_were_stored(lines: list[str]) -> None:
    blocks = blocks_of(lines)
    stored = StoredLines()
    assert stored.add_all(blocks[:1]) + stored.add_all(blocks[1:]) == stored.add_all(blocks)
    assert stored.count == 2 * sum(block.text.count("\n") + 1 for block in blocks)
    expected = [block.text for block in blocks * 2]
    for _ in range(2):
        assert list(stored.blocks()) == expected


@for_all_pairs(any_line_lists, st.lists(st.integers(0, 2), min_size=1, max_size=9))
def test_lines__of_some_labels_are_those_that_a_loop_finds(lines: list[str], pattern: list[int]) -> None:
    blocks = blocks_of(lines)
    stored = StoredLines()
    stored.add_all(blocks)
    expected = lines_in(block.text for block in blocks)
    values = [pattern[number % len(pattern)] for number in range(len(expected))]
    labels: NDArray[np.uint8] = np.array(values, dtype=np.uint8)
    for wanted in ([0], [1, 2], [0, 1, 2]):
        found: dict[int, list[str]] = {label: [] for label in wanted}
        for label, block in stored.labelled_blocks(labels, wanted):
            found[label] += block.split("\n")
        for label in wanted:
            assert found[label] == [line for line, other in zip(expected, values, strict=True) if other == label]
