"""Checkpoints of a schedule: kept by trainings, interrupted or not, beside failing disks and power cuts."""

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from safetensors.torch import save
from torch import Tensor

from tests.support.checkpoints import checkpoint, names
from tests.support.crash_states import RecordingDisk, lay_out
from tests.support.disk_failures import CODES, failing, told
from tests.support.refusals import refused
from tests.support.tiny_models import Run, make_run
from tests.support.trainings import DROPOUT, TEXT, after, digest, observed
from trainer.artifacts.checkpoint_files import TrainingState
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import Progress
from trainer.system.files import Disk, read_record
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


@pytest.mark.parametrize("code", CODES)
def test_keep__that_fails_anywhere_leaves_nothing_half_and_works_later(tmp_path: Path, code: int) -> None:
    for number, disk in enumerate(failing(code, at_least=8)):
        folder = tmp_path / str(number)
        store = CheckpointStore(folder, disk)
        told(partial(keep, store, 3), disk, code)
        disk.mend()
        weights = keep(store, 3)
        assert CheckpointStore(folder).recover().checkpoint is None
        assert names(folder / "scheduled") == ["step-3"]
        assert _digest(store.scheduled_weights(3)) == _digest(weights)


def lost_states(folder: Path, without: str | None = None) -> tuple[int, int]:
    """The number of states that a power cut may leave, and in how many what was acknowledged is not there whole."""
    (folder / "run").mkdir()
    disk = RecordingDisk(folder / "run", without)
    weights = keep(CheckpointStore(folder / "run" / "checkpoints", disk), 3)
    disk.acknowledge()
    count = wrong = 0
    for tree, acknowledged in disk.states():
        count += 1
        lay_out(tree, folder / "state")
        store = CheckpointStore(folder / "state" / "checkpoints", _Unsynced())
        store.recover()
        steps = store.scheduled_steps()
        if acknowledged and not steps:
            wrong += 1
        for step in steps:
            try:
                wrong += _digest(store.scheduled_weights(step)) != _digest(weights)
            except AppError:
                wrong += 1
        if wrong and without:
            break
    return count, wrong


class _Unsynced(Disk):
    def flush(self, descriptor: int) -> None:
        pass


def test_keep__is_complete_or_absent_after_any_crash(tmp_path: Path) -> None:
    count, wrong = lost_states(tmp_path)
    assert (count > 20, wrong) == (True, 0)


@pytest.mark.parametrize("kind", ["file", ".tmp-", "parent"])
def test_keep__with_one_kind_of_sync_left_out_is_found_wanting(tmp_path: Path, kind: str) -> None:
    assert lost_states(tmp_path, kind)[1] > 0
