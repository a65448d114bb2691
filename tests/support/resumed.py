"""Trainings that are interrupted and resumed."""

from pathlib import Path

from tests.support.tiny_models import Run, make_run
from tests.support.trainings import DROPOUT, TEXT, Told, digest, figures, losses, timeless
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


def hexes(rows: list[CurveRow]) -> list[tuple[int, str, str | None]]:
    validations = [None if row.val_loss is None else row.val_loss.hex() for row in rows]
    return [(row.step, loss.hex(), v) for row, loss, v in zip(rows, losses(rows), validations, strict=True)]


def saved_last(run: Run) -> Checkpoint:
    checkpoint = CheckpointStore(run.folder / "checkpoints").recover().checkpoint
    assert checkpoint is not None
    return checkpoint


def run_in(folder: Path, values: dict[str, object]) -> Run:
    folder.mkdir()
    return make_run(folder, TEXT, **values)


def assert_continued(whole: Told, before: list[CurveRow], told: Told) -> None:
    """A training that was resumed after these rows ended as the one that was never interrupted, bit for bit."""
    assert hexes(before + told.rows) == hexes(whole.rows)
    assert timeless(before + told.rows) == timeless(whole.rows)
    assert digest(told.model) == digest(whole.model)
    assert figures(told.result) == figures(whole.result)
