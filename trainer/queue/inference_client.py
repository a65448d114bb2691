"""Client for inference on finished runs: stores a request, enqueues it and waits for its result."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

import structlog
from pydantic import ValidationError

from trainer.artifacts.replication import Replication
from trainer.artifacts.runs import RunStore
from trainer.config.compatibility import check_generates, check_scores
from trainer.config.settings import Settings
from trainer.contracts.base import JobState, changed
from trainer.contracts.completions import CompletionRecord, CompletionRequest, CompletionResponse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    CHAT_EXPIRED,
    UNBOUNDED_KINDS,
    ChatHistory,
    ChatRecord,
    ChatRequest,
    ChatResponse,
    ChatTurn,
    EvalMetrics,
    EvalRecord,
    EvalRequest,
    EvalResponse,
    FinishReason,
    GenerateChunk,
    GenerateRecord,
    GenerateRequest,
    GenerateResponse,
    InferenceRecord,
    PredictRecord,
    PredictRequest,
    PredictResponse,
    ScoreRecord,
    ScoreRequest,
    ScoreResponse,
    SectionsRecord,
    SectionsRequest,
    SectionsResponse,
)
from trainer.contracts.inference_fields import EMPTY_PREFIX
from trainer.contracts.jobs import InferenceJobPayload
from trainer.contracts.runs import EffectiveRequest
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import load_input
from trainer.data.normalization import documents, normalized
from trainer.queue.enqueue import Enqueuer
from trainer.store import keys
from trainer.store.connection import STORE_ERRORS, tolerate_no_redis
from trainer.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_INFERENCE_ENQUEUE_TIMEOUT_SECONDS = 10.0
"""Longer, because an inference request is on no disk; many requests at once slow a busy machine down."""
_POLL_SECONDS = 2.0
_MARGIN_SECONDS = 30.0
"""The worker gives up this much earlier than the client."""
_READER_SECONDS = 30.0
SAME_KEY = "Another request was sent with this Idempotency-Key. Send each request with its own key."
RecordT = TypeVar(
    "RecordT",
    ScoreRecord,
    GenerateRecord,
    CompletionRecord,
    PredictRecord,
    ChatRecord,
    EvalRecord,
    SectionsRecord,
)
StreamT = TypeVar("StreamT", GenerateRecord, CompletionRecord)
_NO_RESULT = "No worker has answered; try again in a minute."
_UNREADABLE = "The stored result cannot be read: send the request again."
_EXPIRED = "This request and its result have expired: send the request again."


class InferenceClient:
    """Inference requests to the finished runs of one installation; `user_id` is None at a terminal."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        enqueuer: Enqueuer,
        runs: RunStore,
        corpora: CorpusStore,
        replication: Replication,
    ) -> None:
        self._settings = settings
        self._replication = replication
        self._store = store
        self._enqueuer = enqueuer
        self._runs = runs
        self._corpora = corpora

    async def score(
        self, run_id: str, request: ScoreRequest, *, user_id: int | None = None, is_kept: bool = True
    ) -> ScoreResponse:
        """Score a text and wait for the result; `is_kept=False` deletes the stored result afterwards."""
        record = await self.enqueue_score(run_id, request, user_id=user_id)
        response = (await self._wait_for_result(record)).response
        if not is_kept:
            await self._withdraw(record)
        return response

    async def enqueue_score(
        self, run_id: str, request: ScoreRequest, *, user_id: int | None = None, request_id: str | None = None
    ) -> ScoreRecord:
        """Enqueue a score request and return at once; `get_score` reads its result.

        With a `request_id`, as in each of these methods, a request that is stored under it is returned and not
        enqueued again; raises CONFLICT if that is another request.
        """
        effective = self._effective(run_id)
        check_scores(request, effective.objective)
        loaded = await asyncio.to_thread(load_input, request, self._corpora)
        _check_not_blank(effective, "`text` has nothing to score: it is blank.", loaded.text)
        await self._replication.store_corpus(self._corpora, request.path)
        response = ScoreResponse(request_id=request_id or _new_id(), run_id=run_id, status="queued")
        record = ScoreRecord(user_id=user_id, request=request, response=response)
        return await self._enqueue(record, is_new=request_id is None)

    async def score_json(self, run_id: str, request: ScoreRequest, *, user_id: int | None = None) -> bytes:
        """Score a text and return the stored record as JSON, which the bot passes on without parsing it."""
        return await self._wait_for_stored(await self.enqueue_score(run_id, request, user_id=user_id))

    async def get_score(self, run_id: str, request_id: str) -> ScoreRecord:
        """Return a score request with its result so far; raises DATA_NOT_FOUND if it has expired."""
        return await self._load(ScoreRecord, "score", run_id, request_id)

    async def delete_score(self, run_id: str, request_id: str) -> None:
        """Delete a score, or withdraw the request for it; raises DATA_NOT_FOUND if it has expired."""
        await self._withdraw(await self.get_score(run_id, request_id))

    def normalize_input(self, run_id: str, text: str) -> str:
        """Return a text as the run's tokenizer reads it; the spans of a score are ranges of this text.

        Raises RUN_NOT_READY for a run that has no model.
        """
        return normalized(text, self._runs.get(run_id).completed_manifest().effective.tokenizer.normalization)

    async def generate(self, run_id: str, request: GenerateRequest, *, user_id: int | None = None) -> GenerateResponse:
        """Continue a prompt and wait for the result."""
        return (await self._wait_for_result(await self.enqueue_generate(run_id, request, user_id=user_id))).response

    async def enqueue_generate(
        self, run_id: str, request: GenerateRequest, *, user_id: int | None = None, request_id: str | None = None
    ) -> GenerateRecord:
        """Enqueue a generate request and return at once; `get_generate` reads its result."""
        record = await self._generate_record(run_id, request, user_id, request_id, is_streamed=False)
        return await self._enqueue(record, is_new=request_id is None)

    async def stream_generate(
        self, run_id: str, request: GenerateRequest, *, user_id: int | None = None
    ) -> AsyncGenerator[GenerateChunk | GenerateResponse, None]:
        """Continue a prompt and yield chunks while they are generated, then the complete response.

        The chunks of each sequence come in order and add up to its output. Closing the generator ends the generation;
        so does not reading a chunk for half a minute. Raises as `generate` does.
        """
        # with a fixed seed, a second worker that takes the request over generates the same chunks
        seeded = changed(request, seed=secrets.randbits(32) if request.seed is None else request.seed)
        record = await self._generate_record(run_id, seeded, user_id, None, is_streamed=True)
        async with contextlib.aclosing(self._stream(record)) as stream:
            async for piece in stream:
                yield piece.response if isinstance(piece, GenerateRecord) else piece

    async def complete(
        self, run_id: str, request: CompletionRequest, *, user_id: int | None = None, request_id: str | None = None
    ) -> CompletionResponse:
        """Continue or score prompts and wait for the result."""
        record = self._completion_record(run_id, request, user_id, request_id)
        return (await self._wait_for_result(await self._enqueue(record, is_new=request_id is None))).response

    async def stream_complete(
        self, run_id: str, request: CompletionRequest, *, user_id: int | None = None
    ) -> AsyncGenerator[GenerateChunk | CompletionResponse, None]:
        """Continue prompts and yield chunks while they are generated, then the complete response.

        The chunks of a choice come in order and add up to its text. Closing the generator ends the generation, as in
        `stream_generate`. Raises INVALID_INPUT for a request with `logprobs`.
        """
        if request.logprobs is not None:
            raise AppError(ErrorCode.INVALID_INPUT, "`logprobs` cannot be streamed: leave out one of the two.")
        seeded = changed(request, seed=secrets.randbits(32) if request.seed is None else request.seed)
        record = changed(self._completion_record(run_id, seeded, user_id, None), is_streamed=True)
        async with contextlib.aclosing(self._stream(record)) as stream:
            async for piece in stream:
                yield piece.response if isinstance(piece, CompletionRecord) else piece

    def _completion_record(
        self, run_id: str, request: CompletionRequest, user_id: int | None, request_id: str | None
    ) -> CompletionRecord:
        effective = self._effective(run_id)
        check_generates(effective.objective)
        texts = [prompt for prompt in request.prompts if isinstance(prompt, str)]
        _check_not_blank(effective, "`prompt` has nothing to read: it is blank.", *texts)
        response = CompletionResponse(request_id=request_id or _new_id(), run_id=run_id, status="queued")
        return CompletionRecord(user_id=user_id, request=request, response=response)

    async def _stream(self, record: StreamT) -> AsyncGenerator[GenerateChunk | StreamT, None]:
        """Enqueue a streamed request; yield its chunks, then its completed record."""
        request_id, chunks = record.response.request_id, _ChunkMerger()
        try:
            with _redis_errors():
                await self._store.put(keys.reader(request_id), "1", ttl_seconds=_READER_SECONDS)
            await self._enqueue(record)
            async for stored in self._read_chunks(record):
                for chunk in chunks.add(GenerateChunk.model_validate_json(stored)):
                    yield chunk
            completed = await self._wait_for_result(record)
            for index, (text, reason) in enumerate(_outputs(completed)):
                complete = GenerateChunk(request_id=request_id, index=index, start=0, text=text, stop_reason=reason)
                for chunk in chunks.add(complete):
                    yield chunk
            yield completed
        finally:
            with contextlib.suppress(*STORE_ERRORS):  # both keys expire by themselves
                await self._store.delete(keys.reader(request_id), keys.pieces(request_id))

    async def _read_chunks(self, record: GenerateRecord | CompletionRecord) -> AsyncGenerator[bytes, None]:
        """Yield stored chunks until the result is stored, or is no longer to be expected."""
        until = time.monotonic() + self._settings.queue.interactive_timeout_seconds + _MARGIN_SECONDS
        position, has_ended = "0-0", False
        while not has_ended and time.monotonic() < until:
            with _redis_errors():
                batch = await self._store.read_pieces(
                    record.response.request_id, position, wait_seconds=_POLL_SECONDS, keep_seconds=_READER_SECONDS
                )
                stored = None if batch.pieces or batch.has_ended else await self._store.get(_key(record))
            for piece in batch.pieces:
                yield piece
            position = batch.position
            # a restarted server may have lost the notification
            is_done = not batch.pieces and not (stored and _is_pending(stored))
            has_ended = batch.has_ended or is_done

    async def _generate_record(
        self,
        run_id: str,
        request: GenerateRequest,
        user_id: int | None,
        request_id: str | None,
        *,
        is_streamed: bool,
    ) -> GenerateRecord:
        check_generates(self._effective(run_id).objective)
        await asyncio.to_thread(load_input, request, self._corpora)
        await self._replication.store_corpus(self._corpora, request.prompt_path)
        response = GenerateResponse(request_id=request_id or _new_id(), run_id=run_id, status="queued")
        return GenerateRecord(user_id=user_id, request=request, response=response, is_streamed=is_streamed)

    async def get_generate(self, run_id: str, request_id: str) -> GenerateRecord:
        """Return a generate request with its result so far; raises DATA_NOT_FOUND if it has expired."""
        return await self._load(GenerateRecord, "generate", run_id, request_id)

    async def predict(self, run_id: str, request: PredictRequest, *, user_id: int | None = None) -> PredictResponse:
        """Return the most probable next tokens of a text."""
        return (await self._wait_for_result(await self.enqueue_predict(run_id, request, user_id=user_id))).response

    async def enqueue_predict(
        self, run_id: str, request: PredictRequest, *, user_id: int | None = None, request_id: str | None = None
    ) -> PredictRecord:
        """Enqueue a predict request and return at once; `get_predict` reads its result."""
        effective = self._effective(run_id)
        check_generates(effective.objective)
        _check_not_blank(effective, EMPTY_PREFIX, request.text)
        response = PredictResponse(request_id=request_id or _new_id(), run_id=run_id, status="queued")
        record = PredictRecord(user_id=user_id, request=request, response=response)
        return await self._enqueue(record, is_new=request_id is None)

    async def get_predict(self, run_id: str, request_id: str) -> PredictRecord:
        """Return a predict request with its result so far; raises DATA_NOT_FOUND if it has expired."""
        return await self._load(PredictRecord, "predict", run_id, request_id)

    async def chat(self, run_id: str, request: ChatRequest, *, user_id: int | None = None) -> ChatResponse:
        """Send a message, in a new chat if the request names none, and wait for the answer.

        Raises DATA_NOT_FOUND for a chat that has expired.
        """
        return (await self._wait_for_result(await self.enqueue_chat(run_id, request, user_id=user_id))).response

    async def enqueue_chat(
        self, run_id: str, request: ChatRequest, *, user_id: int | None = None, request_id: str | None = None
    ) -> ChatRecord:
        """Enqueue a message and return at once; `get_chat_answer` reads the answer.

        A new chat gets the request's id where there is one. Raises DATA_NOT_FOUND for a chat that has expired.
        """
        check_generates(self._effective(run_id).objective)
        session_id = request.session_id or request_id or _new_id()
        if request.session_id is None:
            with _redis_errors():
                await self._store.begin_chat(
                    keys.chat(run_id, session_id), ttl_seconds=self._settings.queue.chat_ttl_seconds
                )
        else:
            await self.get_chat(run_id, session_id)
        if user_id is not None:
            with _redis_errors():
                await self._store.put(
                    keys.last_chat(run_id, user_id), session_id, ttl_seconds=self._settings.queue.chat_ttl_seconds
                )
        response = ChatResponse(
            request_id=request_id or _new_id(), run_id=run_id, session_id=session_id, status="queued"
        )
        record = ChatRecord(user_id=user_id, request=request, response=response)
        return await self._enqueue(record, is_new=request_id is None)

    async def last_chat(self, run_id: str, user_id: int) -> str | None:
        """Return the session of a user's last chat with a run; None if there is none, or if it has expired."""
        with _redis_errors():
            stored = await self._store.get(keys.last_chat(run_id, user_id))
            session_id = None if stored is None else stored.decode()
            is_known = session_id is not None and await self._store.exists(keys.chat(run_id, session_id))
        return session_id if is_known else None

    async def get_chat_answer(self, run_id: str, session_id: str, request_id: str) -> ChatRecord:
        """Return a message with its answer so far; raises DATA_NOT_FOUND if it has expired."""
        record = await self._load(ChatRecord, "chat", run_id, request_id)
        if record.response.session_id != session_id:
            raise AppError(ErrorCode.DATA_NOT_FOUND, _EXPIRED)
        return record

    async def delete_chat(self, run_id: str, session_id: str) -> None:
        """Delete a chat and the results of its turns; raises DATA_NOT_FOUND if it has expired."""
        history = await self.get_chat(run_id, session_id)
        answers = (keys.inference("chat", run_id, turn.request_id) for turn in history.turns)
        with _redis_errors():
            await self._store.delete(keys.chat(run_id, session_id), *answers)

    async def get_chat(self, run_id: str, session_id: str) -> ChatHistory:
        """Return the turns of a chat; raises DATA_NOT_FOUND if it has expired."""
        with _redis_errors():
            stored = await self._store.turns(keys.chat(self._runs.get(run_id).run_id, session_id))
        if stored is None:
            raise AppError(ErrorCode.DATA_NOT_FOUND, CHAT_EXPIRED)
        turns = tuple(ChatTurn.model_validate_json(turn) for turn in stored)
        return ChatHistory(run_id=run_id, session_id=session_id, turns=turns)

    async def evaluate(self, run_id: str, request: EvalRequest, *, user_id: int | None = None) -> EvalMetrics:
        """Evaluate a finished run on one of its splits, or on another corpus, and wait for the metrics."""
        return _metrics(await self._wait_for_result(await self.enqueue_evaluate(run_id, request, user_id=user_id)))

    async def wait_for_evaluation(self, record: EvalRecord) -> EvalMetrics:
        """Wait for the metrics of an enqueued evaluation; the worker continues it if the caller is cancelled."""
        stored = await self._stored_result(record)
        _raise_failure(EvalRecord, stored)
        await self._replication.fetch("models", record.response.run_id)
        return _metrics(_parse(EvalRecord, stored))

    async def enqueue_evaluate(
        self, run_id: str, request: EvalRequest, *, user_id: int | None = None, request_id: str | None = None
    ) -> EvalRecord:
        """Enqueue an evaluation and return at once; `get_evaluation` reads its metrics."""
        self._effective(run_id)
        if request.path_override is not None:
            await self._corpora.describe(request.path_override, "path_override")
            await self._replication.store_corpus(self._corpora, request.path_override)
        response = EvalResponse(request_id=request_id or _new_id(), run_id=run_id, status="queued")
        record = EvalRecord(user_id=user_id, request=request, response=response)
        return await self._enqueue(record, is_new=request_id is None)

    async def get_evaluation(self, run_id: str, request_id: str) -> EvalRecord:
        """Return an evaluation request with its metrics so far; raises DATA_NOT_FOUND if it has expired."""
        return await self._load(EvalRecord, "evaluate", run_id, request_id)

    async def score_sections(self, run_id: str, request: SectionsRequest) -> None:
        """Score the texts of an experiment and wait for the end; the losses are files in the folder of the run."""
        self._effective(run_id)
        response = SectionsResponse(request_id=_new_id(), run_id=run_id, status="queued")
        await self._wait_for_result(
            await self._enqueue(SectionsRecord(request=request, response=response, user_id=None))
        )
        await self._replication.fetch("models", run_id)

    async def follow(self, record: RecordT, *, wait_seconds: float) -> RecordT:
        """Wait for the result of a request, at most for some time; return the request with its result so far.

        The worker continues the request when the time is up or the caller is cancelled. Raises DATA_NOT_FOUND if the
        request has expired.
        """
        key, request_id = _key(record), record.response.request_id
        deadline = time.monotonic() + wait_seconds
        with _redis_errors():
            stored = await self._store.get(key)
            while stored and _is_pending(stored) and (left := deadline - time.monotonic()) > 0:
                await self._store.wait_for_answer(request_id, wait_seconds=max(min(left, _POLL_SECONDS), 0.001))
                stored = await self._store.get(key)
        if stored is None:
            raise AppError(ErrorCode.DATA_NOT_FOUND, _EXPIRED)
        return _parse(type(record), stored)

    def _effective(self, run_id: str) -> EffectiveRequest:
        """Return the resolved request of a finished run; raises RUN_NOT_FOUND or RUN_NOT_READY."""
        return self._runs.get(run_id).completed_manifest().effective

    async def _enqueue(self, record: RecordT, *, is_new: bool = True) -> RecordT:
        """Store a request, then enqueue it, so that a worker never reports on a request that is not stored.

        A request that is not new may be stored already; then it is returned with its result so far. Raises CONFLICT
        if another request is stored under its id.
        """
        payload = InferenceJobPayload(
            kind=record.kind, run_id=record.response.run_id, request_id=record.response.request_id
        )
        ttl_seconds = self._settings.queue.result_ttl_seconds
        try:
            with _redis_errors():
                async with asyncio.timeout(_INFERENCE_ENQUEUE_TIMEOUT_SECONDS):
                    if not await self._store.put_new(_key(record), record.model_dump_json(), ttl_seconds=ttl_seconds):
                        record = await self._stored_before(record)
                    if record.response.status == "queued":
                        await self._enqueuer.enqueue(payload)
        except asyncio.CancelledError:  # the request may be enqueued already
            if is_new:
                await self._withdraw(record)
            raise
        return record

    async def _stored_before(self, record: RecordT) -> RecordT:
        """Return the request that is stored under an id; raises CONFLICT if it is another one."""
        stored = await self._store.get(_key(record))
        known = record if stored is None else _parse(type(record), stored)
        if known.request != record.request or known.user_id != record.user_id:
            raise AppError(ErrorCode.CONFLICT, SAME_KEY)
        return known

    async def _withdraw(self, record: RecordT) -> None:
        request_id = record.response.request_id
        async with tolerate_no_redis("withdrawal_failed", request_id=request_id):  # the request expires by itself
            await self._store.delete(_key(record))
            await self._store.dequeue(keys.INTERACTIVE_QUEUE, request_id)

    async def _wait_for_result(self, record: RecordT) -> RecordT:
        """Wait for the result of a request; raises the error that it ended with."""
        return _parse(type(record), await self._wait_for_stored(record))

    async def _wait_for_stored(self, record: RecordT) -> bytes:
        """Wait for the stored result; withdraws the request if the caller is cancelled or time is up."""
        try:
            stored = await self._stored_result(record)
        except (asyncio.CancelledError, AppError):
            await self._withdraw(record)
            raise
        _raise_failure(type(record), stored)
        return stored

    async def _stored_result(self, record: RecordT) -> bytes:
        """Wait for the stored result, failed or not; raises SERVICE_UNAVAILABLE if time is up."""
        request_id = record.response.request_id
        timeout_seconds = self._settings.queue.interactive_timeout_seconds + _MARGIN_SECONDS
        with _redis_errors():
            async with asyncio.timeout(timeout_seconds) as timeout:
                stored = await self._store.get(_key(record))
                while stored is not None and _is_pending(stored):
                    await self._store.wait_for_answer(request_id, wait_seconds=_POLL_SECONDS)
                    stored = await self._store.get(_key(record))
                    # a worker is on it, and itself watches for a stall
                    if record.kind in UNBOUNDED_KINDS and await self._store.exists(keys.in_progress(request_id)):
                        timeout.reschedule(asyncio.get_running_loop().time() + timeout_seconds)
            if stored is None:
                raise TimeoutError
        return stored

    async def _load(self, model: type[RecordT], kind: str, run_id: str, request_id: str) -> RecordT:
        with _redis_errors():
            stored = await self._store.get(keys.inference(kind, self._runs.get(run_id).run_id, request_id))
        if stored is None:
            raise AppError(ErrorCode.DATA_NOT_FOUND, _EXPIRED)
        return _parse(model, stored)


class _ChunkMerger:
    """Orders the chunks of a generation: each once, without gaps."""

    def __init__(self) -> None:
        self._characters: dict[int, int] = {}
        self._ended: set[int] = set()

    def add(self, chunk: GenerateChunk) -> Iterator[GenerateChunk]:
        """Yield the new part of a chunk; nothing if an earlier chunk is missing, which the response will have."""
        known = self._characters.get(chunk.index, 0)
        text = chunk.text[max(0, known - chunk.start) :]
        if chunk.start > known or chunk.index in self._ended or not (text or chunk.stop_reason):
            return
        self._characters[chunk.index] = known + len(text)
        if chunk.stop_reason is not None:
            self._ended.add(chunk.index)
        yield changed(chunk, start=known, text=text)


def _check_not_blank(effective: EffectiveRequest, message: str, *texts: str | None) -> None:
    """Raise INVALID_INPUT if a text has no document: an empty one in a stream, else one of blank lines."""
    for text in texts:
        if not any(document.text for document in documents(text or "", effective.documents)):
            raise AppError(ErrorCode.INVALID_INPUT, message)


def _outputs(record: GenerateRecord | CompletionRecord) -> Iterator[tuple[str, FinishReason]]:
    """Yield the text of each sequence with the reason of its end; a completion knows only one of two reasons."""
    if isinstance(record, GenerateRecord):
        yield from zip(record.response.outputs or (), record.response.stop_reason or (), strict=True)
        return
    for choice in record.response.choices or ():
        yield choice.text, "eos" if choice.finish_reason == "stop" else "max_new_tokens"


@contextlib.contextmanager
def _redis_errors() -> Iterator[None]:
    """Raise SERVICE_UNAVAILABLE in place of errors of Redis."""
    try:
        yield
    except STORE_ERRORS as error:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_RESULT) from error


def _parse(model: type[RecordT], stored: bytes) -> RecordT:
    """Parse a stored request; raises SERVICE_UNAVAILABLE if it is malformed."""
    try:
        return model.model_validate_json(stored)
    except ValidationError:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _UNREADABLE) from None


def _raise_failure(model: type[RecordT], stored: bytes) -> None:
    """Raise the error of a failed request."""
    if _has_status(stored, "failed") and (failure := _parse(model, stored).response.error):
        raise AppError(failure.code, failure.message)


def _metrics(record: EvalRecord) -> EvalMetrics:
    if record.response.metrics is None:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_RESULT)
    return record.response.metrics


def _is_pending(stored: bytes) -> bool:
    return _has_status(stored, "queued") or _has_status(stored, "running")


def _has_status(stored: bytes, status: JobState) -> bool:
    """Check the status of a stored request without parsing its long lists; quotes inside of texts are escaped."""
    return f'"status":"{status}"'.encode() in stored


def _key(record: InferenceRecord) -> str:
    return keys.inference(record.kind, record.response.run_id, record.response.request_id)


def _new_id() -> str:
    return secrets.token_hex(8)
