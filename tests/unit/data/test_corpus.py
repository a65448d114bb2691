"""Reading and splitting: exact counts, no overlap, every odd file."""

from collections import Counter
from hashlib import sha256
from itertools import chain
from pathlib import Path
from unicodedata import normalize

import pytest

from tests.properties import for_all
from tests.unit.data.properties import line_lists, texts
from tests.unit.data.support import NFC, write
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import Normalization
from trainer.data.corpus import SPLITS, SplitCorpus, SplitRule, blocks, corpus_sha256, read_lines, split_labels
from trainer.data.normalization import documents, normalized

RULE = SplitRule(holdout_fraction=0.1, test_fraction=0.2, seed=7)


def read(folder: Path, content: bytes, normalization: Normalization = NFC) -> list[str]:
    path = folder / "corpus.txt"
    path.write_bytes(content)
    return list(read_lines(path, normalization))


def labels_of(lines: list[str], rule: SplitRule = RULE) -> list[int]:
    return list(split_labels(lines, rule).tobytes())


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\n\n \t\n\xc2\xa0\na\n\n", ["a"]),
        (b"a\rb\n", ["a\rb"]),
        ("a\u2028b\u0085c\x0bd\x1ce\n".encode(), ["a\u2028b\u0085c\x0bd\x1ce"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", ["a", "\ufeffb"]),
        (b"\xef\xbb\xbf\nb", ["b"]),
        (b" a \n", [" a "]),
        ("e\u0301ˈaː\n".encode(), ["éˈaː"]),
        ("𐓀\U0001f600".encode(), ["𐓀😀"]),
    ],
)
def test_lines__end_at_newlines_only_and_blank_ones_are_dropped(
    tmp_path: Path, content: bytes, lines: list[str]
) -> None:
    assert read(tmp_path, content) == lines


def test_lines__are_composed_however_long_they_are(tmp_path: Path) -> None:
    for length in range((1 << 13) - 3, (1 << 13) + 3):
        assert read(tmp_path, ("a" * length + "e\u0301").encode()) == ["a" * length + "é"]


def test_lines__are_lowercased_letter_by_letter_where_that_is_asked(tmp_path: Path) -> None:
    lines = read(tmp_path, "ΑΣ ÉẞI\n".encode(), Normalization(lowercase=True))

    assert lines == ["ας".replace("ς", "σ") + " éßi"]


@for_all(texts)
def test_documents__of_a_text_are_the_lines_of_its_file(text: str) -> None:
    normal = normalized(text.replace("x", "\n").replace("y", "\r\n"), NFC)

    found = list(documents(normal))

    expected = [line.removesuffix("\r") for line in normal.split("\n")]
    assert [line.text for line in found] == [line for line in expected if line.strip()]
    assert all(normal[line.start : line.start + len(line.text)] == line.text for line in found)
    assert normalize("NFC", normal) == normal


@pytest.mark.parametrize(
    ("content", "position"),
    [
        (b"abc\n\xff", 4),
        (b"\xef\xbb\xbfab\n\xc3(", 6),
        (b"a\n\xed\xa0\x80", 2),
        (b"a\xc0\xafb", 1),
        (b"abc\xe2\x82", 3),
    ],
)
def test_lines__that_are_no_utf8_are_refused_with_their_place(tmp_path: Path, content: bytes, position: int) -> None:
    with pytest.raises(AppError, match=f"'corpus.txt' is not UTF-8: .* position {position}\\.") as caught:
        read(tmp_path, content)

    assert caught.value.code == ErrorCode.INVALID_INPUT
    assert str(tmp_path) not in caught.value.message


def test_lines__with_a_nul_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="NUL byte at position 5"):
        read(tmp_path, b"abc\nd\0")


def test_folder__is_its_text_files_by_name(tmp_path: Path) -> None:
    for name, text in {"b.txt": "2\n3", "a.TEXT": "1", "c.md": "x", "c.text": "4"}.items():
        (tmp_path / name).write_text(text)

    assert list(read_lines(tmp_path, NFC)) == ["1", "2", "3", "4"]
    listing = "".join(
        f"{sha256(text).hexdigest()}  {name}\n"
        for name, text in [("a.TEXT", b"1"), ("b.txt", b"2\n3"), ("c.text", b"4")]
    )
    assert corpus_sha256(tmp_path) == sha256(listing.encode()).hexdigest()


def test_corpus__that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.txt"):
        with pytest.raises(AppError) as caught:
            list(read_lines(path, NFC))
        assert caught.value.code == ErrorCode.DATA_NOT_FOUND
        assert str(tmp_path.parent) not in caught.value.message


@pytest.mark.parametrize("count", [3, 4, 5, 10, 11, 99, 1000])
def test_split__has_exact_counts_of_different_lines(count: int) -> None:
    counts = Counter(labels_of([f"line {i}" for i in range(count)]))

    validation, test = max(1, round(0.1 * count)), max(1, round(0.2 * count))
    assert counts == {0: count - validation - test, 1: validation, 2: test}


def test_split__is_the_same_for_the_same_seed_and_another_for_another() -> None:
    lines = [f"line {i}" for i in range(100)]

    assert labels_of(lines) == labels_of(lines)
    assert labels_of(lines) != labels_of(lines, RULE._replace(seed=8))


def test_split__draws_from_the_whole_text() -> None:
    labels = labels_of([f"line {i}" for i in range(1000)])

    for part in range(4):
        quarter = Counter(labels[part * 250 : part * 250 + 250])
        assert 25 <= quarter[2] <= 80
        assert 8 <= quarter[1] <= 50


@for_all(line_lists)
def test_split__keeps_equal_lines_together_and_every_split_filled(lines: list[str]) -> None:
    different = set(lines)
    if len(lines) < 3:
        with pytest.raises(AppError):
            labels_of(lines)
        return

    labels = labels_of(lines)

    assert set(labels) == {0, 1, 2}
    if len(different) >= 3:
        assert all(
            len({label for label, other in zip(labels, lines, strict=True) if other == line}) == 1 for line in different
        )


def test_split__many_equal_lines_shift_its_size_as_little_as_they_can() -> None:
    lines = ["often"] * 50 + [f"line {i}" for i in range(50)]
    for seed in range(30):
        counts = Counter(labels_of(lines, RULE._replace(seed=seed)))

        # A cut inside the 50 goes to their nearer end, 25 lines away at most, unless a split would stay empty.
        assert abs(counts[2] - 20) <= 30
        assert abs(counts[1] - 10) <= 40
        assert min(counts[0], counts[1], counts[2]) >= 1


@pytest.mark.parametrize("lines", [["a"] * 30, ["a", "b"] * 15])
def test_split__too_few_different_lines_are_cut_by_position(lines: list[str]) -> None:
    assert labels_of(lines) == [0] * 21 + [1] * 3 + [2] * 6


def test_split__without_test_takes_only_validation() -> None:
    counts = Counter(labels_of([f"line {i}" for i in range(50)], RULE._replace(test_fraction=0.0)))

    assert counts == {0: 45, 1: 5}


@pytest.mark.parametrize(
    ("lines", "sentence"), [([], "0 non-empty lines"), (["a"], "1 non-empty line,"), (["a", "b"], "3")]
)
def test_split__of_too_few_lines_says_how_many_are_needed(lines: list[str], sentence: str) -> None:
    with pytest.raises(AppError, match=sentence) as caught:
        labels_of(lines)

    assert caught.value.code == ErrorCode.CORPUS_EMPTY


def test_split_corpus__keeps_the_order_and_loses_no_line(tmp_path: Path) -> None:
    lines = [f"line {i}" for i in range(100)]
    corpus = SplitCorpus(write(tmp_path, lines), NFC, RULE)

    parts = {split: list(corpus.lines(split)) for split in corpus.splits}

    assert list(parts) == list(SPLITS)
    assert sorted(chain(*parts.values())) == sorted(lines)
    for part in parts.values():
        assert part == [line for line in lines if line in part]


def test_split_corpus__given_texts_replace_the_cut(tmp_path: Path) -> None:
    lines = [f"line {i}" for i in range(20)]
    corpus, validation, test = (
        write(tmp_path, lines),
        write(tmp_path, ["v"], "v.txt"),
        write(tmp_path, ["t", "u"], "t.txt"),
    )

    whole = SplitCorpus(corpus, NFC, RULE, validation=validation, test=test)
    half = SplitCorpus(corpus, NFC, RULE, validation=validation)

    assert list(whole.lines("train")) == lines
    assert (list(whole.lines("validation")), list(whole.lines("test"))) == (["v"], ["t", "u"])
    assert (len(list(half.lines("train"))), len(list(half.lines("test")))) == (16, 4)
    assert list(half.lines("validation")) == ["v"]


def test_split_corpus__an_empty_given_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="validation text has no line") as caught:
        SplitCorpus(write(tmp_path, ["a"] * 9), NFC, RULE, validation=write(tmp_path, [" "], "v.txt"))

    assert caught.value.code == ErrorCode.CORPUS_EMPTY


def test_blocks__hold_all_lines_in_order() -> None:
    lines = ["abc", "de", "", "fghij", "k"]

    assert list(blocks(lines, 5)) == [["abc", "de"], ["", "fghij"], ["k"]]
    assert list(blocks(lines, 1)) == [["abc"], ["de"], ["", "fghij"], ["k"]]
    assert list(blocks([], 5)) == []
