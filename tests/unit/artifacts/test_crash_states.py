"""Every disk state after a power cut: acknowledged checkpoints are complete, and none is read wrongly."""

import asyncio
from collections.abc import Callable
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


def saved(folder: Path, without: str | None = None, steps: tuple[int, ...] = (1, 2, 3)) -> RecordingDisk:
    """Saves into a run that has no folder for them yet; the third one drops the first."""
    folder.mkdir()
    disk = RecordingDisk(folder, without)
    store = CheckpointStore(folder / "checkpoints", disk)
    for step in steps:
        store.save(CHECKPOINTS[step])
        disk.acknowledge()
    return disk


Fault = Callable[[Path, int], str | None]
"""What is wrong with the files of a state before which so many promises were made."""


def wrong_states(
    disk: RecordingDisk, folder: Path, fault_of: Fault, *, at_most: int | None = None, states: int = 20
) -> list[str]:
    """What is wrong with all states that a crash may leave; looks no further once `at_most` are wrong."""
    wrong: list[str] = []
    count = 0
    for count, (tree, acknowledged) in enumerate(disk.states(), 1):
        lay_out(tree, folder)
        if fault := fault_of(folder, acknowledged):
            wrong.append(f"state {count}, after {acknowledged}: {fault}")
        if len(wrong) == at_most:
            return wrong
    assert count > states
    return wrong


def fault_of_checkpoints(folder: Path, acknowledged: int) -> str | None:
    store = CheckpointStore(folder / "checkpoints", UnsyncedDisk())
    found = store.recover()
    step = 0 if found.checkpoint is None else found.checkpoint.state.step
    if found.quarantined:
        return f"{found.quarantined}"
    if step < acknowledged:
        return f"{step} is the newest"
    if step and not same(CHECKPOINTS[step], found.checkpoint):
        return f"{step} is another"
    store.save(CHECKPOINTS[step + 1])
    return None if same(CHECKPOINTS[step + 1], store.recover().checkpoint) else "the next save is not found"


def test_checkpoints__acknowledged_ones_are_found_in_any_state(tmp_path: Path) -> None:
    assert wrong_states(saved(tmp_path / "run"), tmp_path / "state", fault_of_checkpoints, states=100) == []


@pytest.mark.parametrize("kind", ["file", ".tmp-", "parent"])
def test_checkpoints__without_one_kind_of_sync_are_found_wrong(tmp_path: Path, kind: str) -> None:
    """The last save only: the states multiply when nothing is ever synced."""
    disk = saved(tmp_path / "run", kind, steps=(1,))
    assert len(wrong_states(disk, tmp_path / "state", fault_of_checkpoints, at_most=1)) == 1


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


def fault_of_run(folder: Path, acknowledged: int) -> str | None:
    try:
        run = RunStore(folder, UnsyncedDisk()).get("char_lstm-1")
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
    assert wrong_states(accepted_and_ended(tmp_path / "store"), tmp_path / "state", fault_of_run) == []


@pytest.mark.parametrize("kind", ["file", "parent"])
def test_run_and_its_end__without_one_kind_of_sync_are_found_wrong(tmp_path: Path, kind: str) -> None:
    disk = accepted_and_ended(tmp_path / "store", kind)
    assert len(wrong_states(disk, tmp_path / "state", fault_of_run, at_most=1)) == 1


def fault_of_log(folder: Path, acknowledged: int) -> str | None:
    path = folder / "log"
    if path.exists():
        seen = [event.event_id for event in EventReader(path).read_new()]
        if seen[:acknowledged] != [f"r:phase:{number}" for number in range(1, acknowledged + 1)]:
            return f"lost: {seen}"
    with EventLog(path, UnsyncedDisk()) as log:
        log.append(phase(99))
    events = EventReader(path).read_new()
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        return "gap"
    return None if len(events) > acknowledged and events[-1].event_id == "r:phase:99" else "the next is not found"


def test_events__that_were_acknowledged_are_there_without_a_gap_in_any_state(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    disk = RecordingDisk(tmp_path / "run")
    for first in (1, 4):  # the second writer finds a line that was torn
        with EventLog(tmp_path / "run" / "log", disk) as log:
            for number in range(first, first + 3):
                log.append(phase(number))
                disk.acknowledge()
        with (tmp_path / "run" / "log").open("ab") as file:
            file.write(b'{"type":')
    assert wrong_states(disk, tmp_path / "state", fault_of_log) == []


def fault_of_ledger(folder: Path, acknowledged: int) -> str | None:
    if not acknowledged:
        return None
    run = RunDirectory(folder / "models" / "char_lstm-1", UnsyncedDisk())
    known = [watcher.user_id for watcher in read_ledger(run).watchers]
    if known not in ([7, 8, 9][: max(1, acknowledged - 1)], [7, 8, 9][:acknowledged]):
        return f"{known}"
    is_same = len(Ledger(run).current.watchers) == len(known)
    return None if is_same and not list(run.path.glob(".dm.json.*")) else "it is another when written"


def test_ledger__is_as_it_was_last_noted_or_as_before_in_any_state(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    disk = RecordingDisk(tmp_path / "store")
    run = RunStore(tmp_path / "store", disk).create(record())
    disk.acknowledge()

    async def note() -> None:
        ledger = Ledger(run)
        for user_id in (7, 8, 9):
            await ledger.watch(user_id, None)
            disk.acknowledge()

    asyncio.run(note())
    assert wrong_states(disk, tmp_path / "state", fault_of_ledger) == []


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
