"""One typed method per job: check, write to disk, then enqueue; the only way in for bot, HTTP and command line."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Annotated

import structlog
from pydantic import Field, TypeAdapter, ValidationError

from trainer.artifacts.artifacts_id import own_artifacts_id
from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.runs import Origin, RunDirectory, finish_run, manifest_of, new_run_id
from trainer.artifacts.tokenizers import TokenizerDirectory, TokenizerStore, resolve_tokenizer
from trainer.config.presets import request_hash
from trainer.config.settings import Settings
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.jobs import TokenizerTrainPayload, TrainJobPayload
from trainer.contracts.runs import Accepted, EffectiveRequest, RunRecord, RunStatus, Setting, TrainRequest
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerRecord, TokenizerTrainRequest
from trainer.data.corpora import CorpusStore
from trainer.jobs.inference_client import PATIENCE_SECONDS, Questions
from trainer.jobs.resolve import TrainingPreview, preview_training, resolve_origin
from trainer.store import keys
from trainer.store.connection import STORE_ERRORS
from trainer.store.store import Store, connect

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

NO_WORKER = "No worker is running. The job stays in the queue until one starts."
_RING_WAIT_SECONDS = 5.0


class JobQueue(Questions):
    """The jobs of one installation, and the questions to its runs."""

    def __init__(self, settings: Settings, store: Store) -> None:
        super().__init__(settings, store)
        self.tokenizers = TokenizerStore(settings.app.artifacts_root)

    @classmethod
    async def connect(cls, settings: Settings, redis_url: str) -> "JobQueue":
        """Connect to the store; raises SERVICE_UNAVAILABLE where none answers."""
        return cls(settings, await connect(redis_url))

    async def close(self) -> None:
        await self._store.close()

    async def train(
        self,
        request: TrainRequest,
        *,
        user_id: int | None,
        corpora: CorpusStore | None = None,
        requested_paths: tuple[str, ...] | None = None,
        unused_settings: Mapping[str, Setting] = MappingProxyType({}),
    ) -> Accepted:
        """Check, estimate and accept a training; raises AppError, having changed nothing.

        `corpora` has the corpora that were offered for this request. See `preview_training` for the other options.
        """
        preview = await preview_training(
            request,
            corpora or self.corpora,
            self._settings,
            requested_paths=requested_paths,
            unused_settings=unused_settings,
        )
        return await self.accept(preview, user_id=user_id)

    async def accept(self, preview: TrainingPreview, *, user_id: int | None) -> Accepted:
        """Accept a previewed training: write its run to disk, then enqueue it.

        A request with `resume` resumes the newest run with the same request; raises RUN_NOT_READY while that run has
        not ended.
        """
        request, effective = preview.request, preview.effective
        await preview.corpora.keep_offered()
        if request.resume:
            run = await asyncio.to_thread(self._interrupted, effective, user_id)
            if run is not None:
                return await self.accept_resumed(
                    await resolve_origin(run, self.corpora, self._settings), user_id=user_id
                )
        created_at = now()
        record = RunRecord(
            run_id=new_run_id(request.model_family, created_at),
            user_id=user_id,
            created_at=created_at,
            request=request,
            effective=effective,
            request_hash=request_hash(effective),
            requested_paths=preview.requested_paths,
            unused_settings=dict(preview.unused_settings),
            cost=preview.cost,
        )
        return await self._accept(record)

    async def resume(self, run_id: str, *, user_id: int | None) -> Accepted:
        """Go on with a failed or cancelled run as a new one; raises AppError, having changed nothing."""
        origin = await resolve_origin(self.runs.get(run_id), self.corpora, self._settings)
        return await self.accept_resumed(origin, user_id=user_id)

    async def accept_resumed(self, origin: Origin, *, user_id: int | None) -> Accepted:
        """Accept the run that goes on with another one, which was checked (R1)."""
        created_at, old = now(), await asyncio.to_thread(origin.run.record)
        own: dict[str, object] = {
            "run_id": new_run_id(old.effective.model_family, created_at),
            "user_id": user_id,
            "created_at": created_at,
            "resumed_from_run_id": old.run_id,
            "cost": None,
        }
        return await self._accept(old.model_copy(update=own), origin)

    def _interrupted(self, effective: EffectiveRequest, user_id: int | None) -> RunDirectory | None:
        """The newest run of this person, label and request, unless it is completed or has left no whole checkpoint."""
        wanted = (user_id, effective.label, request_hash(effective))
        for run in self.runs.all():
            record = run.record()
            if (record.user_id, record.effective.label, record.request_hash) == wanted:
                end = run.manifest()
                if end is not None and (end.status == "completed" or newest_whole(run.checkpoints) is None):
                    return None
                return run
        return None

    async def _accept(self, record: RunRecord, origin: Origin | None = None) -> Accepted:
        run = await asyncio.to_thread(self._create, record, origin)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await tell_events(self._store, run)
                await enqueue_training(self._store, self._settings, run.run_id)
        except STORE_ERRORS as error:
            # the promise stands on disk: the worker's reconciler enqueues it
            log.warning("run accepted while the queue is away", run_id=run.run_id, error=type(error).__name__)
        return Accepted(run_id=run.run_id, job_id=run.run_id, status="queued")

    async def train_tokenizer(self, request: TokenizerTrainRequest) -> TokenizerAccepted:
        """Check the training of a tokenizer and accept it; raises AppError, having changed nothing."""
        return await self.accept_tokenizer(await resolve_tokenizer(request, self.corpora))

    async def accept_tokenizer(self, record: TokenizerRecord) -> TokenizerAccepted:
        """Accept a tokenizer that was checked (R1); one that is finished, or under way, is not begun again."""
        try:
            tokenizer = await asyncio.to_thread(self.tokenizers.create, record)
        except OSError as error:
            raise AppError(
                ErrorCode.INSUFFICIENT_STORAGE, "The tokenizer could not be written to disk; nothing was queued."
            ) from error
        if tokenizer.is_unfinished():
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await enqueue_tokenizer(self._store, self._settings, tokenizer.tokenizer_id)
            except STORE_ERRORS as error:
                log.warning(
                    "tokenizer accepted while the queue is away",
                    tokenizer_id=tokenizer.tokenizer_id,
                    error=type(error).__name__,
                )
        status = tokenizer.status()
        return TokenizerAccepted(tokenizer_id=status.tokenizer_id, job_id=status.tokenizer_id, status=status.status)

    async def cancel(self, run_id: str) -> bool:
        """Ask a run to end; return whether it has ended already, else it ends at its next step (R11)."""
        run = self.runs.get(run_id)
        if run.manifest() is not None:
            raise AppError(ErrorCode.RUN_FINISHED, f"The run '{run_id}' has already ended.")
        await asyncio.to_thread(run.request_cancel)
        cancelled = await asyncio.to_thread(cancel_idle_run, run)
        try:
            if cancelled:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await tell_events(self._store, run)
                    await self._store.dequeue(self._settings.queue.name, run_id)
        except STORE_ERRORS as error:
            log.warning("run cancelled while the queue is away", run_id=run_id, error=type(error).__name__)
        return cancelled

    async def has_worker(self) -> bool:
        """Return whether at least one worker is running; True also where the queue is away and nobody can know."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._store.has_worker()
        except STORE_ERRORS:
            return True

    async def status(self, run_id: str) -> RunStatus:
        """How a run stands: what the disk says, and whether a worker still holds it."""
        return await self.live((await asyncio.to_thread(self.runs.get(run_id).follow)).refresh())

    async def standing(self, status: RunStatus) -> RunStatus:
        """Add the same as `live`, but call a worker unreachable only after a lease without any sign of life.

        A run that changes its worker is without a lease for some seconds.
        """
        live = await self.live(status)
        silence = time.time() - (live.last_heartbeat_ts or 0.0)
        reachable: dict[str, object] = {"reachable": live.reachable or silence < self._settings.queue.lease_seconds}
        return live.model_copy(update=reachable)

    async def live(self, status: RunStatus) -> RunStatus:
        """Add to what the disk says of a run what only the queue knows: its position, and whether a worker holds it."""
        if status.status not in ("queued", "running"):
            return status
        run_id = status.run_id
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                lease = await self._store.get(keys.lease(run_id))
                heartbeat = await self._store.get(keys.heartbeat(run_id))
                position = await self._store.queue_position(self._settings.queue.name, run_id)
                has_worker = await self._store.has_worker()
        except STORE_ERRORS:
            return status.model_copy(update=_UNREACHABLE)
        changes: dict[str, object] = {
            "reachable": status.status == "queued" or lease is not None,
            "last_heartbeat_ts": _unix_seconds(heartbeat) or status.last_heartbeat_ts,
        }
        if status.status == "queued":
            changes |= {"queue_position": position, "message": status.message if has_worker else NO_WORKER}
        return status.model_copy(update=changes)

    async def rings(self) -> AsyncIterator[str]:
        """The ids of runs whose event log has grown, for ever; a server that is away is waited for."""
        consumer = f"bot-{os.getpid()}"
        while True:
            try:
                for run_id in await self._store.next_rings(consumer, wait_seconds=_RING_WAIT_SECONDS):
                    yield run_id
            except STORE_ERRORS as error:
                log.warning("the event stream is away", error=type(error).__name__)
                await asyncio.sleep(1)

    def _create(self, record: RunRecord, origin: Origin | None) -> RunDirectory:
        try:
            return self.runs.create(record, origin)
        except FileExistsError:  # another run has drawn the same id
            drawn: dict[str, object] = {"run_id": new_run_id(record.effective.model_family, record.created_at)}
            return self._create(record.model_copy(update=drawn), origin)
        except OSError as error:
            raise AppError(
                ErrorCode.INSUFFICIENT_STORAGE, "The run could not be written to disk; nothing was queued."
            ) from error


def _unix_seconds(stored: bytes | None) -> float | None:
    """A stored time; None for what is none."""
    try:
        return None if stored is None else _seconds_adapter.validate_json(stored)
    except ValidationError:
        return None


_seconds_adapter: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(allow_inf_nan=False)])
_UNREACHABLE: dict[str, object] = {"reachable": False}


async def enqueue_training(store: Store, settings: Settings, run_id: str) -> None:
    """Queue a run that is on disk; does nothing where it is queued already."""
    await store.enqueue(*_training_job(settings, run_id), artifacts=await _artifacts_of(settings))


async def enqueue_tokenizer(store: Store, settings: Settings, tokenizer_id: str) -> None:
    """Queue a tokenizer that is on disk; does nothing where it is queued already."""
    await store.enqueue(*_tokenizer_job(tokenizer_id), artifacts=await _artifacts_of(settings))


async def restore_training(store: Store, settings: Settings, run: RunDirectory) -> bool:
    """Queue an unfinished run anew where the queue has lost it: then True."""
    since = (await asyncio.to_thread(run.record)).created_at.timestamp()
    job, lease_seconds = _training_job(settings, run.run_id), settings.queue.lease_seconds
    artifacts = await _artifacts_of(settings)
    return await store.restore(*job, since=since, lease_seconds=lease_seconds, artifacts=artifacts)


async def restore_tokenizer(store: Store, settings: Settings, tokenizer: TokenizerDirectory) -> bool:
    """Queue an unfinished tokenizer anew where the queue has lost it: then True."""
    since = (await asyncio.to_thread(tokenizer.record)).created_at.timestamp()
    job, lease_seconds = _tokenizer_job(tokenizer.tokenizer_id), settings.queue.lease_seconds
    artifacts = await _artifacts_of(settings)
    return await store.restore(*job, since=since, lease_seconds=lease_seconds, artifacts=artifacts)


async def _artifacts_of(settings: Settings) -> str:
    return await asyncio.to_thread(own_artifacts_id, settings.app.artifacts_root)


def _training_job(settings: Settings, run_id: str) -> tuple[str, str, str, TrainJobPayload]:
    return settings.queue.name, "train", run_id, TrainJobPayload(run_id=run_id)


def _tokenizer_job(tokenizer_id: str) -> tuple[str, str, str, TokenizerTrainPayload]:
    payload = TokenizerTrainPayload(tokenizer_id=tokenizer_id)
    return keys.TOKENIZER_QUEUE, "train_tokenizer", tokenizer_id, payload


async def tell_events(store: Store, run: RunDirectory) -> None:
    """Ring the stream for all events of a run that have not been rung (R7), and tell how the run stands by them."""
    follower = await asyncio.to_thread(run.follow)
    events = await asyncio.to_thread(follower.read_new)
    status = follower.status
    is_cancelled = run.cancel_requested() and not follower.ended
    await store.tell(run.run_id, events, status.model_dump_json(), is_cancelled=is_cancelled)


def cancel_idle_run(run: RunDirectory) -> bool:
    """Write the end of a cancelled run that no child holds; False where one does, which will write it."""
    lock = run.lock()
    if lock is None:
        return False
    with lock, run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))
    return True
