"""Machines with folders of their own share runs, tokenizers and corpora by an object store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import add_corpus, ended, some_text, tiny_request, wait_for_status
from tests.support.object_stores import Bucket, machine, s3_server, worker_of
from tests.support.redis_servers import served
from tests.support.worker_runs import losses
from trainer.jobs.queue import JobQueue


@pytest.fixture(scope="module", name="bucket")
def bucket_fixture() -> Iterator[Bucket]:
    with s3_server() as bucket:
        yield bucket


async def test_run__trains_on_a_machine_with_another_folder_and_comes_back(tmp_path: Path, bucket: Bucket) -> None:
    async with served(tmp_path) as redis:
        here = machine(tmp_path / "bot", bucket, redis.url)
        machine(tmp_path / "gpu", bucket, redis.url)
        add_corpus(tmp_path / "bot", some_text())
        queue = await JobQueue.connect(here, redis.url)
        run_id = (await queue.train(tiny_request(), user_id=7)).run_id
        async with worker_of(tmp_path / "gpu", bucket, redis.url):
            while not ended(status := await queue.status(run_id)):
                await queue.replication.refresh()
        print(status)
        await queue.close()
    assert status.status == "completed"
    print([p for p in queue.runs.get(run_id).path.rglob("*")])
