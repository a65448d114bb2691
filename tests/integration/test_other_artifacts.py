"""A worker with another artifacts folder than the queue says so, claims nothing, and recovers by itself."""

import asyncio
import fcntl
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import add_corpus, some_text, tiny_request
from tests.support.disk_failures import allowing
from tests.support.redis_servers import address, embedded
from tests.support.waiting import captured_logs, is_awaited, until, wait_until
from trainer.artifacts.artifacts_id import artifacts_id, own_artifacts_id
from trainer.contracts.jobs import FolderJobPayload, InferenceJobPayload
from trainer.queue.enqueue import Enqueuer
from trainer.store import keys
from trainer.store.store import Store
from trainer.system.files import open_regular, take_lock
from trainer.worker.presence import Presence, own_info
from trainer.worker.process import run_worker

BLIND = "artifacts_folder_mismatch"


async def test_presence__is_shown_only_while_the_folder_of_the_jobs_is_seen(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, _, store):
        own, other = own_artifacts_id(settings.app.artifacts_root), own_artifacts_id(tmp_path / "other")
        await store.enqueue("training", "train", "job-1", FolderJobPayload(job_id="job-1"), artifacts=other)
        with captured_logs() as logs:
            presence = Presence(settings, store, await own_info(settings))
            showing = asyncio.create_task(presence.show(lambda: False, lambda: None))
            await until(lambda: BLIND in [line["event"] for line in logs])
            seen_at = time.time()  # the next two records are those of the same refusal
            await until(lambda: presence.info.seen_at > seen_at + settings.queue.lease_seconds * 0.2)
            assert [line["event"] for line in logs].count(BLIND) == 1
            assert not await store.has_worker()
            await store.enqueue("training", "train", "job-2", FolderJobPayload(job_id="job-2"), artifacts=own)
            await until(lambda: "artifacts_folder_matched" in [line["event"] for line in logs])
            while not await store.has_worker():
                await asyncio.sleep(0.05)
            showing.cancel()


async def test_jobs__are_claimed_by_the_workers_of_their_folder_only(tmp_path: Path) -> None:
    one, other = own_artifacts_id(tmp_path / "one"), own_artifacts_id(tmp_path / "other")
    async with embedded(tmp_path) as (_, _, store):
        for name, folder in (("job-1", one), ("job-2", other), ("job-3", one), ("job-4", "")):
            await store.enqueue("training", "train", name, FolderJobPayload(job_id=name), artifacts=folder)
        assert await store.recent_artifacts_ids() == {one, other}
        assert await begun(store, other) == ["job-2", "job-4"]
        assert await begun(store, "") == []
        assert await begun(store, one) == ["job-1", "job-3"]
        job = FolderJobPayload(job_id="job-2")
        again = [
            await store.requeue("training", "train", "job-2", job, since=1, lease_seconds=9, artifacts=folder)
            for folder in (other, one, one)
        ]
        assert again == [False, True, False]  # its folder has been given another id


async def test_request__about_a_folder_that_may_only_be_read_is_for_any_worker(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, _, store):
        root = settings.app.artifacts_root
        root.mkdir(exist_ok=True)
        with allowing(0o500, root):
            await Enqueuer(settings, store).enqueue(request("request-1"))
        claimed = await store.claim_jobs(keys.INTERACTIVE_QUEUE, 9, "me", lease_seconds=60, artifacts="a" * 16)
        assert [job_id for job_id, _ in claimed] == ["request-1"]
        root.rmdir()
        root.touch()
        with pytest.raises(FileExistsError):
            await Enqueuer(settings, store).enqueue(request("request-2"))


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # by arq
async def test_worker__that_may_only_read_its_folder_leaves_runs_in_the_queue(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with embedded(tmp_path) as (settings, queue, _):
        run_id = (await queue.train(tiny_request(), user_id=None)).run_id
        with captured_logs() as logs:
            url = address(tmp_path)
            assert await run_worker(settings, url, embedded=False, idle_seconds=0.5, answers_only=True) == 0
        assert {"artifacts_read_only", "worker_idle"} <= {line["event"] for line in logs}
        assert (await queue.states.status(run_id)).status == "queued"


def request(request_id: str) -> InferenceJobPayload:
    return InferenceJobPayload(kind="score", run_id="lstm-1", request_id=request_id)


async def begun(store: Store, artifacts: str) -> list[str]:
    jobs = await store.claim_jobs("training", 9, "me", lease_seconds=60, artifacts=artifacts)
    return [job_id for job_id, _ in jobs]


def test_artifacts_id__is_written_once_by_concurrent_processes(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    assert artifacts_id(root) == ""
    assert not root.exists()
    with ThreadPoolExecutor(8) as pool:
        roots: list[Path] = [root] * 40
        ids = set(pool.map(own_artifacts_id, roots))
    assert ids == {artifacts_id(root)} == {own_artifacts_id(root)}
    with open_regular(root / "installation", "r+b") as file:
        file.truncate()
        take_lock(file.fileno(), fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(own_artifacts_id, root)
            wait_until(lambda: is_awaited(os.fstat(file.fileno()).st_ino))
            file.write(b"0123456789abcdef")
            file.close()
            assert waiting.result() == artifacts_id(root) == "0123456789abcdef"
    (root / "installation").write_bytes(b"torn")
    assert artifacts_id(root) == ""
    assert own_artifacts_id(root) == artifacts_id(root) != ""
    assert os.listdir(root) == ["installation"]
