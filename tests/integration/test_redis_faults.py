"""The queue's server killed, wiped, frozen, cut off or full of evil: training goes on, and nothing is lost or run."""

import asyncio
import contextlib
import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from arq import Retry
from pydantic import ValidationError
from redis.exceptions import NoPermissionError

from tests.support import (
    ROOT,
    Process,
    add_corpus,
    child_of,
    ended,
    processes,
    running,
    settings_in,
    some_text,
    tiny_request,
    wait_for_status,
)
from tests.support.checkpoints import Evil
from tests.support.faulty_proxy import Fault, FaultyProxy
from tests.support.inference import RUN, finished_run
from tests.support.redis_servers import Server, address, embedded, served, told, told_server
from tests.support.stories import Story, run_record
from tests.support.waiting import PATIENCE_SECONDS, captured_logs, until
from tests.support.worker_runs import LONG, events_of, log_of_worker, training, with_redis, worker_in
from trainer.artifacts.kinds import EXPERIMENT_QUEUE, TOKENIZER_QUEUE
from trainer.artifacts.runs import RunStore
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateChunk
from trainer.contracts.inference_fields import InferenceRecord
from trainer.contracts.jobs import FolderJobPayload, InferenceJobPayload
from trainer.contracts.scores import ScoreRecord, ScoreRequest
from trainer.queue.enqueue import publish_events
from trainer.queue.queue import JobQueue
from trainer.queue.run_feeds import RunFeeds
from trainer.store import keys
from trainer.store.store import Store, connect
from trainer.worker.inference_jobs import InferenceJobs
from trainer.worker.inference_process import InferenceChild
from trainer.worker.jobs import JobFunction, Jobs
from trainer.worker.process import warn_of_loss
from trainer.worker.reconciler import reconcile

OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "1"))
"""Seconds for which the server is down; a campaign may choose longer."""
HOUR = 3600


def working(folder: Path) -> list[Process]:
    """The worker and the child that trains."""
    return sorted([*processes(folder, "trainer worker --embedded"), *processes(folder, "train-child")])


async def all_events_are_published(url: str, queue: JobQueue, run_id: str) -> bool:
    """Wait until every event was published once and in order, later events included."""
    written = [event.seq for event in events_of(queue, run_id)]
    store = await connect(url)
    seen: list[int] = []
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while seen[: len(written)] != written:
                await asyncio.sleep(0.1)
                with contextlib.suppress(ValidationError):  # while the stream holds a foreign entry
                    seen = await told(store, run_id)
        return seen == list(range(1, len(seen) + 1))
    finally:
        await store.close()


@asynccontextmanager
async def restricted(folder: Path, rights: str) -> AsyncIterator[tuple[Server, str]]:
    """A server with a user who has these rights, and a test that may watch all; gives it with the user's address."""
    users = ("default off", f"trainer on >PASSWORD {rights}", "test on >PASSWORD ~* &* +@all")
    rules = folder / "users.acl"
    rules.write_text("".join(f"user {user}\n" for user in users), encoding="utf-8")
    async with served(folder, "--aclfile", str(rules)) as server:
        yield server, server.url.replace("//", "//trainer:PASSWORD@")


async def test_redis_outages__lose_no_step_or_event(tmp_path: Path) -> None:
    """The rights that the manual gives are enough for all of it, and are all there are."""
    add_corpus(tmp_path, some_text())
    manual = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")
    [rights] = [line for line in manual.splitlines() if line.startswith("user trainer on >PASSWORD ")]
    async with restricted(tmp_path, rights.removeprefix("user trainer on >PASSWORD ")) as (server, url):
        proxy = FaultyProxy(server.port)
        await proxy.start()
        proxied, watched = url.replace(f":{server.port}/", f":{proxy.port}/"), url.replace("trainer:", "test:")
        settings = settings_in(tmp_path, embedded_workers=0).model_copy(update=with_redis(proxied))
        queue, store = await JobQueue.connect(settings, proxied), await connect(url)
        async with worker_in(tmp_path, REDIS__URL=proxied) as worker:
            run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
            await wait_for_status(queue, run_id, training)
            before, follower = child_of(tmp_path, run_id), queue.runs.get(run_id).follow()
            faults: list[Fault] = ["refused", "reset", "silent"]
            for fault in faults:
                await proxy.break_for(fault, OUTAGE_SECONDS)
                assert await all_events_are_published(watched, queue, run_id), fault
            await server.kill()
            step = follower.refresh().step
            await until(lambda: follower.refresh().step > step)
            await asyncio.sleep(OUTAGE_SECONDS)
            await server.start()
            assert await all_events_are_published(watched, queue, run_id)
            server.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(max(2.5, OUTAGE_SECONDS))
            server.process.send_signal(signal.SIGCONT)
            assert await all_events_are_published(watched, queue, run_id)
            await server.wipe()
            await wait_for_status(queue, run_id, lambda status: status.reachable)
            assert await all_events_are_published(watched, queue, run_id)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await store.get(keys.definition(run_id)):
                    await asyncio.sleep(0.1)
            assert (worker.returncode, child_of(tmp_path, run_id)) == (None, before)
            accepted = (await queue.train(tiny_request(), user_id=None)).run_id
            await queue.states.cancel(run_id)
            assert (await wait_for_status(queue, run_id, ended)).attempt == 1
            assert (await wait_for_status(queue, accepted, ended)).status == "completed"
            assert await all_events_are_published(watched, queue, run_id)
            assert (await queue.inference.ask(accepted, ScoreRequest(text="abc"))).n_scored == 3
            assert await anext(queue.states.next_run_ids()) in (run_id, accepted)
            assert (await store.durability()).troubles() == []
            assert await store.unpublished([accepted, "no-run"]) == ["no-run"]
            for command in ("CONFIG GET *", "FLUSHALL", "SCRIPT FLUSH", "KEYS *", "GET other"):
                with pytest.raises(NoPermissionError):
                    await told_server(store, *command.split())
            await store.close()
            await server.kill()
        await queue.close()
        await proxy.stop()
    assert worker.returncode == 0, "it was terminated"
    assert log_of_worker(tmp_path).count("redis_unavailable") >= 1
    assert "worker_closed_without_redis" in (said := log_of_worker(tmp_path)) and "PASSWORD" not in said


@pytest.mark.slow
async def test_rights_that_are_taken_away__end_the_worker_with_1(tmp_path: Path) -> None:
    """R14: a loop that cannot go on is not left deaf; whoever supervises the worker starts it again."""
    async with restricted(tmp_path, "~* &* +@all") as (_, url):
        store = await connect(url)
        async with worker_in(tmp_path, REDIS__URL=url) as worker, asyncio.timeout(PATIENCE_SECONDS):
            await until(lambda: "worker_ready" in log_of_worker(tmp_path))
            await told_server(store, "ACL", "SETUSER", "trainer", "-zrangebyscore")
            await store.enqueue("training", "train", "a-run", FolderJobPayload(job_id="a-run"))
            await worker.wait()
        await store.close()
    assert worker.returncode == 1
    assert "run `zrangebyscore`" in log_of_worker(tmp_path)
    assert "worker_loop_failed" in (said := log_of_worker(tmp_path)) and "PASSWORD" not in said


async def plant_everywhere(store: Store, evil: bytes, run_id: str, request_id: str) -> None:
    """Put something evil at every key that the program reads, in a value of the key's type."""
    sorted_sets = "training", keys.INTERACTIVE_QUEUE, TOKENIZER_QUEUE, EXPERIMENT_QUEUE
    streams = keys.EVENT_STREAM, keys.JOB_NOTIFICATIONS, keys.run_events(run_id)
    strings = (
        *(keys.definition(run_id), keys.in_progress(run_id), keys.tries(run_id)),
        *(keys.heartbeat(run_id), keys.lease(run_id)),
        *(keys.inference(kind, run_id, request_id) for kind in ("score", "generate", "evaluate")),
    )
    async with store.redis.pipeline(transaction=True) as pipe:  # a worker writes there, too
        for key in sorted_sets:
            pipe.delete(key)
            pipe.zadd(key, {evil: 1})
        for key in streams:
            pipe.delete(key)
            pipe.xadd(key, {"event": evil, "run_id": evil})
        for key in strings:
            pipe.set(key, evil)
        executed: Awaitable[object] = pipe.execute()
        await executed


async def test_pickles_in_redis__are_not_loaded(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    evil = pickle.dumps(Evil(tmp_path / "owned"))
    async with running(settings_in(tmp_path)) as queue:
        done = (await queue.train(tiny_request(), user_id=7)).run_id
        await wait_for_status(queue, done, ended)
        run_id = (await queue.train(tiny_request(**LONG), user_id=7)).run_id
        await wait_for_status(queue, run_id, training)
        before = working(tmp_path)
        store = await connect(address(tmp_path))
        await plant_everywhere(store, evil, run_id, "asked")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await wait_for_status(queue, run_id, lambda status: status.reachable)
            assert (await queue.inference.ask(done, ScoreRequest(text="abc"))).n_scored == 3
            with pytest.raises(AppError) as caught:
                await queue.inference.get(ScoreRecord, run_id, "asked")
            assert caught.value.code in (ErrorCode.SERVICE_UNAVAILABLE, ErrorCode.DATA_NOT_FOUND)
            assert await anext(queue.states.next_run_ids())
        assert await all_events_are_published(address(tmp_path), queue, run_id)
        assert working(tmp_path)[-1:] == before[-1:]
        for key in ("training", keys.INTERACTIVE_QUEUE):
            for member in (evil, b"\xff", b"../x", b"no-definition"):
                await store.redis.zadd(key, {member: 1})
        for number, definition in enumerate((evil, b"[1]", b'{"t":null,"f":"train","a":[{}],"k":{},"et":1e30}')):
            await store.redis.set(keys.definition(f"evil-{number}"), definition)
            await store.redis.zadd(keys.INTERACTIVE_QUEUE, {f"evil-{number}": 1})
        await store.redis.set(keys.inference("score", done, "asked"), evil)
        await store.enqueue(
            keys.INTERACTIVE_QUEUE, "infer", "asked", InferenceJobPayload(kind="score", run_id=done, request_id="asked")
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await store.redis.zcard(keys.INTERACTIVE_QUEUE):
                await asyncio.sleep(0.05)
        await store.close()
        await queue.states.cancel(run_id)
        assert (await wait_for_status(queue, run_id, ended)).attempt == 1
        assert (await wait_for_status(queue, (await queue.train(tiny_request(), user_id=7)).run_id, ended)).progress
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_clock_an_hour_off__keeps_no_job_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    add_corpus(tmp_path, some_text())
    real = time.time
    async with embedded(tmp_path) as (settings, queue, store):
        monkeypatch.setattr("time.time", lambda: real() + ahead)
        run_id = (await queue.train(tiny_request(), user_id=None)).run_id
        monkeypatch.setattr("time.time", real)
        position: float = await store.redis.zscore("training", run_id)
        assert position < real() * 1000 - HOUR
        now_ms = int(real() * 1000)
        for deferred_to in (now_ms + HOUR * 1000, now_ms - 1):  # arq writes these where a job is to wait
            await store.redis.zadd("training", {run_id: deferred_to})
            await reconcile(settings, store)
            position = await store.redis.zscore("training", run_id)
            assert position < real() + 5  # its old place, or next
        await store.redis.zadd("training", {run_id: now_ms + 20_000})
        await reconcile(settings, store)
        position = await store.redis.zscore("training", run_id)
        assert position == now_ms + 20_000  # it waits for a reason


async def test_reconciler__repairs_what_is_lost_or_stale_of_a_job(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with embedded(tmp_path) as (settings, queue, store):
        run_id = (await queue.train(tiny_request(), user_id=None)).run_id
        [whole] = await definitions(store, run_id)

        async def mended() -> bool:
            """Return True if the run's job is complete again, without stale tries."""
            await store.redis.set(keys.tries(run_id), "stale")
            await reconcile(settings, store)
            left = await store.exists(keys.tries(run_id))
            same = [job and job.split(b'"et"')[0] for job in (whole, *await definitions(store, run_id))]
            order = await store.queue_order("training")
            return (order[:1], left, same[0]) == ([run_id], False, same[1])

        await store.redis.zrem("training", run_id)
        assert await mended()
        for definition in (b"\x80\x04.", (whole or b"").replace(run_id.encode(), b"another")):
            await store.redis.set(keys.definition(run_id), definition)
            assert await mended()
        await store.redis.delete(keys.definition(run_id))  # as when it has waited for longer than arq keeps it
        assert await mended()
        await store.redis.set(keys.in_progress(run_id), 1)
        await reconcile(settings, store)
        left_ms: int = await store.redis.pttl(keys.in_progress(run_id))
        assert 0 < left_ms <= 2 * settings.queue.lease_seconds * 1000
        await store.renew_lease(run_id, "host:1", seconds=600)
        await store.redis.persist(keys.in_progress(run_id))
        await reconcile(settings, store)
        left_ms = await store.redis.pttl(keys.in_progress(run_id))
        assert left_ms == -1  # whoever has the lease sees to it


@pytest.mark.parametrize("becomes", ["folder", "link", "nothing"])
async def test_reconciler__goes_past_a_run_whose_events_cannot_be_read(tmp_path: Path, becomes: str) -> None:
    async with embedded(tmp_path) as (settings, _, store):
        names = [f"char_lstm-{state}-{number}" for state in ("ended", "waiting") for number in range(2)]
        stories = [Story(settings.app.artifacts_root, run_record(name)) for name in names]
        for story in stories[:2]:
            story.cancel()
        for story in stories[::2]:
            events = story.run.path / "events.jsonl"
            events.unlink()
            if becomes == "folder":
                events.mkdir()
            elif becomes == "link":
                events.symlink_to(tmp_path / "elsewhere")
        with captured_logs() as logs:
            await reconcile(settings, store)
        assert await store.unpublished(names) == names[::2]
    assert {line["run_id"] for line in logs if line["event"] == "run_unreadable"} == {*names[::2]}


async def definitions(store: Store, *job_ids: str) -> list[bytes | None]:
    return [await store.get(keys.definition(job_id)) for job_id in job_ids]


async def test_redis_down__requests_are_answered_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_corpus(tmp_path, some_text())
    monkeypatch.setattr("trainer.store.connection.LIMIT_SECONDS", 0.2)
    async with served(tmp_path) as server, server.queue(tmp_path) as queue:
        server.process.send_signal(signal.SIGSTOP)
        run_id = (await queue.train(tiny_request(), user_id=None)).run_id
        assert not (await queue.states.status(run_id)).reachable
        assert await queue.workers.exist(), "nobody can know that there is none"
        await queue.states.cancel(run_id)
        server.process.send_signal(signal.SIGCONT)


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


async def test_redis_that_could_lose_data__is_logged_at_the_start(tmp_path: Path) -> None:
    options = ("--appendonly", "no", "--maxmemory-policy", "allkeys-lru")
    async with served(tmp_path, *options, "--requirepass", "quiet-word") as server:
        url = server.url.replace("//", "//:quiet-word@")
        store = await connect(url)
        with captured_logs() as logs:
            await warn_of_loss(store)
            await told_server(store, "ACL", "SETUSER", "default", "-config")
            assert (await store.durability()).appendfsync is None
            await told_server(store, "ACL", "SETUSER", "default", "-info")
            await warn_of_loss(store)
        assert [str(line["reason"]).split(":")[0][:26] for line in logs] == [
            "it keeps nothing over a re",
            "it may drop queued jobs (`",
            "it does not tell its setti",
        ]
        await store.close()
        words = {server.url: "Redis asks for a password", url.replace("quiet", "wrong"): "Redis refuses the user name"}
        for wrong, sentence in words.items():
            with pytest.raises(AppError, match=sentence) as caught:
                await connect(wrong)
            assert "word@" not in str(caught.value) and caught.value.__cause__ is None


async def test_count_of_tries_that_cannot_grow__is_deleted(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (_, _, store):
        for number, (tries, left) in enumerate({b"1e9": 0, b"9" * 10: 0, b"evil": 0, b"7": 1}.items()):
            await store.enqueue("training", "train", f"run-{number}", FolderJobPayload(job_id=f"run-{number}"))
            await store.redis.set(keys.tries(f"run-{number}"), tries)
            assert len(await store.claim_jobs("training", 1, "me", lease_seconds=30)) == 1
            stored: int = await store.redis.exists(keys.tries(f"run-{number}"))
            assert stored == left


async def test_malformed_jobs__are_rejected_in_a_line_of_the_log(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, queue, store):
        jobs, child = Jobs(queue, settings, store), InferenceChild(settings)
        functions: list[JobFunction] = [*jobs.functions().values(), InferenceJobs(settings, store, child, child).infer]
        with captured_logs() as logs:
            for payload in ({"job_id": "../x"}, {"job_id": "no-such"}, {"run_id": "no-such-run"}, [1], "\x80"):
                for function in functions:
                    await function({}, payload)
            await functions[-1]({}, {"kind": "score", "run_id": "a", "request_id": "expired"})
    kinds = "run tokenizer experiment study battery reading export verification build inference"
    refused = [f"{kind}_job_rejected" for kind in kinds.split()]
    assert Counter(line["event"] for line in logs) == dict.fromkeys(refused, 5) | {"inference_request_expired": 1}


async def test_unpublished_ends__are_retried(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with served(tmp_path) as server:
        settings = server.settings(tmp_path)
        store = await connect(server.url, retries=0)

        class LosesTheServer(InferenceChild):
            async def answer(
                self, record: InferenceRecord, on_chunk: Callable[[GenerateChunk], None] | None = None
            ) -> InferenceRecord:
                await server.kill()
                return record

        queue = JobQueue(settings, store)
        jobs, child = Jobs(queue, settings, store), LosesTheServer(settings)
        inference = InferenceJobs(settings, store, child, child)
        asked = await queue.inference.submit(RUN, ScoreRequest(text="abc"))
        job = {"kind": "score", "run_id": RUN, "request_id": asked.request_id}
        with captured_logs() as logs:
            with pytest.raises(Retry):
                await inference.infer({}, job)
            with pytest.raises(Retry):
                await jobs.functions()["train"]({}, {"job_id": RUN})
        await store.close()
    said = [line["event"] for line in logs]
    assert "answer_storage_failed" in said and "event_publication_failed" in said


async def test_event_stream__continues_after_a_restart_of_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(tmp_path)
    monkeypatch.setattr("trainer.store.refusals._last_logged", {})
    async with served(tmp_path) as server:
        settings = server.settings(tmp_path)
        store, listening = await connect(server.url), await connect(server.url, retries=0)
        with captured_logs() as logs:
            rung = asyncio.ensure_future(anext(JobQueue(settings, listening).states.next_run_ids()))
            await server.kill()
            await until(lambda: "redis_unavailable" in [line["event"] for line in logs])
        await server.start()
        await publish_events(store, RunStore(tmp_path / "artifacts").get(RUN))
        assert await asyncio.wait_for(rung, PATIENCE_SECONDS) == RUN
        await store.close()
        await listening.close()
