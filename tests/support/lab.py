"""A folder with a running worker that the tests of a process share: a worker needs longer to start than a tiny run."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import (
    add_corpus,
    child_of,
    ended,
    environment_in,
    settings_in,
    some_text,
    tiny_request,
    wait_for_status,
)
from tests.support.waiting import PATIENCE_SECONDS
from tests.support.worker_runs import LONG, training
from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError
from trainer.queue.queue import JobQueue
from trainer.services.embedded import answering_server, die_with_parent
from trainer.store.store import Store, connect


class Lab:
    """A data root with the corpus `text`, and a worker that other tests have used before; commands join it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: Settings = settings_in(folder, embedded_workers=0)
        self.worker_log = folder / "worker.log"
        self._finished: RunDirectory | None = None

    async def address(self) -> str:
        address = await answering_server(self.settings)
        assert address is not None
        return address

    @asynccontextmanager
    async def queue(self) -> AsyncIterator[JobQueue]:
        """A queue to the worker, which has nothing to train before the block and after it."""
        queue = await JobQueue.connect(self.settings, await self.address())
        try:
            yield queue
        finally:
            for run in queue.runs.unfinished():
                with suppress(AppError):  # it ends at this moment
                    await queue.states.cancel(run.run_id)
                await wait_for_status(queue, run.run_id, ended)
            async with self.store() as store, asyncio.timeout(PATIENCE_SECONDS):
                while await store.redis.zcard(self.settings.queue.name):
                    await asyncio.sleep(0.02)
            await queue.close()

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        store = await connect(await self.address())
        try:
            yield store
        finally:
            await store.close()

    async def finished_run(self, queue: JobQueue) -> RunDirectory:
        """A completed run, the same for all tests, which leave it as it is."""
        if self._finished is None:
            run_id = (await queue.train(tiny_request(), user_id=None)).run_id
            assert (await wait_for_status(queue, run_id, ended)).status == "completed"
            self._finished = queue.runs.get(run_id)
            lock = await asyncio.to_thread(self._finished.wait_for_lock, PATIENCE_SECONDS)
            lock.close()  # the process of the run has written its last file, and removed its own
        return self._finished

    def logged(self, *words: str) -> bool:
        """Return whether the worker has logged a line with all the words."""
        lines = self.worker_log.read_text(encoding="utf-8").splitlines()
        return any(all(word in line for word in words) for line in lines)

    @asynccontextmanager
    async def worker_busy(self, queue: JobQueue) -> AsyncIterator[str]:
        """Keep the worker busy with a run that stands still until the end of the block; give the run's id."""
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        await wait_for_status(queue, run_id, training)
        child = child_of(self.folder, run_id)
        os.kill(child.pid, signal.SIGSTOP)
        try:
            yield run_id
        finally:
            await queue.states.cancel(run_id)
            os.kill(child.pid, signal.SIGCONT)


@contextmanager
def running_worker(folder: Path) -> Iterator[None]:
    """A worker with a server in a folder, ready for jobs, that commands and bots join; it logs to `worker.log`."""
    words = [*die_with_parent(), sys.executable, "-m", "trainer", "worker"]
    path = folder / "worker.log"
    with path.open("wb") as log:
        environment = environment_in(folder)  # Ctrl-C reaches the tests, which end the worker
        worker = subprocess.Popen(words, cwd=folder, env=environment, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "worker_ready" not in (lines := path.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline, lines
            time.sleep(0.05)
        yield
    finally:
        worker.terminate()
        assert worker.wait(PATIENCE_SECONDS) == 0


@pytest.fixture(scope="session", name="lab")
def lab_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    add_corpus(lab.folder, some_text())
    with running_worker(lab.folder):
        yield lab
