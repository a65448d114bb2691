"""Small checkpoints and comparisons of them."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from trainer.artifacts.checkpoint_files import EpochSummary, TrainingState, ValidationHistory
from trainer.training.checkpoint import Checkpoint, OptimizerState
from trainer.training.device import random_state

HASH = "0" * 64


def checkpoint(step: int, best_step: int | None = None, *, seed: int = 0) -> Checkpoint:
    """A checkpoint whose numbers are not round, after one step of an optimizer."""
    torch.manual_seed(step + seed)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(list(layer.parameters()))
    torch.autograd.backward([layer.forward(torch.rand(4, 3)).sum()])
    optimizer.step()
    state = TrainingState(
        request_hash=HASH,
        step=step,
        processed_step=step,
        epoch_loss_nats=1 / 3 + step,
        epochs=(EpochSummary(train_loss_nats=2 / 3, seconds=0.1),),
        history=ValidationHistory(best_step=best_step, best_loss_nats=0.1),
    )
    weights: dict[str, Tensor] = layer.state_dict()
    moments: dict[str, object] = optimizer.state_dict()
    return Checkpoint(state, weights, OptimizerState(optimizer=moments, scaler={}, random=random_state()))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def same(a: Checkpoint, b: Checkpoint | None) -> bool:
    return (
        b is not None
        and a.state == b.state
        and all(torch.equal(weight, b.weights[name]) for name, weight in a.weights.items())
        and str(a.optimizer_state) == str(b.optimizer_state)
    )


class Evil:
    """An object whose unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self._path,)
