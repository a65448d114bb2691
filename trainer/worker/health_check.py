"""Health check of a container with one worker, as `python -P -m trainer.worker.health_check`; exit code 0 or 1."""

import asyncio
import socket
import sys

from trainer.config.settings import Settings, load_settings
from trainer.contracts.errors import AppError
from trainer.services.embedded import answering_server
from trainer.store.connection import STORE_ERRORS
from trainer.store.refusals import refusal
from trainer.store.store import connect

_NO_REDIS = "Redis does not respond."
_NO_WORKER = "No worker of this host has renewed its record in Redis: its log has the reason."


async def trouble(settings: Settings) -> str | None:
    """Return why the worker of this host is not healthy, or None; a container is a host of its own."""
    address = await answering_server(settings)
    if address is None:
        return _NO_REDIS
    store = await connect(address, retries=0)
    try:
        workers = await store.workers()
    finally:
        await store.close()
    hosts = {worker.name.rpartition(":")[0] for worker in workers}
    return None if socket.gethostname() in hosts else _NO_WORKER


def main() -> int:
    try:
        found = asyncio.run(trouble(load_settings()))
    except (AppError, *STORE_ERRORS) as error:
        found = error.message if isinstance(error, AppError) else refusal(error) or _NO_REDIS
    sys.stderr.write(f"{found}\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
