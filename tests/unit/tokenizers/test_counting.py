"""Counts of a text: those that Python's own methods give."""

from tests.support.properties import for_all
from tests.support.strategies import texts
from trainer.tokenizers.counting import CODE_POINTS, count_words


@for_all(texts)
def test_words__are_those_of_str_split(text: str) -> None:
    for padded in (text, f" {text}\n", f"a{text}b", text * 3):
        assert count_words(padded) == len(padded.split())


def test_words__end_at_every_white_space_of_python() -> None:
    text = "a".join(map(chr, range(CODE_POINTS)))

    assert count_words(text) == len(text.split())
    assert count_words("") == 0
