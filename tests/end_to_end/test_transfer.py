"""Transfer by one command: one tokenizer, one source language, targets from its weights, one table."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.support import add_corpus, environment_in, some_text
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.commands.main import main
from trainer.commands.transfer import TransferResult
from trainer.training.progress import CurveRow

pytestmark = pytest.mark.slow

TINY = [
    *("--set", "model.embedding_size=8", "--set", "model.hidden_size=8", "--set", "model.num_layers=1"),
    *("--set", "max_seq_len=16", "--set", "batch_size=4", "--set", "learning_rate=0.01", "--set", "threads=1"),
]


@pytest.fixture(name="folder", autouse=True)
def folder_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOGGING__LEVEL", raising=False)
    monkeypatch.chdir(tmp_path)
    add_corpus(tmp_path, some_text(), "kk")
    add_corpus(tmp_path, some_text(80).replace("c", "z"), "ky")
    return tmp_path


def area_under(run: RunDirectory) -> float:
    rows = [CurveRow.model_validate_json(line) for line in run.loss_curve.read_bytes().splitlines()]
    points = [(row.step, row.train_loss) for row in rows if row.train_loss is not None]
    return float(np.trapezoid([loss for _, loss in points], [step for step, _ in points]))


def test_transfer__trains_both_phases_once_and_keeps_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tr.txt").write_text(some_text(70).replace("a", "y"), encoding="utf-8")
    words = ["transfer", "kk", "ky", "tr.txt", *TINY, "--json"]
    assert main(words) == 0
    result = TransferResult.model_validate_json(capsys.readouterr().out)

    assert [(phase.phase, phase.corpus) for phase in result.phases] == [
        *(("pretrain", "kk"), ("continue", "ky"), ("continue", "tr.txt"))
    ]
    runs = [RunStore(folder / "artifacts").get(phase.run_id) for phase in result.phases]
    manifests = [run.completed_manifest() for run in runs]
    parent = manifests[0]
    assert [m.effective.num_epochs for m in manifests] == [5, 3, 3]
    assert {m.tokenizer.id for m in manifests if m.tokenizer} == {result.tokenizer_id}
    assert {m.parent_run_id for m in manifests[1:]} == {parent.run_id}
    assert [phase.initial_val_loss is None for phase in result.phases] == [True, False, False]
    embeddings = [load_file(run.path / "model.safetensors")["embedding.weight"] for run in runs]
    assert all(embedding.equal(embeddings[0]) for embedding in embeddings)
    for phase, run, manifest in zip(result.phases, runs, manifests, strict=True):
        assert phase.auc == pytest.approx(area_under(run), rel=1e-9)
        assert (phase.test_loss, phase.best_val_loss) == (manifest.metrics.test, manifest.metrics.best)

    [kept] = folder.glob("artifacts/transfers/*/transfer.json")
    assert TransferResult.model_validate_json(kept.read_bytes()) == result
    table = [line.split("\t") for line in (kept.parent / "transfer.tsv").read_text(encoding="utf-8").splitlines()]
    assert [row[:3] for row in table[1:]] == [[phase.phase, phase.corpus, phase.run_id] for phase in result.phases]
    assert {len(row) for row in table} == {len(table[0])}

    assert main(words) == 0, "what was trained is found again"
    assert TransferResult.model_validate_json(capsys.readouterr().out) == result


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["kk", "kk"], "'kk' is given twice: give each corpus once."),
        (["kk", "nowhere"], "nowhere"),
        (["kk", "ky", "--set", "num_epochs=0"], "num_epochs"),
    ],
)
def test_mistake__begins_nothing(folder: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transfer", *words]) == 2
    assert told in capsys.readouterr().err
    assert not list(folder.glob("artifacts/*/*"))
