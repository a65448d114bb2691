"""What was promised is there after a power cut or a failing disk, whatever the moment, and the next try works."""

import asyncio
import errno
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from bot.people.watchers import Ledger, read_ledger
from tests.support.checkpoints import checkpoint, same
from tests.support.crash_states import RecordingDisk, lay_out
from tests.support.disk_failures import CODES, FailingDisk, failing
from tests.support.markers import slow_except
from tests.support.measured_runs import SUMMARY
from tests.support.runs import ended, phase, record
from tests.support.unsynced_disk import UnsyncedDisk
from trainer.artifacts.event_log import EventLog, EventReader
from trainer.artifacts.runs import RunDirectory, RunStore, complete_end
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode
from trainer.system.files import Disk, sha256_of, write_atomically
from trainer.training.checkpoint import CheckpointStore

CHECKPOINTS = {step: checkpoint(step, step) for step in (1, 2, 3, 4)}
Step = Callable[[], object]


class Kept(NamedTuple):
    """Something that is kept on disk."""

    steps: Callable[[Path, Disk], Iterator[Step]]
    """How it is written; each step is promised when it is done."""
    fault: Callable[[Path, int], str | None]
    """What is wrong with its files after so many promises; the next writing works, too."""
    syncs: tuple[str, ...]
    """The kinds of sync that it needs."""
    operations: int
    """It takes at least so many operations of the disk."""
    states: int = 20
    """A crash may leave at least so many states of it."""


def save_checkpoints(folder: Path, disk: Disk) -> Iterator[Step]:
    """Saves into a run that has no folder for them yet; the third one drops the first."""
    store = CheckpointStore(folder / "checkpoints", disk)
    for step in (1, 2, 3):
        yield partial(store.save, CHECKPOINTS[step])


def fault_of_checkpoints(folder: Path, promised: int) -> str | None:
    store = CheckpointStore(folder / "checkpoints", UnsyncedDisk())
    found = store.recover()
    step = 0 if found.checkpoint is None else found.checkpoint.state.step
    if found.quarantined:
        return f"{found.quarantined}"
    if step < promised:
        return f"{step} is the newest"
    if step and not same(CHECKPOINTS[step], found.checkpoint):
        return f"{step} is another"
    store.save(CHECKPOINTS[step + 1])
    return None if same(CHECKPOINTS[step + 1], store.recover().checkpoint) else "the next save is not found"


def save_scheduled(folder: Path, disk: Disk) -> Iterator[Step]:
    store = CheckpointStore(folder / "checkpoints", disk)
    for step in (1, 2):
        yield partial(store.save_scheduled, CHECKPOINTS[step].state, CHECKPOINTS[step].weights)


def fault_of_scheduled(folder: Path, promised: int) -> str | None:
    store = CheckpointStore(folder / "checkpoints", UnsyncedDisk())
    assert store.recover().checkpoint is None
    kept = len(store.scheduled_steps())
    for step in store.scheduled_steps():
        try:
            assert torch.equal(store.scheduled_weights(step)["weight"], CHECKPOINTS[step].weights["weight"])
        except AppError as error:
            return error.message
    store.save_scheduled(CHECKPOINTS[4].state, CHECKPOINTS[4].weights)
    return None if promised <= kept and store.scheduled_steps()[-1] == 4 else f"{kept} are kept"


def accept_and_end(folder: Path, disk: Disk) -> Iterator[Step]:
    """A run that is accepted, ends, and is measured once more."""
    store = RunStore(folder, disk)
    yield lambda: store.create(record())
    run = store.get("char_lstm-1")
    run.metrics.parent.mkdir()
    for path in (run.metrics, run.samples):
        path.write_text("{}", encoding="utf-8")
    yield partial(ended, run, "completed")
    yield partial(run.add_evaluation, SUMMARY)


def fault_of_run(folder: Path, promised: int) -> str | None:
    try:
        run = RunStore(folder, UnsyncedDisk()).get("char_lstm-1")
    except AppError:
        return "lost" if promised else None
    try:
        complete_end(run)
        manifest, events = run.manifest(), run.reader().read_new()
        run.record()
    except (OSError, ValueError) as error:
        return f"broken: {error}"
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        return "gap"
    if manifest is None:
        return None if promised < 2 and run.follow().refresh().status == "queued" else "end lost"
    if run.follow().refresh().status != "completed" or len(events) != 2:
        return "end without its event"
    if len(manifest.eval) < (promised == 3):
        return "evaluation lost"
    seal = run.seal.read_text(encoding="ascii").split("\n")
    names = ("request.json", "manifest.json", "events.jsonl")
    return None if all(f"{sha256_of(run.path / name)}  {name}" in seal for name in names) else "seal does not fit"


def append_events(folder: Path, disk: Disk) -> Iterator[Step]:
    """Some writers, which try a second time; the first and the fourth one find a line that was torn."""

    def append(number: int) -> None:
        with EventLog(folder / "log", disk) as log:
            try:
                log.append(phase(number))
            except AppError:
                log.append(phase(number))
                raise

    for number in range(1, 7):
        if number in (2, 4):
            with (folder / "log").open("ab") as file:
                file.write(b'{"type":')
        yield partial(append, number)


def fault_of_log(folder: Path, promised: int) -> str | None:
    path = folder / "log"
    if path.exists():
        seen = [event.event_id for event in EventReader(path).read_new()]
        if seen[:promised] != [f"r:phase:{number}" for number in range(1, promised + 1)]:
            return f"lost: {seen}"
    with EventLog(path, UnsyncedDisk()) as log:
        log.append(phase(99))
    events = EventReader(path).read_new()
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        return "gap"
    if len({event.event_id for event in events}) < len(events) or path.read_bytes().count(b"\n") != len(events):
        return "too much"
    return None if len(events) > promised and events[-1].event_id == "r:phase:99" else "the next is not found"


def note_watchers(folder: Path, disk: Disk) -> Iterator[Step]:
    yield lambda: RunStore(folder, disk).create(record())
    ledger = Ledger(RunDirectory(folder / "models" / "char_lstm-1", disk))

    def note(user_id: int) -> None:
        asyncio.run(ledger.watch(user_id, None))

    for user_id in (7, 8, 9):
        yield partial(note, user_id)


def fault_of_ledger(folder: Path, promised: int) -> str | None:
    if not promised:
        return None
    run = RunDirectory(folder / "models" / "char_lstm-1", UnsyncedDisk())
    known = [watcher.user_id for watcher in read_ledger(run).watchers]
    if known not in ([7, 8, 9][: max(1, promised - 1)], [7, 8, 9][:promised]):
        return f"{known}"
    is_same = len(Ledger(run).current.watchers) == len(known)
    return None if is_same and not list(run.path.glob(".dm.json.*")) else "it is another when written"


def write_records(folder: Path, disk: Disk) -> Iterator[Step]:
    for number in range(1, 4):
        yield partial(write_atomically, folder / "record", str(number).encode() * 99, disk)


def fault_of_record(folder: Path, promised: int) -> str | None:
    data = (folder / "record").read_bytes() if (folder / "record").exists() else b""
    known = [str(number).encode() * 99 if number else b"" for number in (promised, promised + 1)]
    write_atomically(folder / "record", b"next", UnsyncedDisk())
    return None if data in known and (folder / "record").read_bytes() == b"next" else f"{data!r}"


KEPT = {
    "checkpoints": Kept(save_checkpoints, fault_of_checkpoints, ("file", ".tmp-", "parent"), 39, states=100),
    "scheduled checkpoints": Kept(save_scheduled, fault_of_scheduled, ("file", ".tmp-", "parent"), 16),
    "run": Kept(accept_and_end, fault_of_run, ("file", "parent"), 24),
    "events": Kept(append_events, fault_of_log, ("file",), 12),
    "ledger": Kept(note_watchers, fault_of_ledger, ("parent",), 18),
    "record": Kept(write_records, fault_of_record, ("file", "parent"), 9, states=9),
}


def wrong_states(kept: Kept, folder: Path, *, without: str | None = None) -> list[str]:
    """The first of the states that a crash may leave that is wrong, if any; syncs left out multiply the states."""
    (folder / "disk").mkdir()
    disk = RecordingDisk(folder / "disk", without)
    for step in kept.steps(folder / "disk", disk):
        step()
        disk.acknowledge()
        if without == ".tmp-":
            break
    count = 0
    for count, (tree, promised) in enumerate(disk.states(), 1):
        lay_out(tree, folder / "state")
        if fault := kept.fault(folder / "state", promised):
            return [f"state {count}, after {promised}: {fault}"]
    assert count > kept.states
    return []


@pytest.mark.parametrize("kind", KEPT)
def test_promises__hold_in_any_state_that_a_crash_may_leave(tmp_path: Path, kind: str) -> None:
    assert wrong_states(KEPT[kind], tmp_path) == []


@pytest.mark.parametrize(("kind", "sync"), [(kind, sync) for kind, kept in KEPT.items() for sync in kept.syncs])
def test_promises__do_not_hold_with_one_kind_of_sync_left_out(tmp_path: Path, kind: str, sync: str) -> None:
    assert len(wrong_states(KEPT[kind], tmp_path, without=sync)) == 1


def is_done(step: Step, disk: FailingDisk, code: int, *, creates: bool) -> bool:
    """Do something; False where the failure was reported. Who creates a run makes a report of a plain error."""
    had_failed = disk.has_failed
    try:
        step()
    except AppError as error:
        assert error.code == CODES[code] and error.code.error_class is ErrorClass.TRANSIENT
        assert ("full" in error.message) == (error.code is ErrorCode.INSUFFICIENT_STORAGE)
    except OSError as error:
        assert creates and error.errno == code
    else:
        return True
    assert disk.has_failed and not had_failed
    return False


@pytest.mark.parametrize("code", slow_except([errno.ENOSPC, errno.EIO], errno.ENOSPC))
@pytest.mark.parametrize("kind", KEPT)
def test_promises__hold_where_any_operation_of_the_disk_fails_once(tmp_path: Path, kind: str, code: int) -> None:
    kept = KEPT[kind]

    def fault(folder: Path, promised: int) -> str | None:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "copy")
        return kept.fault(tmp_path / "copy", promised)

    for number, disk in enumerate(failing(code, at_least=kept.operations)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for promised, step in enumerate(kept.steps(folder, disk)):
            creates = promised == 0 and kind in ("run", "ledger")
            if not is_done(step, disk, code, creates=creates):
                assert not list(folder.rglob(".tmp-*")), "what was half written takes no room"
                assert fault(folder, promised) is None
                if creates:
                    break
                step()
        else:
            assert fault(folder, promised + 1) is None
            assert not list(folder.rglob(".*"))


def test_failed_recovery_of_checkpoints__can_be_tried_again(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(CHECKPOINTS[1])
    for disk in failing(errno.EIO, at_least=3):
        (tmp_path / ".tmp-step-2").mkdir(exist_ok=True)
        (tmp_path / "step-3").mkdir(exist_ok=True)
        is_done(CheckpointStore(tmp_path, disk).recover, disk, errno.EIO, creates=False)
        assert same(CHECKPOINTS[1], CheckpointStore(tmp_path).recover().checkpoint)
    assert len(list(tmp_path.glob("broken-*"))) > 1


def test_event_that_could_not_be_written__comes_with_the_next_one(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log", FailingDisk(4, errno.ENOSPC)) as log:
        with pytest.raises(AppError):
            log.append(phase(1))
        assert EventReader(tmp_path / "log").read_new() == []
        log.append(phase(2))
    events = EventReader(tmp_path / "log").read_new()
    assert [(event.seq, event.event_id) for event in events] == [(1, "r:phase:1"), (2, "r:phase:2")]


def test_leftovers_of_killed_writers__are_removed_by_the_next_of_each_file(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(record())
    run.metrics.parent.mkdir()
    of_the_bot = run.path / ".dm.json.00000000.tmp"
    for path in (run.path / ".manifest.json.00000000.tmp", run.metrics.parent / ".metrics.json.0.tmp", of_the_bot):
        path.touch()
    (run.path / ".folder.tmp").mkdir()
    run.open_log().__exit__()
    assert sorted(path.name for path in run.path.rglob(".*")) == [of_the_bot.name, ".folder.tmp"]
    Ledger(run)
    assert not of_the_bot.exists()


def test_sync__reaches_the_operating_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sync in the enumeration of states does."""
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
