"""What the `mt` command shows of a run on its way."""

from pathlib import Path

import pytest

from tests.unit.test_runs import record
from trainer.contracts.runs import RunStatus
from trainer.runs import RunStore
from trainer.terminal import Terminal


def status(folder: Path, **changes: object) -> RunStatus:
    run = RunStore(folder).create(record())
    return run.follow().refresh().model_copy(update=changes)


def test_progress__shows_losses_as_soon_as_there_are_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    waiting = status(tmp_path)
    training = waiting.model_copy(update=_training())
    with Terminal(as_json=False) as terminal:
        for shown in (waiting, training):
            terminal.progress(shown)

    assert "50 %  epoch 1/1  loss 2.500  1.2 k chars/s" in capsys.readouterr().err


def _training() -> dict[str, object]:
    return {"status": "running", "epoch": 1, "train_loss": 2.5, "chars_per_second": 1234.0, "progress": 50.0}


def test_run_that_failed__is_told_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(as_json=False).run(status(tmp_path, status="cancelled"))

    assert "cancelled" in capsys.readouterr().out
