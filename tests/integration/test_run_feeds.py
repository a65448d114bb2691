"""Statuses of runs while Redis does not answer, as when it waits for its disk."""

from pathlib import Path

from tests.support import settings_in
from tests.support.redis_servers import served, told_server
from tests.support.stories import Story, run_record
from trainer.queue.queue import JobQueue
from trainer.queue.run_feeds import RunFeeds
from trainer.store.store import connect


async def test_status__without_redis_has_the_last_known_state_of_the_queue(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        store = await connect(server.url)
        feeds = RunFeeds(JobQueue(settings_in(tmp_path), store).states)
        story, waiting = [Story(tmp_path / "artifacts", run_record(f"char_lstm-{number}")) for number in (1, 2)]
        before = [await feeds.status(one.run.run_id) for one in (story, waiting)]
        awaited = await JobQueue(settings_in(tmp_path), store).states.with_wait(before[1])
        await told_server(store, "CLIENT", "PAUSE", "600000", "ALL")
        still_waiting = await feeds.status(waiting.run.run_id)
        story.start().step(1, 2.0)
        while (running := await feeds.status(story.run.run_id)).step == 0:
            pass
        story.complete()
        while not (ended := await feeds.status(story.run.run_id)).has_ended:
            pass
        await store.close()
    assert awaited.waits_for == "worker"
    assert [(one.status, one.waits_for, one.reachable) for one in before] == [("queued", "worker", True)] * 2
    assert (still_waiting.waits_for, still_waiting.reachable) == ("worker", True)
    assert (running.status, ended.status) == ("running", "completed")
