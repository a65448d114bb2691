"""The HTTP API under load: 200 clients for 20 seconds, while a run trains, ten wait and 60 have ended.

    python -m benchmarks.http_load

Runs `python -m bot --no-discord` with its embedded Valkey and worker. Each client keeps one connection, follows the
events of the run, and sends requests one after another with a pause of half a second. Prints a row for each route, and
exits 1 if a goal is missed.
"""

import asyncio
import itertools
import os
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple

from aiohttp import ClientSession, ClientTimeout, TCPConnector
from pydantic import TypeAdapter
from pydantic_core import to_json

from benchmarks.growth_costs import copy_run
from benchmarks.many_users import resident_mebibytes
from benchmarks.queue_latency import p99
from trainer.artifacts.runs import RunStore
from trainer.services.embedded import pipe

CLIENTS, SECONDS, PAUSE_SECONDS = 200, 20.0, 0.5
ENDED_RUNS, WAITING_RUNS = 60, 10
STATUS_SECONDS = 0.2
KEY = "benchmark-key-0123456789"
_fields = TypeAdapter(dict[str, object])


class Kind(NamedTuple):
    """A kind of request; `{run}` stands for the run that trains, `{done}` for a finished one."""

    method: str
    path: str
    fields: str | None = None
    """A body, as JSON."""


STATUS, LIST = Kind("GET", "/runs/{run}"), Kind("GET", "/runs")
MIX = (
    STATUS,
    LIST,
    STATUS,
    Kind("GET", "/runs/{run}/curve"),
    STATUS,
    Kind("POST", "/runs/{done}/predict?wait=30", '{"text": "the sun", "k": 5}'),
    STATUS,
    Kind("GET", "/runs/{run}/logs?tail=20"),
    Kind("GET", "/runs/{done}"),
    Kind("GET", "/health"),
    Kind("GET", "/metrics"),
)


class Answered(NamedTuple):
    kind: Kind
    status: int
    seconds: float


class Load:
    """A server under load, and what it has answered."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self.answered: list[Answered] = []
        self.events = 0
        self.runs: dict[str, str] = {}

    async def prepare(self, artifacts: Path) -> None:
        """Train a small run to its end, copy it, begin a long one, and queue others."""
        self.runs["done"] = await self._train("?wait=60", model_size="tiny", max_steps=20)
        copy_run(RunStore(artifacts).get(self.runs["done"]), ENDED_RUNS - 1)
        self.runs["run"] = await self._train("", num_epochs=1000)
        while (await self._status(self.runs["run"]))["step"] == 0:
            await asyncio.sleep(0.2)
        for _ in range(WAITING_RUNS):
            await self._train("", num_epochs=1000)

    async def client(self, number: int) -> None:
        """Send requests for some time, each client from another place of the mix on."""
        await asyncio.sleep(PAUSE_SECONDS * number / CLIENTS)
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
        begin = time.monotonic()
        try:
            async with self._session.request(kind.method, kind.path.format(**self.runs), data=kind.fields) as answer:
                await answer.read()
                return Answered(kind, answer.status, time.monotonic() - begin)
        except OSError:
            return Answered(kind, 0, time.monotonic() - begin)

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
            return await _with_server(server, Path(folder) / "artifacts")
        finally:
            server.terminate()
            await server.communicate()


async def _with_server(server: Process, artifacts: Path) -> int:
    address = f"http://127.0.0.1:{await _port(server)}"
    draining = asyncio.create_task(_drain(server))
    headers = {"X-Api-Key": KEY, "Content-Type": "application/json"}
    async with ClientSession(address, connector=TCPConnector(limit=0), headers=headers) as session:
        load = Load(session)
        await load.prepare(artifacts)
        idle, before = resident_mebibytes(server.pid), processor_seconds(server.pid)
        await asyncio.gather(*(load.client(number) for number in range(CLIENTS)))
        busy, used = resident_mebibytes(server.pid), processor_seconds(server.pid) - before
    draining.cancel()

    wrong = Counter((one.kind.path, one.status) for one in load.answered if one.status not in (200, 202))
    seconds = {kind: sorted(one.seconds for one in load.answered if one.kind == kind) for kind in MIX}
    medians = {kind: median(found) for kind, found in seconds.items()}
    goals = {
        "errors": (float(wrong.total()), 0.0, ""),
        "GET /runs/{run}, p99": (1000 * p99(seconds[STATUS]), 1000 * STATUS_SECONDS, "ms"),
        "GET /runs, p50; goal: the slowest other route": (1000 * medians.pop(LIST), 1000 * max(medians.values()), "ms"),
    }
    for name, (value, goal, unit) in goals.items():
        print(f"{'ok  ' if value <= goal else 'MISS'} {name}: {value:.1f} {unit} (at most {goal:.4g})")
    rate = len(load.answered) / SECONDS
    print(f"{CLIENTS} clients, {rate:.0f} requests/s, {load.events} events to {CLIENTS} streams in {SECONDS:g} s")
    print(f"server: {used / SECONDS:.0%} of a core, {idle:.0f} MiB before, {busy:.0f} MiB after; errors {dict(wrong)}")
    print("| route | requests | p50 | p99 | latest |\n|---|---|---|---|---|")
    for kind, found in seconds.items():
        times = " | ".join(f"{1000 * time:,.0f} ms" for time in (median(found), p99(found), found[-1]))
        print(f"| `{kind.method} {kind.path}` | {len(found):,} | {times} |")
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
