"""Costs of the product with 100, 1,000 and 10,000 queued runs of 100 events each: queue, streams, store, lists, bot.

    nice python -m benchmarks.scale [SIZES …]

The product's own code writes the runs, their events and their jobs, to a folder and a Valkey of the benchmark. Only the
runs of the depth are written without waiting for the disk; whatever is timed waits for it. Prints a table with the
growth between the sizes as an exponent, and writes `benchmarks/results/scale.json`. Exits 1 if a figure grows faster
than linearly or misses its goal.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from math import log
from pathlib import Path
from statistics import median
from typing import NamedTuple

from pydantic import TypeAdapter

from benchmarks.cold_start import Spent
from benchmarks.growth_costs import progress_event, quiet
from benchmarks.lab import DEMO_CORPUS
from benchmarks.many_users import TOKEN, resident_mebibytes, start_bot
from benchmarks.rows import Machine, machine
from local_discord import LocalDiscord
from local_discord.state import User
from trainer.artifacts.kinds import RUNS
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.settings import AppSettings, QueueSettings, Settings
from trainer.contracts.base import Frozen, Timestamp, changed, now
from trainer.contracts.runs import TrainRequest
from trainer.queue.enqueue import Enqueuer, EventPublisher
from trainer.queue.queue import JobQueue
from trainer.queue.resolve import TrainingPreview, preview_training
from trainer.queue.run_feeds import RunFeeds
from trainer.queue.run_index import RunIndex
from trainer.services.embedded import Services
from trainer.store import keys
from trainer.store.store import Store, connect
from trainer.system.files import Disk
from trainer.worker.reconciler import reconcile

SIZES = (100, 1_000, 10_000)
EVENTS = 100
"""Events of each run, besides the first one."""
OWNERS = 20
CALLS, CLAIMS, STARTS, PASSES = 100, 20, 20, 3
"""Repetitions: of a call, of a claim, of a process, and of a loop over all runs."""
TOLERANCE = 0.1
LIST_GOAL_MS = 100.0
SETTLE_SECONDS, WATCH_SECONDS = 20.0, 20.0
RESULT = Path(__file__).parent / "results" / "scale.json"
_info_adapter: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


class Figure(Frozen):
    """One cost at each size."""

    name: str
    unit: str
    values: tuple[float, ...]
    exponents: tuple[float, ...]
    """Growth from each size to the next: p of n^p."""
    goal: float | None = None
    """Largest allowed value at the largest size."""

    @property
    def verdict(self) -> str:
        """ABOVE: the figure grows faster than linearly between the two largest sizes."""
        if self.exponents and self.exponents[-1] > 1 + TOLERANCE:
            return "ABOVE"
        return "MISSED" if self.goal is not None and self.values[-1] > self.goal else "ok"


class ScaleResults(Frozen):
    """The file `benchmarks/results/scale.json`."""

    measured_at: Timestamp
    machine: Machine
    sizes: tuple[int, ...]
    events: int
    figures: tuple[Figure, ...]


class Measured(NamedTuple):
    """A cost at one size, in the unit of its table row."""

    name: str
    unit: str
    value: float
    goal: float | None = None


class _UnflushedDisk(Disk):
    """The product's disk without waiting for it, to write many runs fast."""

    def flush(self, descriptor: int) -> None:
        pass


class Depth(NamedTuple):
    """A folder and a Valkey with a number of queued runs."""

    folder: Path
    settings: Settings
    store: Store
    url: str
    queue: JobQueue
    preview: TrainingPreview
    owners: Sequence[int]


async def measure(runs: int) -> list[Measured]:
    """Measure all costs at one size."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "data" / "corpus").mkdir(parents=True)
        (folder / "data" / "corpus" / "text.txt").write_bytes(DEMO_CORPUS.read_bytes())
        settings = Settings(
            app=AppSettings(data_root=folder / "data", artifacts_root=folder / "artifacts"),
            queue=QueueSettings(embedded_workers=0),
        )
        services = Services(settings)
        url = await services.start()
        store = await connect(url)
        try:
            async with LocalDiscord(token=TOKEN) as discord:
                users = [discord.add_user(f"user-{number}") for number in range(OWNERS)]
                queue = JobQueue(settings, store)
                request = TrainRequest(model_family="char_lstm", corpus="text")
                preview = await preview_training(request, queue.corpora, settings)
                owners = [user.id for user in users]
                depth = Depth(folder, settings, store, url, queue, preview, owners)
                return await _measure(depth, runs, discord, users)
        finally:
            await store.close()
            await services.stop()


async def _measure(depth: Depth, runs: int, discord: LocalDiscord, users: list[User]) -> list[Measured]:
    before = await _server_bytes(depth.store)
    begin = time.monotonic()
    stored = await _fill(depth, runs)
    _note(runs, "filled", begin)
    found = await _streams(depth, stored, before)
    for measure_part in (_events, _queue, _loops, _index):
        found += await measure_part(depth, stored)
        _note(runs, measure_part.__name__, begin)
    found += await asyncio.to_thread(_lists, depth)
    _note(runs, "lists", begin)
    found += await _bot(depth, discord, users, stored)
    _note(runs, "bot", begin)
    return found


def _note(runs: int, part: str, begin: float) -> None:
    sys.stderr.write(f"{runs:,} runs: {part} after {time.monotonic() - begin:.0f} s\n")


async def _fill(depth: Depth, runs: int) -> list[RunDirectory]:
    """Write queued runs with their events, enqueue them and publish all events."""
    disk = _UnflushedDisk()
    store, enqueuer = RunStore(depth.settings.app.artifacts_root, disk), Enqueuer(depth.settings, depth.store)
    accepted = (await depth.queue.accept(depth.preview, user_id=depth.owners[0])).run_id
    template = depth.queue.runs.get(accepted).record()
    stored = [depth.queue.runs.get(accepted)]
    for number in range(1, runs):
        record = changed(
            template,
            run_id=f"char_lstm-{template.created_at:%Y%m%d}-{number:08x}",
            user_id=depth.owners[number % OWNERS],
            created_at=now(),
        )
        stored.append(store.create(record))
        await enqueuer.enqueue_job(RUNS, record.run_id, record)
    for run in stored:
        await _add_events(depth, run)
    return stored


async def _add_events(depth: Depth, run: RunDirectory) -> None:
    """Write the events of a run and publish them."""
    with RunDirectory(run.path, _UnflushedDisk()).open_log() as events:
        for number in range(EVENTS):
            events.append(progress_event(run.run_id, number))
    await EventPublisher(depth.store, run).publish()


async def _streams(depth: Depth, stored: Sequence[RunDirectory], before: float) -> list[Measured]:
    """Measure the sizes of the streams, of the server and of the folder."""
    redis, total = depth.store.redis, await _server_bytes(depth.store)
    common: Awaitable[int] = redis.memory_usage(keys.EVENT_STREAM, samples=0)
    own: Awaitable[int] = redis.memory_usage(keys.run_events(stored[-1].run_id), samples=0)
    length: Awaitable[int] = redis.xlen(keys.EVENT_STREAM)
    disk_bytes = sum(path.stat().st_blocks * 512 for path in stored[-1].path.rglob("*"))
    return [
        Measured("common event stream", "MB", await common / 1e6),
        Measured("entries of the common event stream", "entries", await length),
        Measured("event stream of one run", "kB", await own / 1e3),
        Measured("Valkey, all keys", "MB", (total - before) / 1e6),
        Measured("Valkey, resident memory", "MB", await _server_info(depth.store, "used_memory_rss") / 1e6),
        Measured("folder of one queued run", "kB", disk_bytes / 1e3),
    ]


async def _events(depth: Depth, stored: Sequence[RunDirectory]) -> list[Measured]:
    """Measure one more event of a run: written, published, and published alone."""
    run = stored[-1]
    publisher = EventPublisher(depth.store, run)
    await publisher.publish()
    written: list[float] = []
    published: list[float] = []
    with run.open_log() as events:
        for number in range(CALLS):
            begin = time.perf_counter()
            events.append(progress_event(run.run_id, EVENTS + number))
            middle = time.perf_counter()
            await publisher.publish()
            written.append(middle - begin)
            published.append(time.perf_counter() - middle)
    return [*_times("event: write", written), *_times("event: publish", published)]


async def _queue(depth: Depth, stored: Sequence[RunDirectory]) -> list[Measured]:
    """Measure accepting, enqueueing, claiming and the place in the queue."""
    run_ids: list[str] = []

    async def accept(number: int) -> None:
        accepted = await depth.queue.accept(depth.preview, user_id=depth.owners[number % OWNERS])
        run_ids.append(accepted.run_id)

    accepted = await _timed(CALLS, accept)
    for run_id in run_ids:
        await _add_events(depth, depth.queue.runs.get(run_id))
    enqueuer = Enqueuer(depth.settings, depth.store)
    like = depth.queue.runs.get(run_ids[0]).record()

    async def enqueue(number: int) -> None:
        record = changed(like, user_id=depth.owners[number % OWNERS])
        await enqueuer.enqueue_job(RUNS, f"extra-{number}", record)

    enqueued = await _timed(CALLS, enqueue)
    claim_seconds: list[float] = []
    for _ in range(CLAIMS):
        begin = time.perf_counter()
        [(job_id, _)] = await depth.store.claim_jobs(
            depth.settings.queue.name,
            *(1, "scale"),
            lease_seconds=15,
            artifacts=await enqueuer._artifacts_id(),
        )
        claim_seconds.append(time.perf_counter() - begin)
        await depth.store.dequeue(depth.settings.queue.name, job_id)
    for number in range(CALLS):
        await depth.store.dequeue(depth.settings.queue.name, f"extra-{number}")
    status = await _timed(CLAIMS, lambda number: depth.queue.states.status(stored[-1].run_id))
    return [
        *_times("accept a run", accepted),
        *_times("enqueue a job", enqueued),
        *_times("claim a job", claim_seconds),
        *_times("status of a run", status),
    ]


async def _loops(depth: Depth, stored: Sequence[RunDirectory]) -> list[Measured]:
    """Measure the worker's regular comparison of Redis with the disk."""
    await reconcile(depth.settings, depth.store)  # the jobs that the measurement has claimed
    seconds = await _timed(PASSES, lambda number: reconcile(depth.settings, depth.store))
    return [Measured("worker: one reconciliation", "ms", min(seconds) * 1e3)]


async def _index(depth: Depth, stored: Sequence[RunDirectory]) -> list[Measured]:
    """Measure the bot's index: the first reading, and a refresh before a command."""
    index = RunIndex(depth.queue.stores, RunFeeds(depth.queue.states), depth.settings.app.artifacts_root)
    [first] = await _timed(1, lambda number: index.refresh())
    again = await _timed(PASSES, lambda number: index.refresh())
    return [
        Measured("bot: first reading of its index", "ms", first * 1e3),
        Measured("bot: refresh of its index", "ms", min(again) * 1e3),
    ]


def _lists(depth: Depth) -> list[Measured]:
    """Measure `mt runs` above its start, which is that of `mt runs` with one run."""
    empty, single = depth.folder / "empty", depth.folder / "single"
    empty.mkdir()
    run = depth.queue.runs.all()[0]
    shutil.copytree(run.path, single / "artifacts" / "models" / run.run_id)
    spent: dict[Path, list[Spent]] = {empty: [], single: [], depth.folder: []}
    for _ in range(STARTS):
        for folder, found in spent.items():
            found.append(_run_mt(folder, "runs"))
    nothing, one, full = ([each.wall_seconds * 1e3 for each in found] for found in spent.values())
    _, one_cpu, full_cpu = ([each.processor_seconds * 1e3 for each in found] for found in spent.values())
    failed = _run_mt(depth.folder, "runs", "--status", "failed").processor_seconds * 1e3
    return [
        Measured("`mt runs` without runs, p50", "ms", median(nothing)),
        Measured("`mt runs` with one run, p50", "ms", median(one)),
        Measured("`mt runs` above one run, p50", "ms", median(full) - median(one)),
        Measured("`mt runs` above one run, p99", "ms", p99(full) - p99(one)),
        Measured("`mt runs` above one run, processor time", "ms", median(full_cpu) - median(one_cpu), LIST_GOAL_MS),
        Measured("`mt runs --status failed` above one run, processor time", "ms", failed - median(one_cpu)),
    ]


def _run_mt(folder: Path, *words: str) -> Spent:
    """Run `mt` and return its time; the Valkey of the benchmark is another child of this process."""
    environment = {"APP__DATA_ROOT": str(folder / "data"), "APP__ARTIFACTS_ROOT": str(folder / "artifacts")}
    begin = time.perf_counter()
    command = [sys.executable, "-m", "trainer", *words]
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"mt {' '.join(words)} ended with {status}")
    return Spent(time.perf_counter() - begin, usage.ru_utime + usage.ru_stime)


async def _bot(
    depth: Depth, discord: LocalDiscord, users: list[User], stored: Sequence[RunDirectory]
) -> list[Measured]:
    """Measure the bot: its start, its answers, its memory, and its processor time while nothing happens."""
    os.environ |= {"QUEUE__EMBEDDED_WORKERS": "0", "REDIS__URL": depth.url}
    begin = time.perf_counter()
    bot = await start_bot(depth.folder, discord, users)
    del os.environ["REDIS__URL"]
    try:
        await discord.synced(600)
        await discord.connected(600)
        await (await discord.slash(users[0], "mt runs", {"mine": False})).reply(600)
        started = time.perf_counter() - begin
        await asyncio.sleep(SETTLE_SECONDS)
        calls: tuple[tuple[str, dict[str, str]], ...] = (("mt queue", {}), ("mt status", {"run": stored[0].run_id}))
        answers: list[Measured] = []
        for name, options in calls:
            answers += _times(f"`/{name}`", await _timed(CLAIMS, partial(_answer, discord, users[0], name, options)))
        before, requests, since = processor_seconds(bot.pid), len(discord.requests), time.monotonic()
        await asyncio.sleep(WATCH_SECONDS)
        watched = time.monotonic() - since
        return [
            Measured("bot: from its start to the first `/mt runs`", "s", started),
            *answers,
            Measured("bot: resident memory", "MiB", resident_mebibytes(bot.pid)),
            Measured("bot: processor while all runs wait", "%", (processor_seconds(bot.pid) - before) / watched * 100),
            Measured(
                "bot: requests to Discord while all runs wait", "per s", (len(discord.requests) - requests) / watched
            ),
        ]
    finally:
        bot.terminate()
        await bot.wait()


async def _answer(discord: LocalDiscord, user: User, name: str, options: Mapping[str, str], number: int) -> None:
    await (await discord.slash(user, name, options)).reply(600)


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _timed(count: int, call: Callable[[int], Awaitable[object]]) -> list[float]:
    """Return the seconds of some calls, one after another."""
    seconds: list[float] = []
    for number in range(count):
        begin = time.perf_counter()
        await call(number)
        seconds.append(time.perf_counter() - begin)
    return seconds


def _times(name: str, seconds: Sequence[float]) -> list[Measured]:
    return [Measured(f"{name}, p50", "ms", median(seconds) * 1e3), Measured(f"{name}, p99", "ms", p99(seconds) * 1e3)]


def p99(values: Sequence[float]) -> float:
    """Return the value that 99 % of the values do not exceed; the largest of fewer than 100 values."""
    return sorted(values)[-1 - len(values) // 100]


async def _server_bytes(store: Store) -> float:
    return await _server_info(store, "used_memory")


async def _server_info(store: Store, name: str) -> float:
    reply: Awaitable[object] = store.redis.info()
    return float(str(_info_adapter.validate_python(await reply)[name]))


def figures_of(sizes: Sequence[int], measured: Sequence[Sequence[Measured]]) -> list[Figure]:
    """Return a figure per cost, given the costs at each size in the same order."""
    figures: list[Figure] = []
    for place, first in enumerate(measured[0]):
        values = [of_size[place].value for of_size in measured]
        exponents = exponents_of(sizes, values)
        figures.append(
            Figure(name=first.name, unit=first.unit, values=tuple(values), exponents=exponents, goal=first.goal)
        )
    return figures


def exponents_of(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, ...]:
    """Return p of the growth n^p from each size to the next; 0 where a value is not positive."""
    return tuple(
        log(values[place] / values[place - 1]) / log(sizes[place] / sizes[place - 1])
        if values[place] > 0 and values[place - 1] > 0
        else 0.0
        for place in range(1, len(sizes))
    )


def table(results: ScaleResults) -> str:
    """Return the figures as a Markdown table."""
    sizes = [f"{size:,} runs" for size in results.sizes]
    lines = [f"| figure | {' | '.join(sizes)} | growth | |", f"|---|{'---|' * len(sizes)}---|---|"]
    for one in results.figures:
        values = " | ".join(f"{shown(value)} {one.unit}" for value in one.values)
        growth = ", ".join(f"{exponent:.2f}" for exponent in one.exponents)
        lines.append(f"| {one.name} | {values} | {growth} | {one.verdict} |")
    return "\n".join(lines)


def shown(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


class _Options(argparse.Namespace):
    sizes: list[int]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sizes", nargs="*", type=int, metavar="SIZES", help=f"default: {' '.join(map(str, SIZES))}")
    sizes = tuple(parser.parse_args(namespace=_Options()).sizes or SIZES)
    quiet()
    begin = now()
    figures = figures_of(sizes, [asyncio.run(measure(size)) for size in sizes])
    results = ScaleResults(measured_at=begin, machine=machine(), sizes=sizes, events=EVENTS, figures=tuple(figures))
    print(table(results))
    if sizes == SIZES:
        RESULT.write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return 0 if all(figure.verdict == "ok" for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
