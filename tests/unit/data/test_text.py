"""The files of a corpus: which they are, what their lines are, and what is refused with its place."""

import os
import sys
from hashlib import sha256
from io import BytesIO
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all, for_all_pairs
from tests.support.refusals import refused
from tests.support.strategies import texts
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.text import (
    MAX_LINE_BYTES,
    TextSample,
    check_plain,
    corpus_sha256,
    count_kinds,
    line_blocks,
    plain_words,
    sample_text,
    shown_name,
    stream_blocks,
    text_files,
)


def lines_of(folder: Path, content: bytes) -> list[str]:
    path = folder / "corpus.txt"
    path.write_bytes(content)
    return list(chain.from_iterable(line_blocks(path)))


class ShortReads(BytesIO):
    """A stream that gives a few bytes at a time, as a pipe does."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._size)


class Endless(BytesIO):
    """A line without an end, which counts what was read of it."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None and size > 0
        self.taken += size
        return b"a" * size


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        *((b"", []), (b"a\nb", ["a", "b"]), (b"a\r\nb\r\n", ["a", "b"]), (b"a\r\r\nb\r", ["a", "b"])),
        *((b"\n\n \t\n\xc2\xa0\na\n\n", ["a"]), (b"a\rb\n", ["a", "b"])),
        ("a\u2028b\u0085c\x0bd\x1ce\n".encode(), ["a\u2028b\u0085c\x0bd\x1ce"]),
        *((b"\xef\xbb\xbfa\n\xef\xbb\xbfb", ["a", "\ufeffb"]), (b"\xef\xbb\xbf\nb", ["b"]), (b" a \n", [" a "])),
        ("𐓀\U0001f600".encode(), ["𐓀😀"]),
    ],
)
def test_lines__end_at_newlines_of_every_system_and_blank_ones_go(
    tmp_path: Path, content: bytes, lines: list[str]
) -> None:
    assert lines_of(tmp_path, content) == lines


@for_all_pairs(st.text(alphabet=st.sampled_from("aж\n\r 🙂\t\u2028"), max_size=40), st.integers(1, 5))
def test_lines__do_not_depend_on_the_size_of_the_reads(text: str, size: int) -> None:
    blocks = list(stream_blocks(ShortReads(text.encode(), size), "x"))
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()]
    assert [line for block in blocks for line in block.text.split("\n")] == lines
    assert all(block.text.encode() == block.utf8 for block in blocks)


FORMATS = (
    *(b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"),
    *(b"%PDF-", b"{\\rtf", b"\xd0\xcf\x11\xe0"),
)
"""UTF-16, gzip, zip, zstd, xz, bzip2, PDF, RTF and Office, which are named in place of a byte."""


@for_all_pairs(st.binary(max_size=7), st.integers(1, 4))
def test_bytes__that_are_no_text_are_named_where_python_finds_the_first(data: bytes, size: int) -> None:
    try:
        data.decode()
        expected = None
    except UnicodeDecodeError as error:
        expected = error.start
    try:
        list(stream_blocks(ShortReads(data, size), "x"))
    except AppError as error:
        assert error.code is ErrorCode.INVALID_INPUT
        if data.startswith(FORMATS) or b"\x1b$" in data:
            return
        position = int(error.message.split(": byte ")[1].split()[0])
        assert position == (expected if "not UTF-8" in error.message else data.index(b"\0"))
    else:
        assert expected is None and 0 not in data


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"abc\n\xff", "'corpus.txt' is not UTF-8: byte 4 cannot be decoded. Save the text as UTF-8."),
        (b"\xef\xbb\xbfab\n\xc3(", "byte 6 cannot be decoded"),
        ("ж\n".encode() * 600_000 + b"\xfe", "byte 1,800,000 cannot be decoded"),
        (b"abc\nd\0", "'corpus.txt' is not a text file: byte 5 is NUL"),
        ("abc\nこれ\n".encode("iso2022_jp"), "'corpus.txt' is ISO-2022-JP text. Save it as UTF-8."),
        (b"a\n" * 200_000 + "이\n".encode("iso2022_kr"), "'corpus.txt' is ISO-2022-KR text"),
        ("один\n".encode("utf-16-le") * 9, "'corpus.txt' is UTF-16 text. Save it as UTF-8."),
    ],
)
def test_bytes__that_are_no_text_are_refused_with_their_place(tmp_path: Path, content: bytes, sentence: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, sentence):
        lines_of(tmp_path, content)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\nb"])
def test_line__of_4_mib_is_taken_and_of_a_byte_more_is_refused(tmp_path: Path, ending: bytes) -> None:
    longest = b"a" * MAX_LINE_BYTES
    assert MAX_LINE_BYTES == 4 * 1024**2
    assert lines_of(tmp_path, b"x\n\n" + longest + ending)[1] == longest.decode()
    with refused(ErrorCode.INVALID_INPUT, "Line 3 of 'corpus.txt' has more than 4 MiB: give a text with"):
        lines_of(tmp_path, b"x\n\n" + longest + b"a" + ending)


def test_line__without_an_end_is_not_read_to_its_end() -> None:
    stream = Endless()
    with refused(ErrorCode.INVALID_INPUT, "Line 1 of 'x' has more than 4 MiB"):
        list(stream_blocks(stream, "x"))
    assert stream.taken <= MAX_LINE_BYTES + 2**20


def test_blocks__are_small_parts_of_a_large_text(tmp_path: Path) -> None:
    lines = [f"line {i}" for i in range(300_000)]
    (tmp_path / "corpus.txt").write_text("\n".join(lines))
    found = list(line_blocks(tmp_path / "corpus.txt"))
    assert list(chain.from_iterable(found)) == lines
    assert max(sum(map(len, block)) for block in found) <= 2**20


def test_folder__is_its_text_files_by_name(tmp_path: Path) -> None:
    texts = {"a.TEXT": "1", "b.txt": "2\n3", "c.text": "4"}
    for name, text in {**texts, "c.md": "x"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder.txt").mkdir()
    assert [file.name for file in text_files(tmp_path)] == list(texts)
    assert list(chain.from_iterable(line_blocks(tmp_path))) == ["1", "2", "3", "4"]
    listing = "".join(f"{sha256(text.encode()).hexdigest()}  {name}\n" for name, text in texts.items())
    assert corpus_sha256(tmp_path) == sha256(listing.encode()).hexdigest()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every file name is Unicode")
def test_folder__a_name_that_is_no_unicode_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    name = b"\xff.txt"
    (tmp_path / os.fsdecode(name)).write_bytes(b"1")
    assert corpus_sha256(tmp_path) == sha256(sha256(b"1").hexdigest().encode() + b"  " + name + b"\n").hexdigest()


def test_missing_corpus__is_refused_without_its_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.txt"):
        with pytest.raises(AppError) as caught:
            list(line_blocks(path))
        assert caught.value.code is ErrorCode.DATA_NOT_FOUND
        assert str(tmp_path.parent) not in caught.value.message


def test_name__is_shown_without_folders_and_control_characters() -> None:
    assert shown_name("C:\\texts/kk\n\u202e.txt") == "kk.txt"
    assert shown_name("letters/") == "letters"
    assert shown_name("a" * 100) == "a" * 64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't “SAY” rock-'n'-roll…", ["don't", "say", "rock-'n'-roll"]),
        ("oʻzbek tili; soʻz.", ["oʻzbek", "tili", "soʻz"]),
        ("[ˈkʰitʼap] t͡ʃoˑ ʔa!", ["ˈkʰitʼap", "t͡ʃoˑ", "ʔa"]),
        ("«كتاب»، بۇ؟ — 1871", ["كتاب", "بۇ", "", "1871"]),
        ("Cafe\u0301 café कि,", ["café", "café", "कि"]),
        ("Straße STRASSE ΣΟΦΟΣ", ["strasse", "strasse", "σοφοσ"]),
    ],
)
def test_plain_words__have_no_case_and_no_signs_at_their_ends(text: str, words: list[str]) -> None:
    assert plain_words(text) == words


@for_all(texts)
def test_plain_words__are_one_for_each_word_between_white_space(text: str) -> None:
    assert len(plain_words(text)) == len(text.split())


def test_kinds__grow_as_the_halves_of_a_text_show() -> None:
    assert count_kinds(["same"] * 100, 1000) == 1
    assert count_kinds([str(i) for i in range(100)], 1000) == pytest.approx(100_000)
    assert count_kinds([str(i) for i in range(100)], 0.5) == pytest.approx(50)
    assert count_kinds("x", 8) == 8
    assert count_kinds([*"abcd", "a", "b", "c", "d"], 2) == 4


def test_sample__is_bounded_and_spread_over_the_text(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"{name} " * 200_000)
    sample = sample_text(tmp_path)
    assert (sample.n_bytes < 900_000, sample.corpus_bytes) == (True, 1_200_000)
    assert {"a", "b", "c"} <= set(sample.text.split())
    (tmp_path / "short.txt").write_text("all of it " * 100)
    assert sample_text(tmp_path / "short.txt") == TextSample("all of it " * 100, 1000, 1000)


CONLLU = "# sent_id = 1\n# text = A b.\n1\tA\ta\tX\t_\t_\t2\tx\t_\t_\n2\tb.\tb.\tX\t_\t_\t0\troot\t_\t_\n"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('\ufeff<?xml version="1.0"?>\n<tmx>\n', "XML"),
        ("\n<!DOCTYPE html>\n<p>one\n", "XML"),
        ("<HTML><body>one\n", "XML"),
        ('<text id="1">\n<s>\nthe\tDT\n', "XML"),
        ("<corpus>\n <s>\none\n", "XML"),
        ("<!-- by hand -->\n<tei>\n", "XML"),
        ("% my thesis\n\\documentclass[11pt]{article}\n", "LaTeX"),
        ("@UTF8\r\n@Begin\r\n*MOT:\tone .\r\n", "a CHAT transcript"),
        ("*MOT:\tone .\n*CHI:\ttwo .\n%mor:\tn|two .\n", "a CHAT transcript"),
        ('File type = "ooTextFile"\nObject class = "TextGrid"\n', "a TextGrid of Praat"),
        ('"ooTextFile"\n"TextGrid"\n', "a TextGrid of Praat"),
        ("WEBVTT\n\n00:01.000 --> 00:04.000\none\n", "WebVTT"),
        ("1\n00:00:01,000 --> 00:00:04,000\none\n", "SubRip"),
        ("\\ref 1\n\\tx one two\n\\ge GLS GLS\n\n\\ref 2\n", "text with markers of fields"),
        ("\\_sh v3.0  400  Text\n\n\\id a\n\\name b\n", "text with markers of fields"),
        (CONLLU, "CoNLL-U"),
        ("# global.columns = ID FORM\n1\tone\n", "CoNLL-U"),
        (f"{CONLLU}3\tc\tc\tX\t_\t_\t0\troot\t_\t_\n".partition("b.\n")[2], "a table of 10 columns"),
        ("the\tDT\tthe\n\ndog\tNN\tdog\nbarks\tVB\tbark\n", "a table of 3 columns"),
        ('{"id": 1, "text": "one"}\n', "JSON"),
        ('[\n {"text": "one"}]\n', "JSON"),
    ],
)
def test_first_lines__of_another_format_are_refused_by_its_name(tmp_path: Path, content: str, kind: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(content.encode())
    with refused(ErrorCode.INVALID_INPUT, f"'a.txt' is {kind}, not a plain text: save its texts alone"):
        check_plain(file)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "one\ntwo\n",
        "<s> one two </s>\n<s> three </s>\n",
        "<unk> one\n<unk> two\n",
        "<start>\none <b>two</b>\n",
        "<3 you = <3 me\n",
        "*MOT:\tone .\n*CHI:\ttwo .\n",
        "@home is where\n",
        "one\ttwo\nthree\tfour\nfive\tsix\n",  # pairs with one tab may be text
        "one\ttwo\tthree\nfour\n",
        "a\tb\tc\nd\te\tf\n",  # two lines are few
        "\\begin is a word\nhere\n\\end\n",
        '{curly} and "quoted": one\n',
        "# Heading\n\none\n",
        "1\none\n2\ntwo\n",
        "a\tb\tc\n" * 2 + "x" * 5000,  # the line that is cut does not count, and the first two are few
    ],
)
def test_plain_text__may_begin_almost_like_another_format(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(content.encode())
    check_plain(file)
