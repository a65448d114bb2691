"""Portions of a file that is scored line by line: complete lines with their numbers, and bad lines by name."""

from pathlib import Path

from trainer.contracts.errors import ErrorCode
from trainer.data.input_text import BadLine, Portion, read_portions


def test_portions__are_complete_lines_with_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes("\ufeffab\nc\u00e9\r\n\nlonger than that\nx\n".encode() + b"\xff\n\xfe\nlast")
    found = list(read_portions(file, 6))
    texts = {1: "ab\nc\u00e9\r", 3: "", 4: "longer than that", 5: "x", 8: "last"}
    parts = [part for part in found if isinstance(part, Portion)]
    assert parts == [Portion(number, text) for number, text in texts.items()]
    bad = [part for part in found if isinstance(part, BadLine)]
    assert [(part.number, part.error.message[:15]) for part in bad] == [(6, "It is not UTF-8"), (7, "It is not UTF-8")]
    assert found.index(bad[0]) == 4


def test_line_that_no_request_takes__is_named_and_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"a" * 2_000_001 + b"\nb\n" + "\U0001f600".encode() * 5_000_000 + b"\nc")
    found = list(read_portions(file, 100))
    assert [part.number for part in found] == [1, 2, 3, 4]
    assert [part.error.code for part in found if isinstance(part, BadLine)] == [ErrorCode.PAYLOAD_TOO_LARGE] * 2
