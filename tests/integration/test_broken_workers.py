"""Workers whose children end at their start: jobs go to other workers, and a broken worker takes nothing more."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
from arq import Retry

from tests.support import add_corpus, ended, some_text, tiny_request, wait_for_status
from tests.support.broken_workers import LAST_LINE, broken_worker
from tests.support.cross_language import add_languages, plan
from tests.support.readings import times_table
from tests.support.redis_servers import embedded, served
from tests.support.run_shell import FINISHED_RUN
from tests.support.started_jobs import started_battery, started_experiment, started_reading
from tests.support.studies import RATES, started_study, study_request
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.worker_runs import events_of, log_of_worker, worker_in
from trainer.artifacts.attempts import ChildEnd
from trainer.artifacts.command_jobs import ExportRecord, ExportStore, VerificationRecord, VerificationStore
from trainer.artifacts.corpus_builds import BuildRecord, BuildStore
from trainer.artifacts.job_folder import AnyStatusJob
from trainer.artifacts.kinds import BUILDS, EXPORTS, STATUS_KINDS, VERIFICATIONS
from trainer.config.settings import Settings
from trainer.config.validation import parse
from trainer.contracts.base import KindName, StopCause, now
from trainer.contracts.batteries import BatteryFile, BatteryRequest
from trainer.contracts.corpora import BuildRequest
from trainer.contracts.events import JobProgress
from trainer.contracts.exports import ExportRequest
from trainer.contracts.jobs import FolderJobPayload, JobNeeds, WorkerInfo
from trainer.contracts.readings import ReadingRequest
from trainer.contracts.runs import RunStatus
from trainer.contracts.scores import ScoreRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.queue.queue import JobQueue
from trainer.store.store import Store, disconnected
from trainer.system.hardware import process_name
from trainer.worker.starts import Starts
from trainer.worker.steps import Steps

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


async def one_of_each_kind(queue: JobQueue, folder: Path) -> dict[KindName, AnyStatusJob]:
    """A job of every kind but runs, on a completed run of the folder."""
    shutil.copytree(FINISHED_RUN, folder, dirs_exist_ok=True)
    add_languages(folder)
    (texts := folder / "data" / "corpus" / "local").mkdir()
    (texts / "kk.txt").write_text("бәрі де жақсы болды\n" * 3, encoding="utf-8")
    jobs, stores, [run] = queue.jobs, queue.stores, queue.runs.all()
    tokenizer = TokenizerTrainRequest(method="bpe", corpora=("text",), vocab_size=40)
    two = {name: RATES[name] for name in ("rate-1", "rate-2")}
    pairs = BatteryFile(name="pairs.tsv", content="good\tbad\nabc\tacb\n")
    times: dict[str, object] = {"name": "times.csv", "content": times_table()}
    export = ExportRecord(created_at=now(), model=run.run_id, request=ExportRequest(format="csv"))
    check = VerificationRecord(created_at=now(), run_id=run.run_id)
    local = BuildRequest(source="local", languages=("kk",), threshold=0.0)
    build = BuildRecord(created_at=now(), request=local)
    root = queue.settings.app.artifacts_root
    return {
        "tokenizers": stores.tokenizers.get((await queue.train_tokenizer(tokenizer)).tokenizer_id),
        "experiments": await started_experiment(queue, plan()),
        "studies": await started_study(queue, study_request(settings=two, finalists=1, seeds=1, read_test=False)),
        "batteries": await started_battery(queue, BatteryRequest(runs=(run.run_id,), files=(pairs,))),
        "readings": await started_reading(queue, parse(ReadingRequest, {"runs": [run.run_id], "file": times})),
        "exports": await jobs.accept(EXPORTS, lambda: ExportStore(root).create("export-1", export)),
        "verifications": await jobs.accept(VERIFICATIONS, lambda: VerificationStore(root).create("check-1", check)),
        "corpus_builds": await jobs.accept(BUILDS, lambda: BuildStore(root).create(build)),
    }


async def ends_of(jobs: Mapping[KindName, AnyStatusJob]) -> dict[KindName, str]:
    await until(lambda: all(job.status().has_ended for job in jobs.values()))
    ends = {kind: "completed" if job.has_completed() else str(job.failure()) for kind, job in jobs.items()}
    if "turkic" in ends["corpus_builds"]:  # the process has worked, on a machine without this library
        ends["corpus_builds"] = "completed"
    return ends


COMPLETED = dict.fromkeys(STATUS_KINDS, "completed")


@pytest.mark.slow
async def test_jobs_of_every_kind__end_beside_a_broken_worker(tmp_path: Path) -> None:
    async with served(tmp_path) as server, server.queue(tmp_path) as queue:
        async with broken_worker(tmp_path, server.url), worker_in(tmp_path, REDIS__URL=server.url):
            for log_name in ("broken.log", "worker.log"):
                await until(partial(is_ready, tmp_path, log_name))
            jobs = await one_of_each_kind(queue, tmp_path)
            assert jobs.keys() == STATUS_KINDS.keys()
            assert await ends_of(jobs) == COMPLETED


async def test_jobs_of_every_kind__wait_for_a_broken_worker_and_end_when_it_is_mended(tmp_path: Path) -> None:
    async with served(tmp_path) as server, server.queue(tmp_path) as queue:
        jobs = await one_of_each_kind(queue, tmp_path)
        async with broken_worker(tmp_path, server.url):
            await until(partial(is_ready, tmp_path, "broken.log"))
            for job in jobs.values():
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while job.state() == "running" or await queue.states.wait_message(job.job_id) is None:
                        await asyncio.sleep(0.05)
            assert {kind: (job.state(), job.failure()) for kind, job in jobs.items()} == dict.fromkeys(
                jobs, ("queued", None)
            )
            (tmp_path / "broken").unlink()
            [worker] = (await queue.workers.state([])).workers
            await queue.workers.drain(worker.name, is_draining=False)
            assert await ends_of(jobs) == COMPLETED


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


async def test_job_without_an_answer__goes_to_others_where_processes_end_at_their_start(tmp_path: Path) -> None:
    shutil.copytree(FINISHED_RUN, tmp_path, dirs_exist_ok=True)
    async with embedded(tmp_path) as (settings, queue, store):
        [run], starts, gone = queue.runs.all(), Starts(settings), disconnected()
        pairs = BatteryFile(name="pairs.tsv", content="good\tbad\nabc\tacb\n")
        battery = await started_battery(queue, BatteryRequest(runs=(run.run_id,), files=(pairs,)))
        steps = Steps(battery, JobQueue(settings, gone), settings, store, starts)
        starts.child_ended(run.run_id, died())
        await show(store, "box:1")
        with pytest.raises(Retry):
            await steps.ask(run.run_id, ScoreRequest(text="abc"), "it")
        assert await store.workers_that_tried(battery.job_id) == {ME}
        await gone.close()


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
