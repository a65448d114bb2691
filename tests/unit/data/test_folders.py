"""Folders of text files: splits by their names, what is one text, what is refused, and what is left out."""

from pathlib import Path

import pytest

from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.contracts.wording import distinct, listed
from trainer.data.folders import folder_layout, folder_notes
from trainer.data.text import corpus_sha256, text_files

FIELDS = ("corpus", "validation_corpus", "test_corpus")
SPLITS = [
    ("train.txt", "valid.txt", "test.txt"),
    ("train.txt", "dev.txt", "test.txt"),
    ("Training.TXT", "VALIDATION.text", "Testing.txt"),
    ("ptb.train.txt", "ptb.val.txt", "ptb.test.txt"),
    ("wiki_train.txt", "wiki_devel.txt", "WIKI_TEST.txt"),
    ("train-en.txt", "eval-en.txt", "test-en.txt"),
    ("kk train 1.txt", "kk evaluation 1.txt", "kk test 1.txt"),
    ("қазақ.train.txt", "қазақ.development.txt", "қазақ.test.txt"),
    ("test_train.txt", "test_dev.txt", "test_test.txt"),
]


def folder_of(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text(f"text of {name}\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("names", SPLITS)
def test_splits__are_known_by_the_word_that_differs_in_their_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    found = folder_layout(folder_of(tmp_path, *names), "f")
    assert found.files == dict(zip(FIELDS, names, strict=True))
    train, validation, test = names
    assert found.notes == (
        f"The files of 'f' are splits by their names: {train} for training, {validation} for validation and {test} for"
        " test.",
    )


PARTLY = [
    (("train.txt",), {}, "train.txt for training. Lines of train.txt are drawn for validation and test."),
    (("train.txt", "dev.txt"), {"test_fraction"}, "train.txt for training and dev.txt for validation."),
    (
        ("train.txt", "dev.txt", "test.txt"),
        {"test_corpus"},
        "train.txt for training and dev.txt for validation. Left out, because the request names another: test.txt.",
    ),
    (
        ("a-train.txt", "a-test.txt"),
        {"corpus", "seed"},
        "a-train.txt for training and a-test.txt for test. Lines of a-train.txt are drawn for validation.",
    ),
]


@pytest.mark.parametrize(("names", "given", "uses"), PARTLY)
def test_splits__that_are_absent_or_named_elsewhere_are_said(
    tmp_path: Path, names: tuple[str, ...], given: set[str], uses: str
) -> None:
    found = folder_layout(folder_of(tmp_path, *names), "f", given)
    assert found.notes == (f"The files of 'f' are splits by their names: {uses}",)
    assert [*found.files.values()] == [name for name in names if name not in uses.partition("another: ")[2]]


UNCLEAR = [
    ("train.txt", "valid.txt", "test.txt", "other.txt"),
    ("train.txt", "test-a.txt", "test-b.txt"),
    ("en.train.txt", "en.test.txt", "de.train.txt", "de.test.txt"),
    ("train.txt", "en.test.txt"),
    ("train-1.txt", "train-2.txt", "valid.txt"),
    ("train.txt", "dev.txt", "valid.txt"),
    ("train.text", "train.txt", "test.txt"),
    ("more.txt", "valid.txt", "test.txt"),
    ("valid.txt", "test.txt"),
    ("test-en.txt", "test-de.txt"),
    ("test.txt",),
]


@pytest.mark.parametrize("names", UNCLEAR)
def test_splits__that_are_no_complete_set_are_refused_unless_split_by_is_given(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    folder = folder_of(tmp_path, *names)
    with refused(ErrorCode.INVALID_INPUT, f"whose names are otherwise equal: {listed(sorted(names))}. Rename them,"):
        folder_layout(folder, "f")
    found = folder_layout(folder, "f", {"corpus", "split_by"})
    assert found.files == {}
    assert found.notes[0].startswith("All files of 'f' are one text, also ")


ONE_TEXT = [
    (("a.txt", "b.txt"), ()),
    (("trained.txt", "latest.txt", "devotion.txt", "contest.text"), ()),
    (("a.txt", "b.txt", "the test.txt"), ("All files of 'f' are one text, also the test.txt.",)),
    (("train-1.txt", "train-2.txt"), ("All files of 'f' are one text, also train-1.txt and train-2.txt.",)),
]


@pytest.mark.parametrize(("names", "notes"), ONE_TEXT)
def test_files__of_at_most_one_kind_of_split_are_one_text(
    tmp_path: Path, names: tuple[str, ...], notes: tuple[str, ...]
) -> None:
    assert folder_layout(folder_of(tmp_path, *names), "f") == ({}, notes)


def test_files__about_the_folder_of_other_endings_and_in_subfolders_are_left_out_and_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "train.txt", "dev.txt", "test.txt")
    before = corpus_sha256(folder)
    folder_of(folder, "README.txt", "License-CC0.text", "CITATION.txt", "NOTICE.txt", "rows.jsonl", ".hidden")
    (folder / "more").mkdir()
    assert [file.name for file in text_files(folder)] == ["dev.txt", "test.txt", "train.txt"]
    assert corpus_sha256(folder) == before
    [note] = folder_notes(folder, "f")
    left_out = "CITATION.txt, License-CC0.text, NOTICE.txt, README.txt, more/ and rows.jsonl"
    assert note.startswith(f"Left out of 'f': {left_out}. A corpus is the .txt and .text files")
    found = folder_layout(folder, "f")
    assert (len(found.files), found.notes[1:]) == (3, (note,))
    assert folder_notes(folder / "train.txt", "f") == ()


def test_files__that_only_begin_like_readme_are_texts(tmp_path: Path) -> None:
    names = ["licensed.txt", "noticed.txt", "readmes and more.txt"]
    assert [file.name for file in text_files(folder_of(tmp_path, *names))] == names


def test_lists__of_many_names_end_with_their_number() -> None:
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert listed([str(n) for n in range(1010)], most=2) == "0, 1 and 1,008 more"
    assert distinct(["b", "a", "b"]) == ("b", "a")
