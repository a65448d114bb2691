"""Latency and throughput of the job queue: on an idle machine, beside a training, and of plain arq.

Two workers run in their own processes, with a Valkey that syncs every write to disk as the embedded one does. A
measurement is repeated while other programs use more than 5 % of the processor; the quietest one counts. Its limit is
the time of messages sent between the jobs: they pass through a plain stream, and their receiver records each of them.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from arq.connections import RedisSettings
from arq.worker import Worker, func

from benchmarks.rows import Row
from benchmarks.turns import ForeignLoad
from trainer.config.settings import AppSettings, QueueSettings, Settings, load_settings
from trainer.contracts.base import changed
from trainer.contracts.jobs import FolderJobPayload
from trainer.services.embedded import Services
from trainer.store.connection import dumps, loads, read_streams
from trainer.store.store import Store, connect
from trainer.system.child_environment import tuned_environment
from trainer.worker.children.train_child import NICENESS
from trainer.worker.presence import Presence, own_info
from trainer.worker.process import WakingWorker, listen

P50_MS, P99_MS, P99_BESIDE_TRAINING_MS, JOBS_PER_SECOND = 3.0, 10.0, 20.0, 800.0
SPACED_JOBS, BURST_JOBS, SLOTS = 300, 2000, 10
MEAN_GAP_SECONDS = 0.05
QUIET_SHARE, MAX_TRIES = 0.05, 8
QUEUE, MESSAGES = "benchmark", "messages"


class Figures(NamedTuple):
    """Figures of one measurement."""

    waits_ms: list[float]
    """Time from enqueueing to the first line of the job, of spaced jobs; sorted."""
    messages_ms: list[float]
    """Time from sending a message to its receipt, of as many messages between them; sorted."""
    jobs_per_second: float
    """Throughput of a burst, from the first enqueueing to the first line of the last job."""
    not_once: int
    """Jobs that did not run exactly once."""
    foreign_share: float
    """Share of the processor time that went to other programs."""


def p99(sorted_ms: list[float]) -> float:
    """Return the time that 99 % of sorted times stay below."""
    return sorted_ms[int(len(sorted_ms) * 0.99)]


async def queue_rows() -> list[Row]:
    """Measure the queue; a job that did not run exactly once is a missed goal."""
    free = await quietest("ours", training=False)
    beside = await quietest("ours", training=True)
    plain = await quietest("arq", training=False)
    again = sum(figures.not_once for figures in (free, beside))

    def row(case: str, value: float, unit: str, goal: float, better: Literal["more", "less"] = "less") -> Row:
        share = max(free.foreign_share, beside.foreign_share)
        return Row(case=f"queue: {case}", value=value, unit=unit, goal=goal, better=better, foreign_share=share)

    def wait_row(case: str, value: float, goal: float, limit: float) -> Row:
        return changed(row(case, value, "ms", goal), limit=limit, limited_by="recorded messages in a plain stream")

    median_row = wait_row("p50 from enqueueing to start", median(free.waits_ms), P50_MS, median(free.messages_ms))
    return [
        changed(median_row, details={"arq as it comes": median(plain.waits_ms)}),
        wait_row("p99", p99(free.waits_ms), P99_MS, p99(free.messages_ms)),
        wait_row("p99 beside a training", p99(beside.waits_ms), P99_BESIDE_TRAINING_MS, p99(beside.messages_ms)),
        row("short jobs", free.jobs_per_second, "per second", JOBS_PER_SECOND, "more"),
        row("jobs that did not run exactly once", again, "jobs", 0),
    ]


async def quietest(kind: str, *, training: bool) -> Figures:
    """Measure until the machine is quiet, MAX_TRIES times at most; return the quietest measurement."""
    measurements: list[Figures] = []
    while len(measurements) < MAX_TRIES and all(figures.foreign_share > QUIET_SHARE for figures in measurements):
        with tempfile.TemporaryDirectory() as folder:
            measurements.append(await measure(Path(folder), kind, training=training))
    return sorted(measurements, key=foreign_share_of)[0]


def foreign_share_of(figures: Figures) -> float:
    return figures.foreign_share


async def measure(folder: Path, kind: str, *, training: bool) -> Figures:
    settings = Settings(
        app=AppSettings(data_root=folder, artifacts_root=folder), queue=QueueSettings(embedded_workers=0)
    )
    services = Services(settings)
    url = await services.start()
    store = await connect(url)
    others = [await start("work", kind, url, str(folder / f"starts{number}")) for number in range(2)]
    others.append(await start("receive", url, str(folder / "starts2")))
    if training:
        others.append(await start("train"))
    for other in others:
        if other.stdout is not None:
            await other.stdout.readline()  # it is ready
    try:
        load = ForeignLoad()
        enqueued = await enqueue_all(store)
        foreign_share = load.share()
    finally:
        for other in others:
            other.kill()
            await other.wait()
        await store.close()
        await services.stop()
    return figures_of(enqueued, started_in(folder), foreign_share)


def figures_of(enqueued: dict[str, int], started: list[tuple[str, int]], foreign_share: float) -> Figures:
    """Return the figures of jobs, given the times in nanoseconds at which they were enqueued and started."""
    starts = dict(started)
    spaced_ms, messages_ms = (
        sorted((starts[name] - enqueued[name]) / 1e6 for name in enqueued if name.startswith(kind))
        for kind in ("spaced", "message")
    )
    burst = [name for name in enqueued if name.startswith("burst")]
    burst_seconds = (max(starts[name] for name in burst) - min(enqueued[name] for name in burst)) / 1e9
    times = Counter(name for name, _ in started)
    not_once = sum(times[name] != 1 for name in enqueued)
    return Figures(spaced_ms, messages_ms, len(burst) / burst_seconds, not_once, foreign_share)


def started_in(folder: Path) -> list[tuple[str, int]]:
    lines = [line.split() for file in folder.glob("starts*") for line in file.read_text(encoding="ascii").splitlines()]
    return [(name, int(nanoseconds)) for name, nanoseconds in lines]


async def enqueue_all(store: Store) -> dict[str, int]:
    """Enqueue jobs one by one, a message after each, then a burst of jobs; wait for all.

    Returns when each was sent, in nanoseconds.
    """
    enqueued: dict[str, int] = {}

    async def enqueue(name: str) -> None:
        enqueued[name] = time.monotonic_ns()
        await store.enqueue(QUEUE, "job", name, FolderJobPayload(job_id=name))

    for number in range(SPACED_JOBS):
        await asyncio.sleep(random.uniform(0, 2 * MEAN_GAP_SECONDS))
        await enqueue(f"spaced{number}")
        await asyncio.sleep(random.uniform(0, 2 * MEAN_GAP_SECONDS))
        enqueued[f"message{number}"] = time.monotonic_ns()
        sending: Awaitable[object] = store.redis.xadd(MESSAGES, {"name": f"message{number}"})
        await sending
    await drained(store)
    await asyncio.gather(*(enqueue(f"burst{number}") for number in range(BURST_JOBS)))
    await drained(store)
    return enqueued


async def drained(store: Store) -> None:
    waiting: int = 1
    while waiting:
        await asyncio.sleep(0.05)
        waiting = await store.redis.zcard(QUEUE)


async def start(*words: str) -> Process:
    """Start this module with other arguments, in the environment of a worker's child."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.queue_latency", *words, stdout=PIPE, env=tuned_environment(load_settings())
    )


async def work(kind: str, url: str, file: str) -> None:
    """Run a worker whose jobs record their start times."""
    with open(file, "w", buffering=1, encoding="ascii") as starts:  # noqa: ASYNC230

        async def job(ctx: dict[str, object], payload: dict[str, str]) -> None:
            starts.write(f"{payload['run_id']} {time.monotonic_ns()}\n")

        functions = [func(job, name="job", timeout=60, max_tries=2)]
        if kind == "arq":
            plain = Worker(
                functions=functions,
                queue_name=QUEUE,
                redis_settings=RedisSettings.from_dsn(url),
                job_serializer=dumps,
                job_deserializer=loads,
            )
            print("ready", flush=True)
            await plain.async_run()
        store, settings = await connect(url), Settings()
        presence = Presence(settings, store, await own_info(settings))
        worker = WakingWorker(
            url, functions, queue=QUEUE, artifacts_root=Path(), slots=SLOTS, lease_seconds=15, presence=presence
        )
        print("ready", flush=True)
        await asyncio.gather(worker.async_run(), listen(store, [worker]))


async def receive(url: str, file: str) -> None:
    """Receive the messages of a plain stream; record each in Valkey, then its time in a file."""
    redis = (await connect(url)).redis
    position = "0-0"
    with open(file, "w", buffering=1, encoding="ascii") as starts:  # noqa: ASYNC230
        print("ready", flush=True)
        while True:
            waiting: Awaitable[object] = redis.xread({MESSAGES: position}, block=5000)
            for _, entries in read_streams(await waiting):
                for entry_id, fields in entries:
                    name = (fields or {})[b"name"].decode()
                    position = entry_id.decode()
                    await redis.set(name, "received")
                    starts.write(f"{name} {time.monotonic_ns()}\n")


def train() -> None:
    """Train an LSTM with two threads until killed, as nice to others as the worker's child is."""
    import torch

    os.nice(NICENESS)
    torch.set_num_threads(2)
    layers = torch.nn.LSTM(128, 256, 2, batch_first=True)
    optimizer = torch.optim.AdamW(layers.parameters())
    inputs = torch.randn(64, 256, 128)
    steps = 0
    while True:
        optimizer.zero_grad()
        outputs: tuple[torch.Tensor, object] = layers(inputs)
        torch.autograd.backward([outputs[0].square().mean()])
        optimizer.step()
        steps += 1
        if steps == 3:
            print("ready", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work", kind, url, file]:
            asyncio.run(work(kind, url, file))
        case ["receive", url, file]:
            asyncio.run(receive(url, file))
        case ["train"]:
            train()
        case arguments:
            raise SystemExit(f"unknown arguments: {arguments}")
