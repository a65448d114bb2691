"""The HTTP API under load: a hundred clients for a minute, while a training runs.

    python -m benchmarks.http_load

Runs `python -m bot --no-discord` with its embedded Valkey and worker. Each client keeps one connection, follows the
events of the run, and sends requests one after another with a pause of half a second. Prints a row for each kind
of request, and exits 1 if a goal is missed.
"""

import asyncio
import itertools
import os
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

from aiohttp import ClientSession, ClientTimeout, TCPConnector
from pydantic import TypeAdapter
from pydantic_core import to_json

from benchmarks.many_users import resident_mebibytes
from benchmarks.queue_latency import p99
from trainer.jobs.services import pipe

CLIENTS, SECONDS, PAUSE_SECONDS = 100, 60.0, 0.5
STATUS_SECONDS = 0.2
KEY = "benchmark-key-0123456789"
_fields = TypeAdapter(dict[str, object])


class Kind(NamedTuple):
    """A kind of request; `{run}` stands for the run that trains, `{done}` for a finished one."""

    name: str
    method: str
    path: str
    body: Mapping[str, str | int] | None = None


MIX = (
    Kind("status", "GET", "/runs/{run}"),
    Kind("list", "GET", "/runs?limit=20"),
    Kind("status", "GET", "/runs/{run}"),
    Kind("curve", "GET", "/runs/{run}/curve"),
    Kind("status", "GET", "/runs/{run}"),
    Kind("predict", "POST", "/runs/{done}/predict?wait=30", {"text": "the sun", "k": 5}),
    Kind("status", "GET", "/runs/{run}"),
    Kind("logs", "GET", "/runs/{run}/logs?tail=20"),
    Kind("status", "GET", "/runs/{done}"),
    Kind("metrics", "GET", "/metrics"),
)


class Answered(NamedTuple):
    name: str
    status: int
    seconds: float


class Load:
    """A server under load, and what it has answered."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self.answered: list[Answered] = []
        self.events = 0
        self.runs: dict[str, str] = {}

    async def prepare(self) -> None:
        """Train a small run to its end, and begin a long one."""
        self.runs["done"] = await self._train("?wait=60", model_size="tiny", max_steps=20)
        self.runs["run"] = await self._train("", num_epochs=1000)
        while (await self._status(self.runs["run"]))["step"] == 0:
            await asyncio.sleep(0.2)

    async def client(self, number: int) -> None:
        """Send requests for a minute, each client from another place of the mix on."""
        following = asyncio.create_task(self._follow())
        until = time.monotonic() + SECONDS
        for kind in itertools.cycle(MIX[number % len(MIX) :] + MIX[: number % len(MIX)]):
            if time.monotonic() > until:
                break
            self.answered.append(await self._ask(kind))
            await asyncio.sleep(PAUSE_SECONDS)
        following.cancel()
        await asyncio.wait([following])

    async def _ask(self, kind: Kind) -> Answered:
        data = None if kind.body is None else to_json(kind.body)
        begin = time.monotonic()
        try:
            async with self._session.request(kind.method, kind.path.format(**self.runs), data=data) as answer:
                await answer.read()
                return Answered(kind.name, answer.status, time.monotonic() - begin)
        except OSError:
            return Answered(kind.name, 0, time.monotonic() - begin)

    async def _follow(self) -> None:
        async with self._session.get(f"/runs/{self.runs['run']}/events", timeout=ClientTimeout()) as answer:
            async for line in answer.content:
                self.events += line.startswith(b"id:")

    async def _train(self, query: str, **fields: str | int) -> str:
        request: dict[str, str | int] = {"corpus": "demo", "model_family": "char_lstm", **fields}
        body = to_json(request)
        async with self._session.post(f"/runs/train{query}", data=body) as answer:
            return str(_fields.validate_json(await answer.read())["run_id"])

    async def _status(self, run_id: str) -> dict[str, object]:
        async with self._session.get(f"/runs/{run_id}") as answer:
            return _fields.validate_json(await answer.read())


async def measure() -> int:
    with tempfile.TemporaryDirectory() as folder:
        server = await start_server(Path(folder))
        try:
            return await _with_server(server)
        finally:
            server.terminate()
            await server.communicate()


async def _with_server(server: Process) -> int:
    address = f"http://127.0.0.1:{await _port(server)}"
    draining = asyncio.create_task(_drain(server))
    headers = {"X-Api-Key": KEY, "Content-Type": "application/json"}
    async with ClientSession(address, connector=TCPConnector(limit=0), headers=headers) as session:
        load = Load(session)
        await load.prepare()
        idle, before = resident_mebibytes(server.pid), processor_seconds(server.pid)
        await asyncio.gather(*(load.client(number) for number in range(CLIENTS)))
        busy, used = resident_mebibytes(server.pid), processor_seconds(server.pid) - before
    draining.cancel()

    wrong = Counter((one.name, one.status) for one in load.answered if one.status not in (200, 202))
    status = sorted(one.seconds for one in load.answered if one.name == "status")
    goals = {
        "errors": (float(wrong.total()), 0.0, ""),
        f"GET /runs/{{id}}, p99 of {len(status)}": (1000 * p99(status), 1000 * STATUS_SECONDS, "ms"),
    }
    for name, (value, goal, unit) in goals.items():
        print(f"{'ok  ' if value <= goal else 'MISS'} {name}: {value:.1f} {unit} (at most {goal:g})")
    rate = len(load.answered) / SECONDS
    print(f"{CLIENTS} clients, {rate:.0f} requests/s, {load.events} events to {CLIENTS} streams in {SECONDS:g} s")
    print(f"server: {used / SECONDS:.0%} of a core, {idle:.0f} MiB before, {busy:.0f} MiB after; errors {dict(wrong)}")
    for name in sorted({one.name for one in load.answered}):
        seconds = sorted(one.seconds for one in load.answered if one.name == name)
        print(
            f"  {name:<8} {len(seconds):>6} requests, median {1000 * median(seconds):6.1f} ms,"
            f" p99 {1000 * p99(seconds):6.1f} ms, latest {1000 * seconds[-1]:6.1f} ms"
        )
    return 0 if all(value <= goal for value, goal, _ in goals.values()) else 1


async def start_server(folder: Path) -> Process:
    environment = {
        **os.environ,
        "APP__ENV": "prod",
        "APP__DATA_ROOT": str(folder / "data"),
        "APP__ARTIFACTS_ROOT": str(folder / "artifacts"),
        "HTTP__PORT": "0",
        "SECURITY__API_KEY": KEY,
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "--no-discord"), env=environment, stdout=PIPE, stderr=DEVNULL
    )


async def _port(server: Process) -> object:
    while True:
        line = _fields.validate_json(await pipe(server.stdout).readline())
        if line["message"] == "http_started":
            return line["port"]


async def _drain(server: Process) -> None:
    while await pipe(server.stdout).read(1 << 16):
        pass


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(asyncio.run(measure()))
