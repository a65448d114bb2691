"""Groups of runs on disk: written completely or not at all, completed after a kill, found by their ids."""

import os
from pathlib import Path

import pytest

from tests.support import tiny_request
from tests.support.groups import GROUP, group_record, group_stories, resumed
from tests.support.refusals import refused
from tests.support.runs import record
from tests.support.waiting import captured_logs
from trainer.artifacts.run_groups import (
    complete_groups,
    create_runs,
    member,
    runs_of_group,
)
from trainer.artifacts.run_ids import Named, id_of_resumed, one_run_id
from trainer.artifacts.runs import OPEN_GROUP_FILE, RunDirectory, RunStore
from trainer.contracts.base import changed, now
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import Accepted
from trainer.contracts.seeds import RunGroup
from trainer.system.files import Disk

SEEDS = (4, 9, 2)
IDS = [f"{GROUP}-s{seed}" for seed in SEEDS]


class Killed(BaseException):
    """The end of the process."""


class BrokenDisk(Disk):
    """A disk on which the folder of one run cannot be completed."""

    def __init__(self, number: int, error: BaseException) -> None:
        self._left = number
        self._error = error

    def rename(self, source: Path, target: Path) -> None:
        if source.name.endswith(".new"):
            self._left -= 1
            if not self._left:
                raise self._error
        super().rename(source, target)


class RivalDisk(Disk):
    """A disk on which another process writes a run of the group first."""

    def __init__(self, root: Path) -> None:
        self._rivals = [RunStore(root)]

    def make_folder(self, folder: Path, *, exist_ok: bool = True) -> None:
        if folder.name == f".{IDS[1]}.new" and self._rivals:
            self._rivals.pop().create(member(group_record(SEEDS), SEEDS[1]))
        super().make_folder(folder, exist_ok=exist_ok)


def store_on(root: Path, disk: Disk) -> RunStore:
    store = RunStore(root)
    store.disk = disk
    return store


def names(runs: list[RunDirectory]) -> list[str]:
    return [run.run_id for run in runs]


def make_old(first: RunDirectory) -> None:
    os.utime(first.path / OPEN_GROUP_FILE, (1, 1))


def test_group__has_a_run_for_each_seed_with_the_hash_of_one_alone(tmp_path: Path) -> None:
    asked = tiny_request(label="x")
    group = RunGroup(group_id=GROUP, seeds=SEEDS)
    first = changed(record(f"{GROUP}-s4", request=asked.with_seed(4)), group=group)
    runs = create_runs(RunStore(tmp_path), first)
    assert names(runs) == IDS
    for run, seed in zip(runs, SEEDS, strict=True):
        found, alone = run.record(), record(request=asked.with_seed(seed))
        assert (found.request_hash, found.request, found.effective) == (
            alone.request_hash,
            alone.request,
            alone.effective,
        )
        assert (found.group, found.run_id, run.has_open_group()) == (group, run.run_id, False)
        assert Accepted.of(found) == Accepted(run_id=IDS[0], job_id=IDS[0], status="queued", group=group)
        assert Accepted.of(found).run_ids == tuple(IDS)


def test_group__draws_another_id_where_one_is_taken(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    create_runs(store, group_record(SEEDS))
    others = create_runs(store, group_record(SEEDS))
    group = others[0].record().group
    assert group is not None and group.group_id != GROUP
    assert names(others) == [group.member_id(seed) for seed in SEEDS] and len(store.ids()) == 6
    alone = create_runs(store, record())
    assert create_runs(store, record())[0].run_id != alone[0].run_id


@pytest.mark.parametrize("number", [2, 3])
def test_group_that_cannot_be_written__leaves_nothing(tmp_path: Path, number: int) -> None:
    with pytest.raises(OSError, match="no room"):
        create_runs(store_on(tmp_path, BrokenDisk(number, OSError("no room"))), group_record(SEEDS))
    assert RunStore(tmp_path).ids() == []


@pytest.mark.parametrize("number", [1, 2, 3])
def test_kill_between_two_runs__leaves_a_group_to_complete(tmp_path: Path, number: int) -> None:
    """Killed while it writes the first run, the process has accepted nothing."""
    with pytest.raises(Killed):
        create_runs(store_on(tmp_path, BrokenDisk(number, Killed())), group_record(SEEDS))
    store = RunStore(tmp_path)
    written = store.ids()
    complete_groups(store)
    assert sorted(store.ids()) == sorted(written), "its process may be writing the others"
    for run_id in written:
        if store.directory(run_id).has_open_group():
            make_old(store.directory(run_id))
    for leftover in (tmp_path / "models").glob(".*.new"):
        leftover.rename(tmp_path / leftover.name)  # `clear_leftovers` does so after a minute
    complete_groups(store)
    assert sorted(store.ids()) == sorted(IDS if number > 1 else [])
    assert not any(store.directory(run_id).has_open_group() for run_id in IDS)


def test_group_that_is_just_being_written__is_completed_later(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        create_runs(store_on(tmp_path, BrokenDisk(2, Killed())), group_record(SEEDS))
    store = RunStore(tmp_path)
    make_old(store.directory(IDS[0]))
    with captured_logs() as logs:
        complete_groups(store)
    assert [line["event"] for line in logs] == ["group_incomplete"]
    assert store.directory(IDS[0]).has_open_group()


def test_run_that_another_process_has_just_written__becomes_a_member(tmp_path: Path) -> None:
    assert names(create_runs(store_on(tmp_path, RivalDisk(tmp_path)), group_record(SEEDS))) == IDS


def test_deleted_run_of_a_complete_group__is_not_written_again(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    create_runs(store, group_record(SEEDS))
    store.disk.remove_folder(store.directory(IDS[1]).path)
    complete_groups(store)
    assert sorted(store.ids()) == sorted([IDS[0], IDS[2]])


def test_runs_of_a_group__are_found_with_those_that_resume_others(tmp_path: Path) -> None:
    stories = group_stories(tmp_path, SEEDS)
    again = id_of_resumed(stories[0].record, stories[0].record.created_at)
    assert again.startswith(f"{GROUP}-s4-") and len(again) == len(GROUP) + 8
    resumed(tmp_path, stories[0], again)
    other = group_stories(tmp_path, (1, 2), "gru-20261126-00000000")
    assert sorted(names(runs_of_group(RunStore(tmp_path), GROUP))) == sorted([*IDS, again])
    assert names(runs_of_group(RunStore(tmp_path), "gru-20261126-00000000")) == [one.record.run_id for one in other]
    with refused(ErrorCode.RUN_NOT_FOUND, "There is no run or group 'gru-1'"):
        runs_of_group(RunStore(tmp_path), "gru-1")


def test_group_of_an_experiment__is_found_by_the_requests_of_its_runs(tmp_path: Path) -> None:
    store, group = RunStore(tmp_path), RunGroup(group_id="smoke-01234567-lstm-kk", seeds=(1, 2))
    first = changed(record("lstm-20261126-00000001"), group=group)
    [run] = create_runs(store, first)
    assert not run.has_open_group()
    assert Accepted.of(first).group is None, "the experiment starts its runs one by one"
    assert names(runs_of_group(store, group.group_id)) == [run.run_id]
    assert one_run_id(group.group_id, store.named(), or_group=True) == group.group_id
    again = id_of_resumed(first, first.created_at)
    assert not again.startswith(run.run_id)
    create_runs(store, first)
    assert len(store.ids()) == 2
    alone = record()
    assert member(alone, 5) is alone


def test_beginning_of_an_id__names_a_group_where_one_is_meant(tmp_path: Path) -> None:
    members = [Named(run_id, "kk", GROUP) for run_id in IDS]
    for name in ("char", GROUP, "kk", "last"):
        assert one_run_id(name, members, or_group=True) == GROUP
    assert one_run_id(GROUP, members[:1], or_group=True) == GROUP
    assert one_run_id("char", members[:1], or_group=True) == one_run_id(IDS[0], members, or_group=True) == IDS[0]
    assert one_run_id("last", members) == IDS[0]
    for name in ("char", GROUP, "kk"):
        with refused(ErrorCode.RUN_NOT_FOUND, f"'{GROUP}' is a group of 3 runs: name one of them, such as '{IDS[2]}'"):
            one_run_id(name, members)
    with refused(ErrorCode.INVALID_INPUT, "'char' names 4 runs"):
        one_run_id("char", [*members, Named("char_lstm-1")], or_group=True)
    group_stories(tmp_path, SEEDS)
    with refused(ErrorCode.RUN_NOT_FOUND, f"'{GROUP}' is a group of 3 runs"):
        RunStore(tmp_path).get(GROUP)


def test_run_of_a_study__is_written_once_under_its_given_id(tmp_path: Path) -> None:
    runs, of_study = RunStore(tmp_path), changed(record("rates-01234567-r1-v1"), study_id="rates-01234567")
    [first], [again] = create_runs(runs, of_study), create_runs(runs, changed(of_study, created_at=now()))
    assert (again.run_id, again.record()) == (first.run_id, of_study) and runs.ids() == [first.run_id]
    other = changed(of_study, run_id="rates-01234567-r1-v2")
    (tmp_path / "models" / f".{other.run_id}.new").mkdir()  # of a process that was killed
    with refused(ErrorCode.SERVICE_UNAVAILABLE, "is just being written"):
        create_runs(runs, other)
    assert runs.ids() == [first.run_id]
