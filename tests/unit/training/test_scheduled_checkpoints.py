"""Checkpoints of a schedule: kept by trainings, interrupted or not, beside later checkpoints and flipped bits."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from safetensors.torch import save
from torch import Tensor

from tests.support.checkpoints import checkpoint, names
from tests.support.refusals import refused
from tests.support.tiny_models import Run, make_run
from tests.support.trainings import DROPOUT, TEXT, after, digest, observed
from trainer.artifacts.checkpoint_files import TrainingState
from trainer.contracts.errors import ErrorCode
from trainer.contracts.events import Progress
from trainer.system.files import read_record
from trainer.training.checkpoint import CheckpointStore
from trainer.training.loop import SavedCheckpoint, TrainingCallbacks

VALUES: dict[str, object] = {"model": DROPOUT, "num_epochs": 3, "batch_size": 8, "checkpoint_schedule": [0, 2, 5]}


def digests_of(run: Run) -> dict[int, str]:
    store = CheckpointStore(run.folder / "checkpoints")
    return {step: _digest(store.scheduled_weights(step)) for step in store.scheduled_steps()}


def _digest(weights: dict[str, Tensor]) -> str:
    return sha256(save(weights)).hexdigest()


def seen(run: Run) -> dict[int, str]:
    """The weights after each step, as they are looked at from outside."""
    model = run.fresh_model()
    found = {0: digest(model)}

    def look(read: Callable[[], Progress]) -> None:
        found[read().step] = digest(model)

    run.train(model, store=CheckpointStore(run.folder / "elsewhere"), callbacks=TrainingCallbacks(on_step=look))
    return found


def test_training__keeps_the_weights_of_scheduled_steps_and_tells_of_each(tmp_path: Path) -> None:
    run = make_run(tmp_path, TEXT, **VALUES)
    after_step = seen(run)
    saved: list[SavedCheckpoint] = []
    model = run.fresh_model()
    result = run.train(model, callbacks=TrainingCallbacks(on_checkpoint=saved.append))
    last = result.state.step
    assert last > 5
    assert digests_of(run) == {step: after_step[step] for step in (0, 2, 5, last)}
    assert {0, 2, 5, last} <= {one.step for one in saved}
    kept = tmp_path / "checkpoints" / "scheduled" / "step-5"
    assert names(kept) == ["manifest.json", "model.safetensors", "state.json"]
    assert read_record(kept / "state.json", TrainingState).step == 5


def test_training__interrupted_anywhere_keeps_the_same(tmp_path: Path) -> None:
    for name in ("whole", "0", "3", "5", "8"):
        (tmp_path / name).mkdir()
    whole = make_run(tmp_path / "whole", TEXT, **VALUES)
    observed(whole)
    for calls in (0, 3, 5, 8):
        run = make_run(tmp_path / str(calls), TEXT, **VALUES)
        observed(run, should_stop=after(calls, "pause"))
        observed(run, resume=True)
        assert digests_of(run) == digests_of(whole), calls


def test_training_that_ends_early__keeps_the_step_that_it_ended_with(tmp_path: Path) -> None:
    early: dict[str, object] = {"enabled": True, "patience": 1, "min_delta": 100.0}
    run = make_run(tmp_path, TEXT, **VALUES | {"early_stopping": early, "num_epochs": 9})
    result = run.train(run.fresh_model())
    assert result.early_stopped
    assert list(digests_of(run)) == [0, 2, 5, result.state.step]


def test_without_a_schedule__nothing_is_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path, TEXT, **VALUES | {"checkpoint_schedule": None})
    run.train(run.fresh_model())
    assert not (tmp_path / "checkpoints" / "scheduled").exists()


def keep(store: CheckpointStore, step: int, *, seed: int = 0) -> dict[str, Tensor]:
    state, weights, _ = checkpoint(step, seed=seed)
    store.save_scheduled(state, weights)
    return weights


def test_kept_weights__outlive_later_checkpoints_and_are_written_once(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first = keep(store, 1)
    for step in range(2, 7):
        store.save(checkpoint(step, step))
    keep(store, 1, seed=9)
    (tmp_path / "scheduled" / ".tmp-step-4").mkdir()
    assert store.recover().checkpoint is not None
    assert names(tmp_path / "scheduled") == ["step-1"]
    assert names(tmp_path) == ["scheduled", "step-5", "step-6"]
    assert _digest(store.scheduled_weights(1)) == _digest(first)


@pytest.mark.parametrize("file", ["manifest.json", "state.json", "model.safetensors"])
def test_kept_weights__with_a_flipped_bit_are_refused(tmp_path: Path, file: str) -> None:
    store = CheckpointStore(tmp_path)
    keep(store, 3)
    path = tmp_path / "scheduled" / "step-3" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with refused(ErrorCode.CHECKPOINT_CORRUPT):
        store.scheduled_weights(3)


def test_kept_weights__are_no_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    keep(CheckpointStore(tmp_path), 3)
    (tmp_path / "scheduled" / "step-3").rename(tmp_path / "step-3")
    found = CheckpointStore(tmp_path).recover()
    assert found.checkpoint is None and len(found.quarantined) == 1
