"""The whole product as processes that can each be killed: Valkey, two workers, and the bot on a local Discord."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from local_discord import LocalDiscord
from local_discord.state import Call, User
from tests.chaos.supervised import Supervised
from tests.support import ROOT, Process, add_corpus, gone, kill, parent_of, processes, run_of, some_text
from tests.support.waiting import ANSWER_SECONDS
from trainer.config.settings import Settings
from trainer.queue.queue import JobQueue
from trainer.services.embedded import find_server
from trainer.store.store import Store, connect

TOKEN = "chaos-token"  # noqa: S105
LEASE_SECONDS = 3.0
WORKERS = 2
_START_SECONDS = 300.0
_SAMPLE_SECONDS = 0.2
_LINGER_SECONDS = 60.0
_CORPUS_LINES = 120


class System:
    """Its processes, its disk, and the people who use it."""

    def __init__(self, folder: Path, server: LocalDiscord, users: int, slots: int) -> None:
        self.folder = folder
        self.server = server
        self.users: list[User] = [server.add_user(f"user-{number}") for number in range(users)]
        socket = folder / "valkey.sock"
        self.url = f"unix://{socket}"
        (folder / "valkey").mkdir()
        add_corpus(folder, some_text(_CORPUS_LINES))
        values: dict[str, object] = {
            "app": {"data_root": folder / "data", "artifacts_root": folder / "artifacts"},
            "queue": {"lease_seconds": LEASE_SECONDS, "embedded_workers": 0},
        }
        self.settings = Settings.model_validate(values)
        kept = {
            name: value
            for name, value in os.environ.items()
            if "__" not in name and "DISCORD" not in name and not name.startswith("COVERAGE_")
        }
        environment = {
            **kept,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "APP__DATA_ROOT": str(folder / "data"),
            "APP__ARTIFACTS_ROOT": str(folder / "artifacts"),
            "REDIS__URL": self.url,
            "QUEUE__EMBEDDED_WORKERS": "0",
            "QUEUE__LEASE_SECONDS": str(LEASE_SECONDS),
            "QUEUE__TRAINING_SLOTS": str(slots),
            "HTTP__PORT": "",
            "QUEUE__STALL_SECONDS": "3600",  # a busy machine may give a training no time for minutes
            "LIMITS__RUNS_PER_USER": "100",
            "DISCORD__TOKEN": TOKEN,
            "DISCORD__OWNER_ID": str(self.users[0].id),
            "DISCORD__ALLOWED_USER_IDS": ",".join(str(user.id) for user in self.users),
            "DISCORD__API_BASE_URL": server.api_base_url,
            "DISCORD__GATEWAY_URL": server.gateway_url,
            "DISCORD__EDIT_INTERVAL_SECONDS": "1",
        }
        options = {
            **{"port": "0", "unixsocket": str(socket), "dir": str(folder / "valkey"), "save": ""},
            **{"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"},
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        python = [sys.executable, "-m"]
        self.valkey = Supervised("valkey", [find_server(), *words], environment, folder)
        self.workers = [
            Supervised(f"worker-{number}", [*python, "trainer", "worker"], environment, folder)
            for number in range(WORKERS)
        ]
        self.bot = Supervised("bot", [*python, "bot"], environment, folder)
        self.calls: list[Call] = []
        self.gateway_drops: list[float] = []
        self.connected_seconds: list[float] = []
        """Monotonic times at which the bot was seen at the gateway."""
        self._undo = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Start everything; returns when Valkey answers and the bot has told its commands."""
        self.valkey.start()
        async with asyncio.timeout(_START_SECONDS):
            while not (self.folder / "valkey.sock").exists():
                await asyncio.sleep(0.05)
        self.store: Store = await connect(self.url)
        self._undo.push_async_callback(self.store.close)
        self.queue = JobQueue(self.settings, self.store)
        for process in (*self.workers, self.bot):
            process.start()
        sampling = asyncio.create_task(self._sample())
        self._undo.push_async_callback(_cancelled, sampling)
        await self.server.synced(_START_SECONDS)
        await self.server.connected(_START_SECONDS)

    async def stop(self) -> dict[str, int | None]:
        """Ask all to end; their exit codes by name."""
        users = (self.bot, *self.workers)
        codes = await asyncio.gather(*(process.stop() for process in users))
        names = (process.name for process in users)
        return dict(zip(names, codes, strict=True)) | {self.valkey.name: await self.valkey.stop()}

    async def left(self) -> list[Process]:
        """Return the processes that still run some seconds after the stop; helper processes end a little later."""
        return [] if await gone(self.folder, _LINGER_SECONDS) else processes(self.folder)

    async def end(self) -> None:
        """Leave nothing behind, however things stand."""
        for process in (self.bot, *self.workers, self.valkey):
            await process.abandon()
        await self._undo.aclose()
        while left := processes(self.folder):
            for one in left:
                with contextlib.suppress(ProcessLookupError):
                    kill(one.pid)
            await asyncio.sleep(0.05)

    def wipe_valkey(self) -> bool:
        """Kill the server and start the next one with an empty folder."""

        def empty() -> None:
            shutil.rmtree(self.folder / "valkey")
            (self.folder / "valkey").mkdir()

        return self.valkey.send(signal.SIGKILL, before_start=empty)

    def training_of(self, worker: Supervised) -> str | None:
        """The run that a worker has a child for."""
        for process in processes(self.folder, "train-child"):
            with contextlib.suppress(OSError):
                if parent_of(parent_of(process.pid)) == worker.pid:  # between them is the server that forks
                    return run_of(process)
        return None

    def drop_gateway(self, how: str) -> None:
        self.gateway_drops.append(time.monotonic())
        self.server.drop_gateway("abort" if how == "abort" else "reconnect" if how == "reconnect" else "invalidate")

    def is_excused(self, call: Call) -> bool:
        """Return True if the bot or its connection was down while a user waited for this answer."""
        broken = [*self.gateway_drops, *(one.at_seconds for one in self.bot.exits)]
        return any(call.created_seconds - 1 <= moment <= call.created_seconds + 60 for moment in broken)

    def longest_connected_seconds(self, begin: float, end: float) -> float:
        """For how long in one piece the bot was at the gateway between two monotonic times."""
        longest = 0.0
        first: float | None = None
        last = 0.0
        for moment in (moment for moment in self.connected_seconds if begin <= moment <= end):
            if first is None or moment - last > 3 * _SAMPLE_SECONDS:
                first = moment
            last = moment
            longest = max(longest, last - first)
        return longest

    async def _sample(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await self.server.connected(_SAMPLE_SECONDS)
                self.connected_seconds.append(time.monotonic())
            await asyncio.sleep(_SAMPLE_SECONDS)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def started(folder: Path, users: int, slots: int = 1) -> AsyncIterator[System]:
    """A system that runs; whatever happens, it runs no more afterwards."""
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        system = System(folder, server, users, slots)
        try:
            await system.start()
            yield system
        finally:
            await system.end()
