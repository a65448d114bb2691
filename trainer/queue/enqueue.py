"""Enqueues the jobs of one artifacts folder, and publishes the events of its runs; the worker restores lost ones."""

import asyncio
from collections.abc import Sequence

import structlog

from trainer.artifacts.artifacts_id import own_artifacts_id
from trainer.artifacts.job_folder import AnyJob
from trainer.artifacts.kinds import AnyKind
from trainer.artifacts.run_status import RunFollower
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.settings import Settings
from trainer.contracts.base import JobRecord
from trainer.contracts.errors import AppError
from trainer.contracts.events import Event
from trainer.contracts.jobs import FolderJobPayload, InferenceJobPayload, JobNeeds
from trainer.contracts.runs import RunRecord
from trainer.queue.cost import needs_of
from trainer.store import keys
from trainer.store.store import Store
from trainer.system.files import READ_ONLY

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class Enqueuer:
    """Enqueues jobs by id; enqueueing a job that is in its queue already changes nothing."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._artifacts = ""

    async def enqueue(self, payload: InferenceJobPayload) -> None:
        """Enqueue an inference request."""
        artifacts = await self._artifacts_id()
        await self._store.enqueue(keys.INTERACTIVE_QUEUE, "infer", payload.request_id, payload, artifacts=artifacts)

    async def enqueue_job(self, kind: AnyKind, job_id: str, record: JobRecord) -> None:
        """Enqueue a job; that of a run waits for its owner's turn and for a worker that has what the run needs."""
        await self._store.enqueue(
            *self._place(kind),
            job_id,
            FolderJobPayload(job_id=job_id),
            artifacts=await self._artifacts_id(),
            needs=_needs(record),
            owner=_owner(record),
        )

    async def requeue(self, kind: AnyKind, job: AnyJob, *, is_claimed: bool = False) -> bool:
        """Enqueue an unfinished job again if its queue has lost it; return whether it had."""
        record: JobRecord = await asyncio.to_thread(job.record)
        had_turn = is_claimed or await asyncio.to_thread(job.has_begun)
        return await self._store.requeue(
            *self._place(kind),
            job.job_id,
            FolderJobPayload(job_id=job.job_id),
            since=record.created_at.timestamp(),
            lease_seconds=self._settings.queue.lease_seconds,
            artifacts=await self._artifacts_id(),
            needs=_needs(record),
            owner=None if had_turn else _owner(record),
        )

    async def find_lost_jobs(self, kind: AnyKind, job_ids: Sequence[str]) -> list[str]:
        """Return the jobs that `requeue` has to compare with the disk: all but those that wait in the queue."""
        if not job_ids:  # a folder without jobs, which may be another than that of the jobs, gets no id
            return []
        payloads = {job_id: FolderJobPayload(job_id=job_id) for job_id in job_ids}
        return await self._store.find_lost_jobs(*self._place(kind), payloads, artifacts=await self._artifacts_id())

    async def rebuild_turns(self, runs: RunStore) -> None:
        """Rebuild the turns of the owners of runs from the disk if Redis has lost them."""
        queue = self._settings.queue.name
        if not await self._store.has_turns(queue):
            turns = await asyncio.to_thread(_last_starts, runs)
            await self._store.rebuild_turns(queue, turns, artifacts=await self._artifacts_id())

    def _place(self, kind: AnyKind) -> tuple[str, str]:
        return kind.queue(self._settings.queue), kind.function

    async def _artifacts_id(self) -> str:
        root = self._settings.app.artifacts_root
        try:
            self._artifacts = self._artifacts or await asyncio.to_thread(own_artifacts_id, root)
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise  # a request about a run of a folder that may only be read is for any worker
        return self._artifacts


def _needs(record: JobRecord) -> JobNeeds:
    return needs_of(record.effective, record.cost) if isinstance(record, RunRecord) else JobNeeds()


def _owner(record: JobRecord) -> str | None:
    """Return who takes a turn with a run: a user, an API key, or "" for the command line; None for other jobs.

    All runs of an experiment belong to the one who started it.
    """
    if not isinstance(record, RunRecord):
        return None
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
            owner = _owner(record) or ""
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
