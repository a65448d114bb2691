"""Each shipped tiny config trains, evaluates, scores and generates, and is written as a file again."""

import re
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.markers import slow_except
from tests.support.run_shell import Shell, sets
from trainer.config.experiment_file import read_yaml
from trainer.config.validation import value_at
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.generations import GenerateResponse
from trainer.contracts.models import CONFIGS
from trainer.contracts.runs import RunStatus
from trainer.contracts.scores import ScoreResponse

TINY = sorted((ROOT / "configs").glob("test_*_tiny.yaml"))
QUICK = ROOT / "configs" / "test_ngram_tiny.yaml"


def test_configs__are_there_for_every_architecture() -> None:
    described = [read_yaml(path) for path in TINY]
    assert {value_at(one, "model.architecture") or one["model_family"] for one in described} == set(CONFIGS)
    assert {p.name for p, one in zip(TINY, described, strict=True) if is_masked(one)} == {
        "test_bert_tiny.yaml",
        "test_lstm_bidirectional_tiny.yaml",
    }


def is_masked(document: dict[str, object]) -> bool:
    return value_at(document, "training.objective") == "masked_lm"


@pytest.mark.parametrize("config", slow_except(TINY, QUICK), ids=[path.stem for path in TINY])
def test_tiny_config__does_all_that_its_family_can(config: Path, lab_shell: Shell) -> None:
    shell, fills_gaps = lab_shell, is_masked(read_yaml(config))
    steps_of = () if config.name == "test_ngram_tiny.yaml" else sets("max_steps=6")
    run = shell.read(RunStatus, "train", str(config), "--corpus", "text", *steps_of, *sets("threads=1"))
    metrics = shell.read(EvalMetrics, "eval", run.run_id, "--split", "test")
    assert run.test_loss == pytest.approx(metrics.loss, abs=1e-6)
    assert metrics.objective == ("masked_lm" if fills_gaps else "causal_lm")
    if fills_gaps:
        assert metrics.n_tokens < metrics.n_chars / 2  # those that were masked
    score = shell.read(ScoreResponse, "score", run.run_id, "abc cab")
    assert (score.n_scored, score.method) == (7, "pseudo_log_likelihood" if fills_gaps else "causal")
    if config.name == "test_gpt2_tiny.yaml":
        beyond = shell.type("score", run.run_id, "abc cab " * 300)
        assert "lines longer than a window: 1" in beyond and "not exact" not in beyond
        turn = "abc " * (shell.runs.get(run.run_id).record().effective.max_seq_len // 4 - 1)
        chat = shell.type("chat", run.run_id, "--max-new-tokens", "2", typed=f"{turn}\ncab cab\n")
        assert len(chat.splitlines()) == 2
        assert shell.err.endswith("(no longer in the model's context: the oldest 1 turn)\n")
    words = ("generate", run.run_id, "ab", "--max-new-tokens", "5", "--seed", "1")
    if fills_gaps:
        assert "cannot generate text" in shell.error(*words).message
        shell.refuse("predict", run.run_id, "ab")
    else:
        steps = shell.read(GenerateResponse, *words).steps
        assert steps is not None and 1 <= steps[0] <= 5
    shell.write("again.yaml", shell.type("config", run.run_id))
    assert shell.runs.get(run.run_id).record().request_hash in shell.type("validate", "again.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("config", ["char_lstm_ipa.yaml", "word_lstm_keyboard.yaml"])
def test_config_of_full_size__trains_on_a_text_of_this_machine(config: str, lab_shell: Shell) -> None:
    words = "the cat saw a dog , and the dog ran .".split()
    lines = (" ".join(words[(i * k) % 10] for k in range(1, 9)) for i in range(700))
    lab_shell.write("mine.txt", "\n".join(f"{line} {i}" for i, line in enumerate(lines)))
    fields = sets("max_steps=20", "batch_size=2", "threads=1")  # else it takes long
    file = str(ROOT / "configs" / config)
    run = lab_shell.runs.get(lab_shell.read(RunStatus, "train", file, "--corpus", "mine.txt", *fields).run_id)
    manifest = run.completed_manifest()
    logged = [line for line in run.logs.read_text(encoding="utf-8").splitlines() if '"message": "training"' in line]
    steps: list[str] = [found[1] for line in logged if (found := re.search(r'"step": ?(\d+)', line))]
    assert (manifest.steps, list(map(int, steps))) == (20, [10, 20])
    assert manifest.metrics.test is not None
    assert manifest.effective.gradient_clipping == 1.0
    assert (run.checkpoints / "step-20").is_dir()
