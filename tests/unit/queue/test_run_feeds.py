"""Feeds of runs: each event log is read once, and its events, status and queue state are the same for all."""

import asyncio
import gc
import shutil
from collections.abc import Sequence
from pathlib import Path
from weakref import ref

import pytest

from tests.support.hand_queue import HandQueue
from tests.support.stories import Story, run_record
from tests.support.waiting import until
from trainer.artifacts.runs import RunStore
from trainer.contracts.errors import AppError
from trainer.contracts.runs import RunStatus
from trainer.queue.run_feeds import RunFeed, RunFeeds


class SlowQueue(HandQueue):
    """A queue that answers when the test lets it."""

    def __init__(self, runs: RunStore) -> None:
        super().__init__(runs)
        self.may_answer = asyncio.Event()
        self.asked: list[list[str]] = []
        self.open = 0

    async def recent(self, statuses: Sequence[RunStatus]) -> list[RunStatus]:
        self.asked.append([status.run_id for status in statuses])
        self.open += 1
        assert self.open == 1, "one request at a time"
        try:
            await self.may_answer.wait()
        finally:
            self.open -= 1
        return await super().recent(statuses)


async def test_feeds__of_the_runs_requested_last_stay_in_memory(tmp_path: Path) -> None:
    feeds = RunFeeds(HandQueue(RunStore(tmp_path)), max_runs=2)
    for number in range(3):
        Story(tmp_path, run_record(f"char_lstm-{number}")).start().complete()
    first, second = [ref(await feeds.read(f"char_lstm-{number}")) for number in (0, 1)]
    again = [ref(await feeds.read(f"char_lstm-{number}")) for number in (0, 2, 0)]
    await until(lambda: gc.collect() >= 0 and second() is None)
    assert [one() is first() is not None for one in again] == [True, False, True]
    assert (await feeds.read("char_lstm-1")).follower.status.status == "completed"
    with pytest.raises(AppError, match="no run"):
        await feeds.read("none")


async def test_events__are_the_same_for_readers_near_and_far_behind(tmp_path: Path) -> None:
    feeds = RunFeeds(HandQueue(RunStore(tmp_path)))
    story = Story(tmp_path, run_record()).start()
    feed = feeds.of(story.run)
    assert feeds.of(story.run) is feed
    seen = [event.seq for event in feed.events_after(0)]
    for step in range(1, 101):
        story.step(step, 2.0)
        seen += [event.seq for event in feed.events_after(seen[-1])]
    assert seen == list(range(1, 104))
    for after in (0, 1, 38, 39, 40, 102, 103, 104):
        assert [event.seq for event in feed.events_after(after)] == list(range(after + 1, 104))
    assert list(feed.read_curves().by_name["train"]) == [(step, 2.0) for step in range(1, 101)]


class FailingQueue(HandQueue):
    """A queue whose state cannot be read."""

    async def recent(self, statuses: Sequence[RunStatus]) -> list[RunStatus]:
        raise ValueError("the state of the queue is damaged")


async def test_queue_error__is_raised_for_all_callers(tmp_path: Path) -> None:
    feeds, story = RunFeeds(FailingQueue(RunStore(tmp_path))), Story(tmp_path, run_record()).start()
    asked = [asyncio.create_task(feeds.status(story.run.run_id)) for _ in range(2)]
    for one in asked:
        with pytest.raises(ValueError, match="the state of the queue is damaged"):
            await one


async def test_end_of_the_feeds__leaves_no_request_to_redis(tmp_path: Path) -> None:
    queue, story = SlowQueue(RunStore(tmp_path)), Story(tmp_path, run_record()).start()
    feeds = RunFeeds(queue)
    asking = asyncio.create_task(feeds.status(story.run.run_id))
    await until(lambda: queue.open == 1)
    asking.cancel()
    await asyncio.wait([asking])
    assert queue.open == 1
    await feeds.stop()
    assert queue.open == 0


async def test_status__has_everything_that_the_queue_adds_and_newer_events(tmp_path: Path) -> None:
    queue = SlowQueue(RunStore(tmp_path))
    feeds, story = RunFeeds(queue), Story(tmp_path, run_record()).start()
    queue.known = {"reachable": False, "last_heartbeat_ts": 5e9, "warnings": ("A field of its own.",)}
    queue.may_answer.set()
    before = await feeds.status(story.run.run_id)
    queue.may_answer.clear()
    story.step(1, 2.0)
    meanwhile = await feeds.status(story.run.run_id)
    assert [(one.step, one.reachable, one.last_heartbeat_ts, one.warnings) for one in (before, meanwhile)] == [
        (step, False, 5e9, ("A field of its own.",)) for step in (0, 1)
    ]
    story.complete()
    ended = await feeds.status(story.run.run_id)
    assert (ended.status, ended.reachable, ended.warnings) == ("completed", True, ())


async def test_status__of_many_readers_is_one_request_at_a_time(tmp_path: Path) -> None:
    queue = SlowQueue(RunStore(tmp_path))
    feeds = RunFeeds(queue)
    names = [Story(tmp_path, run_record(f"char_lstm-{number}")).start().run.run_id for number in range(3)]
    first = [asyncio.create_task(feeds.status(name)) for name in names * 5]
    await until(lambda: bool(queue.asked))
    queue.may_answer.set()
    assert [(await one).run_id for one in first] == names * 5
    assert {name for asked in queue.asked for name in asked} == {*names}
    assert all(len(asked) == len({*asked}) for asked in queue.asked)


async def test_feed__of_a_run_without_readers_is_dropped(tmp_path: Path) -> None:
    feeds, story = RunFeeds(HandQueue(RunStore(tmp_path))), Story(tmp_path, run_record())
    known: list[RunFeed] = [feeds.of(story.run)]
    assert feeds.of(story.run) is known.pop()
    story.start()
    assert feeds.of(story.run).read().status == "running"


async def test_run__that_was_created_again_under_its_id_is_another_one(tmp_path: Path) -> None:
    feeds = RunFeeds(HandQueue(RunStore(tmp_path)))
    story = Story(tmp_path, run_record()).start().complete()
    assert (await feeds.status(story.run.run_id)).status == "completed"
    shutil.rmtree(story.run.path)
    with pytest.raises(AppError, match="no run"):
        await feeds.status(story.run.run_id)
    Story(tmp_path, run_record())
    assert (await feeds.status(story.run.run_id)).status == "queued"
