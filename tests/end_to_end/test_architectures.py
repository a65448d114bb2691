"""Each shipped tiny config trains, evaluates, scores and generates, and is written as a file again."""

import re
from pathlib import Path

import pytest

from tests.support import ROOT, environment_in
from tests.support.markers import slow_except
from tests.support.shell import Shell, shell_fixture
from trainer.commands.main import main
from trainer.config.experiment_file import read_yaml
from trainer.config.nested_dict import value_at
from trainer.contracts.inference import EvalMetrics, GenerateResponse, ScoreResponse
from trainer.contracts.models import CONFIGS
from trainer.contracts.runs import RunStatus

__all__ = ["shell_fixture"]

TINY = sorted((ROOT / "configs").glob("test_*_tiny.yaml"))
QUICK = [path for path in TINY if path.name in ("test_lstm_causal_tiny.yaml", "test_gpt2_tiny.yaml")]


def test_configs__are_there_for_every_architecture() -> None:
    described = [read_yaml(path) for path in TINY]
    assert {value_at(one, "model.architecture") for one in described} == set(CONFIGS)
    assert {p.name for p, one in zip(TINY, described, strict=True) if is_masked(one)} == {
        "test_bert_tiny.yaml",
        "test_lstm_bidirectional_tiny.yaml",
    }


def is_masked(document: dict[str, object]) -> bool:
    return value_at(document, "training.objective") == "masked_lm"


@pytest.mark.parametrize("config", slow_except(TINY, *QUICK), ids=[path.stem for path in TINY])
def test_tiny_config__does_all_that_its_family_can(config: Path, shell: Shell) -> None:
    fills_gaps = is_masked(read_yaml(config))
    code, out, err = shell.type(
        "train", str(config), "--corpus", "text", "--set", "max_steps=6", "--set", "threads=1", "--json"
    )
    assert code == 0, err
    run = RunStatus.model_validate_json(out)
    metrics = EvalMetrics.model_validate_json(shell.type("eval", run.run_id, "--split", "test", "--json")[1])
    assert run.test_loss == pytest.approx(metrics.loss, abs=1e-6)
    assert metrics.objective == ("masked_lm" if fills_gaps else "causal_lm")
    if fills_gaps:
        assert metrics.n_tokens < metrics.n_chars / 2  # those that were masked

    score = ScoreResponse.model_validate_json(shell.type("score", run.run_id, "abc cab", "--json")[1])
    assert (score.n_scored, score.method) == (7, "pseudo_log_likelihood" if fills_gaps else "causal")

    if config.name == "test_gpt2_tiny.yaml":
        beyond = shell.type("score", run.run_id, "abc cab " * 300)[1]
        assert "lines longer than a window: 1" in beyond and "not exact" not in beyond

    code, out, err = shell.type("generate", run.run_id, "ab", "--max-new-tokens", "5", "--seed", "1", "--json")
    if fills_gaps:
        assert (code, "cannot generate text" in err + out) == (2, True)
        assert shell.type("predict", run.run_id, "--text", "ab")[0] == 2
    else:
        written = GenerateResponse.model_validate_json(out)
        assert written.steps is not None and 1 <= written.steps[0] <= 5

    (shell.folder / "again.yaml").write_text(shell.type("config", run.run_id)[1], encoding="utf-8")
    record = shell.runs.get(run.run_id).record()
    assert record.request_hash in shell.type("validate", "again.yaml")[1]


@pytest.mark.slow
@pytest.mark.parametrize("config", ["char_lstm_ipa.yaml", "word_lstm_keyboard.yaml"])
def test_config_of_full_size__trains_on_a_text_of_this_machine(config: str, shell: Shell) -> None:
    words = "the cat saw a dog , and the dog ran .".split()
    lines = (" ".join(words[(i * k) % 10] for k in range(1, 9)) for i in range(700))
    (shell.folder / "mine.txt").write_text("\n".join(f"{line} {i}" for i, line in enumerate(lines)), encoding="utf-8")
    sets = ("--set", "max_steps=20", "--set", "batch_size=2", "--set", "threads=1")  # else it takes long
    code, out, err = shell.type("train", str(ROOT / "configs" / config), "--corpus", "mine.txt", *sets, "--json")
    assert code == 0, err
    run = shell.runs.get(RunStatus.model_validate_json(out).run_id)
    manifest = run.completed_manifest()
    logged = [line for line in run.logs.read_text(encoding="utf-8").splitlines() if '"message": "training"' in line]
    steps: list[str] = [found[1] for line in logged if (found := re.search(r'"step": ?(\d+)', line))]
    assert (manifest.steps, list(map(int, steps))) == (20, [10, 20])
    assert manifest.metrics.test is not None
    assert manifest.effective.gradient_clipping == 1.0
    assert (run.checkpoints / "step-20").is_dir()


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
        assert main(["validate", *words[2:]]) == 0, words
        assert "Valid. Nothing was started." in capsys.readouterr().out
