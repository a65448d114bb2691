"""Keys of lines: what leaves a text the same, what makes it another one, and when one text tells of another."""

from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from trainer.data.line_keys import LineKeys, keys_of, lines_of_corpus, lines_of_file, lines_of_text, stored_keys

LINES = [f"Évening number {number} of the straße" for number in range(40)]
TEXT = "\n".join(LINES) + "\n"
SAME: dict[str, str] = {
    "CRLF": TEXT.replace("\n", "\r\n"),
    "CR": TEXT.replace("\n", "\r"),
    "no newline at the end": TEXT.rstrip("\n"),
    "a byte order mark": f"\ufeff{TEXT}",
    "blank lines": TEXT.replace("\n", "\n\n \n"),
    "white space": TEXT.replace("\n", " \t\n").replace(" ", "  "),
    "no white space": TEXT.replace(" ", ""),
    "decomposed": normalize("NFD", TEXT),
    "capitals": TEXT.upper(),
    "another order": "\n".join(LINES[::-1]),
    "each line twice": TEXT + TEXT,
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_keys__are_the_same_however_lines_are_stored(tmp_path: Path, text: str) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(text.encode())
    expected = keys_of(LINES)
    assert lines_of_text(text).lines == lines_of_corpus(file).lines == lines_of_file(file).lines == expected
    assert (len(expected.keys), expected.characters) == (40, sum(len(line.replace("ß", "ss")) - 5 for line in LINES))


def test_keys__of_other_words_or_signs_differ() -> None:
    others = ["the cat", "the cat.", "the cats", "the  bat", "thecat s"]
    assert len(keys_of(others).keys) == 4, "'the cats' and 'thecat s' have one key"


def test_keys__of_a_folder_are_those_of_its_files(tmp_path: Path) -> None:
    for number, line in enumerate(LINES):
        (tmp_path / f"{number}.txt").write_text(line, encoding="utf-8")
    assert lines_of_file(tmp_path).lines == keys_of(LINES)
    (tmp_path / "0.txt").write_text("changed", encoding="utf-8")
    assert lines_of_file(tmp_path).lines == keys_of(["changed", *LINES[1:]])


def test_keys__of_a_file_leave_out_lines_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"good\n\xff bad\nalso good\n")
    assert lines_of_file(file).lines == keys_of(["good", "also good"])


def test_keys__of_a_very_long_line_count_as_many_characters_as_they_can() -> None:
    assert keys_of(["a" * 5_000, "b" * 1_023]).characters == 2 * 1_023


def test_keys__are_stored_as_they_are(tmp_path: Path) -> None:
    for lines in (LINES, []):
        keys = keys_of(lines)
        file = tmp_path / "keys"
        file.write_bytes(keys.written())
        found = stored_keys(file)
        assert ([*found.keys], found.characters) == ([*keys.keys], keys.characters)


def part(n_locked: int, n_others: int) -> LineKeys:
    """Keys of lines of one length, some of which are lines of the locked text."""
    return keys_of([*LINES_OF_ONE_LENGTH[:n_locked], *(f"other line {10_000 + number}" for number in range(n_others))])


LINES_OF_ONE_LENGTH = [f"locked line {1_000 + number}" for number in range(400)]
TELLS: list[tuple[int, int, bool]] = [
    (100, 10_000, True),  # a quarter of the locked text, hidden in another one
    (99, 10_000, False),
    (5, 5, True),  # five lines that are half of a text
    (5, 6, False),
    (4, 0, False),  # a few lines, which may be common ones
    (80, 80, True),  # more lines than are probed
    (80, 81, False),
    (0, 100, False),
    (0, 0, False),
]


@pytest.mark.parametrize(("n_locked", "n_others", "tells"), TELLS)
def test_text__tells_of_another_by_a_quarter_of_it_or_by_half_of_itself(
    n_locked: int, n_others: int, *, tells: bool
) -> None:
    assert part(n_locked, n_others).tells_of(keys_of(LINES_OF_ONE_LENGTH)) is tells


def test_text__is_not_another_for_common_short_lines() -> None:
    short = ["yes.", "no.", "mhm", "okay"]
    locked = keys_of([*short, *(f"a long line that stands nowhere else, number {number}" for number in range(6))])
    assert not keys_of([*short, *(f"something of another text, number {number}" for number in range(9))]).tells_of(
        locked
    )


_texts: st.SearchStrategy[list[str]] = st.lists(st.sampled_from([f"{number:03}" for number in range(12)]), max_size=12)


@for_all(st.tuples(_texts, _texts))
def test_text__tells_of_another_as_counted_by_hand(texts: tuple[list[str], list[str]]) -> None:
    """Lines of three characters, so that shares of characters are shares of lines."""
    text, other = texts
    own, its = set(text), set(other)
    common = len(own & its)
    is_half = common >= 5 and 2 * common >= len(own)
    is_quarter = common > 0 and 4 * common >= len(its)
    assert keys_of(text).tells_of(keys_of(other)) is (is_half or is_quarter)
