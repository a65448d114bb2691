"""Regular cleanups by the worker, each in a process of its own."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL
from contextlib import suppress

import structlog

from trainer.config.settings import Settings, child_environment, object_store_environment

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_INTERVAL_SECONDS = 3600.0
_NICENESS = 10


async def clean_for_ever(settings: Settings) -> None:
    """Run `mt gc` every hour if the settings enable it; several workers of an artifacts folder take turns."""
    while True:
        if settings.app.cleanup.enabled:
            try:
                await _clean(settings)
            except OSError as error:  # no memory for another process
                log.error("cleanup_not_started", reason=error.strerror)
        await asyncio.sleep(_INTERVAL_SECONDS)


async def _clean(settings: Settings) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trainer", "gc"),
        stdin=DEVNULL,
        stdout=DEVNULL,
        env=child_environment(settings) | object_store_environment(settings),
        start_new_session=True,  # Ctrl-C reaches the worker only, which ends the cleanup
    )
    try:
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process.pid, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
