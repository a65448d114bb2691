"""Enqueues the jobs of one artifacts folder, and publishes the events of its runs; the worker restores lost ones."""

import asyncio

from trainer.artifacts.artifacts_id import own_artifacts_id
from trainer.artifacts.experiments import ExperimentDirectory
from trainer.artifacts.run_status import RunFollower
from trainer.artifacts.runs import RunDirectory
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.settings import Settings
from trainer.contracts.events import Event
from trainer.contracts.experiments import ExperimentRecord
from trainer.contracts.jobs import ExperimentPayload, JobPayload, TokenizerTrainPayload, TrainJobPayload
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

    async def restore(
        self, payload: JobPayload, stored: RunDirectory | TokenizerDirectory | ExperimentDirectory
    ) -> bool:
        """Enqueue an unfinished job again if its queue has lost it; return whether it had."""
        record: RunRecord | TokenizerRecord | ExperimentRecord = await asyncio.to_thread(stored.record)
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
        if isinstance(payload, ExperimentPayload):
            return keys.EXPERIMENT_QUEUE, "run_experiment", payload.experiment_id
        return keys.INTERACTIVE_QUEUE, "infer", payload.request_id

    async def _artifacts_id(self) -> str:
        self._artifacts = self._artifacts or await asyncio.to_thread(
            own_artifacts_id, self._settings.app.artifacts_root
        )
        return self._artifacts


class EventPublisher:
    """Publishes the events of one run; reads and sends each event once, unless Redis has lost the run's stream."""

    def __init__(self, store: Store, run: RunDirectory) -> None:
        self._store, self._run = store, run
        self._follower: RunFollower | None = None
        self._unpublished: list[Event] = []
        self._published_seq = 0

    async def publish(self) -> None:
        """Publish the events that Redis does not have yet, and the status that follows from all of them."""
        while not await self._publish_new():
            self._follower = None

    async def _publish_new(self) -> bool:
        """Publish the events since the last call; return False if Redis has lost earlier ones."""
        if self._follower is None:
            self._follower = await asyncio.to_thread(self._run.follow)
            self._unpublished, self._published_seq = [], 0
        follower = self._follower
        self._unpublished += await asyncio.to_thread(follower.read_new)
        is_published = await self._store.publish(
            self._run.run_id,
            self._unpublished,
            follower.status.model_dump_json(),
            is_cancelled=self._run.cancel_requested() and not follower.ended,
            after=self._published_seq,
        )
        if is_published and self._unpublished:
            self._published_seq = self._unpublished[-1].seq
            self._unpublished = []
        return is_published


async def publish_events(store: Store, run: RunDirectory) -> None:
    """Publish the events of a run that Redis does not have yet; reads its complete event log."""
    await EventPublisher(store, run).publish()
