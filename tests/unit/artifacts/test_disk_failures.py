"""Each disk operation fails once: stored files stay, the failure is reported, and the next try works."""

import asyncio
import errno
from functools import partial
from pathlib import Path

import pytest

from bot.people.watchers import Ledger, read_ledger
from tests.support.checkpoints import checkpoint, names, same
from tests.support.disk_failures import CODES, FailingDisk, failing, told
from tests.support.runs import ended, phase, record
from trainer.artifacts.event_log import EventLog, EventReader
from trainer.artifacts.runs import RunDirectory, RunStore, complete_end
from trainer.contracts.errors import AppError
from trainer.system.files import write_atomically
from trainer.training.checkpoint import CheckpointStore


@pytest.fixture(name="code", params=CODES)
def code_fixture(request: pytest.FixtureRequest) -> int:
    code: int = request.param
    return code


def test_save__that_fails_anywhere_leaves_a_usable_checkpoint_and_can_be_tried_again(tmp_path: Path, code: int) -> None:
    made = {step: checkpoint(step, step) for step in (1, 2, 3)}
    for number, disk in enumerate(failing(code, at_least=13)):
        folder = tmp_path / str(number)
        for step in (1, 2):
            CheckpointStore(folder).save(made[step])
        store = CheckpointStore(folder, disk)
        done = told(partial(store.save, made[3]), disk, code)
        assert not list(folder.glob(".tmp-*")), "what was half written takes no room"
        found = CheckpointStore(folder).recover()
        assert found.checkpoint is not None and found.quarantined == ()
        step = found.checkpoint.state.step
        assert same(made[step], found.checkpoint)
        assert step == 3 or (step == 2 and not done)
        store.save(made[3])
        assert same(made[3], store.recover().checkpoint)
    for number, disk in enumerate(failing(code, at_least=14)):
        store = CheckpointStore(tmp_path / f"first{number}" / "checkpoints", disk)
        told(partial(store.save, made[1]), disk, code)
        store.save(made[1])
        assert same(made[1], store.recover().checkpoint)


def test_recovery__that_fails_is_told_and_can_be_tried_again(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(checkpoint(1))
    for disk in failing(errno.EIO, at_least=3):
        (tmp_path / ".tmp-step-2").mkdir(exist_ok=True)
        (tmp_path / "step-3").mkdir(exist_ok=True)
        told(CheckpointStore(tmp_path, disk).recover, disk, errno.EIO)
        assert same(checkpoint(1), CheckpointStore(tmp_path).recover().checkpoint)
    assert len(list(tmp_path.glob("broken-*"))) > 1


def test_record__that_fails_anywhere_is_the_old_or_the_new_one_whole(tmp_path: Path, code: int) -> None:
    path = tmp_path / "manifest.json"
    for disk in failing(code, at_least=3):
        path.write_bytes(b"old")
        done = told(partial(write_atomically, path, b"new", disk), disk, code)
        assert path.read_bytes() in (b"new", b"new" if done else b"old")
        assert names(tmp_path) == ["manifest.json"]


def test_event__that_fails_anywhere_is_written_whole_at_the_next_try(tmp_path: Path, code: int) -> None:
    for number, disk in enumerate(failing(code, at_least=5)):
        path = tmp_path / f"log{number}"
        path.write_bytes(b'{"torn')

        def write(path: Path = path, disk: FailingDisk = disk) -> None:
            with EventLog(path, disk) as log:
                for event in (phase(1), phase(2), phase(2)):
                    try:
                        log.append(event)
                    except AppError:
                        log.append(event)
                        raise

        if not told(write, disk, code):
            write()

        events = EventReader(path).read_new()
        assert [(event.seq, event.event_id) for event in events] == [(1, "r:phase:1"), (2, "r:phase:2")]
        assert path.read_bytes().count(b"\n") == 2


def test_event_that_could_not_be_written__comes_with_the_next_one(tmp_path: Path) -> None:
    disk = FailingDisk(4, errno.ENOSPC)
    with EventLog(tmp_path / "log", disk) as log:
        with pytest.raises(AppError):
            log.append(phase(1))
        assert EventReader(tmp_path / "log").read_new() == []
        log.append(phase(2))
    events = EventReader(tmp_path / "log").read_new()
    assert [(event.seq, event.event_id) for event in events] == [(1, "r:phase:1"), (2, "r:phase:2")]


def test_end__that_fails_anywhere_is_completed_by_the_next(tmp_path: Path, code: int) -> None:
    for number, disk in enumerate(failing(code, at_least=9)):
        run_id = f"r{number}"
        RunStore(tmp_path).create(record(run_id))
        run = RunDirectory(tmp_path / "models" / run_id, disk)

        end = partial(ended, run, "cancelled")
        if not told(end, disk, code) and run.manifest() is None:
            end()
        complete_end(run)
        assert run.follow().refresh().status == "cancelled"
        assert run.seal.exists()
        assert [event.seq for event in run.reader().read_new()] == [1, 2]
        assert not list(run.path.glob(".*"))


def test_request__that_fails_anywhere_was_never_accepted_or_is_whole(tmp_path: Path, code: int) -> None:
    for number, disk in enumerate(failing(code, at_least=12)):
        store = RunStore(tmp_path / str(number) / "artifacts", disk)
        (tmp_path / str(number)).mkdir()
        try:
            store.create(record())
        except AppError as error:
            assert error.code == CODES[code]
        except OSError as error:
            assert error.errno == code
        accepted = [run.record().run_id for run in RunStore(tmp_path / str(number) / "artifacts").all()]
        assert accepted in (["char_lstm-1"], ["char_lstm-1"] if not disk.has_failed else [])
        assert [run.follow().refresh().status for run in store.all()] == ["queued"] * len(accepted)


def watch(ledger: Ledger) -> None:
    asyncio.run(ledger.watch(8, None))


def test_ledger__that_fails_anywhere_is_told_and_noted_at_the_next_try(tmp_path: Path, code: int) -> None:
    for number, disk in enumerate(failing(code, at_least=3)):
        RunStore(tmp_path).create(record(f"r{number}"))
        run = RunDirectory(tmp_path / "models" / f"r{number}", disk)
        ledger = Ledger(run)
        told(partial(watch, ledger), disk, code)
        assert [watcher.user_id for watcher in read_ledger(run).watchers] in ([7], [7, 8])
        watch(ledger)
        assert [watcher.user_id for watcher in read_ledger(run).watchers] == [7, 8]


def test_what_killed_writers_have_left__is_cleared_away_by_the_next_one_of_each_file(tmp_path: Path) -> None:
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
