"""Trainings that are interrupted and resumed."""

from pathlib import Path

from tests.support.tiny_models import Run, make_run
from tests.support.trainings import DROPOUT, TEXT, Told, digest, figures, timeless
from trainer.artifacts.checkpoint_files import TrainingState
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.progress import CurveRow

EVERYTHING: dict[str, object] = {
    "model": DROPOUT,
    "gradient_accumulation": 2,
    "batch_size": 3,
    "optimizer": {"weight_decay": 0.3, "weight_decay_exclude": ["embedding"]},
    "lr_schedule": "cosine",
    "min_learning_rate": 0.001,
    "warmup_ratio": 0.2,
    "num_epochs": 9,
    "eval_every_steps": 5,
    "log_every_steps": 2,
    "checkpoint_every_steps": 4,
    "learning_rate": 0.05,
    "early_stopping": {"enabled": True, "patience": 12, "min_delta": 10.0},
}


def saved_last(run: Run) -> Checkpoint:
    checkpoint = CheckpointStore(run.folder / "checkpoints").recover().checkpoint
    assert checkpoint is not None
    return checkpoint


def saved_state(run: Run) -> TrainingState | None:
    checkpoint = CheckpointStore(run.folder / "checkpoints").recover().checkpoint
    return None if checkpoint is None else checkpoint.state


def kept_rows(run: Run, rows: list[CurveRow]) -> list[CurveRow]:
    """The rows of the curve that a training keeps which is resumed."""
    state = saved_state(run)
    return [] if state is None else rows[: state.curve.rows]


def run_in(folder: Path, values: dict[str, object]) -> Run:
    folder.mkdir()
    return make_run(folder, TEXT, **values)


def assert_continued(whole: Told, before: list[CurveRow], told: Told) -> None:
    """A training that was resumed after these rows ended as the one that was never interrupted, bit for bit."""
    assert timeless(before + told.rows) == timeless(whole.rows)
    assert digest(told.model) == digest(whole.model)
    assert figures(told.result) == figures(whole.result)
