"""Publishes the events of a run from its event log to Redis."""

import asyncio

from trainer.artifacts.runs import RunDirectory
from trainer.store.store import Store


async def publish_events(store: Store, run: RunDirectory) -> None:
    """Publish the events of a run that Redis does not have yet, and the status that follows from all of them."""
    follower = await asyncio.to_thread(run.follow)
    events = await asyncio.to_thread(follower.read_new)
    is_cancelled = run.cancel_requested() and not follower.ended
    await store.publish(run.run_id, events, follower.status.model_dump_json(), is_cancelled=is_cancelled)
