"""Texts in tables: JSON lines and tab-separated columns become plain texts."""

from pathlib import Path

import pytest

from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.data.tables import as_text


def text_of(folder: Path, name: str, content: str) -> str:
    path, plain = folder / name, folder / "plain"
    path.write_bytes(content.encode())
    plain.mkdir()
    found = as_text(path, plain)
    assert (found == path) == (path.suffix == ".txt"), "a plain text is taken as it is"
    return found.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.jsonl", '{"id": 1, "text": "one"}\r\n\n"two"\n{"text": "three\\nfour"}', "one\ntwo\nthree\nfour\n"),
        ("a.jsonl", '\ufeff{"text": "қазақ"}\n', "қазақ\n"),
        ("a.tsv", "id\ttext\r\n1\tone\r\n\r\n2\ttwo\r\n", "one\ntwo\n"),
        ("a.tsv", "text\none\n", "one\n"),
        ("a.TSV", "one\ntwo", "one\ntwo\n"),
        ("a.txt", "{}\tx\n", "{}\tx\n"),
    ],
)
def test_table__is_read_by_its_field(tmp_path: Path, name: str, content: str, text: str) -> None:
    assert text_of(tmp_path, name, content) == text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "one"}\n{"text"', "line 2 is not JSON"),
        ("a.jsonl", "[" * 100_000, "'a.jsonl' is not a table of texts: line 1 is not JSON"),
        ("a.jsonl", '{"text": 1}', "line 1 must be a text"),
        ("a.jsonl", '{"line": "one"}', "line 1 must be a text"),
        ("a.tsv", "id\tline\n1\tone", "first line must name a column `text`"),
        ("a.tsv", "id\ttext\n1", "line 2 has no column `text`"),
    ],
)
def test_table__without_a_text_names_the_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, said):
        text_of(tmp_path, name, content)
