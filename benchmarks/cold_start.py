"""Times to the first result of a program that is not running yet, and the memory of the bot.

Starts real processes in a temporary folder. The goals are for a machine with two cores and no other programs; where
others compete, compare two commits side by side.
"""

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.many_users import TOKEN, resident_mebibytes, start_bot
from benchmarks.rows import Row
from benchmarks.turns import adopt_orphans
from local_discord import LocalDiscord
from trainer.artifacts.runs import SEALED_FILES, RunStore

RUNS, CHARTS, REPEATS = 1000, 100, 5
TRAIN = (
    *("train", "--corpus", "demo", "--model", "lstm", "--size", "tiny", "--tokenizer", "char", "--max-steps", "400"),
    *("--set", "threads=1", "--set", "device=cpu", "--set", "batch_size=4", "--set", "max_seq_len=32"),
)
"""400 steps of a few milliseconds, on one thread: the time of the steps is their processor time."""
LIBRARIES = "aiohttp, arq, discord, discord.app_commands, pydantic, redis.asyncio, structlog"
SENTENCE = "the sun was shining on the sea"


class Case(NamedTuple):
    """A measurement; `measure` gets a folder with a finished run and returns one number per goal."""

    measure: Callable[[Path], tuple[float, ...]]
    goals: tuple[tuple[str, float, str], ...]
    """Name, largest allowed value and unit of each number."""


class Spent(NamedTuple):
    """Time of a command and all processes that it has started."""

    wall_seconds: float
    processor_seconds: float


def help_seconds(folder: Path) -> tuple[float, ...]:
    return (_median_wall(folder, "--help"),)


def runs_seconds(folder: Path) -> tuple[float, ...]:
    """Return the time of `mt runs` where there are 1,000 finished runs."""
    [run, *_] = RunStore(folder / "artifacts").all()
    with tempfile.TemporaryDirectory() as many:
        for number in range(RUNS):
            name = f"lstm-20260101-{number:08x}"
            copy = Path(many) / "artifacts" / "models" / name
            copy.mkdir(parents=True)
            for file in SEALED_FILES:
                (copy / file).write_text((run.path / file).read_text("utf-8").replace(run.run_id, name), "utf-8")
        return (_median_wall(Path(many), "runs"),)


def score_seconds(folder: Path) -> tuple[float, ...]:
    """Return the time of one score where no service is running."""
    return (_median_wall(folder, "score", _run_id(folder), SENTENCE),)


def generate_seconds(folder: Path) -> tuple[float, ...]:
    """Return the time of one generation where no service is running."""
    return (_median_wall(folder, "generate", _run_id(folder), SENTENCE),)


def training_overhead_seconds(folder: Path) -> tuple[float, ...]:
    """Return the processor time of `mt train` and its services without that of the steps."""
    found: list[float] = []
    for number in range(3):
        spent = run_mt(folder, *TRAIN, "--seed", str(1000 + number))
        [run, *_] = RunStore(folder / "artifacts").all()
        found.append(spent.processor_seconds - run.completed_manifest().timings.train_seconds)
    return (median(found),)


def bot_import_row(folder: Path) -> Row:
    """Measure Python's start and the imports of the bot, as in `bot.__main__`; the limit is that of its libraries.

    The process ends at once after them: freeing all modules takes 0.1 s, which a bot spends when it stops.
    """
    seconds: dict[str, list[float]] = {modules: [] for modules in ("bot.main", LIBRARIES)}
    for _ in range(REPEATS):
        for modules, found in seconds.items():
            program = f"import gc, os; gc.disable(); import {modules}; os._exit(0)"
            found.append(_spent(folder, sys.executable, "-c", program).wall_seconds)
    own, libraries = map(median, seconds.values())
    return Row(
        case="bot import",
        value=own,
        unit="s",
        goal=0.45,
        better="less",
        limit=libraries,
        limited_by="the imports of its libraries",
    )


def bot_mebibytes(folder: Path) -> tuple[float, ...]:
    """Return the memory of an idle bot, and after 100 charts."""
    return asyncio.run(_bot_mebibytes(folder))


async def _bot_mebibytes(folder: Path) -> tuple[float, float]:
    async with LocalDiscord(token=TOKEN) as discord:
        person = discord.add_user("ana")
        bot = await start_bot(folder, discord, [person])
        try:
            await discord.synced()
            await discord.connected()
            await asyncio.sleep(2)
            idle = resident_mebibytes(bot.pid)
            for _ in range(CHARTS):
                call = await discord.slash(person, "mt status", {"run": _run_id(folder)})
                await call.reply(60)
            return idle, resident_mebibytes(bot.pid)
        finally:
            bot.terminate()
            await bot.wait()


CASES = (
    Case(help_seconds, (("mt --help", 0.25, "s"),)),
    Case(runs_seconds, (("mt runs, 1,000 runs", 0.6, "s"),)),
    Case(score_seconds, (("mt score, no services", 2.5, "s"),)),
    Case(generate_seconds, (("mt generate, no services", 2.5, "s"),)),
    Case(training_overhead_seconds, (("mt train without its 400 steps", 4.0, "s CPU"),)),
    Case(bot_mebibytes, (("bot memory, idle", 90.0, "MiB"), ("bot memory, after 100 charts", 95.0, "MiB"))),
)


def run_mt(folder: Path, *words: str) -> Spent:
    """Run `mt` with its data in a folder; raises RuntimeError if it fails."""
    return _spent(folder, sys.executable, "-m", "trainer", *words)


def _spent(folder: Path, *command: str) -> Spent:
    """Run a command and wait for all its descendants, which become children of this process when it ends."""
    adopt_orphans()
    environment = {"APP__DATA_ROOT": str(folder / "data"), "APP__ARTIFACTS_ROOT": str(folder / "artifacts")}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    wall_seconds = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(done.stderr)
    while _has_children():
        os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(wall_seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _has_children() -> bool:
    pid = os.getpid()
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii"))


def _median_wall(folder: Path, *words: str) -> float:
    return median(run_mt(folder, *words).wall_seconds for _ in range(REPEATS))


def _run_id(folder: Path) -> str:
    [run, *_] = RunStore(folder / "artifacts").all()
    return run.run_id


def cold_rows() -> list[Row]:
    """Measure everything, on a run of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_mt(folder, *TRAIN)
        rows = [
            Row(case=name, value=value, unit=unit, goal=goal, better="less")
            for case in CASES
            for value, (name, goal, unit) in zip(case.measure(folder), case.goals, strict=True)
        ]
        return [*rows, bot_import_row(folder)]
