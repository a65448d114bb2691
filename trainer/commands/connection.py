"""Surroundings of a command: settings, the queue and the services behind it."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from trainer.commands.terminal import Terminal
from trainer.config.settings import Settings, load_settings
from trainer.contracts.base import changed
from trainer.system.logs import setup_logging

if TYPE_CHECKING:  # commands without the queue need not wait for the import of redis
    from trainer.jobs.queue import JobQueue


def settings_for(service: str = "model-trainer", *, level: Literal["INFO", "CRITICAL"] = "CRITICAL") -> Settings:
    """Load the settings and send logs to standard error, at this level unless LOGGING__LEVEL sets another.

    A command reports by itself, so its log and that of a worker that it starts are shown only on request.
    """
    settings = load_settings()
    if settings.logging.level is None:
        settings = changed(settings, logging=changed(settings.logging, level=level))
    setup_logging(settings, service, sys.stderr)
    return settings


def with_queue(settings: Settings, terminal: Terminal, command: Callable[["JobQueue"], Awaitable[int]]) -> int:
    """Run a command with a connected queue, and meanwhile the services that do not run yet."""
    from trainer.jobs.services import Services

    async def connected_command() -> int:
        services = Services(settings)
        url = await services.start()
        terminal.has_own_worker = services.has_own_worker
        try:
            async with connected(settings, url) as queue:
                return await command(queue)
        finally:
            await services.stop()

    async def run() -> int:
        task = asyncio.create_task(connected_command())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: task.cancel())
        return await task

    return asyncio.run(run())


@contextlib.asynccontextmanager
async def connected(settings: Settings, url: str) -> AsyncIterator["JobQueue"]:
    """Connect to the queue of a server; raises SERVICE_UNAVAILABLE if it does not answer."""
    from trainer.jobs.queue import JobQueue

    queue = await JobQueue.connect(settings, url)
    try:
        yield queue
    finally:
        await queue.close()


def with_run(
    run_id: str, settings: Settings, terminal: Terminal, command: Callable[["JobQueue"], Awaitable[int]]
) -> int:
    """Run a command that uses a trained run; raises AppError, having started nothing, where the run has no model."""
    from trainer.artifacts.runs import RunStore  # `mt worker` starts the server of its children before this import

    RunStore(settings.app.artifacts_root).get(run_id).completed_manifest()
    return with_queue(settings, terminal, command)
