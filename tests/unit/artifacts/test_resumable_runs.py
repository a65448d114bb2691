"""`mt resume`: resumable runs, and the files that a new run gets from the old one."""

import errno
import os
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in, some_text
from tests.support.checkpoints import checkpoint, same
from tests.support.cleanups import contents
from tests.support.crash_states import RecordingDisk, lay_out
from tests.support.disk_failures import FailingDisk
from tests.support.refusals import refused
from tests.support.stopped_runs import stopped_run
from tests.support.unsynced_disk import UnsyncedDisk
from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.runs import Origin, RunDirectory, RunStore
from trainer.config.presets import request_hash
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import FinalState
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_origin, with_epochs
from trainer.system.files import Disk
from trainer.training.checkpoint import CheckpointStore


def spoil(run: RunDirectory, folder: Path) -> None:
    for weights in run.checkpoints.glob("*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[::-1])


def change_clipping(run: RunDirectory, folder: Path) -> None:
    """As if the default had been another one when the run was accepted."""
    record = run.record()
    effective = changed(record.effective, gradient_clipping=0.3)
    other = changed(record, effective=effective, request_hash=request_hash(effective))
    (run.path / "request.json").write_text(other.model_dump_json(), encoding="utf-8")


def search(run: RunDirectory, folder: Path) -> None:
    """As if version 0.1.0 had searched the settings of the run."""
    record = run.record()
    other = changed(record, effective=changed(record.effective, has_earlier_hash=True))
    (run.path / "request.json").write_text(other.model_dump_json(), encoding="utf-8")


Change = Callable[[RunDirectory, Path], object]
"""What happens to a run in a folder before it is to be resumed."""
REFUSALS: list[tuple[FinalState | None, Change, ErrorCode, str]] = [
    (None, lambda run, _: None, ErrorCode.RUN_NOT_READY, "continues by itself"),
    ("completed", lambda run, _: None, ErrorCode.RUN_FINISHED, "its initial weights from it"),
    ("cancelled", lambda run, _: shutil.rmtree(run.checkpoints), ErrorCode.CONFLICT, "no complete checkpoint"),
    ("failed", spoil, ErrorCode.CONFLICT, "no complete checkpoint"),
    ("failed", lambda _, folder: (folder / "data/corpus/text.txt").unlink(), ErrorCode.DATA_NOT_FOUND, "corpus 'text'"),
    ("failed", lambda _, folder: add_corpus(folder, some_text(61), "text"), ErrorCode.CONFLICT, "corpus has changed"),
    ("cancelled", lambda _, folder: add_corpus(folder, "a", "other"), ErrorCode.CONFLICT, "corpus has changed"),
    ("cancelled", change_clipping, ErrorCode.CONFLICT, "to different settings"),
    (
        "failed",
        search,
        ErrorCode.MODEL_INCOMPATIBLE,
        "with values of its own search, so this version cannot continue it",
    ),
]


@pytest.mark.parametrize(("end", "change", "code", "words"), REFUSALS)
async def test_run_that_cannot_be_resumed__is_refused_and_nothing_changes(
    end: FinalState | None, change: Change, code: ErrorCode, words: str, tmp_path: Path
) -> None:
    run = await stopped_run(tmp_path, end)
    change(run, tmp_path)
    before = contents(tmp_path)
    with refused(code, words):
        await resolve_origin(run, CorpusStore(settings_in(tmp_path)), settings_in(tmp_path))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_stopped_run__resumes_from_its_newest_whole_checkpoint(tmp_path: Path, end: FinalState) -> None:
    run = await stopped_run(tmp_path, end, steps=(3, 5, 8))
    newest = run.checkpoints / "step-8" / "state.json"
    newest.write_bytes(newest.read_bytes() + b" ")
    origin = await resolve_origin(run, CorpusStore(settings_in(tmp_path)), settings_in(tmp_path))
    assert (origin.run.run_id, origin.state.step) == ("char_lstm-1", 5)
    (run.checkpoints / "step-3" / "optimizer.pt").write_bytes(b"")
    assert newest_whole(run.checkpoints) is None, "the best is a part of each"


async def test_run_with_minutes__is_resumed_without_other_epochs(tmp_path: Path) -> None:
    origin = await origin_in(tmp_path)
    record = origin.run.record()
    record = changed(record, effective=changed(record.effective, minutes=2.0))
    with refused(ErrorCode.INVALID_INPUT, "`num_epochs` cannot be given: the run trains for its 2 `minutes`."):
        with_epochs(record, origin, 9)
    assert with_epochs(record, origin, None).effective == record.effective


def resumed(origin: Origin, folder: Path, disk: Disk) -> RunDirectory:
    own = changed(origin.run.record(), run_id="char_lstm-2", user_id=7, resumed_from_run_id=origin.run.run_id)
    return RunStore(folder, disk).create(own, origin)


async def origin_in(folder: Path) -> Origin:
    run = await stopped_run(folder)
    return await resolve_origin(run, CorpusStore(settings_in(folder)), settings_in(folder))


async def test_new_run__has_all_that_the_training_needs_of_the_old_one(tmp_path: Path) -> None:
    origin = await origin_in(tmp_path)
    origin.run.training_samples.write_text('{"step": 4}\n', encoding="utf-8")
    for step in (1, 5, 7):  # it kept step 7 and was killed before it saved where it stood
        state, weights, _ = checkpoint(step)
        CheckpointStore(origin.run.checkpoints).save_scheduled(state, weights)
    before = contents(origin.run.path)
    new = resumed(origin, tmp_path / "artifacts", Disk())
    assert contents(origin.run.path) == before
    copied = {name: data for name, data in before.items() if name in contents(new.path)}
    assert {"loss_curve.jsonl", "training_samples.jsonl", "tokenizer/tokenizer.json"} < copied.keys()
    assert {"checkpoints/step-3/model.safetensors", "checkpoints/step-5/optimizer.pt"} < copied.keys()
    assert CheckpointStore(new.checkpoints).scheduled_steps() == [1, 5]
    own = {"request.json", "events.jsonl"}
    assert all(contents(new.path)[name] == data for name, data in copied.items() if name not in own)
    assert contents(new.path).keys() == copied.keys() | own
    assert same(checkpoint(5, 3), CheckpointStore(new.checkpoints).recover().checkpoint)
    assert new.record().resumed_from_run_id == "char_lstm-1"
    assert new.record().requested_paths == ("a", "b", "c")
    status = new.follow().refresh()
    assert (status.status, status.last_checkpoint_step, status.user_id) == ("queued", 5, 7)


async def test_disk_that_fails_at_any_operation__leaves_no_part_of_a_new_run(tmp_path: Path) -> None:
    origin = await origin_in(tmp_path)
    for number in range(1, 99):
        folder, disk = tmp_path / str(number), FailingDisk(number, errno.ENOSPC)
        try:
            resumed(origin, folder, disk)
        except (AppError, OSError):
            assert [path for path in folder.glob("models/*/*") if path.is_file()] == [], number
        else:
            break
    assert number > 20


async def test_new_run__exists_completely_or_not_at_all_after_any_crash(tmp_path: Path) -> None:
    states = states_of_new_run(await origin_in(tmp_path), tmp_path)
    assert {"whole", "none"} == set(states) and len(states) > 40


@pytest.mark.parametrize("kind", ["file", "parent"])
async def test_new_run__with_one_kind_of_sync_left_out_a_part_of_it_is_found(tmp_path: Path, kind: str) -> None:
    assert {"part", "lost"} & set(states_of_new_run(await origin_in(tmp_path), tmp_path, without=kind))


def states_of_new_run(origin: Origin, folder: Path, without: str | None = None) -> list[str]:
    (folder / "new").mkdir()
    disk = RecordingDisk(folder / "new", without)
    whole = contents(resumed(origin, folder / "new", disk).path)
    disk.acknowledge()
    states: list[str] = []
    for tree, acknowledged in islice(disk.states(), 3000):
        lay_out(tree, folder / "state")
        runs = [path.parent for path in (folder / "state").glob("models/[a-z]*/request.json")]
        if runs:
            states.append("whole" if contents(runs[0]) == whole else "part")
        else:
            states.append("lost" if acknowledged else "left" if left_after_a_start(folder / "state") else "none")
        if states[-1] in ("part", "lost", "left"):
            break
    return states


def left_after_a_start(artifacts_root: Path) -> list[Path]:
    """Return the files of an unfinished new run after a worker's start."""
    for path in artifacts_root.glob("models/*"):
        os.utime(path, (0, 0))
    RunStore(artifacts_root, UnsyncedDisk()).clear_leftovers()
    return list(artifacts_root.glob("models/*"))


def test_run_that_is_being_made__is_left_alone(tmp_path: Path) -> None:
    being_made, store = tmp_path / "models" / ".char_lstm-1.new", RunStore(tmp_path)
    being_made.mkdir(parents=True)
    store.clear_leftovers()
    assert being_made.exists()
    with RunDirectory(being_made).wait_for_lock(0):
        os.utime(being_made, (0, 0))
        store.clear_leftovers()
        assert being_made.exists()
    being_made.with_name("somebody's folder").mkdir()
    store.clear_leftovers()
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["somebody's folder"]
