"""The text of the benchmark of n-grams: the same for us and for the rivals."""

from pathlib import Path

from benchmarks.ngram import write_text
from benchmarks.ngram_counting import ALPHABET, FIRST_ID, IDS_FILE, measure


def test_text__has_the_characters_of_the_ids(tmp_path: Path) -> None:
    size = write_text(tmp_path, 1000)
    text = (tmp_path / "text.txt").read_text(encoding="ascii")
    names = {3: "\n"} | dict(enumerate(f"_{ALPHABET}", FIRST_ID))
    characters = "".join(names.get(token, "") for token in (tmp_path / IDS_FILE).read_bytes())
    assert text.replace(" ", "") == characters
    assert size == len(characters)
    assert measure(tmp_path, 2).ngrams > 500
