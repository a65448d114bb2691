"""`mt tokenizer train`, `show`, `list`: one object or one table, one sentence for a mistake, no service to look."""

import asyncio
import shutil
import signal

import pytest

from tests.support import ROOT, add_corpus, gone, some_text
from tests.support.run_shell import Shell
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.contracts.errors import ErrorCode
from trainer.contracts.tokenizer_jobs import TokenizerList, TokenizerStatus

STORED_ID = "char-222eba1359b17193"
TRAIN = ("tokenizer", "train", "--method", "char", "--corpus", "text")


def test_train__from_files_of_this_machine_to_a_tokenizer_of_a_run(shell: Shell) -> None:
    add_corpus(shell.folder, some_text())
    mine = shell.write("mine.txt", "ˈʃɑːr\nˈqɑzɑq\n" * 20)
    fields = ("--set", "holdout_fraction=0.1", "--set", "seed=5")
    status = shell.read(TokenizerStatus, *TRAIN, "--corpus", "mine.txt", *fields)
    assert (status.status, status.label) == ("completed", "text, mine")
    manifest = TokenizerStore(shell.artifacts).get(status.tokenizer_id).completed_manifest()
    assert (manifest.holdout_fraction, manifest.seed, manifest.stats) == (0.1, 5, status.stats)
    assert [corpus.name for corpus in manifest.corpus] == ["text", manifest.corpus[1].sha256]
    mine.unlink()  # it was copied
    people, stats = shell.type("tokenizer", "show", status.tokenizer_id), manifest.stats
    for shown in (
        f"{status.tokenizer_id}: completed",
        f"{status.vocab_size} tokens",
        f"{stats.holdout_lines} lines, {stats.token_count} tokens",
        f"{stats.coverage:.1%} of tokens",
        f"{stats.oov_rate:.1%} of tokens",
        f"--tokenizer {status.tokenizer_id} --corpus",  # its name needs quotes
        f"1.000 per character, {stats.avg_tokens_per_word:.3f} per word",
    ):
        assert shown in people
    other = shell.read(TokenizerStatus, *TRAIN, "--name", "plain-words")
    for name, found in {"plain-words": other, "last": other, "text, mine": status}.items():
        assert shell.type("tokenizer", "show", name).startswith(f"{found.tokenizer_id}: ")
    assert "--tokenizer plain-words --corpus" in shell.type("tokenizer", "show", "last")
    assert shell.error(*TRAIN, "--name", "last").message.startswith("`label` must not be 'last'")
    run = shell.train("--corpus", "text", "--tokenizer", "text, mine")
    used = run.completed_manifest().tokenizer
    assert used is not None and used.id == status.tokenizer_id


def test_show_and_list__start_nothing(shell: Shell) -> None:
    assert shell.type("tokenizer", "list") == (
        "No tokenizers yet. Start one with: mt tokenizer train --method bpe --corpus demo --set vocab_size=1000\n"
    )
    assert shell.read(TokenizerList, "tokenizer", "list").tokenizers == ()
    tokenizers, broken = shell.artifacts / "tokenizers", "char-0000000000000000"
    shutil.copytree(ROOT / "tests" / "fixtures" / "tokenizers", tokenizers)
    shutil.copytree(tokenizers / STORED_ID, tokenizers / broken)
    shell.write(f"artifacts/tokenizers/{broken}/manifest.json", "{}")
    listed = shell.read(TokenizerList, "tokenizer", "list").tokenizers
    assert [*listed] == [shell.read(TokenizerStatus, "tokenizer", "show", one.tokenizer_id) for one in listed]
    assert {one.tokenizer_id: one.status for one in listed} == {STORED_ID: "completed", broken: "failed"}
    lines = shell.type("tokenizer", "list").splitlines()
    [[*shown]] = [line.split() for line in lines if STORED_ID in line]
    assert "completed" in shown and shown[-2:] == ["char", "29"]
    exported = shell.type("tokenizer", "export", STORED_ID, "out")
    assert exported == f"{STORED_ID} is in out ({len(list((shell.folder / 'out').rglob('*.*')))} files).\n"
    assert "is damaged" in shell.type("tokenizer", "show", broken)
    assert "see `mt tokenizer --help`" in shell.error("tokenizer").message
    assert not (shell.folder / "data").exists()


@pytest.mark.slow
def test_failed_training__exit_code_names_the_cause(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    add_corpus(shell.folder, some_text())
    training = shell.start(*TRAIN, "--json", QUEUE__EMBEDDED_WORKERS="0")
    wait_until(lambda: any(shell.artifacts.glob("tokenizers/*/request.json")))
    (shell.folder / "data" / "corpus" / "text.txt").unlink()
    worker = shell.start("worker")
    out, _ = training.communicate(timeout=PATIENCE_SECONDS)
    status = TokenizerStatus.model_validate_json(out)
    assert (training.wait(), status.error and status.error.code) == (2, ErrorCode.DATA_NOT_FOUND)
    add_corpus(shell.folder, some_text())
    (shell.artifacts / "tokenizers" / status.tokenizer_id / "tokenizer.json").mkdir()
    monkeypatch.setenv("QUEUE__EMBEDDED_WORKERS", "0")
    failed = shell.type(*TRAIN, code=1)
    assert f"{status.tokenizer_id}: failed" in failed and "crashed 3 times" in failed
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=PATIENCE_SECONDS)
    assert asyncio.run(gone(shell.folder))
