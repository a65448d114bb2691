"""Jobs that a worker claims: the first ones that are due, each by one worker, whatever else is in the queue."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from tests.support import settings_in
from tests.support.waiting import captured_logs
from trainer.contracts.jobs import FolderJobPayload
from trainer.services.embedded import Services
from trainer.store import keys
from trainer.store.store import Store, connect

QUEUE = "training"


@asynccontextmanager
async def two_stores(folder: Path) -> AsyncIterator[tuple[Store, Store]]:
    services = Services(settings_in(folder, embedded_workers=0))
    url = await services.start()
    stores = await connect(url), await connect(url)
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()
        await services.stop()


async def enqueue(store: Store, *job_ids: str) -> None:
    for job_id in job_ids:
        await store.enqueue(QUEUE, "train", job_id, FolderJobPayload(job_id=job_id))


async def begun(store: Store, most: int) -> list[str]:
    return [job_id for job_id, _ in await store.claim_jobs(QUEUE, most, "me", lease_seconds=30)]


async def put(store: Store, member: str, score: float) -> None:
    await store.redis.zadd(QUEUE, {member.encode("latin-1"): score})


async def test_jobs__begin_in_their_order_each_once_as_far_as_there_is_room(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as (one, other):
        names = [f"job-{number:03}" for number in range(250)]
        await enqueue(one, *names)
        assert await begun(one, 3) == names[:3]
        assert await begun(other, 120) == names[3:123]
        assert await begun(one, 0) == []
        taken = await asyncio.gather(*(begun(store, 5) for store in (one, other) * 13))
        assert Counter(name for names_of_one in taken for name in names_of_one) == Counter(names[123:])
        assert await begun(one, 5) == []


async def test_jobs__wait_for_their_time_and_begin_again_after_a_silent_worker(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as (store, _):
        await enqueue(store, "first", "second", "third")
        await put(store, "first", (time.time() + 60) * 1000)
        await put(store, "second", (time.time() - 1) * 1000)
        assert await begun(store, 9) == ["third", "second"]
        await store.delete(keys.in_progress("second"))
        assert await begun(store, 9) == ["second"]


async def test_queue_key_with_a_text__is_not_taken_for_a_missing_permission(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as (store, _):
        await store.put(QUEUE, "a text", ttl_seconds=60)
        with pytest.raises(ResponseError, match="WRONGTYPE") as refused:
            await begun(store, 1)
        assert not isinstance(refused.value, NoPermissionError)


async def test_invalid_job__is_removed_and_the_jobs_behind_it_start(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as (store, _):
        await enqueue(store, "sound")
        for member in ("\xff", "../x", "no-definition"):
            await put(store, member, -math.inf)
        await put(store, "sound", -math.inf)
        with captured_logs() as logs:
            assert await store.claim_jobs(QUEUE, 9, "me", lease_seconds=30) == [("sound", 0)]
        assert [line["event"] for line in logs] == ["malformed_job_removed"] * 3
        left: Awaitable[list[bytes]] = store.redis.zrange(QUEUE, 0, -1)
        assert await left == [b"sound"]
        assert await store.get(keys.in_progress("no-definition")) is None


async def test_lost_jobs__are_those_that_do_not_wait_as_they_were_enqueued(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as (store, _):
        names = ["waits", "claimed", "deferred", "undefined", "other-job", "unqueued", "infinite"]
        await enqueue(store, *names)
        assert await lost_jobs(store, *names) == []
        assert await begun(store, 2) == ["waits", "claimed"]
        await store.release(["waits"])
        await put(store, "deferred", (time.time() + 60) * 1000)
        await put(store, "infinite", -math.inf)
        for name in ("undefined", "other-job"):
            await store.delete(keys.definition(name))
        await store.enqueue("elsewhere", "infer", "other-job", FolderJobPayload(job_id="other-job"))
        await store.redis.zrem(QUEUE, "unqueued")
        assert await lost_jobs(store, *names) == names[1:]
        assert await lost_jobs(store, "waits", "never-enqueued") == ["never-enqueued"]


async def lost_jobs(store: Store, *job_ids: str) -> list[str]:
    return await store.find_lost_jobs(QUEUE, "train", {job_id: FolderJobPayload(job_id=job_id) for job_id in job_ids})
