"""A worker with another artifacts folder than the queue says so, claims nothing, and recovers by itself."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support import add_corpus, ended, environment_in, settings_in, some_text, tiny_request, wait_for_status
from tests.support.waiting import captured_logs, until
from trainer.artifacts.artifacts_id import artifacts_id, own_artifacts_id
from trainer.contracts.jobs import FolderJobPayload
from trainer.queue.queue import JobQueue
from trainer.services.embedded import Services
from trainer.store.store import Store, connect
from trainer.worker.presence import Presence, own_info

MATCHED = "artifacts_folder_matched"
BLIND = "artifacts_folder_mismatch"


@asynccontextmanager
async def worker(folder: Path, url: str, artifacts_root: Path, log: Path) -> AsyncIterator[None]:
    environment = environment_in(folder, REDIS__URL=url, APP__ARTIFACTS_ROOT=str(artifacts_root))
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trainer", "worker"), cwd=folder, env=environment, stderr=out.fileno()
        )
        try:
            yield
        finally:
            process.terminate()
            await process.wait()


async def test_worker_with_another_folder__takes_nothing_until_it_has_its_own(
    tmp_path: Path,
) -> None:
    add_corpus(tmp_path, some_text())
    settings = settings_in(tmp_path, embedded_workers=0)
    services = Services(settings)
    queue = await JobQueue.connect(settings, url := await services.start())
    run_id = (await queue.train(tiny_request(), user_id=7)).run_id
    mount, log = tmp_path / "mount", tmp_path / "log"
    mount.mkdir()
    async with worker(tmp_path, url, mount, log):
        await until(lambda: BLIND in log.read_text(encoding="utf-8"), 120)
        await asyncio.sleep(2)  # in which it would have taken the job
        waiting = await queue.status(run_id)
        assert not await queue.has_worker()
        mount.rmdir()
        mount.symlink_to(settings.app.artifacts_root)
        done = await wait_for_status(queue, run_id, ended)
        await until(lambda: MATCHED in log.read_text(encoding="utf-8"), 120)
    await queue.close()
    await services.stop()
    told = log.read_text(encoding="utf-8")
    assert (waiting.status, waiting.queue_position, done.status) == ("queued", 1, "completed")
    assert told.count(BLIND) == 1
    assert "refused" not in told


async def test_presence__is_shown_only_while_the_folder_of_the_jobs_is_seen(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, embedded_workers=0)
    services = Services(settings)
    store = await connect(await services.start())
    own, other = own_artifacts_id(settings.app.artifacts_root), own_artifacts_id(tmp_path / "other")
    await store.enqueue("training", "train", "job-1", FolderJobPayload(job_id="job-1"), artifacts=other)
    with captured_logs() as logs:
        presence = Presence(settings, store, await own_info(settings))
        showing = asyncio.create_task(presence.show(lambda: False, lambda: None))
        await until(lambda: BLIND in [line["event"] for line in logs])
        was_shown = await store.has_worker()
        await store.enqueue("training", "train", "job-2", FolderJobPayload(job_id="job-2"), artifacts=own)
        await until(lambda: "artifacts_folder_matched" in [line["event"] for line in logs])
        while not await store.has_worker():
            await asyncio.sleep(0.05)
        showing.cancel()
    await store.close()
    await services.stop()
    assert not was_shown


async def test_jobs__are_claimed_by_the_workers_of_their_folder_only(tmp_path: Path) -> None:
    services = Services(settings_in(tmp_path, embedded_workers=0))
    store = await connect(await services.start())
    one, other = own_artifacts_id(tmp_path / "one"), own_artifacts_id(tmp_path / "other")
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
    await store.close()
    await services.stop()


async def begun(store: Store, artifacts: str) -> list[str]:
    jobs = await store.claim_jobs("training", 9, "me", lease_seconds=60, artifacts=artifacts)
    return [job_id for job_id, _ in jobs]


def test_id__is_given_once_to_a_folder_however_many_are_first(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    assert artifacts_id(root) == ""
    assert not root.exists()
    with ThreadPoolExecutor(8) as pool:
        roots: list[Path] = [root] * 40
        ids = set(pool.map(own_artifacts_id, roots))
    assert ids == {artifacts_id(root)} == {own_artifacts_id(root)}
    (root / "installation").write_bytes(b"torn")
    assert artifacts_id(root) == ""
    assert own_artifacts_id(root) == artifacts_id(root) != ""
    assert os.listdir(root) == ["installation"]
