"""Groups of runs over seeds, written by hand."""

from datetime import timedelta
from pathlib import Path

from tests.support.stories import BEGIN, STARTER, Story, run_record
from trainer.artifacts.run_groups import member
from trainer.contracts.base import changed
from trainer.contracts.runs import RunRecord
from trainer.contracts.seeds import RunGroup

GROUP = "char_lstm-20261126-0a1b2c3d"


def group_record(seeds: tuple[int, ...] = (1, 2, 3), group_id: str = GROUP, user_id: int | None = STARTER) -> RunRecord:
    """The record of the first run of a group."""
    record = changed(run_record(user_id=user_id), group=RunGroup(group_id=group_id, seeds=seeds))
    return member(record, seeds[0])


def group_stories(
    root: Path, seeds: tuple[int, ...] = (1, 2, 3), group_id: str = GROUP, *, user_id: int | None = STARTER
) -> list[Story]:
    """The runs of a group, queued."""
    record = group_record(seeds, group_id, user_id)
    stories = [Story(root, member(record, seed)) for seed in seeds]
    stories[0].run.close_group()
    return stories


def resumed(root: Path, story: Story, run_id: str) -> Story:
    """A run that resumes another a minute later."""
    record = changed(story.record, run_id=run_id, resumed_from_run_id=story.record.run_id)
    return Story(root, changed(record, created_at=BEGIN + timedelta(minutes=1)))
