"""What a command needs around it: settings, the queue, and the services behind the queue."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

from trainer.commands.terminal import Terminal
from trainer.config.settings import Settings, load_settings
from trainer.jobs.queue import JobQueue
from trainer.jobs.services import Services
from trainer.system.logs import setup_logging


def settings_for(service: str = "model-trainer", *, level: Literal["INFO", "CRITICAL"] = "CRITICAL") -> Settings:
    """The settings, with logs on standard error; a level that nobody has set is this one.

    A command tells by itself what people have to know: they see its log, and that of a worker that it starts, where
    they have asked for one.
    """
    settings = load_settings()
    if settings.logging.level is None:
        chosen: dict[str, object] = {"level": level}
        logging: dict[str, object] = {"logging": settings.logging.model_copy(update=chosen)}
        settings = settings.model_copy(update=logging)
    setup_logging(settings, service, sys.stderr)
    return settings


def without_worker(settings: Settings) -> Settings:
    """The settings of a command that starts no worker."""
    alone: dict[str, object] = {"embedded_workers": 0}
    queue: dict[str, object] = {"queue": settings.queue.model_copy(update=alone)}
    return settings.model_copy(update=queue)


def with_queue(settings: Settings, terminal: Terminal, command: Callable[[JobQueue], Awaitable[int]]) -> int:
    """Run a command with a connected queue, starting what is not running yet for its time."""

    async def connected_command() -> int:
        async with _connected(settings) as queue:
            return await command(queue)

    async def run() -> int:
        task = asyncio.create_task(connected_command())

        def stop() -> None:
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        return await task

    with terminal:
        return asyncio.run(run())


@contextlib.asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[JobQueue]:
    services = Services(settings)
    url = await services.start()
    try:
        queue = await JobQueue.connect(settings, url)
        try:
            yield queue
        finally:
            await queue.close()
    finally:
        await services.stop()
