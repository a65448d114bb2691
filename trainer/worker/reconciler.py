"""Puts back into the queue whatever the disk knows and Redis does not (R9)."""

import asyncio

import structlog

from trainer.contracts.settings import Settings
from trainer.contracts.store import Store
from trainer.queue import enqueue_training, tell_events
from trainer.runs import RunStore

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


async def reconcile(settings: Settings, store: Store) -> None:
    """Queue every unfinished run that is neither waiting nor in progress."""
    for run in await asyncio.to_thread(RunStore(settings.app.artifacts_root).unfinished):
        if not await store.is_queued(run.run_id):
            log.info("run put back into the queue", run_id=run.run_id)
            await tell_events(store, run)
            await enqueue_training(store, settings, run.run_id)
