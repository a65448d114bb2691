"""One typed method per job: check, write to disk, then enqueue; the only way in for bot, HTTP and command line."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import structlog

from trainer.contracts import keys
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    EvalMetrics,
    EvalRecord,
    EvalRequest,
    EvalResponse,
    GenerateRecord,
    GenerateRequest,
    GenerateResponse,
    ScoreRecord,
    ScoreRequest,
    ScoreResponse,
)
from trainer.contracts.jobs import InferenceJobPayload, TrainJobPayload
from trainer.contracts.presets import request_hash, resolve
from trainer.contracts.runs import Accepted, CorpusRef, EffectiveRequest, RunRecord, RunStatus, TrainRequest
from trainer.contracts.settings import Settings
from trainer.contracts.store import STORE_ERRORS, Store, connect
from trainer.corpora import CorpusStore
from trainer.runs import RunDirectory, RunStore, finish_run, manifest_of, new_run_id

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_RESULT_POLL_SECONDS = 0.02
_RING_WAIT_SECONDS = 5.0
RecordT = TypeVar("RecordT", ScoreRecord, GenerateRecord, EvalRecord)


class JobQueue:
    """The jobs of one installation."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.runs = RunStore(settings.app.artifacts_root)
        self.corpora = CorpusStore(settings)
        self._settings = settings
        self._store = store

    @classmethod
    async def connect(cls, settings: Settings, redis_url: str) -> "JobQueue":
        """Connect to the store; raises SERVICE_UNAVAILABLE where none answers."""
        return cls(settings, await connect(redis_url))

    async def close(self) -> None:
        await self._store.close()

    async def train(self, request: TrainRequest, *, user_id: int | None) -> Accepted:
        """Check a training and accept it; raises AppError, having changed nothing."""
        return await self.accept(request, await resolve_request(request, self.corpora), user_id=user_id)

    async def accept(
        self,
        request: TrainRequest,
        effective: EffectiveRequest,
        *,
        user_id: int | None,
        requested_paths: tuple[str, ...] | None = None,
    ) -> Accepted:
        """Accept a training that was checked: durable on disk, then queued (R1)."""
        created_at = now()
        record = RunRecord(
            run_id=new_run_id(request.model_family, created_at),
            user_id=user_id,
            created_at=created_at,
            request=request,
            effective=effective,
            request_hash=request_hash(effective),
            requested_paths=requested_paths,
        )
        run = await asyncio.to_thread(self._create, record)
        try:
            await tell_events(self._store, run)
            await enqueue_training(self._store, self._settings, run.run_id)
        except STORE_ERRORS as error:
            # the promise stands on disk: the worker's reconciler enqueues it
            log.warning("run accepted while the queue is away", run_id=run.run_id, error=type(error).__name__)
        return Accepted(run_id=run.run_id, job_id=run.run_id, status="queued")

    async def score(self, run_id: str, request: ScoreRequest) -> ScoreResponse:
        """Score a text with a finished run and wait for the answer."""
        response = ScoreResponse(request_id=_new_id(), run_id=run_id, status="queued")
        return (await self._ask(ScoreRecord(request=request, response=response))).response

    async def generate(self, run_id: str, request: GenerateRequest) -> GenerateResponse:
        """Let a finished run continue a prompt and wait for the answer."""
        response = GenerateResponse(request_id=_new_id(), run_id=run_id, status="queued")
        return (await self._ask(GenerateRecord(request=request, response=response))).response

    async def evaluate(self, run_id: str, request: EvalRequest) -> EvalMetrics:
        """Measure a finished run on one of its splits and wait for the numbers."""
        response = EvalResponse(request_id=_new_id(), run_id=run_id, status="queued")
        metrics = (await self._ask(EvalRecord(request=request, response=response))).response.metrics
        if metrics is None:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_ANSWER)
        return metrics

    async def cancel(self, run_id: str) -> None:
        """Ask a run to end: at once where it has not started, at its next step where it has (R11)."""
        run = self.runs.get(run_id)
        if run.manifest() is not None:
            raise AppError(ErrorCode.RUN_FINISHED, f"The run '{run_id}' has already ended.")
        await asyncio.to_thread(run.request_cancel)
        cancelled = await asyncio.to_thread(cancel_idle_run, run)
        try:
            if cancelled:
                await tell_events(self._store, run)
                await self._store.dequeue(self._settings.queue.name, run_id)
        except STORE_ERRORS as error:
            log.warning("run cancelled while the queue is away", run_id=run_id, error=type(error).__name__)

    async def status(self, run_id: str) -> RunStatus:
        """How a run stands: what the disk says, and whether a worker still holds it."""
        status = (await asyncio.to_thread(self.runs.get(run_id).follow)).refresh()
        if status.status not in ("queued", "running"):
            return status
        try:
            lease = await self._store.get(keys.run_lease(run_id))
            heartbeat = await self._store.get(keys.run_heartbeat(run_id))
            position = await self._store.queue_position(self._settings.queue.name, run_id)
        except STORE_ERRORS:
            return status.model_copy(update=_UNREACHABLE)
        changes: dict[str, object] = {
            "reachable": status.status == "queued" or lease is not None,
            "last_heartbeat_ts": float(heartbeat) if heartbeat else status.last_heartbeat_ts,
            "queue_position": position if status.status == "queued" else None,
        }
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

    def _create(self, record: RunRecord) -> RunDirectory:
        try:
            return self.runs.create(record)
        except OSError as error:
            raise AppError(
                ErrorCode.INSUFFICIENT_STORAGE, "The run could not be written to disk; nothing was queued."
            ) from error

    async def _ask(self, record: RecordT) -> RecordT:
        """Store a request, queue it, wait until it is answered; raises the error that it ended with."""
        self.runs.get(record.response.run_id).completed_manifest()
        queue = self._settings.queue
        payload = InferenceJobPayload(
            kind=record.kind, run_id=record.response.run_id, request_id=record.response.request_id
        )
        key = keys.inference(payload.kind, payload.run_id, payload.request_id)
        try:
            await self._store.put(key, record.model_dump_json(), ttl_seconds=queue.result_ttl_seconds)
            await self._store.enqueue(keys.INTERACTIVE_QUEUE, "infer", payload.request_id, payload)
            async with asyncio.timeout(queue.interactive_timeout_seconds + 30):
                while record.response.status in ("queued", "running"):
                    await asyncio.sleep(_RESULT_POLL_SECONDS)
                    stored = await self._store.get(key)
                    if stored is None:
                        raise TimeoutError
                    record = type(record).model_validate_json(stored)
        except (*STORE_ERRORS, TimeoutError) as error:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_ANSWER) from error
        if record.response.error is not None:
            raise AppError(record.response.error.code, record.response.error.message)
        return record


_NO_ANSWER = "No worker has answered; try again in a minute."
_UNREACHABLE: dict[str, object] = {"reachable": False}


async def resolve_request(request: TrainRequest, corpora: CorpusStore) -> EffectiveRequest:
    """Check a training and its texts, and fill its absent values; raises AppError naming what is wrong."""

    async def describe(corpus: str | None) -> CorpusRef | None:
        return None if corpus is None else await corpora.describe(corpus)

    return resolve(
        request,
        corpus=await corpora.describe(request.corpus, minimum_lines=splits_of_corpus(request)),
        validation_corpus=await describe(request.validation_corpus),
        test_corpus=await describe(request.test_corpus),
        threads=request.threads or physical_cores(),
    )


async def enqueue_training(store: Store, settings: Settings, run_id: str) -> None:
    """Queue a run that is on disk; does nothing where it is queued already."""
    await store.enqueue(settings.queue.name, "train", run_id, TrainJobPayload(run_id=run_id))


async def tell_events(store: Store, run: RunDirectory) -> None:
    """Ring the stream for all events of a run that have not been rung (R7)."""
    await store.tell(run.run_id, await asyncio.to_thread(run.reader().read_new))


def cancel_idle_run(run: RunDirectory) -> bool:
    """Write the end of a cancelled run that no child holds; False where one does, which will write it."""
    lock = run.lock()
    if lock is None:
        return False
    with lock, run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))
    return True


def splits_of_corpus(request: TrainRequest) -> int:
    """How many parts are cut from the corpus, each of which needs a line."""
    cut_test = request.test_corpus is None and request.test_fraction > 0
    return 1 + (request.validation_corpus is None) + cut_test


def physical_cores() -> int:
    """The physical cores that this process may use (DEC D51): two threads of one core do not train faster."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    cores = {_siblings(cpu) for cpu in cpus}
    return len(cores)


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return str(cpu)


def _new_id() -> str:
    return secrets.token_hex(8)
