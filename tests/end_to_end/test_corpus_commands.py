"""`mt corpus check`: what a training would make of a text, told without a server and without leaving anything."""

import shutil
import sys
from pathlib import Path
from typing import Protocol

import pytest

from tests.support import ROOT, add_corpus, environment_in, processes, some_text
from trainer.commands.main import main
from trainer.contracts.errors import ErrorBody, ErrorCode
from trainer.contracts.leaks import Leak
from trainer.contracts.runs import SplitSizes
from trainer.training.corpus_check import CorpusCheck

STORED = ROOT / "tests" / "fixtures" / "tokenizers"
TEXT = "b a b\n\na , c\nd a\n"
GIVEN = ("--set", "validation_corpus=held", "--set", "test_corpus=tested")


class Type(Protocol):
    def __call__(self, *words: str, code: int = 0) -> str: ...


@pytest.fixture(name="typed")
def typed_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Type `mt corpus check`; returns standard output, after which nothing runs and nothing was written."""
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    add_corpus(tmp_path, TEXT, "text")
    add_corpus(tmp_path, "a z\n", "held")
    add_corpus(tmp_path, "c\nz z\n", "tested")

    def typed(*words: str, code: int = 0) -> str:
        before = sorted(tmp_path.rglob("*"))
        found = main(["corpus", "check", *words])
        out, err = capsys.readouterr()
        assert found == code, err
        assert (sorted(tmp_path.rglob("*")), processes(tmp_path)) == (before, [])
        return out

    return typed


def test_words__are_counted_cut_and_decoded_as_by_hand(typed: Type) -> None:
    sets = ("--set", "max_seq_len=8", "--set", "batch_size=1")

    found = CorpusCheck.model_validate_json(typed("text", "--tokenizer", "word", *GIVEN, *sets, "--json"))

    assert (found.method, found.tokenizer_id, found.vocab_size) == ("word", None, 2 + 5)
    assert found.special_tokens == {"<UNK>": 0, "<eos>": 1}
    none = Leak(lines=0)
    assert found.splits == {
        "train": SplitSizes(lines=3, chars=13, tokens=11, unknown_tokens=0, unknown_chars=0, bytes=13),
        "validation": SplitSizes(lines=1, chars=3, tokens=3, unknown_tokens=1, unknown_chars=1, bytes=3, leak=none),
        "test": SplitSizes(lines=2, chars=4, tokens=5, unknown_tokens=2, unknown_chars=2, bytes=4, leak=none),
    }
    assert (found.unknown_share, found.unknown_char_share) == (1 / 2, 1 / 3)
    assert (found.longest_line_chars, found.longest_line_tokens) == (5, 3)
    assert found.sample_tokens == ("<eos>", "b", "a", "b", "<eos>", "a", ",", "c")
    assert found.sample == "b a b\na, c"
    assert (found.inputs_shape, found.targets_shape, found.batches) == ((1, 8), (1, 8), 2)


def test_people__are_shown_vocabulary_sample_and_shapes_of_the_familys_defaults(typed: Type, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(some_text(900), encoding="utf-8")
    shapes = {
        ("--tokenizer", "word"): "inputs (64, 30), targets (64, 30);",
        ("--tokenizer", "char"): "inputs (64, 256), targets (64, 256);",
        (): "inputs (64, 256), targets (64, 256);",
        ("--tokenizer", "bpe", "--set", "model_family=gpt2", "--set", "tokenizer.vocab_size=60"): "inputs (8, 512)",
    }
    for words, shape in shapes.items():
        out = typed("mine.txt", *words)
        assert out.startswith("corpus        mine.txt, ")
        assert shape in out
        assert " tokens, of which special: " in out
        assert "of the text held out for validation " in out
        assert "\n\nabc " in out  # the text itself


def test_tokenizer_that_is_there__is_the_one_that_is_used(typed: Type, tmp_path: Path) -> None:
    shutil.copytree(STORED, tmp_path / "artifacts" / "tokenizers")
    [folder] = (tmp_path / "artifacts" / "tokenizers").iterdir()
    shutil.copy(ROOT / "tests/fixtures/finished_run/data/corpus/text.txt", tmp_path / "data" / "corpus" / "old.txt")
    found = CorpusCheck.model_validate_json(typed("old", "--tokenizer", folder.name, "--json"))
    assert (found.tokenizer_id, found.method, found.vocab_size) == (folder.name, "char", 29)
    assert folder.name in typed("old", "--tokenizer", folder.name)


MISTAKES = [
    (["nix"], ErrorCode.DATA_NOT_FOUND, "There is no corpus 'nix'"),
    (["text", "--tokenizer", "morse"], ErrorCode.TOKENIZER_NOT_FOUND, "morse"),
    (["text", "--tokenizer", "char-0"], ErrorCode.TOKENIZER_NOT_FOUND, "There is no tokenizer 'char-0'"),
    (["text", "--set", "max_seq_len=7"], ErrorCode.INVALID_INPUT, "`max_seq_len` must be greater than or equal to 8"),
    (
        ["text", "--tokenizer", "bpe", "--set", "tokenizer.vocab_size=6", "--set", "max_seq_len=8"],
        ErrorCode.INVALID_INPUT,
        "must be at least ",
    ),
    (
        ["text", "--tokenizer", "word"],
        ErrorCode.CORPUS_TOO_SHORT,
        "`max_seq_len` is 30, but the corpus has 11 tokens only, less than one sequence: give a longer text.",
    ),
    (
        ["text", "--tokenizer", "char"],
        ErrorCode.CORPUS_TOO_SHORT,
        "`max_seq_len` is 256, but the corpus has 16 tokens only, less than one sequence: make `max_seq_len` 8 or"
        " less, or give a longer text.",
    ),
    ([], ErrorCode.INVALID_INPUT, "required: NAME"),
]


@pytest.mark.parametrize(("words", "code", "sentence"), MISTAKES)
def test_mistake__is_one_sentence(words: list[str], code: ErrorCode, sentence: str, typed: Type) -> None:
    error = ErrorBody.model_validate_json(typed(*words, "--json", code=2))
    assert (error.code, sentence in error.message) == (code, True)


def test_mistakes__are_told_to_a_person_a_line_each(typed: Type) -> None:
    assert typed("text", "--set", "max_seq_len=7", "--set", "seed=-1", code=2) == ""


def test_folder_of_splits__is_trained_selected_and_tested_by_its_files(typed: Type, tmp_path: Path) -> None:
    folders = tmp_path / "data" / "corpus" / "three", tmp_path / "mine"
    for folder in folders:
        folder.mkdir()
        for name, lines in (("train", "a b\nb\na a b\n"), ("valid", "a c\n"), ("test", "b b\n\nc\n")):
            (folder / f"{name}.txt").write_text(lines, encoding="utf-8")

    words = ("--tokenizer", "word", "--set", "max_seq_len=8", "--json")
    for name in ("three", "mine"):
        found = CorpusCheck.model_validate_json(typed(name, *words))
        assert found.vocab_size == 2 + 2, "of the training split alone"
        assert {split: (sizes.lines, sizes.tokens) for split, sizes in found.splits.items()} == {
            **{"train": (3, 9), "validation": (1, 3), "test": (2, 5)}
        }
    other = CorpusCheck.model_validate_json(typed("three", "--set", "test_corpus=tested", *words))
    expected = SplitSizes(lines=2, chars=4, tokens=5, unknown_tokens=3, unknown_chars=3, bytes=4, leak=Leak(lines=0))
    assert other.splits["test"] == expected

    (folders[0] / "train.txt").unlink()
    assert main(["validate", str(ROOT / "configs" / "word_lstm_keyboard.yaml"), "--corpus", "three"]) == 2
    (folders[0] / "more.txt").write_text("a\nb\nc\n", encoding="utf-8")
    whole = CorpusCheck.model_validate_json(typed("three", *words))
    assert sum(sizes.lines for sizes in whole.splits.values()) == 6, "a folder of texts, which is split by lines"


def test_missing_training_split__is_named_with_its_place(
    typed: Type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "corpus" / "wikitext-2"
    folder.mkdir()
    for name in ("valid", "test"):
        (folder / f"{name}.txt").write_text("a b\n", encoding="utf-8")
    assert main(["corpus", "check", "wikitext-2"]) == 2
    said = capsys.readouterr().err
    assert "There is no 'wikitext-2/train.txt', which is expected beside test.txt and valid.txt." in said


LIBRARY = """
def load_dataset(name, configuration):
    assert (name, configuration) == ("Salesforce/wikitext", "wikitext-2-v1")
    if {away}:
        raise ConnectionError("no route")
    return {{split: [{{"text": ""}}, {{"text": f" = {{split}} = \\n"}}] for split in ("train", "validation", "test")}}
"""


@pytest.mark.parametrize("away", [False, True])
def test_corpus_build__fetches_three_splits_or_names_them(
    typed: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, away: bool
) -> None:
    (tmp_path / "datasets.py").write_text(LIBRARY.format(away=away), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    folder = tmp_path / "data" / "corpus" / "wikitext-2"
    code = main(["corpus", "build", "--source", "wikitext-2", "--json"])
    monkeypatch.delitem(sys.modules, "datasets")

    out = capsys.readouterr().out
    if away:
        assert (code, folder.exists()) == (1, False)
        assert all(f"wikitext-2/{name}.txt" in out for name in ("train", "valid", "test"))
        return
    assert (code, out) == (0, '{"corpus":"wikitext-2"}\n')
    texts = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}
    wanted = {"train.txt": "train", "valid.txt": "validation", "test.txt": "test"}
    assert texts == {name: f"\n = {split} = \n" for name, split in wanted.items()}
    (folder / "train.txt").write_text("mine\n", encoding="utf-8")
    assert main(["corpus", "build", "--source", "wikitext-2"]) == 0, "it is there"
    assert (folder / "train.txt").read_text(encoding="utf-8") == "mine\n"


def test_corpus_build__without_its_library_or_of_an_unknown_source_says_what_to_do(
    typed: Type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert main(["corpus", "build", "--source", "wikitext-2"]) == 2
    assert (
        "scripts/setup.py --extra corpora`, or put wikitext-2/train.txt, wikitext-2/valid.txt"
        in capsys.readouterr().err
    )
    assert main(["corpus", "build", "--source", "wikitext-3"]) == 2
    assert "must be one of wikitext-2, oscar, culturax, or a folder of texts" in capsys.readouterr().err
