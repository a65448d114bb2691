"""The arq functions: each checks its payload again, does its job, and leaves a record of how it ended."""

import asyncio

import structlog
from arq import Retry
from pydantic import ValidationError

from trainer.contracts import keys
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.events import InferenceCompleted, InferenceEvent, InferenceFailed, InferenceStarted, stamp
from trainer.contracts.inference import InferenceRecord, failed_record, inference_adapter
from trainer.contracts.jobs import InferenceJobPayload, TokenizerTrainPayload, TrainJobPayload
from trainer.contracts.settings import Settings
from trainer.contracts.store import STORE_ERRORS, Store
from trainer.contracts.validation import parse
from trainer.queue import tell_events
from trainer.runs import RunStore, complete_end
from trainer.tokenizer_store import TokenizerStore
from trainer.worker.attempts import RETRY_SECONDS
from trainer.worker.inference_child import InferenceChild
from trainer.worker.supervisor import supervise
from trainer.worker.tokenizer_supervisor import supervise_tokenizer

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class Jobs:
    """What the queue's job functions work with."""

    def __init__(self, settings: Settings, store: Store, child: InferenceChild) -> None:
        self._settings = settings
        self._store = store
        self._child = child
        self._runs = RunStore(settings.app.artifacts_root)
        self._tokenizers = TokenizerStore(settings.app.artifacts_root)

    async def train(self, ctx: dict[str, object], payload: object) -> None:
        """Bring a run one attempt further; an ended one is only told again (R10)."""
        try:
            run = self._runs.get(parse(TrainJobPayload, payload).run_id)
        except AppError as error:
            log.error("training job refused", error_code=error.code, reason=error.message)
            return
        if run.manifest() is None:
            await supervise(run, self._settings, self._store)
        await asyncio.to_thread(complete_end, run)
        try:
            await tell_events(self._store, run)
        except STORE_ERRORS as error:
            log.warning("the end of a run waits: the queue is away", run_id=run.run_id, error=type(error).__name__)
            raise Retry(defer=RETRY_SECONDS) from None

    async def train_tokenizer(self, ctx: dict[str, object], payload: object) -> None:
        """Bring a tokenizer to its end; one that has ended already stays as it is (R10)."""
        try:
            tokenizer = self._tokenizers.get(parse(TokenizerTrainPayload, payload).tokenizer_id)
        except AppError as error:
            log.error("tokenizer job refused", error_code=error.code, reason=error.message)
            return
        if tokenizer.is_unfinished():
            await supervise_tokenizer(tokenizer, self._settings, self._store)

    async def infer(self, ctx: dict[str, object], payload: object) -> None:
        """Answer a score, generate or evaluate request; its record in the store ends completed or failed."""
        try:
            job = parse(InferenceJobPayload, payload)
        except AppError as error:
            log.error("short job refused", error_code=error.code, reason=error.message)
            return
        key = keys.inference(job.kind, job.run_id, job.request_id)
        stored = await self._store.get(key)
        if stored is None:
            log.warning("short job has no request: it expired", run_id=job.run_id, request_id=job.request_id)
            return
        try:
            record = inference_adapter.validate_json(stored)
        except ValidationError:
            log.error("short job whose request cannot be read", run_id=job.run_id, request_id=job.request_id)
            return  # who asks reads the same
        if record.response.status in ("completed", "failed"):
            return  # given once more by the queue: its asker has had this answer (INF-16)
        telling = asyncio.create_task(self._tell_started(job))  # its asker does not wait for that
        try:
            async with asyncio.timeout(self._settings.queue.interactive_timeout_seconds):
                answer = await self._child.answer(record)
        except TimeoutError:
            answer = failed_record(record, RunError.of(AppError(ErrorCode.SERVICE_UNAVAILABLE, _TOO_LONG)))
        except AppError as error:
            answer = failed_record(record, RunError.of(error))
        log.info(
            "short job ended",
            kind=job.kind,
            run_id=job.run_id,
            request_id=job.request_id,
            status=answer.response.status,
        )
        bell, ttl_seconds = keys.answer_bell(job.request_id), self._settings.queue.result_ttl_seconds
        await telling  # which had the time of the answer for it
        ended = _ended(job, answer)
        try:
            await self._store.put_answer(key, bell, answer.model_dump_json(), ended, ttl_seconds=ttl_seconds)
        except STORE_ERRORS as error:
            log.warning("an answer waits: the queue is away", run_id=job.run_id, error=type(error).__name__)
            raise Retry(defer=RETRY_SECONDS) from None

    async def _tell_started(self, job: InferenceJobPayload) -> None:
        try:
            await self._store.tell_inference(_told(job, InferenceStarted, "started"))
        except STORE_ERRORS as error:
            log.warning("the event stream is away", request_id=job.request_id, error=type(error).__name__)


def _ended(job: InferenceJobPayload, answer: InferenceRecord) -> InferenceEvent:
    error = answer.response.error
    if error is None:
        return _told(job, InferenceCompleted, "completed")
    said = f"The request ended with {error.code}."  # its own message may repeat what was asked
    return _told(job, InferenceFailed, "failed", code=error.code, error_class=error.error_class, message=said)


def _told(job: InferenceJobPayload, event: type[InferenceEvent], key: str, **values: object) -> InferenceEvent:
    fields: dict[str, object] = {
        **stamp(job.request_id, None, f"{job.kind}:{key}"),
        "request_id": job.request_id,
        "kind": job.kind,
        **values,
    }
    return event.model_validate(fields)


_TOO_LONG = "The request took too long; ask for less at a time."
