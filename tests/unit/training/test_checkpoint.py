"""Checkpoints are loaded complete or refused; an earlier checkpoint remains."""

from pathlib import Path
from random import Random

import pytest
import torch

from tests.support.checkpoints import Evil, checkpoint, names, same
from trainer.contracts.errors import AppError, ErrorCode
from trainer.training.checkpoint import CheckpointStore


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
    for _ in range(5):
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
