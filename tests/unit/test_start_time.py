"""Expected start of a waiting run: the runs ahead of it, slot by slot."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.stories import BEGIN, Story, run_record
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.cost import Cost
from trainer.jobs.start_time import expected_start

NOW = BEGIN.timestamp()  # a full minute


def waiting(root: Path, name: str, seconds: float | None) -> RunDirectory:
    cost: dict[str, object] = {"cost": Cost(params=1, memory_bytes=1, disk_bytes=1, steps=1, seconds=seconds)}
    return Story(root, run_record(name).model_copy(update=cost)).run


def running(root: Path, name: str, minutes_ago: float = 0) -> RunDirectory:
    """A run whose training ends one minute after its last step."""
    return Story(root, run_record(name), BEGIN - timedelta(minutes=minutes_ago)).start().step(50, 2.0).run


def test_run_behind_a_running_one__starts_when_that_ends(tmp_path: Path) -> None:
    ahead = [running(tmp_path, "one")]

    assert expected_start(ahead, slots=1, now_seconds=NOW) == NOW + 60
    assert expected_start(ahead, slots=1, now_seconds=NOW + 30) == NOW + 60
    assert expected_start([*ahead, waiting(tmp_path, "two", 121.0)], slots=1, now_seconds=NOW) == NOW + 240


def test_run__starts_at_once_where_a_slot_is_free(tmp_path: Path) -> None:
    ended = Story(tmp_path, run_record("gone")).start().cancel().run

    assert expected_start([], slots=1, now_seconds=NOW) == NOW
    assert expected_start([running(tmp_path, "one"), ended], slots=2, now_seconds=NOW) == NOW
    assert expected_start([waiting(tmp_path, "two", 60.0)], slots=1, now_seconds=NOW) == NOW + 60


def test_run_that_is_late__has_its_end_now(tmp_path: Path) -> None:
    assert expected_start([running(tmp_path, "one", minutes_ago=9)], slots=1, now_seconds=NOW) == NOW


@pytest.mark.parametrize("slots", [1, 2])
def test_start__behind_runs_of_unknown_length_is_unknown(tmp_path: Path, slots: int) -> None:
    fresh = [Story(tmp_path, run_record(name)).read_corpus().run for name in ("one", "two")]

    assert expected_start(fresh, slots=slots, now_seconds=NOW) is None
    assert expected_start([waiting(tmp_path, "three", None)], slots=1, now_seconds=NOW) is None
    assert expected_start([Story(tmp_path, run_record("four")).run], slots=1, now_seconds=NOW) is None
