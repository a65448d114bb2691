"""The order in which runs of several users start: the users take turns, also after Redis was wiped."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.integration.test_claimed_jobs import QUEUE, begun, two_stores
from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.properties import for_all
from tests.support.redis_servers import embedded, served
from tests.support.stories import Story, run_record
from trainer.artifacts.artifacts_id import artifacts_id
from trainer.contracts.base import changed, now
from trainer.contracts.errors import AppError
from trainer.contracts.jobs import FolderJobPayload
from trainer.queue.queue import JobQueue
from trainer.store import keys
from trainer.store.store import Store, connect
from trainer.worker.reconciler import reconcile


async def add(store: Store, job_id: str, owner: str) -> None:
    await store.enqueue(QUEUE, "train", job_id, FolderJobPayload(job_id=job_id), owner=owner)


async def test_run_of_a_dead_worker__is_first_and_a_cancelled_one_is_forgotten(tmp_path: Path) -> None:
    async with two_stores(tmp_path) as (store, _):
        await add(store, "ana-0", "ana")
        await store.dequeue(QUEUE, "ana-0")
        assert await store.exists(keys.owners(QUEUE)) is False
        await add(store, "ana-0", "ana")
        await add(store, "bob-0", "bob")
        assert await begun(store, 1) == ["ana-0"]
        await store.release(["ana-0"])
        assert await begun(store, 9) == ["ana-0", "bob-0"]


START = "start"
ACTIONS = st.lists(st.one_of(st.sampled_from((START, "start three")), st.sampled_from("abcd")), max_size=40)


def test_between_two_starts_of_a_user__every_other_waiting_user_gets_one(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        stores = two_stores(tmp_path)
        store, _ = runner.run(stores.__aenter__())

        @for_all(ACTIONS)
        def take_turns(actions: list[str]) -> None:
            runner.run(play(store, actions))

        take_turns()
        runner.run(stores.__aexit__(None, None, None))


async def play(store: Store, actions: Sequence[str]) -> None:
    """Let users a to d add runs, and a worker claim them; in the end, all have started."""
    await store.redis.flushall()
    waiting: dict[str, list[str]] = {}
    last_start: dict[str, int] = {}
    starts = 0
    for number, action in enumerate((*actions, *[START] * len(actions))):
        if action in "abcd":
            waiting.setdefault(action, []).append(f"{action}-{number}")
            await add(store, f"{action}-{number}", action)
            continue
        for job_id in await begun(store, 1 if action == START else 3):
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
