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
from tests.support.crash_states import RecordingDisk, lay_out
from tests.support.disk_failures import FailingDisk
from tests.support.stopped_runs import stopped_run
from tests.support.unsynced_disk import UnsyncedDisk
from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.runs import Origin, RunDirectory, RunStore
from trainer.config.presets import request_hash
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import FinalState, RunRecord
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_origin
from trainer.system.files import Disk
from trainer.training.checkpoint import CheckpointStore


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def spoil(checkpoints: Path) -> None:
    for weights in checkpoints.glob("*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[::-1])


def change_learning_rate(run: Path) -> None:
    """As if the default had been another one when the run was accepted."""
    request = run / "request.json"
    record = RunRecord.model_validate_json(request.read_bytes())
    other: dict[str, object] = {"learning_rate": 0.3}
    effective = record.effective.model_copy(update=other)
    update: dict[str, object] = {"effective": effective, "request_hash": request_hash(effective)}
    request.write_text(record.model_copy(update=update).model_dump_json(), encoding="utf-8")


REFUSALS: dict[str, tuple[FinalState | None, Callable[[Path], object], ErrorCode, str]] = {
    "has not ended": (None, lambda folder: None, ErrorCode.RUN_NOT_READY, "has not ended: it continues by itself"),
    "is completed": ("completed", lambda folder: None, ErrorCode.RUN_FINISHED, "with it as `init_from_run_id`"),
    "no checkpoint": (
        "cancelled",
        lambda folder: shutil.rmtree(folder / "artifacts/models/char_lstm-1/checkpoints"),
        ErrorCode.CONFLICT,
        "has no complete checkpoint to resume from: start a new training",
    ),
    "no whole checkpoint": (
        "failed",
        lambda folder: spoil(folder / "artifacts/models/char_lstm-1/checkpoints"),
        ErrorCode.CONFLICT,
        "has no complete checkpoint",
    ),
    "text is gone": (
        "failed",
        lambda folder: (folder / "data/corpus/text.txt").unlink(),
        ErrorCode.DATA_NOT_FOUND,
        "cannot be resumed. There is no corpus 'text'",
    ),
    "text has changed": (
        "failed",
        lambda folder: add_corpus(folder, some_text(61)),
        ErrorCode.CONFLICT,
        "cannot be resumed: its corpus has changed since. Start a new training",
    ),
    "validation text has changed": (
        "cancelled",
        lambda folder: add_corpus(folder, "a b d\n", name="other"),
        ErrorCode.CONFLICT,
        "its corpus has changed since",
    ),
    "means something else": (
        "cancelled",
        lambda folder: change_learning_rate(folder / "artifacts/models/char_lstm-1"),
        ErrorCode.CONFLICT,
        "cannot be resumed: its request resolves to different settings today",
    ),
}


@pytest.mark.parametrize("why", REFUSALS)
async def test_run_that_cannot_go_on__is_refused_in_one_sentence_and_nothing_changes(tmp_path: Path, why: str) -> None:
    end, change, code, sentence = REFUSALS[why]
    run = await stopped_run(tmp_path, end)
    change(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(AppError) as caught:
        await resolve_origin(run, CorpusStore(settings_in(tmp_path)), settings_in(tmp_path))
    assert (caught.value.code, sentence in caught.value.message) == (code, True), caught.value.message
    assert contents(tmp_path) == before


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_stopped_run__goes_on_from_its_newest_whole_checkpoint(tmp_path: Path, end: FinalState) -> None:
    run = await stopped_run(tmp_path, end, steps=(3, 5, 8))
    newest = run.checkpoints / "step-8" / "state.json"
    newest.write_bytes(newest.read_bytes() + b" ")
    origin = await resolve_origin(run, CorpusStore(settings_in(tmp_path)), settings_in(tmp_path))
    assert (origin.run.run_id, origin.state.step) == ("char_lstm-1", 5)


def test_checkpoint_whose_best_is_broken__is_not_whole(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(3, 3))
    store.save(checkpoint(5, 3))
    spoil_one = tmp_path / "step-3" / "optimizer.pt"
    spoil_one.write_bytes(b"")
    assert newest_whole(tmp_path) is None


def gone_on(origin: Origin, folder: Path, disk: Disk) -> RunDirectory:
    own: dict[str, object] = {"run_id": "char_lstm-2", "user_id": 7, "resumed_from_run_id": origin.run.run_id}
    return RunStore(folder, disk).create(origin.run.record().model_copy(update=own), origin)


async def origin_in(folder: Path) -> Origin:
    run = await stopped_run(folder)
    return await resolve_origin(run, CorpusStore(settings_in(folder)), settings_in(folder))


async def test_new_run__has_all_that_the_training_needs_and_the_old_one_is_as_it_was(tmp_path: Path) -> None:
    origin = await origin_in(tmp_path)
    origin.run.training_samples.write_text('{"step": 4}\n', encoding="utf-8")
    for step in (1, 5, 7):  # it kept step 7 and was killed before it saved where it stood
        state, weights, _ = checkpoint(step)
        CheckpointStore(origin.run.checkpoints).save_scheduled(state, weights)
    before = contents(origin.run.path)

    new = gone_on(origin, tmp_path / "artifacts", Disk())

    assert contents(origin.run.path) == before
    copied = {name: data for name, data in before.items() if name in contents(new.path)} | {"lock": b""}
    assert {"loss_curve.jsonl", "training_samples.jsonl", "tokenizer/tokenizer.json"} < copied.keys()
    assert {"checkpoints/step-3/model.safetensors", "checkpoints/step-5/optimizer.pt"} < copied.keys()
    assert CheckpointStore(new.checkpoints).scheduled_steps() == [1, 5]
    own = {"request.json", "events.jsonl"}
    assert all(contents(new.path)[name] == data for name, data in copied.items() if name not in {*own, "lock"})
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
            gone_on(origin, folder, disk)
        except (AppError, OSError):
            assert [path for path in folder.glob("models/*/*") if path.is_file()] == [], number
        else:
            break
    assert number > 20


async def test_new_run__is_there_whole_or_not_at_all_in_any_state_that_a_crash_may_leave(tmp_path: Path) -> None:
    states = states_of_new_run(await origin_in(tmp_path), tmp_path)
    assert {"whole", "none"} == set(states) and len(states) > 40


@pytest.mark.parametrize("kind", ["file", "parent"])
async def test_new_run__with_one_kind_of_sync_left_out_a_part_of_it_is_found(tmp_path: Path, kind: str) -> None:
    assert {"part", "lost"} & set(states_of_new_run(await origin_in(tmp_path), tmp_path, without=kind))


def states_of_new_run(origin: Origin, folder: Path, without: str | None = None) -> list[str]:
    (folder / "new").mkdir()
    disk = RecordingDisk(folder / "new", without)
    whole = contents(gone_on(origin, folder / "new", disk).path)
    del whole["lock"]  # which a child makes where it is missing
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
    being_made = tmp_path / "models" / ".char_lstm-1.new"
    being_made.mkdir(parents=True)
    store = RunStore(tmp_path)
    store.clear_leftovers()
    assert being_made.exists()
    lock = RunDirectory(being_made).lock()
    assert lock is not None
    os.utime(being_made, (0, 0))
    store.clear_leftovers()
    assert being_made.exists()
    lock.close()
    (tmp_path / "models" / "somebody's folder").mkdir()
    store.clear_leftovers()
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["somebody's folder"]
