"""An S3 server of a test, and machines that share it: folders of their own, and workers of theirs."""

import asyncio
import http.client
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pydantic import HttpUrl

from tests.support import settings_in
from tests.support.runs import record
from tests.support.waiting import until
from tests.support.worker_runs import log_of_worker, with_redis, worker_in
from trainer.artifacts.object_store import ObjectStore
from trainer.artifacts.replicas import Replica
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.settings import ObjectStoreSettings, Settings
from trainer.contracts.base import changed

RUN = "char_lstm-1"
_KEY = "a key of the tests"
_numbers = count(1)
"""All servers of a process share their buckets."""


class Bucket:
    """A new bucket of a running S3 server."""

    def __init__(self, host: str, port: int, name: str) -> None:
        self.address = f"http://{host}:{port}"
        self._endpoint, self._name = f"http://{host}:{port}", name
        connection = http.client.HTTPConnection(host, port)
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
        connection.close()
        self.objects = ObjectStore(self.settings)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "OBJECT_STORE__URL": f"s3://{self._name}/lab",
            "OBJECT_STORE__ENDPOINT": self._endpoint,
            "OBJECT_STORE__ACCESS_KEY_ID": _KEY,
            "OBJECT_STORE__SECRET_ACCESS_KEY": _KEY,
        }

    def behind(self, address: str) -> ObjectStoreSettings:
        """The settings for the bucket at the address of a proxy."""
        return changed(self.settings, endpoint=HttpUrl(address))

    @property
    def settings(self) -> ObjectStoreSettings:
        fields = {name.partition("__")[2].lower(): value for name, value in self.environment.items()}
        return ObjectStoreSettings.model_validate(fields)


class S3Server:
    """A server in a thread of this process, on a free port; it can be stopped and started again."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(port=0, verbose=False)
        self._server.start()

    def start_again(self) -> None:
        """Start a stopped server on its port, with its buckets."""
        _, port = self._server.get_host_and_port()
        self._server = ThreadedMotoServer(port=port, verbose=False)
        self._server.start()

    def bucket(self) -> Bucket:
        _, port = self._server.get_host_and_port()
        return Bucket("127.0.0.1", port, f"bucket-{next(_numbers)}")

    def stop(self) -> None:
        self._server.stop()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module", name="server")
def server_fixture() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(name="bucket")
def bucket_fixture(server: S3Server) -> Bucket:
    return server.bucket()


def accepted(root: Path, run_id: str = RUN) -> RunDirectory:
    return RunStore(root).create(record(run_id))


def replica(bucket: Bucket, root: Path, run_id: str = RUN) -> Replica:
    """The folder of a run on a machine, and in the store."""
    return Replica(bucket.objects, root, "models", run_id)


def machine(folder: Path, bucket: Bucket, redis_url: str = "redis://127.0.0.1:1/0") -> Settings:
    """The settings of a machine with a folder of its own."""
    folder.mkdir(exist_ok=True)
    settings = settings_in(folder, embedded_workers=0)
    return changed(settings, object_store=bucket.settings, **with_redis(redis_url))


@asynccontextmanager
async def worker_of(folder: Path, bucket: Bucket, redis_url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker on a machine, ready for jobs."""
    async with worker_in(folder, REDIS__URL=redis_url, **bucket.environment) as process:
        await until(lambda: "worker_ready" in log_of_worker(folder))
        yield process
