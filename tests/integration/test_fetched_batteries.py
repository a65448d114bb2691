"""Batteries by name where neither the library that fetches them nor their files are: the worker fetches them."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import settings_in
from tests.support.batteries import PAIRS
from tests.support.cross_language import add_languages, plan
from tests.support.finished_runs import finished_run
from tests.support.hub_batteries import HUB_LIBRARIES
from tests.support.redis_servers import served
from tests.support.refusals import refused
from tests.support.started_jobs import started_battery, started_experiment
from tests.support.waiting import until
from tests.support.worker_runs import with_redis, worker_in
from trainer.artifacts.batteries import BatteryDirectory
from trainer.artifacts.experiments import ExperimentDirectory
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryRequest
from trainer.contracts.errors import ErrorCode
from trainer.queue.queue import JobQueue

FETCHED = "jumelet/multiblimp@abc123"


class Stack(NamedTuple):
    """A bot's queue and the data root of its worker, which has other files and libraries."""

    queue: JobQueue
    folder: Path
    data: Path
    """The worker's; the artifacts are those of the bot."""
    url: str

    def worker(self, *, can_fetch: bool = True) -> AbstractAsyncContextManager[object]:
        """A worker, with the libraries that fetch batteries."""
        libraries = self.folder / "libraries"
        libraries.mkdir(exist_ok=True)
        for name, code in HUB_LIBRARIES.items():
            (libraries / name).write_text(code if can_fetch else "raise ImportError", encoding="utf-8")
        own = {"APP__DATA_ROOT": str(self.data), "REDIS__URL": self.url, "PYTHONPATH": str(libraries)}
        return worker_in(self.folder, **own)


@pytest.fixture(name="stack")
async def stack_fixture(tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack_in(tmp_path) as stack:
        yield stack


@asynccontextmanager
async def stack_in(folder: Path) -> AsyncIterator[Stack]:
    elsewhere = folder / "worker"
    for root in (folder, elsewhere):
        add_languages(root)
    async with served(folder) as server:
        settings = changed(settings_in(folder, embedded_workers=0), **with_redis(server.url))
        queue = await JobQueue.connect(settings, server.url)
        try:
            yield Stack(queue, folder, elsewhere / "data", server.url)
        finally:
            await queue.close()


async def end(job: BatteryDirectory | ExperimentDirectory) -> str:
    """Wait until a job has ended; return its state and its message."""
    await until(lambda: not job.is_unfinished())
    status = job.status(has_files=False)
    return f"{status.status}: {status.message}"


def request(run: str, *names: str, **fields: object) -> BatteryRequest:
    return parse(BatteryRequest, {"runs": [run], "batteries": names, "has_controls": False, **fields})


async def test_battery__is_fetched_by_the_worker_once_and_scored(stack: Stack) -> None:
    run = finished_run(stack.folder, "lstm").run_id
    own = {"files": [{"name": "pairs.csv", "content": PAIRS}]}
    asked = request(run, "multiblimp:tur", **own)
    job = await started_battery(stack.queue, asked)
    assert (job.status().batteries, job.status().message) == (("pairs", "multiblimp:tur"), "Waiting for a worker.")
    with job.running():
        assert (job.status().message, job.status().percent) == ("Fetching multiblimp:tur.", 0)
    async with stack.worker(can_fetch=False):
        said = await end(job)
    assert said.startswith("failed: The machine '") and "WORKER_EXTRAS=corpora" in said
    async with stack.worker():
        again = await started_battery(stack.queue, asked)
        assert (again.battery_id, await end(again)) == (job.battery_id, "completed: Completed.")
        record = job.record()
        assert ([info.source for info in record.batteries], record.to_fetch) == ([None, FETCHED], ())
        groups = [group for group in job.summary().runs[0].groups if group.level == "battery"]
        assert [(group.battery, group.n_items) for group in groups] == [("pairs", 4), ("multiblimp:tur", 2)]
        assert (await started_battery(stack.queue, asked)).state() == "completed", "an equal request is the same job"
        (stack.data / "batteries").rename(stack.folder / "data" / "batteries")  # the bot has the files from now on
        assert (await started_battery(stack.queue, asked)).battery_id == job.battery_id
        files = stack.folder / "data" / "batteries" / "multiblimp" / "tur.jsonl"
        files.write_bytes(files.read_bytes().replace(b"iyi", b"daha"))
        other = await started_battery(stack.queue, asked)
        assert (other.battery_id != job.battery_id, await end(other)) == (True, "completed: Completed.")


@pytest.mark.slow
async def test_experiment__has_its_batteries_fetched_by_the_worker(stack: Stack) -> None:
    languages = {"kk": {"batteries": ["multiblimp:kaz", "own"]}, "tr": {"batteries": ["multiblimp:tur"]}}
    (stack.folder / "data" / "batteries").mkdir()
    (stack.folder / "data" / "batteries" / "own.csv").write_text("good,bad\nab,ba\n", encoding="utf-8")
    asked = plan(languages=languages)
    job = await started_experiment(stack.queue, asked)
    with job.running():
        assert job.status().message == "Fetching multiblimp:kaz, multiblimp:tur."
    assert {cell.kind for cell in job.status().cells} == {"train", "score", "battery"}
    assert (await started_experiment(stack.queue, asked)).job_id == job.job_id
    async with stack.worker():
        assert await end(job) == "completed: Completed."
    record = job.record()
    found = {code: [(info.name, info.source) for info in infos] for code, infos in record.batteries.items()}
    assert found == {
        "kk": [("own", None), ("multiblimp:kaz", FETCHED)],
        "tr": [("multiblimp:tur", FETCHED)],
    }
    assert (record.to_fetch, len(job.items())) == ({}, 5)
    assert "multiblimp:tur" in (job.path / "batteries.csv").read_text(encoding="utf-8")
    assert (await started_experiment(stack.queue, asked)).state() == "completed"


async def test_wrong_names__are_refused_at_once(stack: Stack) -> None:
    run = finished_run(stack.folder, "lstm").run_id
    with refused(ErrorCode.DATA_NOT_FOUND, "There is no battery 'blimpp'"):
        await started_battery(stack.queue, request(run, "blimpp"))
    with refused(ErrorCode.RUN_NOT_FOUND):
        await started_battery(stack.queue, request("nothere", "blimp"))
    with refused(ErrorCode.DATA_NOT_FOUND, "", "languages.tr.batteries"):
        await started_experiment(stack.queue, plan(languages={"kk": {}, "tr": {"batteries": ["blimpp"]}}))
    with refused(ErrorCode.INVALID_INPUT, "is no name of a battery", "languages.tr.batteries"):
        await started_experiment(stack.queue, plan(languages={"kk": {}, "tr": {"batteries": ["a/b"]}}))
