"""Surroundings of a command: settings, the queue and the services behind it."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

from trainer.artifacts.runs import RunStore
from trainer.commands.terminal import Terminal
from trainer.config.settings import Settings, load_settings
from trainer.contracts.base import changed
from trainer.jobs.queue import JobQueue
from trainer.jobs.services import Services
from trainer.system.logs import setup_logging


def settings_for(service: str = "model-trainer", *, level: Literal["INFO", "CRITICAL"] = "CRITICAL") -> Settings:
    """Load the settings and send logs to standard error, at this level unless LOGGING__LEVEL sets another.

    A command reports by itself, so its log and that of a worker that it starts are shown only on request.
    """
    settings = load_settings()
    if settings.logging.level is None:
        settings = changed(settings, logging=changed(settings.logging, level=level))
    setup_logging(settings, service, sys.stderr)
    return settings


def without_worker(settings: Settings) -> Settings:
    """Return the settings of a command that starts no worker."""
    return changed(settings, queue=changed(settings.queue, embedded_workers=0))


def with_queue(settings: Settings, terminal: Terminal, command: Callable[[JobQueue], Awaitable[int]]) -> int:
    """Run a command with a connected queue, and meanwhile the services that do not run yet."""

    async def connected_command() -> int:
        async with _connected(settings, terminal) as queue:
            return await command(queue)

    async def run() -> int:
        task = asyncio.create_task(connected_command())

        def stop() -> None:
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        return await task

    with terminal:
        return asyncio.run(run())


def with_run(run_id: str, settings: Settings, terminal: Terminal, command: Callable[[JobQueue], Awaitable[int]]) -> int:
    """Run a command that uses a trained run; raises AppError, having started nothing, where the run has no model."""
    RunStore(settings.app.artifacts_root).get(run_id).completed_manifest()
    return with_queue(settings, terminal, command)


@contextlib.asynccontextmanager
async def _connected(settings: Settings, terminal: Terminal) -> AsyncIterator[JobQueue]:
    services = Services(settings)
    url = await services.start()
    terminal.has_own_worker = services.has_own_worker
    try:
        queue = await JobQueue.connect(settings, url)
        try:
            yield queue
        finally:
            await queue.close()
    finally:
        await services.stop()
