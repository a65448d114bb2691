"""Reading and splitting: exact counts, no overlap, by line, by file and by position."""

import tracemalloc
from collections import Counter
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray
from xxhash import xxh3_64_digest

from tests.support.properties import for_all, for_all_pairs
from tests.support.refusals import refused
from tests.support.strategies import any_line_lists, line_lists, rules, texts
from tests.support.tiny_models import NFC, lines_in, write
from trainer.config.validation import parse
from trainer.contracts.errors import ErrorCode
from trainer.contracts.tokenizers import Normalization, SplitBy
from trainer.data.corpus import (
    SPLITS,
    Split,
    SplitCorpus,
    SplitRule,
    StoredLines,
    line_digests,
    read_lines,
    split_labels,
)
from trainer.data.normalization import documents, normalized, normalized_lines
from trainer.data.text import TextBlock

RULE = SplitRule(holdout_fraction=0.1, test_fraction=0.2, seed=7)


def read(folder: Path, content: bytes, normalization: Normalization = NFC) -> list[str]:
    path = folder / "corpus.txt"
    path.write_bytes(content)
    return list(read_lines(path, normalization))


def labels_of(lines: list[str], rule: SplitRule = RULE) -> list[int]:
    blocks = [line_digests("\n".join(lines).encode(), rule.seed)] if lines else []
    return list(split_labels(blocks, rule).labels.tobytes())


def test_lines__are_composed_and_lowercased_letter_by_letter_on_request(tmp_path: Path) -> None:
    for length in range((1 << 13) - 3, (1 << 13) + 3):
        assert read(tmp_path, ("a" * length + "e\u0301").encode()) == ["a" * length + "é"]
    assert read(tmp_path, "ΑΣ ÉẞI\n".encode(), Normalization(lowercase=True)) == ["ασ éßi"]


LOWER = {
    "IŞIK": "ışık",
    "İZMİR": "izmir",
    "I\u0307I": "iı",
    "ışık ii": "ışık ii",
    "Í I\u0301 I\u0323 I\u0327\u0307": "í í ị i\u0327",
    "IĞDIR, DİYARBAKIR ΑΣ": "ığdır, diyarbakır ασ",
    "ƏLİ XALIQ": "əli xalıq",
}
"""Texts with their lower case in Turkish, as ICU and SpecialCasing.txt have it."""


@pytest.mark.parametrize("language", ["tr", "az"])
@pytest.mark.parametrize(("text", "lower"), LOWER.items())
def test_lines__are_lowercased_by_the_rules_of_their_language(text: str, lower: str, language: str) -> None:
    normalization = parse(Normalization, {"lowercase": language})
    assert normalized(text, normalization) == normalized(normalize("NFD", text), normalization) == lower
    assert normalized(text, NFC) == normalize("NFC", text)


@pytest.mark.parametrize(
    ("lines", "lowercase", "notes"),
    [
        (["ışık", "b", "c"], True, 1),
        (["İZMİR", "b", "c"], True, 1),
        (["I\u0307", "b", "c"], True, 1),
        (["ILK", "ÍÌ i", "c"], True, 0),
        (["ışık", "İ", "c"], "tr", 0),
        (["ışık", "İ", "c"], False, 0),
    ],
)
def test_split_corpus__says_that_a_lower_case_is_not_that_of_the_text(
    tmp_path: Path, lines: list[str], lowercase: bool | str, notes: int
) -> None:
    corpus = SplitCorpus(write(tmp_path, lines), parse(Normalization, {"lowercase": lowercase}), RULE)
    assert len(corpus.notes) == notes
    assert all("for Turkish give `lowercase: tr`" in note for note in corpus.notes)


@for_all(st.lists(st.text(alphabet="aéIİ\u0301\u0307\u0327 Σʼ\u1161\u1100🙂", max_size=300), min_size=1))
def test_lines__are_normalized_together_as_one_by_one(lines: list[str]) -> None:
    for normalization in (NFC, Normalization(lowercase=True), Normalization(lowercase="tr")):
        many = lines * 9
        plain = "\n".join(normalized(line, normalization) for line in many)
        assert normalized_lines("\n".join(many), normalization) == plain


@for_all(texts)
def test_documents__of_a_text_are_the_lines_of_its_file(text: str) -> None:
    normal = normalized(text.replace("x", "\n").replace("y", "\r\n"), NFC)
    found = list(documents(normal))
    expected = [line.removesuffix("\r") for line in normal.split("\n")]
    assert [line.text for line in found] == [line for line in expected if line.strip()]
    assert all(normal[line.start : line.start + len(line.text)] == line.text for line in found)
    assert normalize("NFC", normal) == normal


@pytest.mark.slow
def test_split__holds_a_few_bytes_of_a_line_in_memory() -> None:
    lines, of_block = 500_000, 10_000
    tracemalloc.start()
    try:
        blocks = ("\n".join(map(str, range(start, start + of_block))).encode() for start in range(0, lines, of_block))
        labels = split_labels((line_digests(block, RULE.seed) for block in blocks), RULE).labels
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(labels) == lines
    assert peak_bytes < 12 * lines


def labels_by_walking(lines: list[str], rule: SplitRule) -> list[int]:
    """Return the split of each line as a walk through the sorted digests gives it."""
    digests = [int.from_bytes(xxh3_64_digest(line.encode(), rule.seed), "big") for line in lines]
    sizes = Counter(sorted(digests))
    wanted = {
        label: max(1, round(fraction * len(lines)))
        for label, fraction in ((2, rule.test_fraction), (1, rule.holdout_fraction))
        if fraction
    }
    if len(sizes) <= len(wanted):
        held_out = [label for label, size in reversed(wanted.items()) for _ in range(size)]
        return [0] * (len(lines) - len(held_out)) + held_out
    labels = dict.fromkeys(sizes, 0)
    for label, room in wanted.items():
        free = [digest for digest in sizes if not labels[digest]]
        if label == 2 and len(free) > 2:  # the last of the smallest is left to the validation split
            free.remove(min(reversed(free), key=sizes.__getitem__))
        most = max(1, room // 2)
        for digest in [*free]:
            if sizes[digest] <= min(room, most) and len(free) > 1:
                free.remove(digest)
                labels[digest], room = label, room - sizes[digest]
        while room > 0 and len(free) > 1:
            digest = min(reversed(free), key=sizes.__getitem__)
            if label in labels.values() and abs(room - sizes[digest]) >= room:
                break
            free.remove(digest)
            labels[digest], room = label, room - sizes[digest]
    return [labels[digest] for digest in digests]


repeated_lines = st.lists(st.integers(1, 30), max_size=40).map(
    lambda counts: [f"line {number}" for number, count in enumerate(counts) for _ in range(count)]
)


@for_all_pairs(line_lists | repeated_lines, rules)
def test_split__equals_a_walk_through_the_digests(lines: list[str], rule: SplitRule) -> None:
    for copies in (1, 3):
        many = [*lines, *(f"{number % 7}" for number in range(9))] * copies
        labels = labels_of(many, rule)
        assert labels == labels_by_walking(many, rule)
        assert set(labels) == ({0, 1, 2} if rule.test_fraction else {0, 1})


@for_all_pairs(repeated_lines, rules)
def test_split__has_its_size_as_near_as_the_groups_of_equal_lines_allow(lines: list[str], rule: SplitRule) -> None:
    lines += ["a", "b", "c", "c"]
    labels = dict(zip(lines, labels_of(lines, rule), strict=True))
    sizes = Counter(lines)
    held_out = [(2, rule.test_fraction), (1, rule.holdout_fraction)]
    for label, wanted in ((label, max(1, round(share * len(lines)))) for label, share in held_out if share):
        inside = [sizes[line] for line in labels if labels[line] == label]
        outside = sorted(sizes[line] for line in labels if labels[line] < label)
        outside = outside[1:] if label == 2 else outside  # the smallest is for the validation split
        missing = wanted - sum(inside)
        assert all(abs(missing - size) >= abs(missing) for size in outside) or len(outside) == 1
        assert missing >= 0 or len(inside) == 1 or 2 * -missing < max(inside)


@for_all_pairs(line_lists | repeated_lines, rules)
def test_test_split__does_not_depend_on_the_validation_share(lines: list[str], rule: SplitRule) -> None:
    lines += ["a", "b", "c", "c"]
    rule = rule._replace(test_fraction=rule.test_fraction or 0.1)
    labels = [labels_of(lines, rule._replace(holdout_fraction=share)) for share in (rule.holdout_fraction, 0.05, 0.0)]
    tests = [[line for line, label in zip(lines, one, strict=True) if label == 2] for one in labels]
    assert tests[0] == tests[1] == tests[2]


@pytest.mark.parametrize("share", [0.08, 0.1, 0.2, 0.5])
def test_split__leaves_a_frequent_line_to_the_training(tmp_path: Path, share: float) -> None:
    copies = round(100 * share / (1 - share))
    lines = [f"line {number}" for number in range(100)] + ["often"] * copies
    wanted = {"validation": round(0.1 * len(lines)), "test": round(0.1 * len(lines))}
    for seed in range(200):
        corpus = SplitCorpus(write(tmp_path, lines), NFC, SplitRule(0.1, 0.1, seed))
        parts = parts_of(corpus)
        assert {split: len(part) for split, part in parts.items()} == {
            "train": len(lines) - 2 * wanted["test"],
            **wanted,
        }
        assert parts["train"].count("often") == copies
        assert corpus.notes == (
            f"1 line of the corpus, repeated {copies} times in all, would be more than half of a held-out split:"
            " training has all copies.",
        )


def test_split__of_many_lines_keeps_sizes_and_equal_lines_together() -> None:
    lines = [str(number % 40_000) for number in range(60_000)] + ["often"] * 20_000
    labels = labels_of(lines)
    assert Counter(labels) == {0: 56_000, 1: 8_000, 2: 16_000}
    assert len(set(zip(lines, labels, strict=True))) == 40_001
    assert dict(zip(lines, labels, strict=True))["often"] == 0
    pairs = [str(number // 2) for number in range(50_014)]
    counts = Counter(labels_of(pairs, RULE._replace(test_fraction=0.49)))
    assert counts == {0: 20_508, 1: 5_000, 2: 24_506}, "49 % are 24,507 lines, and 10 % are 5,001"


def test_split__of_few_different_lines_is_by_position_and_of_too_few_none(tmp_path: Path) -> None:
    for lines, shown in ((["a"] * 30, "1 different line"), (["a", "b"] * 15, "2 different lines")):
        assert labels_of(lines) == [0] * 21 + [1] * 3 + [2] * 6
        [note] = SplitCorpus(write(tmp_path, lines), NFC, RULE).notes
        assert note.startswith(f"The corpus has only {shown}, fewer than splits: they are cut by position")
    for few, sentence in (("", "0 non-empty lines"), ("a", "1 non-empty line,"), ("ab", "3")):
        with refused(ErrorCode.CORPUS_EMPTY, sentence):
            labels_of(list(few))


def parts_of(corpus: SplitCorpus) -> dict[Split, list[str]]:
    return {split: lines_in(corpus.lines(split)) for split in corpus.splits}


@for_all_pairs(any_line_lists, rules)
def test_split_corpus__is_disjoint_complete_and_of_the_wanted_sizes(lines: list[str], rule: SplitRule) -> None:
    expected = [line for line in (normalize("NFC", line.removesuffix("\r")) for line in lines) if line.strip()]
    shares: dict[Split, float] = {"validation": rule.holdout_fraction, "test": rule.test_fraction}
    wanted = {name: max(1, round(share * len(expected))) for name, share in shares.items() if share > 0}
    groups = Counter(expected)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.txt"
        path.write_bytes("\n".join(lines).encode())
        if len(expected) < 1 + len(wanted):
            with refused(ErrorCode.CORPUS_EMPTY):
                SplitCorpus(path, NFC, rule)
            return
        corpus = SplitCorpus(path, NFC, rule)
        parts = parts_of(corpus)
        assert parts == parts_of(SplitCorpus(path, NFC, rule, scratch=Path(folder)))
    assert list(parts) == ["train", *wanted]
    assert Counter(chain(*parts.values())) == groups
    for part in parts.values():
        rest = iter(expected)
        assert all(line in rest for line in part), "the order of the text"
    if rule.by == "position":
        assert list(chain(*parts.values())) == expected
    elif len(groups) > len(wanted):
        assert sum(len(set(part)) for part in parts.values()) == len(groups)
    most = 1 if rule.by == "position" or len(groups) <= len(wanted) else max(groups.values())
    for name, size in wanted.items():
        assert abs(len(parts[name]) - size) <= (2 * most if most > 1 else len(wanted) - 1)


def split_by_file(folder: Path, sizes: list[int], seed: int = 1, rule: SplitRule = RULE) -> dict[Split, list[int]]:
    """Write files of so many lines and return the sizes of those that each split has, checked to be whole."""
    for number, size in enumerate(sizes):
        write(folder, [f"{number} {i % 3}" for i in range(size)], f"{number:03}.txt")
    parts = parts_of(SplitCorpus(folder, NFC, rule._replace(seed=seed, by="file")))
    found: dict[Split, list[int]] = {}
    for split, lines in parts.items():
        counts = Counter(int(line.split()[0]) for line in lines)
        assert all(count == sizes[number] for number, count in counts.items())
        found[split] = list(counts.values())
    assert sorted(chain(*found.values())) == sorted(size for size in sizes if size)
    return found


def test_split__by_file_draws_complete_files_near_the_share_by_seed(tmp_path: Path) -> None:
    tests: list[list[str]] = []
    for seed in (1, 1, 2):
        draw = split_by_file(tmp_path, [10] * 50, seed)
        assert {split: len(files) for split, files in draw.items()} == {"train": 35, "validation": 5, "test": 10}
        tests.append(lines_in(SplitCorpus(tmp_path, NFC, RULE._replace(seed=seed, by="file")).lines("test")))
    assert tests[0] == tests[1] != tests[2]


@for_all_pairs(st.lists(st.integers(1, 30), min_size=3, max_size=12), st.integers(0, 9))
def test_test_split__by_file_does_not_depend_on_the_validation_share(sizes: list[int], seed: int) -> None:
    with TemporaryDirectory() as folder:
        rules = [RULE._replace(holdout_fraction=share) for share in (0.1, 0.4, 0.0)]
        tests = [split_by_file(Path(folder), sizes, seed, rule)["test"] for rule in rules]
    assert tests[0] == tests[1] == tests[2]


def test_split__by_file_leaves_the_large_ones_to_the_training(tmp_path: Path) -> None:
    for seed in range(20):
        assert split_by_file(tmp_path, [1000, 12, 0, 11, 900], seed)["train"] in ([1000, 900], [900, 1000])


@for_all_pairs(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(0, 9))
def test_split__by_file_fills_every_split_or_is_refused(sizes: list[int], seed: int) -> None:
    files = sum(size > 0 for size in sizes)
    said = f"has {files} file{'s' * (files != 1)} with text, but this training needs at least 3: one for each split."
    with TemporaryDirectory() as folder:
        if files >= 3:
            assert set(split_by_file(Path(folder), sizes, seed)) == set(SPLITS)
            return
        with refused(ErrorCode.CORPUS_EMPTY, said if sum(sizes) >= 3 else ""):
            split_by_file(Path(folder), sizes, seed)
        path = write(Path(folder), [f"line {i}" for i in range(9)])
        with refused(ErrorCode.CORPUS_EMPTY, "has 1 file with text, but"):
            SplitCorpus(path, NFC, RULE._replace(by="file"))


@pytest.mark.parametrize("by", ["file", "position"])
def test_split_corpus__with_given_texts_needs_nothing_cut(tmp_path: Path, by: SplitBy) -> None:
    corpus, given = write(tmp_path, ["a", "b"]), write(tmp_path, ["v"], "v.txt")
    parts = parts_of(SplitCorpus(corpus, NFC, RULE._replace(by=by), validation=given, test=given))
    assert parts == {"train": ["a", "b"], "validation": ["v"], "test": ["v"]}


def test_split_corpus__is_not_changed_with_its_files(tmp_path: Path) -> None:
    path, given = write(tmp_path, [f"line {i}" for i in range(10)]), write(tmp_path, ["v"], "v.txt")
    corpus = SplitCorpus(path, NFC, RULE, validation=given)
    before = parts_of(corpus)
    path.unlink()
    write(tmp_path, ["w"], "v.txt")
    assert parts_of(corpus) == before


def test_split_corpus__given_texts_replace_the_cut(tmp_path: Path) -> None:
    lines = [f"line {i}" for i in range(20)]
    corpus, validation = write(tmp_path, lines), write(tmp_path, ["v"], "v.txt")
    parts = parts_of(SplitCorpus(corpus, NFC, RULE, validation=validation, test=write(tmp_path, ["t", "u"], "t.txt")))
    assert parts == {"train": lines, "validation": ["v"], "test": ["t", "u"]}
    half = parts_of(SplitCorpus(corpus, NFC, RULE, validation=validation))
    assert [len(half["train"]), half["validation"], len(half["test"])] == [16, ["v"], 4]
    with refused(ErrorCode.CORPUS_EMPTY, "validation corpus has only empty lines"):
        SplitCorpus(corpus, NFC, RULE, validation=write(tmp_path, [" "], "empty.txt"))


def blocks_of(lines: list[str]) -> list[TextBlock]:
    texts = ["\n".join(lines), "ascii\nonly", "\n".join(reversed(lines))]
    return [TextBlock(text, text.encode()) for text in texts]


@for_all(any_line_lists)
def test_lines__are_read_as_they_were_stored(lines: list[str]) -> None:
    blocks = blocks_of(lines)
    stored = StoredLines()
    assert stored.add_all(blocks[:1]) + stored.add_all(blocks[1:]) == stored.add_all(blocks)
    assert stored.count == 2 * sum(block.text.count("\n") + 1 for block in blocks)
    expected = [block.text for block in blocks * 2]
    for _ in range(2):
        assert list(stored.blocks()) == expected


@for_all_pairs(any_line_lists, st.lists(st.integers(0, 2), min_size=1, max_size=9))
def test_lines__of_some_labels_are_those_that_a_loop_finds(lines: list[str], pattern: list[int]) -> None:
    blocks = blocks_of(lines)
    stored = StoredLines()
    stored.add_all(blocks)
    expected = lines_in(block.text for block in blocks)
    values = [pattern[number % len(pattern)] for number in range(len(expected))]
    labels: NDArray[np.uint8] = np.array(values, dtype=np.uint8)
    for wanted in ([0], [1, 2], [0, 1, 2]):
        found: dict[int, list[str]] = {label: [] for label in wanted}
        for label, block in stored.labelled_blocks(labels, wanted):
            found[label] += block.split("\n")
        for label in wanted:
            assert found[label] == [line for line, other in zip(expected, values, strict=True) if other == label]
