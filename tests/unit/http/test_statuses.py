"""Statuses of runs for many clients: read once, and only as many as clients ask for."""

from pathlib import Path

import pytest
from arq.connections import ArqRedis

from tests.support import settings_in
from tests.support.stories import Story, run_record
from trainer.contracts.errors import AppError
from trainer.http.statuses import RunStatuses
from trainer.queue.queue import JobQueue
from trainer.store.store import Store


async def test_followers__of_the_runs_asked_for_last_are_kept(tmp_path: Path) -> None:
    statuses = RunStatuses(JobQueue(settings_in(tmp_path), Store(ArqRedis())), max_runs=2)
    for number in range(3):
        Story(tmp_path / "artifacts", run_record(f"char_lstm-{number}")).start().complete()
    first, second = [await statuses.follower(f"char_lstm-{number}") for number in (0, 1)]
    assert await statuses.follower("char_lstm-0") is first
    third = await statuses.follower("char_lstm-2")
    assert await statuses.follower("char_lstm-0") is first
    assert await statuses.follower("char_lstm-2") is third
    assert await statuses.follower("char_lstm-1") is not second
    assert first.status.status == "completed"
    with pytest.raises(AppError, match="no run"):
        await statuses.follower("none")


async def test_event__is_in_the_status_after_a_tenth_of_a_second(tmp_path: Path) -> None:
    statuses = RunStatuses(JobQueue(settings_in(tmp_path), Store(ArqRedis())))
    story = Story(tmp_path / "artifacts", run_record()).start()
    run_id = story.run.run_id
    assert (await statuses.follower(run_id)).status.step == 0
    story.step(1, 2.0)
    while (await statuses.follower(run_id)).status.step == 0:
        pass
    assert (await statuses.follower(run_id)).train_losses == [(1, 2.0)]
