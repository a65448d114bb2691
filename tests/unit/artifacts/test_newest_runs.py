"""The newest runs: the order of the complete list, without reading it, also in a copied folder and after a crash."""

import os
import random
from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest

from tests.support.runs import record
from tests.support.waiting import captured_logs
from trainer.artifacts.runs import RunStore, cancel_idle_run
from trainer.contracts.base import RunState, changed, now
from trainer.contracts.events import JobStarted, stamp

RUNS = 30


def _create(store: RunStore, root: Path, names: list[str], seconds_late: list[float]) -> None:
    """Create runs an hour apart, in random order; the file of each is some seconds younger than its run."""
    begin = now() - timedelta(days=9)
    for number, (name, late) in enumerate(zip(names, seconds_late, strict=True)):
        created_at = begin + timedelta(hours=number)
        store.create(changed(record(name), created_at=created_at))
        written = created_at.timestamp() + late
        os.utime(root / "models" / name / "request.json", (written, written))


@pytest.mark.parametrize("most_hours_late", [0, 3, 500])
def test_newest_runs__have_the_order_of_all_runs_whenever_their_files_were_copied(
    most_hours_late: int, tmp_path: Path
) -> None:
    store, draw = RunStore(tmp_path), random.Random(most_hours_late)
    names = [f"run-{number}" for number in draw.sample(range(1000), RUNS)]
    _create(store, tmp_path, names, [draw.uniform(0, 3600 * most_hours_late) for _ in names])
    assert [run.run_id for run in store.newest()] == names[::-1]
    assert [run.run_id for run in store.all()] == names[::-1]


def test_newest_runs__are_found_without_reading_older_ones(tmp_path: Path) -> None:
    store, names = RunStore(tmp_path), [f"run-{number}" for number in range(RUNS)]
    begin = now()
    for number, name in enumerate(names):
        store.create(changed(record(name), created_at=begin + timedelta(milliseconds=30 * number)))
    for name in names[:-5]:
        request = tmp_path / "models" / name / "request.json"
        state = request.stat()
        request.write_bytes(b"unreadable")
        os.utime(request, (state.st_mtime, state.st_mtime))
    with captured_logs() as logs:
        assert [run.run_id for run in islice(store.newest(), 4)] == names[:-5:-1]
        assert len(logs) == 0
        assert [run.run_id for run in store.newest()] == names[:-6:-1]
        assert {row["event"] for row in logs} == {"run_unreadable"}


@pytest.mark.parametrize("kept_seconds", [1, 2])
def test_newest_runs__have_the_order_of_all_runs_on_a_disk_that_keeps_whole_seconds(
    kept_seconds: int, tmp_path: Path
) -> None:
    store, begin = RunStore(tmp_path), now()
    names = [f"run-{number}" for number in random.Random(kept_seconds).sample(range(1000), RUNS)]
    for number, name in enumerate(names):
        created_at = begin + timedelta(milliseconds=130 * number)
        written = created_at.timestamp() // kept_seconds * kept_seconds
        os.utime(store.create(changed(record(name), created_at=created_at)).path / "request.json", (written, written))
    assert [run.run_id for run in store.newest()] == names[::-1]


def test_newest_runs__of_a_state_are_all_that_can_have_it(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for name in ("waits", "trains", "ended", "end-not-sealed"):
        store.create(record(name))
    with store.get("trains").open_log() as log:
        log.append(JobStarted(**stamp("trains", None, "started"), queue="training", attempt=1))
    for name in ("ended", "end-not-sealed"):
        cancel_idle_run(store.get(name))
    store.get("end-not-sealed").seal.unlink()  # a process was killed just before

    def found(state: RunState) -> set[str]:
        return {run.run_id for run in store.newest(state) if run.follow().refresh().status == state}

    assert found("queued") == {"waits"}
    assert found("running") == {"trains"}
    assert found("cancelled") == {"ended", "end-not-sealed"}
    assert found("failed") == set()
    assert store.ids_by_end() == (sorted(set(store.ids()) - {"ended"}, key=store.ids().index), ["ended"])


def test_folder_without_a_request__is_no_run(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.create(record("run-1"))
    for name in ("half-made", "Copy of run-1"):
        (tmp_path / "models" / name).mkdir()
    assert store.ids() == [run.run_id for run in store.newest()] == ["run-1"]
    assert RunStore(tmp_path / "nothing").ids() == []
