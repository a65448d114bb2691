"""Lines in a temporary file: read as they were stored, as often as one likes."""

from itertools import chain

from tests.support.properties import for_all
from tests.support.strategies import any_line_lists
from trainer.data.stored_lines import StoredLines
from trainer.data.text import TextBlock


@for_all(any_line_lists)
def test_lines__are_read_as_they_were_stored(lines: list[str]) -> None:
    texts = [text for text in ("\n".join(lines), "ascii\nonly", "\n".join(reversed(lines))) if text]
    blocks = [TextBlock(text, text.encode()) for text in texts]
    stored = StoredLines()

    assert [*stored.add(blocks[:1]), *stored.add(blocks[1:])] == [block.utf8 for block in blocks]
    assert stored.add_all(blocks) * 2 == stored.count

    expected = [line for text in texts * 2 for line in text.split("\n")]
    for _ in range(2):
        assert list(chain.from_iterable(stored.blocks())) == expected
