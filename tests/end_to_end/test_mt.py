"""The `mt` command as people and programs use it: numbers that agree, one JSON object, one sentence for a mistake."""

import asyncio
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT, add_corpus, environment_in, mt, processes, some_text
from trainer.cli import main
from trainer.contracts.inference import EvalMetrics, GenerateResponse, ScoreResponse
from trainer.contracts.runs import RunStatus
from trainer.runs import RunStore

TINY = [
    *("--set", "model.embedding_size=8", "--set", "model.hidden_size=8", "--set", "model.num_layers=1"),
    *("--set", "max_seq_len=16", "--set", "batch_size=4", "--set", "num_epochs=2", "--set", "threads=1"),
]


class Shell:
    """A folder to type `mt` in, with its settings in the environment."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def type(self, *words: str) -> tuple[int, str, str]:
        """Run a command in this process; return exit code, standard output, standard error."""
        code = main(words)
        out, err = self._capsys.readouterr()
        return code, out, err

    def train(self, *words: str) -> RunStatus:
        code, out, err = self.type("train", *TINY, *words, "--json")
        assert code == 0, err
        assert out.count("\n") == 1
        return RunStatus.model_validate_json(out)


@pytest.fixture(name="shell")
def shell_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOGGING__LEVEL", raising=False)
    monkeypatch.chdir(tmp_path)
    add_corpus(tmp_path, some_text())
    return Shell(tmp_path, capsys)


@pytest.fixture(name="worker")
def worker_fixture(shell: Shell) -> Iterator[None]:
    """A worker that runs already: commands join it, and its loaded models."""
    words = [sys.executable, "-m", "trainer", "worker"]
    worker = subprocess.Popen(words, cwd=shell.folder, env=environment_in(shell.folder), stderr=subprocess.DEVNULL)
    yield
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)


@pytest.mark.usefixtures("worker")
def test_train_then_ask__numbers_agree_with_each_other(shell: Shell) -> None:
    (shell.folder / "mine.txt").write_text(some_text(80), encoding="utf-8")
    run = shell.train(str(ROOT / "configs" / "char_lstm_ipa.yaml"), "--corpus", "mine.txt")
    assert (run.status, run.label, run.model_family) == ("completed", "char-lstm-ipa", "lstm")

    metrics = EvalMetrics.model_validate_json(shell.type("eval", run.run_id, "--split", "test", "--json")[1])
    assert run.test_loss is not None
    assert abs(metrics.loss - run.test_loss) <= 1e-6
    assert math.isclose(metrics.perplexity, math.exp(metrics.loss))

    per_char = ("--detail-level", "per_char", "--top-k", "2", "--json")
    score = ScoreResponse.model_validate_json(shell.type("score", run.run_id, "abc cab", *per_char)[1])
    assert score.surprisal is not None and score.loss is not None and score.topk is not None
    assert len(score.surprisal) == 7
    assert math.isclose(sum(score.surprisal) / 7, score.loss, rel_tol=1e-5)
    (shell.folder / "t.txt").write_text("abc cab", encoding="utf-8")
    from_file = ScoreResponse.model_validate_json(shell.type("score", run.run_id, "--path", "t.txt", "--json")[1])
    assert (from_file.loss, from_file.surprisal) == (score.loss, None)

    words = ("generate", run.run_id, "ab", "--seed", "3", "--max-new-tokens", "5", "--temperature", "0.5")
    generated = GenerateResponse.model_validate_json(
        shell.type(*words, "--top-k", "3", "--top-p", "0.9", "-n", "2", "--json")[1]
    )
    assert generated.outputs is not None and len(generated.outputs) == 2
    assert generated.seed_used == 3

    manifest = RunStore(shell.folder / "artifacts").get(run.run_id).completed_manifest()
    assert manifest.requested_paths == ("tokenizers/char-lstm-ipa", "models/char-lstm-ipa", "logs")
    assert manifest.effective.model.hidden_size == 8


@pytest.mark.usefixtures("worker")
def test_people__read_tables_and_what_to_do_next(shell: Shell) -> None:
    code, out, _ = shell.type("train", *TINY, "--corpus", "text")
    [run] = RunStore(shell.folder / "artifacts").all()

    assert code == 0
    assert "bits per character" in out
    assert f"next: mt generate {run.run_id}" in out
    assert "top-1, top-5" in shell.type("eval", run.run_id)[1]
    assert "perplexity" in shell.type("score", run.run_id, "abc", "--detail-level", "per_char")[1]
    code, out, err = shell.type("generate", run.run_id, "ab", "--max-new-tokens", "3", "--seed", "1")
    assert (code, err.strip().split(", ")[1]) == (0, "seed 1)")


def test_failed_run__exit_code_says_whose_fault_it_was(shell: Shell) -> None:
    code, _, err = shell.type("train", *TINY, "--corpus", "text", "--set", "device=cuda")
    assert code == 2  # a wish that this machine cannot fulfil
    assert "has no CUDA" in err
    assert not (shell.folder / "artifacts" / "models").exists()
    code, out, _ = shell.type("train", *TINY, "--corpus", "text", "--set", "model.hidden_size=1000000")
    assert code == 1
    assert "more memory than there is" in out


def test_yaml_beside_its_text__is_found_from_anywhere(shell: Shell) -> None:
    folder = shell.folder / "experiment"
    folder.mkdir()
    config = (ROOT / "configs" / "char_lstm_ipa.yaml").read_text(encoding="utf-8")
    (folder / "x.yaml").write_text(
        config.replace("training_corpus: demo", "training_corpus: own.txt"), encoding="utf-8"
    )
    (folder / "own.txt").write_text(some_text(), encoding="utf-8")

    assert shell.train(str(folder / "x.yaml")).status == "completed"


def test_interrupt__keeps_the_run_and_leaves_nothing_running(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    for number in (signal.SIGINT, signal.SIGTERM):
        words = ["train", *TINY, "--corpus", "text", "--set", "num_epochs=1000"]
        training = subprocess.Popen(
            [sys.executable, "-m", "trainer", *words],
            cwd=tmp_path,
            env=environment_in(tmp_path),
            stderr=subprocess.PIPE,
            text=True,
        )
        asyncio.run(child_appears(tmp_path))
        training.send_signal(number)
        _, err = training.communicate(timeout=30)

        code: int = training.returncode
        assert code == 130
        assert "it goes on as soon as a worker runs" in err
        assert processes(tmp_path) == []
    assert len(RunStore(tmp_path / "artifacts").unfinished()) == 2


def test_interrupt__at_any_moment_is_one_sentence(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.commands.connection.load_settings", interrupted)

    code, out, err = shell.type("score", "a-run", "x", "--json")

    assert (code, out) == (130, "")
    assert err.startswith("Interrupted.")


async def child_appears(folder: Path) -> None:
    async with asyncio.timeout(30):
        while not processes(folder, "train-child"):
            await asyncio.sleep(0.05)


def test_up_without_a_token__says_what_is_missing(tmp_path: Path) -> None:
    done = mt(tmp_path, "up", DISCORD__TOKEN="")

    assert (done.returncode, done.stdout) == (2, "")
    assert "DISCORD__TOKEN is not set" in done.stderr


def test_worker__with_a_wrong_redis_says_so(tmp_path: Path) -> None:
    done = mt(tmp_path, "worker", REDIS__URL="redis://127.0.0.1:1/0")

    assert done.returncode == 1
    assert "No Redis answers at `REDIS__URL`" in done.stderr


def test_worker__alone_serves_the_data_root_until_it_is_told_to_end(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    worker = subprocess.Popen(
        [sys.executable, "-m", "trainer", "worker"], cwd=tmp_path, env=environment_in(tmp_path), stderr=subprocess.PIPE
    )
    trained = mt(tmp_path, "train", *TINY, "--corpus", "text", "--json", QUEUE__EMBEDDED_WORKERS="0")
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=30)

    assert RunStatus.model_validate_json(trained.stdout).status == "completed"
    code: int = worker.returncode
    assert code == 0
    assert b"worker ready" in err
    assert processes(tmp_path) == []


def test_wrong_settings__are_named_before_anything_starts(tmp_path: Path) -> None:
    done = mt(tmp_path, "train", "--corpus", "demo", QUEUE__TRAINING_SLOT="1")

    assert done.returncode == 2
    assert "did you mean `QUEUE__TRAINING_SLOTS`?" in done.stderr
    assert os.listdir(tmp_path) == []


def test_masked_run__says_so_where_its_numbers_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    add_corpus(tmp_path, some_text())
    fields = ["model_family=gru", "model_size=tiny", "objective=masked_lm", "tokenizer.method=char", "max_steps=4"]
    words = [word for field in fields for word in ("--set", field)]

    assert main(["train", "--corpus", "text", *words]) == 0
    [run] = RunStore(tmp_path / "artifacts").all()
    assert f"next: mt score {run.run_id}" in capsys.readouterr().out
    assert "what follows a masked token is not seen" in (run.path / "logs.jsonl").read_text(encoding="utf-8")
    assert main(["eval", run.run_id]) == 0
    assert "masked tokens" in capsys.readouterr().out
