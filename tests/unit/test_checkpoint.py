"""Checkpoints: what was saved comes back whole, or is refused; whatever breaks, an earlier one is there."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from trainer.artifacts.checkpoint_files import EpochSummary, TrainingState, ValidationHistory
from trainer.contracts.errors import AppError, ErrorCode
from trainer.training.checkpoint import Checkpoint, CheckpointStore, OptimizerState
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


def test_recover__gives_back_what_was_saved_to_the_last_bit(tmp_path: Path) -> None:
    saved = checkpoint(7, 7)
    CheckpointStore(tmp_path).save(saved)

    found = CheckpointStore(tmp_path).recover()

    assert same(saved, found.checkpoint)
    assert found.quarantined == ()


def test_recover__of_nothing_is_nothing(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none").recover() == (None, ())


def test_save__keeps_the_last_two_and_the_best_of_each(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (9, 2), (10, 10)):
        store.save(checkpoint(step, best))

    assert names(tmp_path) == ["step-10", "step-2", "step-9"]
    assert torch.equal(store.weights(2)["weight"], checkpoint(2).weights["weight"])

    store.save(checkpoint(11, 10))
    assert names(tmp_path) == ["step-10", "step-11"]


def test_save__of_a_step_that_is_there_leaves_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first = checkpoint(5)
    store.save(first)

    store.save(checkpoint(5, seed=1))

    assert same(first, store.recover().checkpoint)
    assert names(tmp_path) == ["step-5"]


def test_recover__removes_what_was_never_finished(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(3))
    (tmp_path / ".tmp-step-4").mkdir()
    (tmp_path / ".tmp-step-4" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "step-notes").mkdir()

    assert same(checkpoint(3), store.recover().checkpoint)
    assert names(tmp_path) == ["step-3", "step-notes"]


@pytest.mark.parametrize("file", ["manifest.json", "state.json", "model.safetensors", "optimizer.pt"])
def test_flipped_bit__is_refused_and_the_earlier_checkpoint_used(tmp_path: Path, file: str) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(1))
    random = Random(1)
    for _ in range(50):
        store.save(checkpoint(2))
        path = tmp_path / "step-2" / file
        data = bytearray(path.read_bytes())
        place = random.randrange(len(data) * 8)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)

        found = store.recover()

        assert same(checkpoint(1), found.checkpoint), place
        assert len(found.quarantined) == 1
        assert found.quarantined[0] in names(tmp_path)
        assert found.quarantined[0].startswith("broken-step-2")


@pytest.mark.parametrize("file", ["manifest.json", "state.json", "model.safetensors", "optimizer.pt"])
def test_missing_or_cut_file__is_refused(tmp_path: Path, file: str) -> None:
    store = CheckpointStore(tmp_path)
    for cut in (True, False):
        store.save(checkpoint(2))
        path = tmp_path / "step-2" / file
        if cut:
            path.write_bytes(path.read_bytes()[:-1])
        else:
            path.unlink()

        assert store.recover().checkpoint is None


def test_manifest__that_names_no_files_seals_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(2))
    (tmp_path / "step-2" / "manifest.json").write_text('{"files":[]}')

    assert store.recover().checkpoint is None


def test_best__that_is_broken_takes_those_that_point_to_it_with_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step, best in ((1, 1), (2, 1), (3, 1)):
        store.save(checkpoint(step, best))
    (tmp_path / "step-1" / "model.safetensors").unlink()

    found = store.recover()

    assert found.checkpoint is None
    assert len(found.quarantined) == 3
    with pytest.raises(AppError) as caught:
        store.weights(1)
    assert caught.value.code == ErrorCode.CHECKPOINT_CORRUPT


class Evil:
    """An object whose unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self._path,)


def test_pickled_code__never_runs(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    good = checkpoint(1)
    store.save(good)
    evil = checkpoint(2)
    evil.optimizer_state["optimizer"]["evil"] = Evil(tmp_path / "ran")
    store.save(evil)

    found = store.recover()

    assert same(good, found.checkpoint)
    assert len(found.quarantined) == 1
    assert not (tmp_path / "ran").exists()
