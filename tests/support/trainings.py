"""Trainings in this process, with their curve and weights recorded."""

import math
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from tests.support.families import vocabulary
from tests.support.tiny_models import POEM, Run, TableModel
from trainer.artifacts.checkpoint_files import TrainingState
from trainer.contracts.events import Progress
from trainer.models.base import LanguageModel
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.loop import SavedCheckpoint, StopReason, TrainingCallbacks, TrainResult
from trainer.training.progress import CurveRow

TEXT = [f"{line} {i}" for i in range(6) for line in POEM]

DROPOUT: dict[str, object] = {"embedding_size": 8, "hidden_size": 16, "num_layers": 2, "dropout": 0.3}


class Told(NamedTuple):
    """All that a training told."""

    result: TrainResult
    model: LanguageModel
    rows: list[CurveRow]
    progress: list[Progress]
    saved: list[SavedCheckpoint]


def observed(
    run: Run,
    *,
    should_stop: Callable[[], StopReason | None] = lambda: None,
    resume: Checkpoint | bool = False,
    store: CheckpointStore | None = None,
    parent: LanguageModel | None = None,
) -> Told:
    """Train, if wished on from a checkpoint or the last one; without one, from the weights of a parent if given."""
    rows: list[CurveRow] = []
    progress: list[Progress] = []
    saved: list[SavedCheckpoint] = []
    store, model = store or CheckpointStore(run.folder / "checkpoints"), run.fresh_model()
    checkpoint = resume if isinstance(resume, Checkpoint) else store.recover().checkpoint if resume else None
    if checkpoint is None and parent is not None:
        weights: dict[str, Tensor] = parent.state_dict()
        model.load_state_dict(weights)
    told = TrainingCallbacks(rows.append, lambda make: progress.append(make()), saved.append, should_stop)
    return Told(run.train(model, store=store, resume=checkpoint, callbacks=told), model, rows, progress, saved)


def losses(rows: list[CurveRow]) -> list[float]:
    return [row.train_loss for row in rows if row.train_loss is not None]


def digest(model: LanguageModel) -> str:
    weights: dict[str, Tensor] = model.state_dict()
    return digest_of(weights)


def digest_of(weights: dict[str, Tensor]) -> str:
    return sha256(save(weights)).hexdigest()


def timeless(rows: list[CurveRow]) -> list[CurveRow]:
    changes: dict[str, object] = {"elapsed_seconds": 0.0}
    return [row.model_copy(update=changes) for row in rows]


def figures(result: TrainResult) -> tuple[TrainingState, object]:
    """All numbers of a result that do not depend on the clock."""
    no_time: dict[str, object] = {"seconds": 0.0}
    changes: dict[str, object] = {
        "elapsed_seconds": 0.0,
        "train_seconds": 0.0,
        "epoch_start_seconds": 0.0,
        "epochs": tuple(epoch.model_copy(update=no_time) for epoch in result.state.epochs),
    }
    return result.state.model_copy(update=changes), result.test


def after(calls: int, reason: StopReason) -> Callable[[], StopReason | None]:
    """A wish to stop that is there at the n-th time of asking."""
    asked = iter(range(1_000_000))
    return lambda: reason if next(asked) >= calls else None


class Bad(TableModel):
    """A model that fails in the way that it is told; it is far off in so many batches only."""

    def __init__(self, failure: str, batches: float = math.inf) -> None:
        super().__init__(vocabulary(40))
        self._failure = failure
        self._batches_left = batches

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        logits = super().hidden_states(ids)
        if self._failure == "nan":
            return logits * math.nan
        if self._failure == "nan in validation" and not self.training:
            return logits * math.nan
        if self._failure == "far off" and self._batches_left > 0:
            self._batches_left -= self.training
            return logits * 1000
        if self._failure == "memory":
            return torch.empty(1 << 60)
        if self._failure == "bug":
            raise RuntimeError("bug")
        return logits
