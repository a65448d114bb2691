"""Expected start of a waiting run: the runs ahead of it, slot by slot."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.stories import BEGIN, Story, run_record
from trainer.artifacts.run_status import RunFollower
from trainer.contracts.cost import Cost
from trainer.queue.start_time import expected_starts, waiting_for

NOW = BEGIN.timestamp()  # a full minute


def read(story: Story) -> RunFollower:
    follower = story.run.follow()
    follower.refresh()
    return follower


def waiting(root: Path, name: str, seconds: float | None) -> RunFollower:
    cost: dict[str, object] = {"cost": Cost(params=1, memory_bytes=1, disk_bytes=1, steps=1, seconds=seconds)}
    return read(Story(root, run_record(name).model_copy(update=cost)))


def running(root: Path, name: str, minutes_ago: float = 0) -> RunFollower:
    """A run whose training ends one minute after its last step."""
    return read(Story(root, run_record(name), BEGIN - timedelta(minutes=minutes_ago)).start().step(50, 2.0))


def test_run__starts_where_a_slot_is_free_or_gets_free(tmp_path: Path) -> None:
    ended = read(Story(tmp_path, run_record("gone")).start().cancel())
    first, late = running(tmp_path, "one"), running(tmp_path, "late", minutes_ago=9)
    two, three = waiting(tmp_path, "two", 121.0), waiting(tmp_path, "three", None)
    assert expected_starts([first, two, three], slots=1, now_seconds=NOW) == {
        "two": NOW + 60,
        "three": NOW + 240,  # 60 s and 121 s later, in full minutes
    }
    assert expected_starts([first, two], slots=1, now_seconds=NOW + 30) == {"two": NOW + 60}
    assert expected_starts([first, two, three], slots=2, now_seconds=NOW) == {"two": NOW, "three": NOW + 60}
    for order in ([two], [ended, two], [late, two]):
        assert expected_starts(order, slots=1, now_seconds=NOW) == {"two": NOW}


@pytest.mark.parametrize("slots", [1, 2])
def test_start__behind_runs_of_unknown_length_is_unknown(tmp_path: Path, slots: int) -> None:
    fresh = [read(Story(tmp_path, run_record(name)).read_corpus()) for name in ("one", "two")]
    last = waiting(tmp_path, "last", 1.0)
    assert expected_starts([*fresh, last], slots=slots, now_seconds=NOW) == {}
    assert expected_starts([waiting(tmp_path, "three", None), last], slots=1, now_seconds=NOW) == {"three": NOW}
    assert expected_starts([read(Story(tmp_path, run_record("four"))), last], slots=1, now_seconds=NOW) == {"four": NOW}


@pytest.mark.parametrize(
    ("training", "ahead", "starts_at", "message"),
    [
        ([], 0, None, "Waiting for a worker."),
        (["a"], 1, None, "Waiting for a, which trains now."),
        (["a", "b"], 2, None, "Waiting for a and b, which train now."),
        (["a"], 2, None, "Waiting for a, which trains now; 1 other run before it."),
        (
            *(["a"], 3, datetime(2026, 1, 2, 14, 5)),
            "Waiting for a, which trains now; 2 other runs before it; starts about 14:05.",
        ),
    ],
)
def test_waiting_run__names_what_it_waits_for(
    training: list[str], ahead: int, starts_at: datetime | None, message: str
) -> None:
    assert waiting_for(training, ahead, None if starts_at is None else starts_at.timestamp()) == message
