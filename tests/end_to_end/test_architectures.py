"""Every shipped tiny config is trained, measured, scored with and continued or refused, and written as a file again."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, add_corpus, environment_in, settings_in, some_text
from trainer.cli import main
from trainer.commands.requests import assign
from trainer.contracts.inference import EvalMetrics, GenerateResponse, ScoreResponse
from trainer.contracts.runs import RunStatus, TrainRequest
from trainer.contracts.train_requests import train_request
from trainer.corpora import CorpusStore
from trainer.queue import resolve_request
from trainer.runs import RunStore

TINY = sorted((ROOT / "configs").glob("test_*_tiny.yaml"))
MASKED = {"test_bert_tiny.yaml", "test_lstm_bidirectional_tiny.yaml"}


def test_configs__are_there_for_every_architecture() -> None:
    assert {path.name for path in TINY} == MASKED | {
        "test_gpt2_tiny.yaml",
        "test_gru_tiny.yaml",
        "test_llama_tiny.yaml",
        "test_lstm_causal_tiny.yaml",
        "test_qwen_tiny.yaml",
        "test_rnn_tiny.yaml",
    }


@pytest.mark.parametrize("config", TINY, ids=[path.stem for path in TINY])
def test_tiny_config__does_all_that_its_family_can(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    add_corpus(tmp_path, some_text())

    def typed(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    words = [sys.executable, "-m", "trainer", "worker"]
    worker = subprocess.Popen(words, cwd=tmp_path, env=environment_in(tmp_path), stderr=subprocess.DEVNULL)
    try:
        is_masked = config.name in MASKED
        code, out, err = typed(
            "train", str(config), "--corpus", "text", "--set", "max_steps=6", "--set", "threads=1", "--json"
        )
        assert code == 0, err
        run = RunStatus.model_validate_json(out)
        metrics = EvalMetrics.model_validate_json(typed("eval", run.run_id, "--split", "test", "--json")[1])
        assert run.test_loss == pytest.approx(metrics.loss, abs=1e-6)
        assert metrics.objective == ("masked_lm" if is_masked else "causal_lm")
        if is_masked:
            assert metrics.n_tokens < metrics.n_chars / 2  # those that were masked

        score = ScoreResponse.model_validate_json(typed("score", run.run_id, "abc cab", "--json")[1])
        assert (score.n_scored, score.method) == (7, "pseudo_log_likelihood" if is_masked else "causal")

        code, out, err = typed("generate", run.run_id, "ab", "--max-new-tokens", "5", "--seed", "1", "--json")
        if is_masked:
            assert (code, "fills gaps in a text and continues none" in err + out) == (2, True)
        else:
            written = GenerateResponse.model_validate_json(out)
            assert written.steps is not None and 1 <= written.steps[0] <= 5

        (tmp_path / "again.yaml").write_text(typed("config", run.run_id)[1], encoding="utf-8")
        record = RunStore(tmp_path / "artifacts").get(run.run_id).record()
        assert record.request_hash in typed("validate", "again.yaml")[1]
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)


@pytest.mark.parametrize("page", ["architectures.md", "objectives.md"])
def test_documentation__its_examples_are_valid(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    examples = [line.split() for line in text.splitlines() if line.startswith("mt train ")]

    assert examples
    for words in examples:
        if words[2].startswith("--"):
            fields: dict[str, object] = {"corpus": "demo"}
            for assignment in words[5::2]:
                assign(TrainRequest, fields, assignment)
            settings = settings_in(tmp_path)
            asyncio.run(resolve_request(train_request(fields), CorpusStore(settings), settings))
        else:
            assert main(["validate", *words[2:]]) == 0, words
            assert "It is valid" in capsys.readouterr().out
