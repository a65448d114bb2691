"""Jobs that a worker claims: the first ones that are due, each by one worker; the owners of runs take turns."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from pathlib import Path

import pytest
from hypothesis import strategies as st
from redis.exceptions import NoPermissionError, ResponseError

from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.properties import for_all
from tests.support.redis_servers import address, claiming_worker, embedded, served
from tests.support.stories import Story, run_record
from tests.support.waiting import captured_logs, until
from trainer.artifacts.artifacts_id import artifacts_id
from trainer.contracts.base import changed, now
from trainer.contracts.errors import AppError
from trainer.contracts.jobs import FolderJobPayload
from trainer.queue.queue import JobQueue
from trainer.store import keys
from trainer.store.store import Store, connect
from trainer.worker.reconciler import reconcile

QUEUE = "training"


async def enqueue(store: Store, *job_ids: str, owner: str | None = None) -> None:
    for job_id in job_ids:
        await store.enqueue(QUEUE, "train", job_id, FolderJobPayload(job_id=job_id), owner=owner)


async def claimed_ids(store: Store, most: int) -> list[str]:
    return [job_id for job_id, _ in await store.claim_jobs(QUEUE, most, "me", lease_seconds=30)]


async def put(store: Store, member: str, score: float) -> None:
    await store.redis.zadd(QUEUE, {member.encode("latin-1"): score})


async def test_jobs__are_claimed_once_in_order(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (_, _, one):
        other = await connect(address(tmp_path))
        names = [f"job-{number:03}" for number in range(250)]
        await enqueue(one, *names)
        assert await claimed_ids(one, 3) == names[:3]
        assert await claimed_ids(other, 120) == names[3:123]
        assert await claimed_ids(one, 0) == []
        taken = await asyncio.gather(*(claimed_ids(store, 5) for store in (one, other) * 13))
        assert Counter(name for names_of_one in taken for name in names_of_one) == Counter(names[123:])
        assert await claimed_ids(one, 5) == []
        await other.close()


async def test_jobs__are_claimed_when_due_and_after_an_expired_claim(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (_, _, store):
        await enqueue(store, "first", "second", "third")
        await put(store, "first", (time.time() + 60) * 1000)
        await put(store, "second", (time.time() - 1) * 1000)
        assert await claimed_ids(store, 9) == ["third", "second"]
        await store.delete(keys.in_progress("second"))
        assert await claimed_ids(store, 9) == ["second"]


async def test_running_job_with_an_expired_claim__starts_no_second_time_and_can_be_given_back(tmp_path: Path) -> None:
    """As in a worker that stands still for longer than a lease."""
    starts: list[object] = []

    async def job(ctx: dict[str, object], payload: object) -> None:
        starts.append(payload)
        await asyncio.sleep(math.inf)

    async with (
        embedded(tmp_path) as (settings, _, store),
        claiming_worker(settings, store, job, slots=2) as (worker, _),
    ):
        await enqueue(store, "first")
        await until(lambda: len(starts) == 1)
        await store.delete(keys.in_progress("first"))
        while not await store.exists(keys.in_progress("first")):  # the worker claims it again
            await asyncio.sleep(0.01)
        await enqueue(store, "second")
        await until(lambda: len(starts) == 2)
        assert [*worker.job_tasks] == ["first", "second"]
        worker.hand_back()
        await until(lambda: len(starts) == 4)


async def test_queue_key_with_a_text__is_not_taken_for_a_missing_permission(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (_, _, store):
        await store.put(QUEUE, "a text", ttl_seconds=60)
        with pytest.raises(ResponseError, match="WRONGTYPE") as refused:
            await claimed_ids(store, 1)
        assert not isinstance(refused.value, NoPermissionError)


async def test_invalid_job__is_removed_and_the_jobs_behind_it_start(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (_, _, store):
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


async def test_lost_jobs__are_found(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (_, _, store):
        names = ["waits", "claimed", "deferred", "undefined", "other-job", "unqueued", "infinite"]
        await enqueue(store, *names)
        assert await lost_jobs(store, *names) == []
        assert await claimed_ids(store, 2) == ["waits", "claimed"]
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


async def test_run_of_a_dead_worker__is_first_and_a_cancelled_one_is_forgotten(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (_, _, store):
        await enqueue(store, "ana-0", owner="ana")
        await store.dequeue(QUEUE, "ana-0")
        assert await store.exists(keys.owners(QUEUE)) is False
        await enqueue(store, "ana-0", owner="ana")
        await enqueue(store, "bob-0", owner="bob")
        assert await claimed_ids(store, 1) == ["ana-0"]
        await store.release(["ana-0"])
        assert await claimed_ids(store, 9) == ["ana-0", "bob-0"]


START = "start"
ACTIONS = st.lists(st.one_of(st.sampled_from((START, "start three")), st.sampled_from("abcd")), max_size=40)


def test_between_two_starts_of_a_user__every_other_waiting_user_gets_one(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        place = embedded(tmp_path)
        _, _, store = runner.run(place.__aenter__())

        @for_all(ACTIONS)
        def take_turns(actions: list[str]) -> None:
            runner.run(play(store, actions))

        take_turns()
        runner.run(place.__aexit__(None, None, None))


async def play(store: Store, actions: Sequence[str]) -> None:
    """Let users a to d add runs, and a worker claim them; in the end, all have started."""
    await store.redis.flushall()
    waiting: dict[str, list[str]] = {}
    last_start: dict[str, int] = {}
    starts = 0
    for number, action in enumerate((*actions, *[START] * len(actions))):
        if action in "abcd":
            waiting.setdefault(action, []).append(f"{action}-{number}")
            await enqueue(store, f"{action}-{number}", owner=action)
            continue
        for job_id in await claimed_ids(store, 1 if action == START else 3):
            starts += 1
            user = job_id[0]
            assert waiting[user].pop(0) == job_id
            if user in last_start:
                others = [other for other, jobs in waiting.items() if jobs and other != user]
                assert all(last_start.get(other, -1) > last_start[user] for other in others)
            last_start[user] = starts
    assert not any(waiting.values())


async def test_turns__are_restored_from_disk_after_a_wipe(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with embedded(tmp_path) as (settings, queue, store):
        root = settings.app.artifacts_root
        for user_id, name in ((1, "char_lstm-1"), (None, "char_lstm-2")):
            Story(root, changed(run_record(name, user_id=user_id), created_at=now()), now()).start()
        (root / "models" / "char_lstm-2" / "manifest.json").write_bytes(b"{")
        ids = [(await queue.train(tiny_request(seed=user), user_id=user)).run_id for user in (1, 1, 2)]
        await store.redis.flushall()
        for _ in range(2):
            await reconcile(settings, store)
        order = await store.queue_order(QUEUE)
        assert [job_id for job_id in order if job_id in ids] == [ids[2], *ids[:2]]
        assert order[0] == "char_lstm-1"  # it has started before
        claimed = await store.claim_jobs(QUEUE, 9, "me", lease_seconds=30, artifacts=artifacts_id(root))
        assert [job_id for job_id, _ in claimed] == order


async def test_queue_without_redis__is_empty_and_neither_paused_nor_shown(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        queue = JobQueue(settings_in(tmp_path), await connect(server.url, retries=0))
        await server.kill()
        workers = queue.workers
        assert (await queue.states.order(), await workers.are_paused(), await workers.names()) == ([], False, [])
        for work in (workers.pause(is_paused=True), workers.state([]), workers.drain("box", is_draining=True)):
            with pytest.raises(AppError, match="Redis is unavailable"):
                await work
        await queue.close()
