"""The arq function of inference requests: it gives a request to a child and stores the answer."""

import asyncio
import contextlib
import math
from collections.abc import Sequence
from time import monotonic

import structlog
from arq import Retry
from pydantic import ValidationError

from trainer.artifacts.checkpoint_files import WEIGHTS
from trainer.artifacts.checkpoints import checkpoint_folder
from trainer.artifacts.replicas import WriterChanged
from trainer.artifacts.replication import Replication
from trainer.artifacts.runs import RunStore
from trainer.config.settings import Settings
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.chats import CHAT_EXPIRED, ChatRecord, ChatTurn
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.events import InferenceCompleted, InferenceEvent, InferenceFailed, InferenceStarted, stamp
from trainer.contracts.generations import GenerateChunk
from trainer.contracts.inference_fields import InferenceRecord, Response, cancelled_error, failed_record
from trainer.contracts.jobs import InferenceJobPayload
from trainer.contracts.sections import SectionsRecord
from trainer.queue.inference_kinds import KINDS, kind_of
from trainer.store import keys
from trainer.store.answers import ChatAppend
from trainer.store.connection import STORE_ERRORS, tolerate_no_redis
from trainer.store.store import Store
from trainer.system.heartbeat import StallDetector
from trainer.worker.inference_process import DiedAtStart, InferenceChild
from trainer.worker.starts import Starts

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class InferenceJobs:
    """The job function of inference requests, with the children that answer them."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        child: InferenceChild,
        measuring_child: InferenceChild,
        starts: Starts | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._starts = starts or Starts(settings)
        self._child = child
        self._measuring_child = measuring_child
        """A separate child, because an evaluation may take hours while people wait for other answers."""
        self._runs = RunStore(settings.app.artifacts_root)
        self._replication = Replication(settings)

    async def infer(self, ctx: dict[str, object], payload: object) -> None:
        """Answer an inference request and store the result, completed or failed.

        Raises Retry if another worker is to answer it, because the child here died before its first answer.
        """
        try:
            job = parse(InferenceJobPayload, payload)
        except AppError as error:
            log.error("inference_job_rejected", error_code=error.code, reason=error.message)
            return
        about = log.bind(kind=job.kind, run_id=job.run_id, request_id=job.request_id)
        key = keys.inference(job.kind, job.run_id, job.request_id)
        stored = await self._store.get(key)
        if stored is None:
            about.warning("inference_request_expired")
            return
        try:
            record = KINDS[job.kind].record.model_validate_json(stored)
        except ValidationError:
            about.error("inference_request_malformed")
            return  # the client reads the same record
        if record.response.status in ("completed", "failed"):
            return  # the queue has delivered the job twice
        publishing = asyncio.create_task(self._publish(_event(record, InferenceStarted, "started")))
        tried = ctx.get("job_try")
        if isinstance(tried, int) and tried > _MAX_TRIES:
            answer: InferenceRecord | None = _failed(record, _unavailable(_NEVER_ANSWERED))
        else:
            answer = await self._answer(record, key)
        await publishing  # it had the time of the answer
        if answer is None:
            about.info("inference_request_withdrawn")
            await self._publish(_end_event(_failed(record, cancelled_error())))
            return
        about.info("inference_request_ended", status=answer.response.status)
        turn = self._chat_append(answer)
        queue = self._settings.queue
        ttl_seconds = queue.failure_ttl_seconds if answer.response.status == "failed" else queue.result_ttl_seconds
        ttl_seconds = ttl_seconds if turn is None else int(turn.ttl_seconds)
        value, ended = answer.model_dump_json(), _end_event(answer)
        try:
            await self._store.put_answer(key, job.request_id, value, ended, ttl_seconds=ttl_seconds, appended=turn)
        except STORE_ERRORS as error:
            about.warning("answer_storage_failed", error=type(error).__name__)
            raise Retry(defer=self._settings.queue.retry_seconds) from None

    async def _answer(self, record: InferenceRecord, key: str) -> InferenceRecord | None:
        """Return the completed or failed record; None if the client has withdrawn the request.

        Kinds without a time limit, such as scoring a long text, fail only if the child uses no processor time.
        """
        seconds = self._settings.queue.interactive_timeout_seconds
        deadline = monotonic() + seconds
        watch = StallDetector(seconds, self._child_for(record).processor_ticks)
        answering = asyncio.create_task(self._compute(record))
        try:
            while not (await asyncio.wait([answering], timeout=_POLL_SECONDS))[0]:
                with contextlib.suppress(*STORE_ERRORS):
                    if not await self._store.exists(key):
                        return None
                if not kind_of(record).is_unbounded:
                    if monotonic() > deadline:
                        return _failed(record, _unavailable(_TOO_LONG))
                elif watch.is_stalled(_POLL_SECONDS):
                    return _failed(record, _unavailable(_STANDS_STILL))
            return answering.result()
        except DiedAtStart as error:
            if await self._starts.leaves(record.response.request_id, self._store, may_wait=False):
                raise Retry(defer=0) from None
            return _failed(record, error)
        except AppError as error:
            return _failed(record, error)
        finally:
            answering.cancel()  # withdraws the request

    def _child_for(self, record: InferenceRecord) -> InferenceChild:
        return self._measuring_child if kind_of(record).is_slow else self._child

    async def _compute(self, record: InferenceRecord) -> InferenceRecord:
        """Return the answer to a request of any kind, with what it needs on this machine's disk; raises AppError."""
        if not self._replication.is_on:
            return await self._compute_here(record)
        run_id, kind = record.response.run_id, kind_of(record)
        await self._replication.fetch_corpus(record.request.corpus)
        if kind.writes_run and record.response.checkpoint is None:
            return await self._measure(record)
        if not await asyncio.to_thread(self._has_weights, record.response):
            await self._replication.fetch("models", run_id, with_weights=True)
        if kind.reads_training_text or kind.writes_run or record.request.is_searched:
            await self._replication.fetch_read_text(self._runs.get(run_id).record().effective)
        return await self._compute_here(record)

    def _has_weights(self, response: Response) -> bool:
        run, step = self._runs.find(response.run_id), response.checkpoint
        if run is None:
            return False
        return (run.weights if step is None else checkpoint_folder(run, step) / WEIGHTS).exists()

    async def _measure(self, record: InferenceRecord) -> InferenceRecord:
        """Return the answer to a request that adds files to its run, after storing them."""
        run_id = record.response.run_id
        if isinstance(record, SectionsRecord):
            await self._replication.fetch("experiments", record.request.experiment_id)
        await self._replication.fetch("models", run_id)
        await self._replication.fetch_read_text(self._runs.get(run_id).record().effective)
        try:
            return await self._replication.write("models", run_id, lambda: self._compute_here(record))
        except WriterChanged:
            raise _unavailable(_RUN_IN_USE) from None

    async def _compute_here(self, record: InferenceRecord) -> InferenceRecord:
        """Return the answer to a request of any kind; raises AppError."""
        if record.is_streamed:
            return await self._stream(record)
        if not isinstance(record, ChatRecord):
            return await self._child_for(record).answer(record)
        stored = await self._store.turns(keys.chat(record.response.run_id, record.response.session_id))
        if stored is None:
            raise AppError(ErrorCode.DATA_NOT_FOUND, CHAT_EXPIRED)
        turns = tuple(ChatTurn.model_validate_json(turn) for turn in stored)
        return changed(await self._child.answer(changed(record, turns=turns)), turns=())

    async def _stream(self, record: InferenceRecord) -> InferenceRecord:
        """Return the answer to a streamed generation and publish its chunks; raises CANCELLED without a reader."""
        chunks: asyncio.Queue[GenerateChunk | None] = asyncio.Queue()
        answering = asyncio.create_task(self._child.answer(record, chunks.put_nowait))
        answering.add_done_callback(lambda _: chunks.put_nowait(None))
        taken: list[GenerateChunk | None] = []
        try:
            while await self._is_read(record, [chunk for chunk in taken if chunk is not None]):
                if None in taken:
                    return await answering
                taken = [await chunks.get()]
                while not chunks.empty():
                    taken.append(chunks.get_nowait())
            raise cancelled_error()
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)  # nobody needs its error

    async def _is_read(self, record: InferenceRecord, chunks: Sequence[GenerateChunk]) -> bool:
        """Publish chunks; return False if no client reads them. Lost chunks are part of the answer."""
        request_id, ttl_seconds = record.response.request_id, self._settings.queue.interactive_timeout_seconds
        pieces = [chunk.model_dump_json() for chunk in chunks]
        try:
            return await self._store.put_pieces(request_id, pieces, ttl_seconds=ttl_seconds)
        except STORE_ERRORS as error:
            log.warning("chunk_publication_failed", request_id=request_id, error=type(error).__name__)
            return True

    def _chat_append(self, answer: InferenceRecord) -> ChatAppend | None:
        """Return the turn that an answer adds to its chat."""
        if not isinstance(answer, ChatRecord) or answer.response.answer is None:
            return None
        response = answer.response
        turn = ChatTurn(request_id=response.request_id, message=answer.request.message, answer=answer.response.answer)
        chat = keys.chat(response.run_id, response.session_id)
        return ChatAppend(chat, turn.model_dump_json(), self._settings.queue.chat_ttl_seconds)

    async def _publish(self, event: InferenceEvent) -> None:
        async with tolerate_no_redis("event_publication_failed", seconds=math.inf, request_id=event.request_id):
            await self._store.publish_inference(event)


def _failed(record: InferenceRecord, error: AppError) -> InferenceRecord:
    return failed_record(record, RunError.of(error))


def _unavailable(message: str) -> AppError:
    return AppError(ErrorCode.SERVICE_UNAVAILABLE, message)


def _end_event(answer: InferenceRecord) -> InferenceEvent:
    error = answer.response.error
    if error is None:
        return _event(answer, InferenceCompleted, "completed")
    message = f"The request ended with {error.code}."  # its own message may repeat the request
    return _event(answer, InferenceFailed, "failed", code=error.code, error_class=error.error_class, message=message)


def _event(record: InferenceRecord, event: type[InferenceEvent], key: str, **values: object) -> InferenceEvent:
    response = record.response
    stamped = stamp(response.run_id, record.user_id, f"{record.kind}:{response.request_id}:{key}")
    fields: dict[str, object] = {**stamped, "request_id": response.request_id, "kind": record.kind, **values}
    return event.model_validate(fields)


_POLL_SECONDS = 0.5
_MAX_TRIES = 2
_NEVER_ANSWERED = "The worker ended twice before the answer. Try again, or request less."
_RUN_IN_USE = "Another machine adds an evaluation to the run. Try again in a minute."
_STANDS_STILL = "The inference process stalled and was ended. Try again."
_TOO_LONG = "The request took too long. Request less at a time."
