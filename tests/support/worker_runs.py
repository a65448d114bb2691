"""Runs trained by a real worker, and what their files say."""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support import ended, environment_in, tiny_request, wait_for_status
from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import RedisSettings
from trainer.contracts.events import Event
from trainer.contracts.runs import RunStatus
from trainer.queue.queue import JobQueue
from trainer.training.progress import CurveRow

LONG: dict[str, object] = {"num_epochs": 1000, "checkpoint_every_steps": 20, "batch_size": 1, "max_seq_len": 8}
"""A run that a test has to end: it would take many minutes."""


@asynccontextmanager
async def worker_in(
    folder: Path, *words: str, log_name: str = "worker.log", **environment: str
) -> AsyncIterator[Process]:
    """A worker with the settings of a folder, which logs to a file there until the end of the block."""
    with (folder / log_name).open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trainer", "worker", *words),
            cwd=folder,
            env=environment_in(folder, **environment),
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def log_of_worker(folder: Path, log_name: str = "worker.log") -> str:
    return (folder / log_name).read_text(encoding="utf-8")


def events_of(queue: JobQueue, run_id: str) -> list[Event]:
    return queue.runs.get(run_id).reader().read_new()


async def finished(queue: JobQueue, **fields: object) -> RunDirectory:
    """Train a tiny run to its end."""
    run_id = (await queue.train(tiny_request(**fields), user_id=None)).run_id
    await wait_for_status(queue, run_id, ended)
    return queue.runs.get(run_id)


def training(status: RunStatus) -> bool:
    return status.step > 0 or ended(status)


def losses(curve: Path) -> list[tuple[int, str]]:
    """The curve's steps and losses, these to the last bit."""
    rows = [CurveRow.model_validate_json(line) for line in curve.read_text(encoding="utf-8").splitlines()]
    return [(row.step, row.train_loss.hex()) for row in rows if row.train_loss is not None]


def with_redis(url: str) -> dict[str, object]:
    address: dict[str, str] = {"url": url}
    return {"redis": RedisSettings.model_validate(address)}
