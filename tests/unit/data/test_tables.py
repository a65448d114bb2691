"""Texts in tables: JSON lines and columns become plain texts."""

from pathlib import Path

import pytest

from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.data.tables import PlainText, as_text

RATINGS = "listener,language,mean_rating\nkk,ky,6.5\n"


def plain_text_of(folder: Path, name: str, content: str) -> PlainText:
    path, plain = folder / name, folder / "plain"
    path.write_bytes(content.encode())
    plain.mkdir()
    return as_text(path, plain)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.jsonl", '{"id": 1, "text": "one"}\r\n\n"two"\n{"text": "three\\nfour"}', "one\ntwo\nthree\nfour\n"),
        ("a.jsonl", '\ufeff{"text": "қазақ"}\n', "қазақ\n"),
        ("a.jsonl", '{"text": "a \\u0431 \\\\u0000 \\ud83d\\ude00"}', "a б \\u0000 😀\n"),
        ("a.jsonl", '{"text": "one\\r\\ntwo\\rthree"}', "one\ntwo\nthree\n"),
        ("a.tsv", "id\ttext\r\n1\tone\r\n\r\n2\ttwo\r\n", "one\ntwo\n"),
        ("a.tsv", "text\none\n", "one\n"),
        ("a.TSV", "id\ttext\r1\tone\r2\ttwo", "one\ntwo\n"),
        ("a.csv", '\ufefflabel,text\n0,"one, two"\n1,"three\nfour"\n,\n', "one, two\nthree\nfour\n"),
        ("a.CSV", "label;text\n0;one, two\n", "one, two\n"),
        ("a.csv", "text,,\none,,\n", "one\n"),
        ("a.tsv", "sentence\none two\n", "one two\n"),
        ("a.tsv", "cümle\nKış geldi.\nEvet, geldi.\n", "Kış geldi.\nEvet, geldi.\n"),
    ],
)
def test_table__is_read_by_its_field(tmp_path: Path, name: str, content: str, text: str) -> None:
    assert plain_text_of(tmp_path, name, content).path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("name", "content"), [("a.txt", "{}\tx\n"), ("a", "x"), ("r.csv", RATINGS)])
def test_plain_text_and_ratings__are_taken_as_they_are(tmp_path: Path, name: str, content: str) -> None:
    assert plain_text_of(tmp_path, name, content) == PlainText(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "one"}\n{"text"', "line 2 is not JSON"),
        ("a.jsonl", "[" * 100_000, "'a.jsonl': line 1 is not JSON"),
        ("a.jsonl", '{"text": 1}', "line 1 must be a text"),
        ("a.jsonl", '{"line": "one"}', "line 1 must be a text"),
        ("a.jsonl", '{"text": "one", "text": "two"}', "line 1 names `text` more than once"),
        ("a.jsonl", '\n{"text": "one", "of": [{"x": 1, "x": 2}]}', "line 2 names `x` more than once"),
        ("a.jsonl", '"one"\n{"text": "\\ud83d"}', "line 2 has half of a surrogate pair"),
        ("a.jsonl", '{"text": "one", "note": ["\\u0000"]}', "line 1 has a NUL character"),
        ("a.tsv", "id\tline\n1\tone", "it has no column `text`, but `id`, `line`: rename the column"),
        ("a.csv", "", "it is empty"),
        ("a.csv", f"{','.join(map(str, range(22)))}\n", "`19` and 2 more: rename the column"),
        ("a.tsv", "one\ntwo\n", "its first line may be a text or the name of its only column: write `text` above"),
        ("a.csv", "one two\nthree four\n", "its first line may be a text or the name of its only column"),
        ("a.tsv", "id\ttext\n1\tone\n2\ta\tb\n", "line 3 has 3 columns, and the first line names 2."),
        ("a.csv", "text,,\none,,\ntwo,,x\n", "line 3 has text in one of several columns without a name"),
        ("a.csv", "text,id\none\0,1\n", "byte 11 is NUL"),
    ],
)
def test_table__without_a_text_names_the_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, said):
        plain_text_of(tmp_path, name, content)


@pytest.mark.parametrize(
    "name", ["a.json", "a.NDJSON", "a.rtf", "a.docx", "a.flextext", "a.conllup", "a.sfm", "a.en", "a.v2"]
)
def test_other_formats__are_refused_by_their_names(tmp_path: Path, name: str) -> None:
    sentence = (
        f"'{name}' is not read: a plain text has a name that ends in .txt, a table or a transcript one that ends in"
    )
    with refused(ErrorCode.UNSUPPORTED_MEDIA_TYPE, sentence):
        plain_text_of(tmp_path, name, "x")


def test_archive__is_to_be_unpacked(tmp_path: Path) -> None:
    with refused(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "'a.txt.gz' is an archive. Unpack it"):
        plain_text_of(tmp_path, "a.txt.gz", "x")


CHAT = """@UTF8
@Begin
@Participants:	CHI Target_Child, MOT Mother
*CHI:	&-uh <I want> [/] I want (.) dat [: that] . \x15123_456\x15
%mor:\tpro|I v|want
*MOT:	you wan(t) xxx , Winnie_the_Pooh ?
*MOT:	no ‡ that is :D one „ eh ?
*CHI:	0 .
*CHI:	&=laughs .
*MOT:	+< he has no:t a choo@o &+th 0is +...
*MOT:	bye@s:eng
	and here +"/.
@End
"""


def test_transcript__is_its_main_lines_without_codes(tmp_path: Path) -> None:
    """As a reader of the CHAT manual would write them: what was said, and the signs at the end."""
    found = plain_text_of(tmp_path, "a.cha", CHAT)
    assert found.path.read_text(encoding="utf-8").splitlines() == [
        "uh I want I want dat.",
        "you want, Winnie the Pooh?",
        "no that is :D one eh?",
        "he has not a choo.",
        "bye and here.",
    ]
    assert found.notes == ("5 lines read without codes, by speakers MOT 4, CHI 1.",)
    assert found.number(2) == 2


def test_transcript__without_words_is_refused(tmp_path: Path) -> None:
    with refused(ErrorCode.INVALID_INPUT, "'a.cha': it has no main line with words"):
        plain_text_of(tmp_path, "a.cha", "@UTF8\n*CHI:\t0 .\n")


def test_table__says_how_many_texts_were_read_and_what_was_left_out(tmp_path: Path) -> None:
    found = plain_text_of(tmp_path, "a.csv", 'id,text\n1,one\n,\n\n , \n2,"two\nlines"\n3,four\n')
    assert found.notes == ("3 texts read from the field `text`.", "3 rows read, 2 empty rows left out.")
    assert [found.number(line) for line in (1, 2, 3, 4)] == [1, 2, 2, 3]
    assert PlainText(found.path).number(3) == 3
    (tmp_path / "plain" / "a.csv").unlink()
    (tmp_path / "plain").rmdir()
    assert plain_text_of(tmp_path, "a.csv", "line\nthe sun\n").notes == (
        "1 text read from the field `line`.",
        "The first line, `line`, is read as the name of the column.",
    )


def test_table__that_is_not_there_or_is_a_folder_is_no_table(tmp_path: Path) -> None:
    with refused(ErrorCode.DATA_NOT_FOUND, "The corpus file 'none.csv' cannot be read."):
        as_text(tmp_path / "none.csv", tmp_path)
    (tmp_path / "folder.json").mkdir()
    assert as_text(tmp_path / "folder.json", tmp_path) == PlainText(tmp_path / "folder.json")
