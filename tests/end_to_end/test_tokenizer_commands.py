"""`mt tokenizer train`, `show`, `list`: one object or one table, one sentence for a mistake, no service to look."""

import asyncio
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from tests.support import ROOT, add_corpus, environment_in, gone, mt, some_text
from tests.support.waiting import PATIENCE_SECONDS, until
from trainer.artifacts.runs import RunStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.commands.main import main
from trainer.contracts.errors import ErrorBody, ErrorCode
from trainer.contracts.tokenizer_jobs import TokenizerList, TokenizerStatus

STORED = ROOT / "tests" / "fixtures" / "tokenizers"
STORED_ID = "char-222eba1359b17193"


class Type(Protocol):
    """Types an `mt` command; returns what it writes to standard output."""

    def __call__(self, *words: str, code: int = 0) -> str: ...


@pytest.fixture(name="typed")
def typed_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """In a folder of its own, in this process."""
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def typed(*words: str, code: int = 0) -> str:
        assert main(words) == code
        return capsys.readouterr().out

    return typed


def test_train__from_files_of_this_machine_to_a_tokenizer_that_a_run_uses(typed: Type, tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text(), "stored")
    (tmp_path / "mine.txt").write_text("ˈʃɑːr\nˈqɑzɑq\n" * 20, encoding="utf-8")
    words = ("tokenizer", "train", "--method", "char", "--corpus", "stored", "--corpus", "mine.txt")
    options = ("--set", "holdout_fraction=0.1", "--set", "seed=5")

    out = typed(*words, *options, "--json")

    assert out.count("\n") == 1
    status = TokenizerStatus.model_validate_json(out)
    assert (status.status, status.label) == ("completed", "stored, mine")
    manifest = TokenizerStore(tmp_path / "artifacts").get(status.tokenizer_id).completed_manifest()
    assert (manifest.holdout_fraction, manifest.seed, manifest.stats) == (0.1, 5, status.stats)
    assert [corpus.name for corpus in manifest.corpus] == ["stored", manifest.corpus[1].sha256]
    (tmp_path / "mine.txt").unlink()  # it was copied

    people = typed("tokenizer", "show", status.tokenizer_id)
    assert status.stats is not None
    for shown in (
        f"{status.tokenizer_id}: completed",
        f"{status.vocab_size} tokens",
        f"{status.stats.holdout_lines} lines, {status.stats.token_count} tokens",
        f"{status.stats.coverage:.2%} of tokens",
        f"{status.stats.oov_rate:.2%} of tokens",
        f"1.000 per character, {status.stats.avg_tokens_per_word:.3f} per word",
    ):
        assert shown in people
    sizes = ("model.embedding_size=8", "model.hidden_size=8", "max_seq_len=16", "num_epochs=1", "threads=1")
    given = [word for field in (*sizes, f"tokenizer_id={status.tokenizer_id}") for word in ("--set", field)]
    typed("train", "--corpus", "stored", *given, "--json")
    [run] = RunStore(tmp_path / "artifacts").all()
    used = run.completed_manifest().tokenizer
    assert used is not None and used.id == status.tokenizer_id


def test_show_and_list__start_nothing(typed: Type, tmp_path: Path) -> None:
    assert typed("tokenizer", "list") == "No tokenizers yet. Train one with: mt tokenizer train\n"
    assert TokenizerList.model_validate_json(typed("tokenizer", "list", "--json")).tokenizers == ()
    shutil.copytree(STORED, tmp_path / "artifacts" / "tokenizers")
    broken = tmp_path / "artifacts" / "tokenizers" / "char-0000000000000000"
    broken.mkdir()
    (broken / "manifest.json").write_text("{}", encoding="utf-8")
    listed = TokenizerList.model_validate_json(typed("tokenizer", "list", "--json")).tokenizers
    shown = [TokenizerStatus.model_validate_json(typed("tokenizer", "show", t.tokenizer_id, "--json")) for t in listed]
    assert list(listed) == shown
    assert {t.tokenizer_id: t.status for t in listed} == {STORED_ID: "completed", broken.name: "failed"}
    lines = typed("tokenizer", "list").splitlines()
    assert [line.split()[:3] for line in lines if STORED_ID in line] == [[STORED_ID, "completed", "29"]]
    assert "is damaged" in typed("tokenizer", "show", broken.name)
    assert not (tmp_path / "data").exists()


MISTAKES: list[tuple[list[str], ErrorCode, str]] = [
    (["train"], ErrorCode.INVALID_INPUT, "`method` is required"),
    (["train", "--method", "char"], ErrorCode.INVALID_INPUT, "`corpora` is required"),
    (["train", "--method", "morse", "--corpus", "text"], ErrorCode.UNSUPPORTED_BACKEND, "must be one of char"),
    (["train", "--method", "char", "--corpus", "nix"], ErrorCode.DATA_NOT_FOUND, "There is no corpus 'nix'"),
    (["train", "--method", "char", "--corpus", "one.txt"], ErrorCode.CORPUS_EMPTY, "at least 3"),
    (["train", "--method", "char", "--corpus", "text", "--set", "min_freq=2"], ErrorCode.INVALID_INPUT, "did you mean"),
    (["show", STORED_ID], ErrorCode.TOKENIZER_NOT_FOUND, f"There is no tokenizer '{STORED_ID}'"),
    (["show", "../models"], ErrorCode.TOKENIZER_NOT_FOUND, "There is no tokenizer"),
    ([], ErrorCode.INVALID_INPUT, "see `mt tokenizer --help`"),
]


def test_mistakes__one_sentence_exit_2_and_nothing_changed(typed: Type, tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    (tmp_path / "one.txt").write_text("one line\n", encoding="utf-8")
    for words, code, sentence in MISTAKES:
        error = ErrorBody.model_validate_json(typed("tokenizer", *words, "--json", code=2))
        assert error.code is code
        assert sentence in error.message
        assert str(tmp_path) not in error.message
    assert not (tmp_path / "artifacts").exists()
    assert not (tmp_path / "data" / "services").exists()


def test_failed_training__exit_code_says_whose_fault_it_was(tmp_path: Path) -> None:
    text = tmp_path / "data" / "corpus" / "text.txt"
    words = ["tokenizer", "train", "--method", "char", "--corpus", "text"]
    command = [sys.executable, "-m", "trainer", *words, "--json"]
    environment = environment_in(tmp_path, QUEUE__EMBEDDED_WORKERS="0")
    add_corpus(tmp_path, some_text())
    training = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    asyncio.run(until(lambda: any(tmp_path.glob("artifacts/tokenizers/*/request.json"))))
    text.unlink()
    worker = subprocess.Popen([*command[:3], "worker"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    out, _ = training.communicate(timeout=PATIENCE_SECONDS)
    worker.send_signal(signal.SIGTERM)
    worker.wait(PATIENCE_SECONDS)

    status = TokenizerStatus.model_validate_json(out)
    code: int = training.returncode
    assert (code, status.error and status.error.code) == (2, ErrorCode.DATA_NOT_FOUND)
    add_corpus(tmp_path, some_text())
    (tmp_path / "artifacts" / "tokenizers" / status.tokenizer_id / "tokenizer.json").mkdir()
    done = mt(tmp_path, *words)
    assert done.returncode == 1
    assert f"{status.tokenizer_id}: failed" in done.stdout
    assert "crashed 3 times" in done.stdout
    assert asyncio.run(gone(tmp_path))
