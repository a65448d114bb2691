"""Enqueues the jobs of one artifacts folder, and publishes the events of its runs; the worker restores lost ones."""

import asyncio
from collections.abc import Sequence

import structlog

from trainer.artifacts.artifacts_id import own_artifacts_id
from trainer.artifacts.experiments import ExperimentDirectory
from trainer.artifacts.run_status import RunFollower
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError
from trainer.contracts.events import Event
from trainer.contracts.experiments import ExperimentRecord
from trainer.contracts.jobs import ExperimentPayload, JobNeeds, JobPayload, TokenizerTrainPayload, TrainJobPayload
from trainer.contracts.runs import RunRecord
from trainer.contracts.tokenizer_jobs import TokenizerRecord
from trainer.queue.needs import needs_of
from trainer.store import keys
from trainer.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class Enqueuer:
    """Enqueues jobs by id; enqueueing a job that is in its queue already changes nothing."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._artifacts = ""

    async def enqueue(self, payload: JobPayload, record: RunRecord | None = None) -> None:
        """Enqueue a job; that of a run waits for its owner's turn and for a worker that has what the run needs."""
        place, artifacts = self._queue_function_and_id(payload), await self._artifacts_id()
        if record is None:
            await self._store.enqueue(*place, payload, artifacts=artifacts)
        else:
            needs = needs_of(record.effective, record.cost)
            await self._store.enqueue(*place, payload, artifacts=artifacts, needs=needs, owner=queue_owner(record))

    async def restore(
        self,
        payload: JobPayload,
        stored: RunDirectory | TokenizerDirectory | ExperimentDirectory,
        *,
        is_claimed: bool = False,
    ) -> bool:
        """Enqueue an unfinished job again if its queue has lost it; return whether it had."""
        record: RunRecord | TokenizerRecord | ExperimentRecord = await asyncio.to_thread(stored.record)
        owner: str | None = None
        if isinstance(stored, RunDirectory) and isinstance(record, RunRecord) and not is_claimed:
            follower = await asyncio.to_thread(stored.follow)
            is_new = (await asyncio.to_thread(follower.refresh)).status == "queued"
            owner = queue_owner(record) if is_new else None
        return await self._store.restore(
            *self._queue_function_and_id(payload),
            payload,
            since=record.created_at.timestamp(),
            lease_seconds=self._settings.queue.lease_seconds,
            artifacts=await self._artifacts_id(),
            needs=needs_of(record.effective, record.cost) if isinstance(record, RunRecord) else JobNeeds(),
            owner=owner,
        )

    async def suspect_runs(self, run_ids: Sequence[str]) -> list[str]:
        """Return the runs whose jobs `restore` has to compare with the disk: all but those that wait in the queue."""
        if not run_ids:  # a folder without runs, which may be another than that of the jobs, gets no id
            return []
        return await self._store.suspects(
            self._settings.queue.name,
            "train",
            {run_id: TrainJobPayload(run_id=run_id) for run_id in run_ids},
            artifacts=await self._artifacts_id(),
        )

    async def restore_turns(self, runs: RunStore) -> None:
        """Restore the turns of the owners of runs from the disk if Redis has lost them."""
        queue = self._settings.queue.name
        if not await self._store.has_turns(queue):
            turns = await asyncio.to_thread(_last_starts, runs)
            await self._store.restore_turns(queue, turns, artifacts=await self._artifacts_id())

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


def queue_owner(record: RunRecord) -> str:
    """Return the one who takes a turn with a run: a user, an API key, or "" for the command line.

    All runs of an experiment belong to the one who started it.
    """
    return "" if record.owner is None else str(record.owner)


def _last_starts(runs: RunStore) -> dict[str, float]:
    """Return the time of the last start of each owner's runs, in seconds since 1970."""
    starts: dict[str, float] = {}
    for run in runs.all():
        try:
            record, manifest = run.record(), run.manifest()
            started_at = run.follow().refresh().started_at if manifest is None else manifest.timings.started
        except (AppError, OSError, ValueError) as error:
            log.warning("run_unreadable", run_id=run.run_id, error=type(error).__name__)
            continue
        if started_at is not None:
            owner = queue_owner(record)
            starts[owner] = max(starts.get(owner, 0.0), started_at.timestamp())
    return starts


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
