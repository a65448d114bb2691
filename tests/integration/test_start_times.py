"""Start of a waiting run as the queue expects it, with a real server."""

from pathlib import Path

from tests.support import settings_in
from tests.support.lab import Lab
from tests.support.stories import BEGIN, Story, run_record
from trainer.contracts.base import changed
from trainer.queue.queue import JobQueue
from trainer.queue.start_time import MAX_AHEAD
from trainer.store import keys

NAME = "elsewhere"  # no worker serves it


async def test_waiting_run__has_a_start_unless_too_much_is_ahead_of_it(lab: Lab, tmp_path: Path) -> None:
    shared = settings_in(tmp_path)
    settings = changed(shared, queue=changed(shared.queue, name=NAME))
    async with lab.store() as store:
        Story(tmp_path / "artifacts", run_record("first")).start().step(50, 2.0)
        waits = Story(tmp_path / "artifacts", run_record("second")).follower().refresh()
        await store.redis.zadd(NAME, {"first": 1, "second": 2})
        start = (await JobQueue(settings, store).steady_status(waits)).starts_ts
        await store.redis.set(keys.in_progress("first"), "worker:1")
        awaited = await JobQueue(settings, store).what_it_awaits(waits)
        await store.redis.delete(keys.in_progress("first"))
        await store.redis.zadd(NAME, {"deleted": 0})
        behind_deleted = (await JobQueue(settings, store).steady_status(waits)).starts_ts
        await store.redis.zadd(NAME, {f"other-{number}": 0 for number in range(MAX_AHEAD)})
        behind_many = await JobQueue(settings, store).steady_status(waits)
        await store.redis.delete(NAME)

    assert start is not None and start >= BEGIN.timestamp() and start % 60 == 0
    assert awaited.startswith("Waiting for first, which trains now; starts about ")
    assert behind_deleted is None
    assert (behind_many.queue_position, behind_many.starts_ts) == (MAX_AHEAD + 3, None)
