"""Every disk state after a power cut: acknowledged checkpoints are complete, and none is read wrongly."""

import asyncio
from pathlib import Path

import pytest

from bot.people.watchers import Ledger, read_ledger
from tests.support.checkpoints import checkpoint, same
from tests.support.crash_states import RecordingDisk, lay_out
from tests.support.runs import phase, record
from tests.support.unsynced_disk import UnsyncedDisk
from trainer.artifacts.event_log import EventLog, EventReader
from trainer.artifacts.runs import RunDirectory, RunStore, complete_end, finish_run, manifest_of
from trainer.contracts.errors import AppError
from trainer.contracts.runs import EvalSummary
from trainer.system.files import Disk, sha256_of
from trainer.training.checkpoint import CheckpointStore

CHECKPOINTS = {step: checkpoint(step, step) for step in (1, 2, 3, 4)}
KINDS = ["file", ".tmp-", "parent"]


def saved(folder: Path, without: str | None = None) -> RecordingDisk:
    """Three saves into a run that has no folder for them yet; the third one drops the first."""
    folder.mkdir()
    disk = RecordingDisk(folder, without)
    store = CheckpointStore(folder / "checkpoints", disk)
    for step in (1, 2, 3):
        store.save(CHECKPOINTS[step])
        disk.acknowledge()
    return disk


def wrong_checkpoints(disk: RecordingDisk, folder: Path, *, at_most: int | None = None) -> tuple[int, list[str]]:
    """The number of states, and what is wrong with them; looks no further once `at_most` are wrong."""
    wrong: list[str] = []
    count = 0
    for tree, acknowledged in disk.states():
        count += 1
        lay_out(tree, folder)
        store = CheckpointStore(folder / "checkpoints", UnsyncedDisk())
        found = store.recover()
        step = 0 if found.checkpoint is None else found.checkpoint.state.step
        if found.quarantined:
            wrong.append(f"after {acknowledged}: {found.quarantined}")
        elif step < acknowledged:
            wrong.append(f"after {acknowledged}: {step} is the newest")
        elif step and not same(CHECKPOINTS[step], found.checkpoint):
            wrong.append(f"after {acknowledged}: {step} is another")
        else:
            store.save(CHECKPOINTS[step + 1])
            if not same(CHECKPOINTS[step + 1], store.recover().checkpoint):
                wrong.append(f"after {acknowledged}: the next save is not found")
        if len(wrong) == at_most:
            break
    return count, wrong


def test_checkpoints__none_that_was_acknowledged_is_lost_and_no_wrong_one_loaded_in_any_state(tmp_path: Path) -> None:
    count, wrong = wrong_checkpoints(saved(tmp_path / "run"), tmp_path / "state")
    assert wrong == []
    assert count > 100


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints__with_one_kind_of_sync_left_out_the_enumeration_finds_it(tmp_path: Path, kind: str) -> None:
    """The last save only: the states multiply when nothing is ever synced."""
    (tmp_path / "run").mkdir()
    disk = RecordingDisk(tmp_path / "run", kind)
    CheckpointStore(tmp_path / "run" / "checkpoints", disk).save(CHECKPOINTS[1])
    disk.acknowledge()
    _, wrong = wrong_checkpoints(disk, tmp_path / "state", at_most=1)
    assert len(wrong) == 1


def accepted_and_ended(folder: Path, without: str | None = None) -> RecordingDisk:
    """A run that is accepted (1), ends (2), and is measured once more (3)."""
    folder.mkdir()
    disk = RecordingDisk(folder, without)
    run = RunStore(folder, disk).create(record())
    disk.acknowledge()
    run.metrics.parent.mkdir()
    for path in (run.metrics, run.samples):
        path.write_text("{}", encoding="utf-8")
    with run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "completed"))
        disk.acknowledge()
    run.add_evaluation(EvalSummary(split="test", loss=1.0, perplexity=3.0))
    disk.acknowledge()
    return disk


def wrong_runs(disk: RecordingDisk, folder: Path, *, at_most: int | None = None) -> tuple[int, list[str]]:
    wrong: list[str] = []
    count = 0
    for tree, acknowledged in disk.states():
        count += 1
        lay_out(tree, folder)
        fault = fault_of_run(RunStore(folder, UnsyncedDisk()), acknowledged)
        if fault:
            wrong.append(f"after {acknowledged}: {fault}")
        if len(wrong) == at_most:
            break
    return count, wrong


def fault_of_run(store: RunStore, acknowledged: int) -> str | None:
    try:
        run = store.get("char_lstm-1")
    except AppError:
        return "lost" if acknowledged else None
    try:
        complete_end(run)
        manifest, events = run.manifest(), run.reader().read_new()
        run.record()
    except (OSError, ValueError) as error:
        return f"broken: {error}"
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        return "gap"
    if manifest is None:
        return None if acknowledged < 2 and run.follow().refresh().status == "queued" else "end lost"
    if run.follow().refresh().status != "completed" or len(events) != 2:
        return "end without its event"
    if len(manifest.eval) < (acknowledged == 3):
        return "evaluation lost"
    seal = run.seal.read_text(encoding="ascii").split("\n")
    names = ("request.json", "manifest.json", "events.jsonl")
    if not all(f"{sha256_of(run.path / name)}  {name}" in seal for name in names):
        return "seal does not fit"
    return None


def test_run_and_its_end__are_there_or_not_in_any_state_and_the_seal_fits(tmp_path: Path) -> None:
    count, wrong = wrong_runs(accepted_and_ended(tmp_path / "store"), tmp_path / "state")
    assert wrong == []
    assert count > 20


@pytest.mark.parametrize("kind", ["file", "parent"])
def test_run_and_its_end__with_one_kind_of_sync_left_out_the_enumeration_finds_it(tmp_path: Path, kind: str) -> None:
    _, wrong = wrong_runs(accepted_and_ended(tmp_path / "store", kind), tmp_path / "state", at_most=1)
    assert len(wrong) == 1


def test_events__that_were_acknowledged_are_there_without_a_gap_in_any_state(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    disk = RecordingDisk(folder)
    for first in (1, 4):  # the second writer finds a line that was torn
        with EventLog(folder / "log", disk) as log:
            for number in range(first, first + 3):
                log.append(phase(number))
                disk.acknowledge()
        with (folder / "log").open("ab") as file:
            file.write(b'{"type":')

    count = 0
    for tree, acknowledged in disk.states():
        count += 1
        lay_out(tree, tmp_path / "state")
        log_file = tmp_path / "state" / "log"
        if log_file.exists():
            seen = [event.event_id for event in EventReader(log_file).read_new()]
            assert seen[:acknowledged] == [f"r:phase:{n}" for n in range(1, acknowledged + 1)]
        with EventLog(log_file, UnsyncedDisk()) as log:
            log.append(phase(99))
        events = EventReader(log_file).read_new()
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert (len(events) > acknowledged) and events[-1].event_id == "r:phase:99"
    assert count > 20


def test_ledger__is_as_it_was_last_noted_or_as_before_in_any_state(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    disk = RecordingDisk(root)
    run = RunStore(root, disk).create(record())
    disk.acknowledge()

    async def notes() -> None:
        ledger = Ledger(run)
        for user_id in (7, 8, 9):
            await ledger.watch(user_id, None)
            disk.acknowledge()

    asyncio.run(notes())

    for tree, acknowledged in disk.states():
        if acknowledged:
            lay_out(tree, tmp_path / "state")
            state = RunDirectory(tmp_path / "state" / "models" / "char_lstm-1", UnsyncedDisk())
            known = [watcher.user_id for watcher in read_ledger(state).watchers]
            assert known in ([7, 8, 9][: max(1, acknowledged - 1)], [7, 8, 9][:acknowledged])
            assert len(Ledger(state).current.watchers) == len(known)
            assert not list(state.path.glob(".dm.json.*"))


def test_sync__reaches_the_operating_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sync in the enumeration reaches the operating system."""
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    disk = Disk()
    disk.write(tmp_path / "file", b"x")
    assert len(synced) == 1
    with EventLog(tmp_path / "log", disk) as log:
        log.append(phase(1))
    assert len(synced) == 4
    disk.make_folder(tmp_path / "a" / "b")
    assert len(synced) == 5
