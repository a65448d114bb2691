"""`mt corpus check`: how a training would read a text, without a server and without new files."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, add_corpus, processes, some_text
from tests.support.libraries import stand_ins
from tests.support.run_shell import Shell, enter
from trainer.contracts.base import changed
from trainer.contracts.runs import Leak, Shares, SplitSizes
from trainer.training.inspect_corpus import CorpusInspection

STORED = ROOT / "tests" / "fixtures" / "tokenizers"
TEXT = "b a b\n\na , c\nd a\n"
GIVEN = ("--set", "validation_corpus=held", "--set", "test_corpus=tested")


class Checker(Shell):
    """Types `mt corpus check`, after which nothing runs and nothing was written."""

    def check(self, *words: str, code: int = 0) -> str:
        before = sorted(self.folder.rglob("*"))
        out = self.type("corpus", "check", *words, code=code)
        assert (sorted(self.folder.rglob("*")), processes(self.folder)) == (before, [])
        return out

    def found(self, *words: str) -> CorpusInspection:
        return CorpusInspection.model_validate_json(self.check(*words, "--json"))


@pytest.fixture(name="shell")
def shell_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Checker:
    for name, text in {"text": TEXT, "held": "a z\n", "tested": "c\nz z\n"}.items():
        add_corpus(tmp_path, text, name)
    enter(monkeypatch, capsys, tmp_path, tmp_path)
    return Checker(tmp_path, capsys)


def test_words__are_counted_cut_and_decoded_as_by_hand(shell: Checker) -> None:
    sets = ("--set", "max_seq_len=8", "--set", "batch_size=1")
    found = shell.found("text", "--tokenizer", "word", *GIVEN, *sets)
    assert (found.method, found.tokenizer_id, found.vocab_size) == ("word", None, 2 + 5)
    assert found.special_tokens == {"<UNK>": 0, "<eos>": 1}
    none = Leak(lines=0, plain_lines=0)
    nowhere = changed(none, validation=Shares(lines=0, plain_lines=0))
    assert found.splits == {
        "train": SplitSizes(lines=3, chars=13, tokens=11, unknown_tokens=0, unknown_chars=0, bytes=13),
        "validation": SplitSizes(lines=1, chars=3, tokens=3, unknown_tokens=1, unknown_chars=1, bytes=3, leak=none),
        "test": SplitSizes(lines=2, chars=4, tokens=5, unknown_tokens=2, unknown_chars=2, bytes=4, leak=nowhere),
    }
    assert (found.unknown_share, found.unknown_char_share) == (1 / 2, 1 / 3)
    assert (found.longest_line_chars, found.longest_line_tokens) == (5, 3)
    assert found.sample_tokens == ("<eos>", "b", "a", "b", "<eos>", "a", ",", "c")
    assert found.sample == "b a b\na, c"
    assert (found.inputs_shape, found.targets_shape, found.batches) == ((1, 8), (1, 8), 2)


def test_people__are_shown_vocabulary_sample_and_shapes(shell: Checker) -> None:
    shell.write("mine.txt", some_text(900))
    shapes = {
        ("--tokenizer", "word"): "inputs (4, 128), targets (4, 128);",
        ("--tokenizer", "char"): "inputs (4, 128), targets (4, 128);",
        (): "inputs (4, 128), targets (4, 128);",
        ("--tokenizer", "bpe", "--set", "model_family=gpt2", "--set", "tokenizer.vocab_size=60"): "inputs (8, 64)",
    }
    for words, shape in shapes.items():
        out = shell.check("mine.txt", *words)
        assert re.match("corpus +mine.txt, ", out)
        assert shape in out
        assert " tokens, of which special: " in out
        assert "of the text held out for validation " in out
        assert "\n\nabc " in out  # the text itself


def test_stored_tokenizer__is_used(shell: Checker) -> None:
    shutil.copytree(STORED, shell.artifacts / "tokenizers")
    [folder] = (shell.artifacts / "tokenizers").iterdir()
    shutil.copy(ROOT / "tests/fixtures/finished_run/data/corpus/text.txt", shell.folder / "data" / "corpus" / "old.txt")
    found = shell.found("old", "--tokenizer", folder.name)
    assert (found.tokenizer_id, found.method, found.vocab_size) == (folder.name, "char", 29)
    assert folder.name in shell.check("old", "--tokenizer", folder.name)


def test_mistakes__are_shown_a_line_each(shell: Checker) -> None:
    assert shell.check("text", "--set", "max_seq_len=7", "--set", "seed=-1", code=2) == ""
    assert ["max_seq_len" in line or "seed" in line for line in shell.err.splitlines()] == [True, True]


def test_folder_of_splits__is_used_by_its_files(shell: Checker) -> None:
    folders = shell.folder / "data" / "corpus" / "three", shell.folder / "mine"
    for folder in folders:
        folder.mkdir()
        for name, lines in (("train", "a b\nb\na a b\n"), ("valid", "a c\n"), ("test", "b b\n\nc\n")):
            (folder / f"{name}.txt").write_text(lines, encoding="utf-8")
    words = ("--tokenizer", "word", "--set", "max_seq_len=8")
    for name in ("three", "mine"):
        found = shell.found(name, *words)
        assert found.vocab_size == 2 + 2, "of the training split alone"
        assert {split: (sizes.lines, sizes.tokens) for split, sizes in found.splits.items()} == {
            **{"train": (3, 9), "validation": (1, 3), "test": (2, 5)}
        }
    other = shell.found("three", "--set", "test_corpus=tested", *words)
    leak = Leak(lines=0, plain_lines=0, validation=Shares(lines=0, plain_lines=0))
    expected = SplitSizes(lines=2, chars=4, tokens=5, unknown_tokens=3, unknown_chars=3, bytes=4, leak=leak)
    assert other.splits["test"] == expected
    uses = "train.txt for training, valid.txt for validation and test.txt for test."
    assert shell.found("mine", *words).notes == (f"The files of 'mine' are splits by their names: {uses}",)
    assert f"Note: The files of 'mine' are splits by their names: {uses}" in shell.check("mine", *words)
    (folders[0] / "train.txt").rename(folders[0] / "more.txt")
    whole = shell.found("three", "--set", "split_by=line", *words)
    assert sum(sizes.lines for sizes in whole.splits.values()) == 6, "a folder of texts, which is split by lines"


LIBRARY = """
def load_dataset(name, configuration):
    assert (name, configuration) == ("Salesforce/wikitext", "wikitext-2-v1")
    if {away}:
        raise ConnectionError("no route")
    return {{split: [{{"text": ""}}, {{"text": f" = {{split}} = \\n"}}] for split in ("train", "validation", "test")}}
"""


@pytest.mark.parametrize("away", [False, True])
def test_corpus_build__fetches_three_splits_or_names_them(shell: Checker, tmp_path: Path, *, away: bool) -> None:
    folder = shell.artifacts / "corpora" / "wikitext-2"
    words = ("corpus", "build", "--source", "wikitext-2")
    with stand_ins(tmp_path / "libraries", {"datasets.py": LIBRARY.format(away=away)}):
        out = shell.type(*words, "--json", code=int(away))
    if away:
        assert not folder.exists()
        assert all(f"wikitext-2/{name}.txt" in out for name in ("train", "valid", "test"))
        return
    assert out == '{"corpus":"wikitext-2"}\n'
    texts = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}
    wanted = {"train.txt": "train", "valid.txt": "validation", "test.txt": "test"}
    assert texts == {name: f"\n = {split} = \n" for name, split in wanted.items()}
    (folder / "train.txt").write_text("mine\n", encoding="utf-8")
    shell.type(*words)
    assert (folder / "train.txt").read_text(encoding="utf-8") == "mine\n", "it is there"


def test_corpus_build__without_its_library_says_what_to_do(shell: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    refusal = shell.refuse("corpus", "build", "--source", "wikitext-2")
    assert "scripts/setup.py --extra corpora`, or put wikitext-2/train.txt, wikitext-2/valid.txt" in refusal
