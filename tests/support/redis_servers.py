"""Redis servers of a test: own processes behind a proxy that can fail."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from arq.worker import func

from tests.support import settings_in
from tests.support.faulty_proxy import free_port
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.worker_runs import with_redis
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.events import event_adapter
from trainer.queue.queue import JobQueue
from trainer.services.embedded import Services, find_server
from trainer.store import keys
from trainer.store.store import Store, connect
from trainer.worker.jobs import JobFunction
from trainer.worker.presence import Presence, own_info
from trainer.worker.process import WakingWorker


def address(folder: Path) -> str:
    """Return the address of the embedded server of a folder."""
    return f"unix://{folder / 'data' / 'services' / 'valkey.sock'}"


class Server:
    """A server of the test's own, on a port, that can be killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = options

    async def start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self.process = await asyncio.create_subprocess_exec(
            *(find_server(), "--port", str(self.port), "--dir", str(self._folder), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always"),
            *("--cluster-port", str(free_port())),  # that of a cluster is else one that the system gives out
            *self._options,
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.write(b"PING\r\n")
                    answer = await reader.readline()
                    writer.close()
                    if answer and not answer.startswith(b"-LOADING"):
                        return
                except ConnectionError:
                    pass
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def wipe(self) -> None:
        await self.kill()
        shutil.rmtree(self._folder)
        await self.start()

    def settings(self, folder: Path) -> Settings:
        """Settings of a folder whose queue is here; nothing is embedded."""
        return changed(settings_in(folder, embedded_workers=0), **with_redis(self.url))

    @asynccontextmanager
    async def queue(self, folder: Path) -> AsyncIterator[JobQueue]:
        queue = await JobQueue.connect(self.settings(folder), self.url)
        try:
            yield queue
        finally:
            await queue.close()


@asynccontextmanager
async def served(folder: Path, *options: str) -> AsyncIterator[Server]:
    server = Server(folder / "server", *options)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[tuple[Settings, JobQueue, Store]]:
    """A queue whose server runs and whose worker does not."""
    settings = settings_in(folder, embedded_workers=0)
    services = Services(settings)
    store = await connect(await services.start())
    try:
        yield settings, JobQueue(settings, store), store
    finally:
        await store.close()
        await services.stop()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """A server that gives one answer to every command, or to whatever else it receives; yields its address."""
    open_connections: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_connections.append(writer)
        with suppress(ConnectionError):
            while data := await reader.read(1000):
                writer.write(answer * max(1, sum(line.startswith(b"*") for line in data.splitlines())))
        writer.close()
        open_connections.remove(writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    address: tuple[str, int] = server.sockets[0].getsockname()
    async with server:
        yield f"127.0.0.1:{address[1]}"
        await until(lambda: not open_connections)


@asynccontextmanager
async def claiming_worker(
    settings: Settings, store: Store, job: JobFunction, of_class: type[WakingWorker] = WakingWorker, slots: int = 1
) -> AsyncIterator[tuple[WakingWorker, Presence]]:
    """A worker in this process that does its trainings by a function; gives it with its presence in Redis."""
    folder = settings.app.data_root.parent
    presence = Presence(settings, store, await own_info(settings))
    worker = of_class(
        address(folder),
        [func(job, name="train")],
        queue="training",
        artifacts_root=folder,
        slots=slots,
        lease_seconds=30,
        presence=presence,
    )
    working = asyncio.create_task(worker.async_run())
    try:
        yield worker, presence
    finally:
        working.cancel()
        await asyncio.wait([working])
        await worker.pool.aclose()


async def told(store: Store, run_id: str) -> list[int]:
    """The sequence numbers on a run's own stream."""
    reply: Awaitable[list[tuple[bytes, dict[bytes, bytes]]]] = store.redis.xrange(keys.run_events(run_id))
    return [event_adapter.validate_json(fields[b"event"]).seq for _, fields in await reply]


class _Execute(Protocol):
    def __call__(self, *words: str) -> Awaitable[object]: ...


async def told_server(store: Store, *words: str) -> object:
    """Send a command to the server and return its answer."""
    execute: _Execute = store.redis.execute_command
    return await execute(*words)
