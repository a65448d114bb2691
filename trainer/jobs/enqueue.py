"""Enqueues the jobs of one artifacts folder, and publishes the events of its runs; the worker restores lost ones."""

import asyncio

from trainer.artifacts.artifacts_id import own_artifacts_id
from trainer.artifacts.runs import RunDirectory
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.settings import Settings
from trainer.contracts.jobs import JobPayload, TokenizerTrainPayload, TrainJobPayload
from trainer.contracts.runs import RunRecord
from trainer.contracts.tokenizer_jobs import TokenizerRecord
from trainer.store import keys
from trainer.store.store import Store


class Enqueuer:
    """Enqueues jobs by id; enqueueing a job that is in its queue already changes nothing."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._artifacts = ""

    async def enqueue(self, payload: JobPayload) -> None:
        await self._store.enqueue(*self._queue_function_and_id(payload), payload, artifacts=await self._artifacts_id())

    async def restore(self, payload: JobPayload, stored: RunDirectory | TokenizerDirectory) -> bool:
        """Enqueue an unfinished run or tokenizer again if its queue has lost it; return whether it had."""
        record: RunRecord | TokenizerRecord = await asyncio.to_thread(stored.record)
        return await self._store.restore(
            *self._queue_function_and_id(payload),
            payload,
            since=record.created_at.timestamp(),
            lease_seconds=self._settings.queue.lease_seconds,
            artifacts=await self._artifacts_id(),
        )

    def _queue_function_and_id(self, payload: JobPayload) -> tuple[str, str, str]:
        if isinstance(payload, TrainJobPayload):
            return self._settings.queue.name, "train", payload.run_id
        if isinstance(payload, TokenizerTrainPayload):
            return keys.TOKENIZER_QUEUE, "train_tokenizer", payload.tokenizer_id
        return keys.INTERACTIVE_QUEUE, "infer", payload.request_id

    async def _artifacts_id(self) -> str:
        self._artifacts = self._artifacts or await asyncio.to_thread(
            own_artifacts_id, self._settings.app.artifacts_root
        )
        return self._artifacts


async def publish_events(store: Store, run: RunDirectory) -> None:
    """Publish the events of a run that Redis does not have yet, and the status that follows from all of them."""
    follower = await asyncio.to_thread(run.follow)
    events = await asyncio.to_thread(follower.read_new)
    is_cancelled = run.cancel_requested() and not follower.ended
    await store.publish(run.run_id, events, follower.status.model_dump_json(), is_cancelled=is_cancelled)
