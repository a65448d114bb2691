"""An S3 server of a test, and machines that share it: folders of their own, and workers of theirs."""

import asyncio
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from moto.server import ThreadedMotoServer

from tests.support import environment_in, settings_in
from tests.support.waiting import until
from tests.support.worker_runs import with_redis
from trainer.config.settings import ObjectStoreSettings, Settings
from trainer.contracts.base import changed

_KEY = "a key of the tests"


class Bucket:
    """A new bucket of a running S3 server."""

    def __init__(self, endpoint: str, name: str = "runs") -> None:
        self._endpoint, self._name = endpoint, name
        with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT")):
            pass

    @property
    def environment(self) -> dict[str, str]:
        return {
            "OBJECT_STORE__URL": f"s3://{self._name}/lab",
            "OBJECT_STORE__ENDPOINT": self._endpoint,
            "OBJECT_STORE__ACCESS_KEY_ID": _KEY,
            "OBJECT_STORE__SECRET_ACCESS_KEY": _KEY,
        }

    @property
    def settings(self) -> ObjectStoreSettings:
        fields = {name.partition("__")[2].lower(): value for name, value in self.environment.items()}
        return ObjectStoreSettings.model_validate(fields)


@contextmanager
def s3_server() -> Iterator[Bucket]:
    """Start moto in a thread of this process, on a free port, with one bucket."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield Bucket(f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}")  # noqa: S104
    finally:
        server.stop()


def machine(folder: Path, bucket: Bucket, redis_url: str) -> Settings:
    """The settings of a machine with a folder of its own."""
    folder.mkdir(exist_ok=True)
    settings = settings_in(folder, embedded_workers=0)
    return changed(settings, object_store=bucket.settings, **with_redis(redis_url))


@asynccontextmanager
async def worker_of(folder: Path, bucket: Bucket, redis_url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker on a machine; it logs to `worker.log`."""
    environment = environment_in(folder, REDIS__URL=redis_url, **bucket.environment)
    log = folder / "worker.log"
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trainer", "worker"), cwd=folder, env=environment, stderr=out.fileno()
        )
    await until(lambda: "worker_ready" in log.read_text(encoding="utf-8") or process.returncode is not None)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
