"""Cleanups that are killed, that the worker runs, and the keys that Redis keeps of old runs."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest
from pydantic import TypeAdapter

from tests.support import environment_in, is_running, processes
from tests.support.cleanups import DAY_SECONDS, add_run, make_old, settings_of
from tests.support.http import Inside, inside, with_api
from tests.support.redis_servers import embedded, told, told_server
from tests.support.waiting import PATIENCE_SECONDS, captured_logs, until
from trainer.artifacts.checkpoint_files import checkpoint_steps, newest_whole, sealed_files, step_folder
from trainer.artifacts.cleanup import clean_up
from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import CleanupSettings, LoggingSettings
from trainer.contracts.base import changed
from trainer.contracts.jobs import WorkerInfo
from trainer.contracts.runs import FinalState
from trainer.queue.queue import JobQueue
from trainer.store import keys
from trainer.store.events import ENDED_SECONDS
from trainer.store.store import Store
from trainer.system.files import changed_files
from trainer.worker import process
from trainer.worker.process import clean_for_ever
from trainer.worker.reconciler import reconcile

RUNS = 60
_line: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


def test_killed_cleanup__leaves_whole_checkpoints_for_the_next_one(tmp_path: Path) -> None:
    ends: list[FinalState] = ["completed", "failed", "cancelled"]
    steps = tuple(range(1, 9))
    words = [sys.executable, "-m", "trainer", "gc"]
    for removals in (1, 3, 5):
        folder = tmp_path / str(removals)
        runs = [add_run(folder, f"lstm-{number}", end, steps=steps, best_step=2) for number, end in enumerate(ends)]
        resumable = [newest_whole(run.checkpoints) for run in runs[1:]]
        environment = environment_in(folder, APP__CLEANUP__GRACE_PERIOD_SECONDS=str(DAY_SECONDS), LOGGING__LEVEL="INFO")
        with subprocess.Popen(words, cwd=folder, env=environment, stdout=DEVNULL, stderr=PIPE) as cleanup:
            assert cleanup.stderr is not None
            for _ in range(removals):
                assert b"cleanup_completed" in cleanup.stderr.readline()
            cleanup.kill()
        for run in runs:
            folders = [step_folder(run.checkpoints, step) for step in checkpoint_steps(run.checkpoints)]
            assert [changed_files(folder, sealed_files(folder)) for folder in folders] == [[]] * len(folders)
        assert [newest_whole(run.checkpoints) for run in runs[1:]] == resumable
        clean_up(settings_of(folder))
        assert [checkpoint_steps(run.checkpoints) for run in runs] == [[], [2, 8], [2, 8]]
        assert [*(folder / "artifacts").glob(".removed/*")] == []  # the folder is there if one was killed in time


@asynccontextmanager
async def cleaning(folder: Path, *, enabled: bool = True) -> AsyncIterator[asyncio.Task[None]]:
    """The cleanups of a worker that writes its log as JSON; they end with the block."""
    settings = settings_of(folder)
    cleanup = CleanupSettings(enabled=enabled, grace_period_seconds=DAY_SECONDS)
    app = changed(settings.app, cleanup=cleanup, env="prod")
    task = asyncio.create_task(clean_for_ever(changed(settings, app=app, logging=LoggingSettings(level="INFO"))))
    yield task
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_worker__repeats_its_cleanup_under_another_service_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_CLEANUP_SECONDS", 0.0)
    run = add_run(tmp_path, "lstm-1", steps=(1,))
    seen = set[int]()

    def has_begun_again() -> bool:
        seen.update(cleanup.pid for cleanup in processes(tmp_path, "gc"))
        return len(seen) > 1

    async with cleaning(tmp_path):
        await until(has_begun_again)
    assert not (run.checkpoints / "step-1").exists()
    [line] = [_line.validate_json(text) for text in capfd.readouterr().err.splitlines()]
    assert (line["message"], line["service"]) == ("cleanup_completed", "model-trainer-cleanup")
    assert (line["run_id"], line["path"]) == ("lstm-1", "models/lstm-1/checkpoints/step-1")


async def test_end_of_the_worker__ends_its_cleanup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "mt.toml")  # the cleanup waits for somebody who writes its settings
    monkeypatch.setenv("APP__CONFIG_FILE", str(tmp_path / "mt.toml"))
    async with cleaning(tmp_path):
        await until(lambda: bool(processes(tmp_path, "gc")))
        [cleanup] = processes(tmp_path, "gc")
        await until(lambda: os.getpriority(os.PRIO_PROCESS, cleanup.pid) >= 10)  # jobs come first
    assert not is_running(cleanup.pid)


async def test_worker__continues_without_memory_for_a_cleanup_or_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cleaning(tmp_path, enabled=False):
        for _ in range(100):
            await asyncio.sleep(0)
        assert not processes(tmp_path, "gc")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with captured_logs() as logs:
        async with cleaning(tmp_path):
            await until(lambda: bool(logs))
    assert [(line["event"], line["reason"]) for line in logs] == [("cleanup_not_started", "No such file or directory")]


async def answers(here: Inside, runs: list[RunDirectory]) -> list[object]:
    """The answers of the HTTP API on runs: their list, their status and their events."""
    site, _ = here
    found: list[object] = [(await site.get("/runs?limit=50")).text]
    for run in runs[:: RUNS // 5]:
        found.append((await site.get(f"/runs/{run.run_id}")).text)
        found.append(await site.events(f"/runs/{run.run_id}/events"))
    return found


async def keys_of_runs(store: Store) -> list[bytes]:
    found: Awaitable[list[bytes]] = store.redis.keys("runs:*")
    return await found


async def test_redis__keeps_ended_runs_for_days_and_answers_come_from_the_disk(tmp_path: Path) -> None:
    runs = [add_run(tmp_path, f"lstm-{number}", "failed", days=0, steps=()) for number in range(RUNS)]
    async with embedded(tmp_path) as (settings, queue, store), inside(queue, with_api(settings)) as here:
        await reconcile(settings, store)
        before = await answers(here, runs)
        left_ms: list[int] = [await store.redis.pttl(key) for key in await keys_of_runs(store)]
        assert len(left_ms) == 2 * RUNS
        assert all(0 < one <= ENDED_SECONDS * 1000 for one in left_ms)
        for run in runs:
            make_old(run.seal, ENDED_SECONDS / DAY_SECONDS + 1)
        for key in await keys_of_runs(store):
            await store.redis.pexpire(key, 1)  # the days are over
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await keys_of_runs(store):
                await asyncio.sleep(0.01)
        await reconcile(settings, store)
        assert await keys_of_runs(store) == []
        assert await answers(here, runs) == before
        young = runs[7]
        os.utime(young.seal)
        await store.redis.flushall()
        await reconcile(settings, store)
        assert await told(store, young.run_id) == [1, 2]
        assert sorted(await keys_of_runs(store)) == sorted(
            key(young.run_id).encode() for key in (keys.status, keys.run_events)
        )


async def test_redis__keeps_nothing_of_read_events_and_of_old_workers(tmp_path: Path) -> None:
    add_run(tmp_path, "lstm-1", "failed", days=0, steps=())
    ended = WorkerInfo(name="old:1", version="1", slots=1, seen_at=time.time())
    async with embedded(tmp_path) as (settings, queue, store):
        await store.renew_worker(seconds=0.001, worker=ended)
        await store.renew_worker(seconds=60, worker=changed(ended, name="young:1"))
        await store.next_run_ids(wait_seconds=0.01)  # makes the group
        await reconcile(settings, store)
        for bot in (queue, JobQueue(settings, store)):
            assert await anext(bot.states.next_run_ids()) == "lstm-1"
            await store.redis.xadd(keys.EVENT_STREAM, {"run_id": "lstm-1"})
        pending = await told_server(store, "XPENDING", keys.EVENT_STREAM, keys.EVENT_GROUP)
        consumers = await told_server(store, "XINFO", "CONSUMERS", keys.EVENT_STREAM, keys.EVENT_GROUP)
        names = await told_server(store, "HKEYS", keys.WORKERS)
        assert isinstance(consumers, list) and len(consumers) == 1
        assert pending == {"pending": 0, "min": None, "max": None, "consumers": []}
        assert names == [b"young:1"]
