"""Workers whose children end at their start: jobs go to other workers, and a broken worker takes nothing more."""

import asyncio
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support import add_corpus, ended, some_text, tiny_request, wait_for_status
from tests.support.broken_workers import LAST_LINE, broken_worker
from tests.support.redis_servers import embedded, served
from tests.support.waiting import until
from tests.support.worker_runs import events_of, log_of_worker, worker_in
from trainer.artifacts.attempts import ChildEnd
from trainer.config.settings import Settings
from trainer.contracts.base import StopCause
from trainer.contracts.events import JobProgress
from trainer.contracts.jobs import FolderJobPayload, JobNeeds, WorkerInfo
from trainer.contracts.runs import RunStatus
from trainer.contracts.scores import ScoreRequest
from trainer.queue.queue import JobQueue
from trainer.store.store import Store, disconnected
from trainer.system.hardware import process_name
from trainer.worker.starts import Starts

SENTENCE = "Each worker that could take this job is broken. The job stays in the queue until one is mended."


def is_ready(folder: Path, log_name: str) -> bool:
    return "worker_ready" in log_of_worker(folder, log_name)


async def queued(queue: JobQueue, count: int) -> list[str]:
    return [(await queue.train(tiny_request(seed=seed), user_id=None)).run_id for seed in range(count)]


async def completed(queue: JobQueue, run_ids: list[str]) -> bool:
    return {(await wait_for_status(queue, run_id, ended)).status for run_id in run_ids} == {"completed"}


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
async def test_healthy_worker__does_all_runs_beside_a_broken_one(count: int, tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with served(tmp_path) as server, server.queue(tmp_path) as queue:
        async with broken_worker(tmp_path, server.url), worker_in(tmp_path, REDIS__URL=server.url):
            for log_name in ("broken.log", "worker.log"):
                await until(partial(is_ready, tmp_path, log_name))
            assert await completed(queue, await queued(queue, count))


def waits_broken(status: RunStatus) -> bool:
    return status.waits_for == "broken" or ended(status)


@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.slow)])
async def test_broken_workers__lose_nothing_say_one_sentence_and_start_again_by_an_order(
    count: int, tmp_path: Path
) -> None:
    add_corpus(tmp_path, some_text())
    async with served(tmp_path) as server, server.queue(tmp_path) as queue:
        run_ids = await queued(queue, count)
        async with broken_worker(tmp_path, server.url, "one"), broken_worker(tmp_path, server.url, "two"):
            for run_id in run_ids:
                status = await wait_for_status(queue, run_id, waits_broken)
                assert (status.status, status.message) == ("queued", SENTENCE)
            workers = (await queue.workers.state([])).workers
            for worker in workers:
                assert worker.reason is not None and f"with exit code 1 ({LAST_LINE})" in worker.reason
                assert f"`mt workers undrain {worker.name}`" in worker.reason
            assert [worker.state for worker in workers] == ["refuses"] * 2
            for name in ("one", "two"):
                (tmp_path / name).unlink()
            assert await queue.workers.absence() == "broken"
            await queue.workers.drain(workers[0].name, is_draining=False)
            assert await completed(queue, run_ids)


async def test_jobs_of_each_way_to_start_a_process__go_to_the_healthy_worker(tmp_path: Path) -> None:
    """It stands still until they have died on the broken worker: forked, as a command of `mt`, and as a server."""
    add_corpus(tmp_path, some_text())
    async with served(tmp_path) as server, server.queue(tmp_path) as queue:
        async with broken_worker(tmp_path, server.url), worker_in(tmp_path, REDIS__URL=server.url) as healthy:
            for log_name in ("broken.log", "worker.log"):
                await until(partial(is_ready, tmp_path, log_name))
            (tmp_path / "broken").unlink()
            [first] = await queued(queue, 1)
            assert await completed(queue, [first])
            (tmp_path / "broken").touch()
            os.kill(healthy.pid, signal.SIGSTOP)
            run_id = (await queue.train(tiny_request(seed=7), user_id=None)).run_id
            asking = asyncio.create_task(queue.inference.ask(first, ScoreRequest(text="the cat sat")))
            await until(lambda: log_of_worker(tmp_path, "broken.log").count("job_left_to_others") == 2)
            left = [event.message for event in events_of(queue, run_id) if isinstance(event, JobProgress)]
            assert "The process ended before its first step; the run is tried again, elsewhere if it can be." in left
            os.kill(healthy.pid, signal.SIGCONT)
            assert await completed(queue, [run_id])
            assert (await asking).error is None


ME = process_name()


def died(code: int = 1, cause: StopCause | None = "crashed", *lines: str) -> ChildEnd:
    return ChildEnd(code, lines, cause, has_begun=False)


async def show(store: Store, name: str, **fields: object) -> None:
    values: dict[str, object] = {"name": name, "version": "1", "slots": 1, "seen_at": time.time(), "memory_bytes": 9}
    await store.renew_worker(seconds=60, worker=WorkerInfo.model_validate(values | fields))


async def claimed(store: Store, holder: str) -> list[str]:
    found = [job_id for job_id, _ in await store.claim_jobs("training", 9, holder, lease_seconds=60)]
    await store.release(found)
    return found


async def test_job__goes_to_each_worker_that_can_take_it_before_its_deaths_count(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, _, store):
        starts = Starts(settings)
        for name, fields in (
            (ME, {}),
            ("box:1", {}),
            ("small:1", {"memory_bytes": 1}),
            ("busy:1", {"state": "draining"}),
            (f"{ME.rpartition(':')[0]}:{2**30}", {}),  # which has ended
        ):
            await show(store, name, **dict[str, object](fields))
        needs = JobNeeds(memory_bytes=5)
        await store.enqueue("training", "train", "run-1", FolderJobPayload(job_id="run-1"), needs=needs)
        assert await starts.leaves("run-1", store)
        assert (await claimed(store, ME), await claimed(store, "box:1")) == ([], ["run-1"])
        await store.leave_job("run-1", "box:1", seconds=60)
        assert not await starts.leaves("run-1", store)
        assert not await starts.leaves("run-1", store, may_wait=False)
        await store.forget_tries("run-1")
        assert await claimed(store, ME) == ["run-1"]


async def test_only_worker__lets_another_job_show_which_of_the_two_is_at_fault(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, _, store):
        starts = Starts(settings)
        for run_id in ("run-1", "run-2"):
            assert not await starts.leaves("run-1", store)
            await store.enqueue("training", "train", run_id, FolderJobPayload(job_id=run_id))
        await store.claim_jobs("training", 2, "box:1", lease_seconds=60)
        assert not await starts.leaves("run-1", store)
        await store.release(["run-2"])
        assert not await starts.leaves("run-1", store, may_wait=False)
        assert await starts.leaves("run-1", store)
        assert not await starts.leaves("run-1", store)
    gone = disconnected()
    assert await starts.leaves("run-1", gone)
    assert not await starts.leaves("run-1", gone, may_wait=False)
    await gone.close()


def reason_of(starts: Starts) -> str:
    return starts.reason or ""


def test_worker__is_broken_by_three_deaths_in_a_row_of_two_jobs(tmp_path: Path) -> None:
    starts = Starts(Settings())
    regular = ChildEnd(0, (), None, has_begun=False)
    for job_id, end in (
        *[("bad", died())] * 4,
        *[("large", died(-9, "starved"))] * 4,
        ("full", died(73, "disk_full")),
        ("old", ChildEnd(1, (), "crashed", has_begun=True)),
    ):
        starts.child_ended(job_id, end)
    assert reason_of(starts) == ""
    starts.child_ended("good", regular)
    starts.child_ended("run-1", died())
    starts.child_ended("run-2", died())
    assert reason_of(starts) == ""
    starts.child_began()
    for job_id in ("run-1", "run-2", "run-2"):
        starts.child_ended(
            job_id, died(-11, "crashed", "a line of a corpus\n", "OSError: no /opt/cuda/lib/libcuda.so\n")
        )
    assert starts.broke.is_set()
    assert "the last one by SIGSEGV (OSError: no …/libcuda.so). Mend the machine, then" in reason_of(starts)
    starts.child_ended("run-3", died())
    assert "3 of its processes" in reason_of(starts)
    starts.mend()
    assert reason_of(starts) == ""
    for job_id in ("run-1", "run-2", "run-3"):
        starts.child_ended(job_id, died(-9, "stalled", "ValueError: the cat sat\n"))
    assert "the last one because it stalled. Mend" in reason_of(starts)
