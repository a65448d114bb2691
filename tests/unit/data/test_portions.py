"""Portions of a file that is scored line by line: complete lines with their numbers, and bad lines by name."""

import gzip
from pathlib import Path

import pytest

from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.data.input_text import BadLine, Portion, read_portions, read_text


def test_portions__are_complete_lines_with_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes("\ufeffab\nc\u00e9\r\n\nlonger than that\nx\n".encode() + b"\xff\n\xfe\nlast")
    found = list(read_portions(file, 6))
    texts = {1: "ab\nc\u00e9\n", 4: "longer than that", 5: "x", 8: "last"}
    parts = [part for part in found if isinstance(part, Portion)]
    assert parts == [Portion(number, text) for number, text in texts.items()]
    bad = [part for part in found if isinstance(part, BadLine)]
    assert [(part.number, part.error.message[:15]) for part in bad] == [(6, "It is not UTF-8"), (7, "It is not UTF-8")]
    assert found.index(bad[0]) == 3


def test_line_that_no_request_takes__is_named_and_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"a" * 2_000_001 + b"\nb\n" + "\U0001f600".encode() * 5_000_000 + b"\nc")
    found = list(read_portions(file, 100))
    assert [part.number for part in found] == [1, 2, 3, 4]
    assert [part.error.code for part in found if isinstance(part, BadLine)] == [ErrorCode.PAYLOAD_TOO_LARGE] * 2


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"one\rtwo\rthree", {1: "one\ntwo\nthree"}),
        (b"one\rtwo\r\nthree\n\rfive\r", {1: "one\ntwo\nthree\n\nfive"}),
    ],
)
def test_lines__end_as_those_of_a_corpus(tmp_path: Path, content: bytes, texts: dict[int, str]) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    assert [*read_portions(file, 100)] == [Portion(number, text) for number, text in texts.items()]
    assert read_text(file, 100).removesuffix("\n") == texts[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("これは\n".encode("iso2022_jp"), "'text.txt' is ISO-2022-JP text. Save it as UTF-8."),
        ("one two\n".encode("utf-16-le"), "'text.txt' is UTF-16 text. Save it as UTF-8."),
        ("one two\n".encode("utf-16"), "'text.txt' is UTF-16 text. Save it as UTF-8."),
        (gzip.compress(b"one", mtime=0), "'text.txt' is a gzip file, not a text."),
    ],
)
def test_text_of_another_format__is_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    for read in (lambda: [*read_portions(file, 100)], lambda: read_text(file, 100)):
        with refused(ErrorCode.INVALID_INPUT, said):
            read()


def test_nul__is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"one\ntw\0o\n" + b"a\n" * 10_000 + "これ".encode("iso2022_jp"))
    bad = [(part.number, part.error.message) for part in read_portions(file, 10**6) if isinstance(part, BadLine)]
    assert bad == [
        (2, "It is not a text file: byte 2 is NUL. Give a plain text in UTF-8."),
        (10_003, "It is ISO-2022-JP text. Save it as UTF-8."),
    ]
    with refused(ErrorCode.INVALID_INPUT, "'text.txt' is"):
        read_text(file, 10**6)
