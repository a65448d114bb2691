"""Small checkpoints and comparisons of them."""

from collections.abc import Callable
from pathlib import Path

import torch

from trainer.artifacts.checkpoint_files import (
    STATE,
    EpochSummary,
    TrainingState,
    ValidationHistory,
    checkpoint_steps,
    scheduled_folder,
    step_folder,
)
from trainer.artifacts.runs import RunDirectory
from trainer.inference.model_files import load_run
from trainer.system.files import read_record
from trainer.training.checkpoint import Checkpoint, CheckpointStore, OptimizerState
from trainer.training.device import random_state

HASH = "0" * 64


def checkpoint(step: int, best_step: int | None = None, *, seed: int = 0) -> Checkpoint:
    """A checkpoint whose numbers are not round."""
    torch.manual_seed(step + seed)
    weights = {"weight": torch.rand(2, 3), "bias": torch.rand(2)}
    moments: dict[str, object] = {  # in the form of torch's AdamW, which would load torch's compiler
        "state": {
            number: {"step": torch.tensor(1.0), "exp_avg": weight / 3, "exp_avg_sq": weight.square() / 7}
            for number, weight in enumerate(weights.values())
        },
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "params": [0, 1]}],
    }
    state = TrainingState(
        request_hash=HASH,
        step=step,
        processed_step=step,
        epoch_loss_nats=1 / 3 + step,
        epochs=(EpochSummary(train_loss_nats=2 / 3, seconds=0.1),),
        history=ValidationHistory(best_step=best_step, best_loss_nats=0.1),
    )
    rest = OptimizerState(optimizer=moments, scaler={}, random=random_state(), raw_weights={})
    return Checkpoint(state, weights, rest)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def same(a: Checkpoint, b: Checkpoint | None) -> bool:
    return (
        b is not None
        and a.state == b.state
        and all(torch.equal(weight, b.weights[name]) for name, weight in a.weights.items())
        and str(a.optimizer_state) == str(b.optimizer_state)
    )


def kept_states(checkpoints: Path) -> list[TrainingState]:
    """The states of the checkpoints that a schedule has kept, in the order of their steps."""
    scheduled = scheduled_folder(checkpoints)
    folders = [step_folder(scheduled, step) for step in checkpoint_steps(scheduled)]
    return [read_record(folder / STATE, TrainingState) for folder in folders]


class Evil:
    """An object whose unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self._path,)


def keep_checkpoint(run: RunDirectory, step: int, *, share: float = 0.5, **state: object) -> dict[str, torch.Tensor]:
    """Keep a checkpoint of a completed run whose weights are a share of those of its model; return them."""
    model, _ = load_run(run)
    own: dict[str, torch.Tensor] = model.state_dict()
    weights = {name: share * weight for name, weight in own.items()}
    fields: dict[str, object] = {"request_hash": HASH, "step": step, "processed_step": step, **state}
    CheckpointStore(run.checkpoints).save_scheduled(TrainingState.model_validate(fields), weights)
    return weights
