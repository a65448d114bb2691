"""Valkey and an object store on one side, three machines with workers on the other, and a machine that queues runs."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tests.chaos.supervised import Supervised
from tests.scale.machines import Address, Machine, Network, Wire, open_network
from tests.scale.plan import CORPUS
from tests.support import ROOT, add_corpus, kill, processes, settings_in, some_text
from tests.support.object_stores import Bucket
from tests.support.waiting import until
from tests.support.worker_runs import with_redis
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.queue.queue import JobQueue
from trainer.services.embedded import find_server

LEASE_SECONDS = 3.0
MACHINES = 3
CORPUS_LINES = 800
_BUCKET, _PASSWORD = "scale", "scale-password"


class System:
    """Servers, machines, and the queue of a machine of its own that only asks for runs."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder = folder
        self.network = network
        environment = _quiet_environment()
        self._data = folder / "valkey"
        self._data.mkdir()
        host, port = network.valkey
        users = folder / "users.acl"
        users.write_text(f"user default off\n{_rules()}\n", encoding="utf-8")
        options = {"bind": host, "port": str(port), "aclfile": str(users), "protected-mode": "no"}
        self._server = Supervised("valkey", _server_command(self._data, **options), environment, folder)
        host, port = network.store
        moto = [sys.executable, "-m", "moto.server", "--host", host, "--port", str(port)]
        self._store = Supervised("store", moto, environment, folder)
        self.machines: list[Machine] = []
        for number in range(MACHINES):
            wire = network.wire(number)
            self.machines.append(Machine(folder, number, wire, environment | self._environment(wire)))
        self._undo = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Start everything; returns when each worker is ready."""
        self._server.start()
        self._store.start()
        for address in (self.network.valkey, self.network.store):
            await until(partial(_answers, address))
        self.bucket = Bucket(*self.network.store, _BUCKET)
        folder = self.folder / "queue"
        folder.mkdir()
        add_corpus(folder, some_text(CORPUS_LINES), CORPUS)
        url = _url(self.network.valkey)
        plain = settings_in(folder, embedded_workers=0, lease_seconds=LEASE_SECONDS)
        self.settings: Settings = changed(plain, object_store=self.bucket.settings, **with_redis(url))
        self.queue = await JobQueue.connect(self.settings, url)
        self._undo.push_async_callback(self.queue.close)
        for machine in self.machines:
            await machine.wire.start()
            machine.start()
        for machine in self.machines:
            await until(partial(_is_ready, machine.log))

    async def stop(self) -> list[int | None]:
        """Ask the workers to end; return their exit codes."""
        return [*await asyncio.gather(*(machine.stop() for machine in self.machines))]

    async def end(self) -> None:
        """Leave nothing behind, however things stand."""
        await self._undo.aclose()
        for machine in self.machines:
            await machine.end()
        for server in (self._server, self._store):
            await server.abandon()
        while left := processes(self.folder):
            for one in left:
                with contextlib.suppress(ProcessLookupError):
                    kill(one.pid)
            await asyncio.sleep(0.05)
        self.network.close()

    def wipe_valkey(self) -> None:
        """Kill the server and start the next one with an empty folder."""

        def empty() -> None:
            shutil.rmtree(self._data)
            self._data.mkdir()

        self._server.send(signal.SIGKILL, before_start=empty)

    def _environment(self, wire: Wire) -> dict[str, str]:
        """The addresses of the servers, for a worker."""
        return {
            "REDIS__URL": _url(wire.valkey),
            "OBJECT_STORE__URL": f"s3://{_BUCKET}/lab",
            "OBJECT_STORE__ENDPOINT": f"http://{wire.store.host}:{wire.store.port}",
            "OBJECT_STORE__ACCESS_KEY_ID": "a key of the tests",
            "OBJECT_STORE__SECRET_ACCESS_KEY": "a key of the tests",
        }


def _quiet_environment() -> dict[str, str]:
    """The environment of a worker, with no settings of this program but the lease."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if "__" not in name and not name.startswith(("DISCORD", "COVERAGE_"))
    }
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "QUEUE__LEASE_SECONDS": str(LEASE_SECONDS),
        "QUEUE__STALL_SECONDS": "3600",  # a busy machine may give a training no time for minutes
        "QUEUE__EMBEDDED_WORKERS": "0",
    }


def _server_command(data: Path, **options: str) -> list[str]:
    """The command of a Valkey that loses nothing when it is killed."""
    options |= {"dir": str(data), "save": "", "appendonly": "yes", "appendfsync": "always"}
    return [find_server(), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _rules() -> str:
    """The user that has no more rights than the manual says."""
    manual = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8").splitlines()
    [rules] = [line for line in manual if line.startswith("user trainer on >PASSWORD ")]
    return rules.replace("PASSWORD", _PASSWORD, 1)


def _url(address: Address) -> str:
    return f"redis://trainer:{_PASSWORD}@{address.host}:{address.port}/0"


def _answers(address: Address) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False


def _is_ready(log: Path) -> bool:
    return log.exists() and b"worker_ready" in log.read_bytes()


@asynccontextmanager
async def undisturbed_queue(folder: Path) -> AsyncIterator[JobQueue]:
    """A queue with one worker, without an object store and without faults."""
    data, socket_path = folder / "valkey", folder / "valkey.sock"
    data.mkdir(parents=True)
    add_corpus(folder, some_text(CORPUS_LINES), CORPUS)
    url = f"unix://{socket_path}"
    environment = _quiet_environment() | {
        "REDIS__URL": url,
        "QUEUE__TRAINING_SLOTS": "2",
        "APP__DATA_ROOT": str(folder / "data"),
        "APP__ARTIFACTS_ROOT": str(folder / "artifacts"),
    }
    server = Supervised("valkey", _server_command(data, port="0", unixsocket=str(socket_path)), environment, folder)
    worker = Supervised("worker", [sys.executable, "-m", "trainer", "worker"], environment, folder)
    settings: Settings = changed(settings_in(folder, embedded_workers=0), **with_redis(url))
    try:
        server.start()
        await until(socket_path.exists)
        worker.start()
        queue = await JobQueue.connect(settings, url)
        yield queue
        await queue.close()
    finally:
        await worker.stop()
        await server.stop()


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[System]:
    """A system that runs; whatever happens, it runs no more afterwards."""
    system = System(folder, open_network())
    try:
        await system.start()
        yield system
    finally:
        await system.end()
