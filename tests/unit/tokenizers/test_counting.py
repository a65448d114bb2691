"""The size of a text: what Python's own methods count."""

from tests.support.properties import for_all
from tests.support.strategies import line_lists
from trainer.tokenizers.counting import CODE_POINTS, TextSize, text_size


def size_by_str(lines: list[str]) -> TextSize:
    text = "".join(lines)
    words = sum(len(line.replace("\u200b", " ").split()) for line in lines)
    return TextSize(len(lines), len(text), words, len(text.encode()))


@for_all(line_lists)
def test_size__is_what_str_counts(lines: list[str]) -> None:
    assert text_size("\n".join(lines)) == size_by_str(lines or [""])


def test_size__of_every_character_is_what_str_counts() -> None:
    characters = [chr(i) for i in range(CODE_POINTS) if not 0xD800 <= i < 0xE000 and chr(i) != "\n"]
    for between in ("", "a", " "):
        assert text_size(between.join(characters)) == size_by_str([between.join(characters)])
