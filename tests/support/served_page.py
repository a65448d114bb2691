"""The page of a lab, served by a process of its own, and completed runs to look at."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support import ended, tiny_request, wait_for_status
from tests.support.api_process import api_process
from tests.support.lab import Lab
from trainer.queue.queue import JobQueue

KEY = "page-key-0123456789"


async def finish(queue: JobQueue, label: str, **fields: object) -> str:
    """Train a run to its end; return its id."""
    run_id = (await queue.train(tiny_request(label=label, **fields), user_id=None)).run_id
    assert (await wait_for_status(queue, run_id, ended)).status == "completed"
    return run_id


@asynccontextmanager
async def served(lab: Lab, keys: str = "", port: int = 0) -> AsyncIterator[str]:
    """Serve the runs of the lab; gives the address."""
    with api_process(lab.folder, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS=keys, HTTP__PORT=str(port)) as api:
        yield api.url
