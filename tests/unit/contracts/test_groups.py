"""The status of a group: the states of its runs together, and the spread of the numbers of the completed ones."""

from math import log, sqrt
from pathlib import Path
from statistics import fmean, stdev

import pytest
from scipy.stats import t

from tests.support.groups import GROUP, group_stories, resumed
from tests.support.refusals import refused
from tests.support.stories import Story
from trainer.contracts.base import RunState, changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.groups import RunRows, group_status
from trainer.contracts.runs import RunStatus


def statuses(stories: list[Story]) -> list[RunStatus]:
    return [story.follower().status for story in stories]


def in_state(story: Story, state: RunState) -> Story:
    match state:
        case "running":
            return story.start()
        case "paused":
            return story.start().pause()
        case "completed":
            return story.start().complete()
        case "failed":
            return story.start().fail()
        case "cancelled":
            return story.start().cancel()
        case _:
            return story


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (("queued", "queued", "queued"), "queued"),
        (("completed", "queued", "queued"), "queued"),
        (("running", "queued", "failed"), "running"),
        (("paused", "paused", "completed"), "paused"),
        (("paused", "queued", "queued"), "queued"),
        (("completed", "failed", "cancelled"), "completed"),
        (("cancelled", "failed", "failed"), "failed"),
        (("cancelled", "cancelled", "cancelled"), "cancelled"),
    ],
)
def test_state__follows_from_all_runs(tmp_path: Path, states: tuple[RunState, ...], state: RunState) -> None:
    stories = [in_state(*pair) for pair in zip(group_stories(tmp_path), states, strict=True)]
    group = group_status(GROUP, statuses(stories))
    assert group.status == state
    assert group.has_ended is (state in ("completed", "failed", "cancelled")) is (group.finished_at is not None)


def test_numbers__are_those_of_the_completed_runs(tmp_path: Path) -> None:
    losses = [2.0, 1.7, 1.85, 1.9]
    stories = group_stories(tmp_path, (5, 1, 9, 2, 7))
    for story, loss in zip(stories, losses, strict=False):
        story.start().step(100, 2.5, loss).complete()
    stories[4].start().step(50, 2.5, 9.0).fail("The model did not fit.")
    group = group_status(GROUP, reversed(statuses(stories)))
    found = group.numbers["best_val_loss"]
    half = float(t.ppf(0.975, 3)) * stdev(losses) / sqrt(4)
    assert (found.n, found.mean) == (4, fmean(losses)) and found.deviation == pytest.approx(stdev(losses))
    assert found.low == pytest.approx(fmean(losses) - half) and found.high == pytest.approx(fmean(losses) + half)
    assert (found.minimum, found.maximum) == (1.7, 2.0)
    bits = group.numbers["best_val_bits_per_char"]
    assert bits.mean == pytest.approx(2 * fmean(losses) / log(2)), "a token has half a character"
    assert group.numbers["test_loss"].deviation == 0.0 and "auc" not in group.numbers
    assert [member.seed for member in group.members] == [5, 1, 9, 2, 7]
    assert [member.status for member in group.of_state("failed")] == ["failed"]
    assert group.left_out() == ("seed 7 (failed)",)
    assert group.message == "5 runs: 4 completed, 1 failed." and group.n_completed == 4


def test_interval__has_no_end_that_a_loss_or_a_perplexity_cannot_have(tmp_path: Path) -> None:
    stories = group_stories(tmp_path, (1, 2))
    for story in stories:
        story.start().step(100, 2.5, 1.5).complete()
    ended = [changed(one, test_loss=float(n), test_perplexity=1.0 + n) for n, one in enumerate(statuses(stories))]
    numbers = group_status(GROUP, ended).numbers
    loss, perplexity = numbers["test_loss"], numbers["test_perplexity"]
    half = float(t.ppf(0.975, 1)) * 0.5
    assert (loss.low, perplexity.low) == (0.0, 1.0)
    assert (loss.high, perplexity.high) == pytest.approx((0.5 + half, 1.5 + half))


def test_one_completed_run__has_no_deviation_and_no_interval(tmp_path: Path) -> None:
    stories = group_stories(tmp_path)
    stories[0].start().step(100, 2.5, 1.5).complete()
    found = group_status(GROUP, statuses(stories)).numbers["best_val_loss"]
    assert (found.n, found.mean, found.minimum, found.maximum) == (1, 1.5, 1.5, 1.5)
    assert (found.deviation, found.low, found.high) == (None, None, None)


def test_run_that_resumes_another__takes_its_place(tmp_path: Path) -> None:
    stories = group_stories(tmp_path)
    again = resumed(tmp_path, stories[1].start().fail(), f"{GROUP}-s2-00ff").start().complete()
    group = group_status(GROUP, statuses([again, *stories]))
    assert [member.run_id for member in group.members] == [f"{GROUP}-s1", f"{GROUP}-s2-00ff", f"{GROUP}-s3"]


def test_deleted_run__leaves_its_seed_in_the_group(tmp_path: Path) -> None:
    group = group_status(GROUP, statuses(group_stories(tmp_path)[1:]))
    assert (group.seeds, [member.seed for member in group.members]) == ((1, 2, 3), [2, 3])
    assert group.left_out() == ("seed 1 (deleted)", "seed 2 (queued)", "seed 3 (queued)")
    with refused(ErrorCode.RUN_NOT_FOUND, f"There is no run or group '{GROUP}'"):
        group_status(GROUP, [])


def test_rows__count_the_runs_of_a_group_once(tmp_path: Path) -> None:
    others = group_stories(tmp_path, (4, 5), "char_lstm-20261126-ffffffff")
    runs = statuses([*group_stories(tmp_path), *others])
    for by_group, taken in ((True, 3), (False, 1)):
        rows = RunRows(1, by_group=by_group)
        assert [rows.take(run) for run in runs] == [True] * taken + [False] * (5 - taken)
        assert rows.runs == runs[:taken]
