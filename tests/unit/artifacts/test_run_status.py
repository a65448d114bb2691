"""The status of a run follows its events."""

import tempfile
from collections import deque
from pathlib import Path

from hypothesis import strategies as st

from tests.support.baselines import BETTER, WORSE
from tests.support.properties import for_all_pairs
from tests.support.stories import Story, run_record
from trainer.contracts.base import changed
from trainer.contracts.runs import Leak, Leaks


def test_status__follows_the_events(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record(user_id=7))
    follower = story.run.follow()
    assert (follower.refresh().status, follower.refresh().user_id) == ("queued", 7)
    story.start().step(1, 2.0, val_loss=2.5, margin=0.25).step(2, 1.0).checkpoint(2).read_corpus()
    status = follower.refresh()
    assert (status.status, status.attempt, status.step, status.progress) == ("running", 1, 2, 2.0)
    assert (status.train_loss, status.val_loss, status.best_val_loss) == (1.0, 2.5, 2.5)
    assert (status.best_val_margin, status.last_checkpoint_step) == (0.25, 2)
    curves = story.curves().by_name
    assert (list(curves["train"]), list(curves["validation"])) == ([(1, 2.0), (2, 1.0)], [(1, 2.5)])


def test_status__of_a_run_without_its_worker_is_queued_until_the_next_starts_it(tmp_path: Path) -> None:
    story = Story(tmp_path, run_record()).start().step(2, 1.0, eta_seconds=120.0)
    assert story.follower().status.eta_seconds == 120.0
    status = story.end_worker().follower().status
    assert (status.status, status.eta_seconds, status.step, status.progress) == ("queued", None, 2, 2.0)
    assert status.message == "Paused by the end of the worker; the next worker resumes it."
    resumed = story.restart(2).follower().status
    assert (resumed.status, resumed.step) == ("running", 2)


def test_status__has_the_baseline_and_what_is_wrong_with_the_model(tmp_path: Path) -> None:
    leaks: Leaks = {"test": Leak(lines=0.5)}
    for name, baseline in {"better": BETTER, "worse": WORSE}.items():
        story = Story(tmp_path, run_record(name)).start(leaks)
        [leak] = story.follower().status.warnings
        status = story.complete(baseline=baseline).follower().status
        assert (status.baseline, status.warnings) == (baseline, (leak, *baseline.warnings()))


def test_status__has_the_notes_on_the_corpus(tmp_path: Path) -> None:
    story = Story(tmp_path, changed(run_record(), notes=("Of files.",)))
    assert story.follower().status.notes == ("Of files.",)
    assert story.start(notes=("Of files.", "Of lines.")).follower().status.notes == ("Of files.", "Of lines.")


@for_all_pairs(st.lists(st.sampled_from(["train", "validate", "read", "checkpoint"]), max_size=12), st.integers(0, 88))
def test_status__is_the_same_whether_the_log_was_read_at_once_or_in_parts(kinds: list[str], first: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        story = Story(Path(folder), run_record()).start()
        often, curves = story.follower(), story.curves()
        for step, kind in enumerate(kinds, start=first):
            match kind:
                case "train":
                    story.step(step, 3.0 - step / 200)
                case "validate":
                    story.step(step, 3.0 - step / 200, val_loss=2.0 + step / 200)
                case "read":
                    story.read_corpus()
                case _:
                    story.checkpoint(step)
            often.refresh()
            curves.read_new()
        once, whole = story.follower(), story.run.follow()
        deque(whole.read_new(), maxlen=0)  # which reads all figures of all events
        assert once.status == often.status == whole.status
        numbers, in_parts = story.curves().by_name, curves.by_name
    assert [list(points) for points in numbers.values()] == [list(points) for points in in_parts.values()]
