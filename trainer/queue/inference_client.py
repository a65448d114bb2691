"""Client for inference on finished runs: stores a request, enqueues it and waits for its result."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Iterator

import structlog
from pydantic import BaseModel, ValidationError

from trainer.artifacts.checkpoints import NamedModel, named_model
from trainer.config.settings import Settings
from trainer.contracts.base import JobState, changed, narrowed
from trainer.contracts.chats import CHAT_EXPIRED, ChatHistory, ChatRequest, ChatResponse, ChatTurn
from trainer.contracts.completions import CompletionResponse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import FinishReason, GenerateChunk, GenerateResponse
from trainer.contracts.inference_fields import (
    NO_RESULT,
    Asks,
    AsksForStream,
    InferenceRecord,
    RecordT,
    Response,
    ResponseT,
)
from trainer.contracts.jobs import InferenceJobPayload
from trainer.contracts.wording import EXPIRED, SAME_KEY
from trainer.data.normalization import normalized
from trainer.queue.enqueue import Enqueuer
from trainer.queue.inference_kinds import KINDS, kind_of, new_record
from trainer.queue.request_looks import count_look
from trainer.queue.stores import Stores
from trainer.store import keys
from trainer.store.connection import STORE_ERRORS, tolerate_no_redis
from trainer.store.refusals import refusal
from trainer.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_INFERENCE_ENQUEUE_TIMEOUT_SECONDS = 10.0
"""Longer, because an inference request is on no disk; many requests at once slow a busy machine down."""
_POLL_SECONDS = 2.0
_MARGIN_SECONDS = 30.0
"""The worker gives up this much earlier than the client."""
_READER_SECONDS = 30.0
_UNREADABLE = "The stored result cannot be read: send the request again."


class InferenceClient:
    """Inference requests to the finished runs of one installation; `user_id` is None at a terminal."""

    def __init__(self, settings: Settings, store: Store, enqueuer: Enqueuer, stores: Stores) -> None:
        self._settings = settings
        self._store = store
        self._enqueuer = enqueuer
        self._runs = stores.runs
        self._corpora = stores.corpora
        self._looks = stores.looks
        self._replication = stores.replication

    async def ask(
        self,
        model: str,
        request: Asks[ResponseT],
        *,
        user_id: int | None = None,
        api_key: str | None = None,
        request_id: str | None = None,
        is_kept: bool = True,
    ) -> ResponseT:
        """Submit a request to a model, by its name, and wait for its result.

        `is_kept=False` deletes the stored result afterwards. Withdraws the request if the caller is cancelled or time
        is up.
        """
        submitted = self.submit(model, request, user_id=user_id, api_key=api_key, request_id=request_id)
        return await self._answer(await submitted, is_kept=is_kept)

    async def ask_for_job(self, model: str, request: Asks[ResponseT], *, is_kept: bool) -> ResponseT:
        """Ask as `ask` does for a job, whose texts were compared with locked ones when it was accepted."""
        response, record = await self._new_record(model, request, None, is_of_job=True)
        return await self._answer(await self._queued(response, record), is_kept=is_kept)

    async def _queued(self, response: ResponseT, record: InferenceRecord, *, is_new: bool = True) -> ResponseT:
        """Enqueue a request, and return its response so far."""
        return narrowed(type(response), (await self._enqueue(record, is_new=is_new)).response)

    async def _answer(self, response: ResponseT, *, is_kept: bool) -> ResponseT:
        """Wait for the result of a request, as `ask` does."""
        answered = _parsed_response(response, await self._wait_for_stored(response, withdraws=True))
        if not is_kept:
            await self._withdraw(answered)
        return answered

    async def ask_json(self, model: str, request: Asks[ResponseT], *, user_id: int | None = None) -> bytes:
        """Return the stored record of a result as JSON, which the bot passes on without parsing it."""
        return await self._wait_for_stored(await self.submit(model, request, user_id=user_id), withdraws=True)

    async def submit(
        self,
        model: str,
        request: Asks[ResponseT],
        *,
        user_id: int | None = None,
        api_key: str | None = None,
        request_id: str | None = None,
    ) -> ResponseT:
        """Enqueue a request and return its response so far at once; `wait` and `get` read its result.

        A look at a test split is counted before; raises TEST_LOCKED for one that is locked.

        With a `request_id`, a request that is stored under it is returned and not enqueued again; raises CONFLICT if
        that is another request. A chat message without a session starts a new chat, whose id is the request's; raises
        DATA_NOT_FOUND for a chat that has expired.
        """
        response, record = await self._new_record(model, request, user_id, request_id, api_key)
        return await self._queued(response, record, is_new=request_id is None)

    async def wait(self, response: ResponseT) -> ResponseT:
        """Wait for the result of a request; raises the error that it ended with.

        The worker continues the request if the caller is cancelled.
        """
        return _parsed_response(response, await self._wait_for_stored(response, withdraws=False))

    async def get(self, model: type[RecordT], run_id: str, request_id: str) -> RecordT:
        """Return a request with its result so far; raises DATA_NOT_FOUND if it has expired."""
        [kind] = [kind for kind in KINDS.values() if kind.record is model]
        with _redis_errors():
            stored = await self._store.get(keys.inference(kind.name, self._runs.get(run_id).run_id, request_id))
        if stored is None:
            raise AppError(ErrorCode.DATA_NOT_FOUND, EXPIRED)
        return _parse(model, stored)

    async def delete(self, model: type[InferenceRecord], run_id: str, request_id: str) -> None:
        """Delete a result, or withdraw the request for it; raises DATA_NOT_FOUND if it has expired."""
        await self._withdraw((await self.get(model, run_id, request_id)).response)

    async def follow(self, response: ResponseT, *, wait_seconds: float) -> ResponseT:
        """Wait for the result of a request, at most for some time; return the response so far, also a failed one.

        Raises DATA_NOT_FOUND if the request has expired.
        """
        key, deadline = _key(response), time.monotonic() + wait_seconds
        with _redis_errors():
            stored = await self._store.get(key)
            while stored and _is_pending(stored) and (left := deadline - time.monotonic()) > 0:
                seconds = max(min(left, _POLL_SECONDS), 0.001)
                await self._store.wait_for_answer(response.request_id, wait_seconds=seconds)
                stored = await self._store.get(key)
        if stored is None:
            raise AppError(ErrorCode.DATA_NOT_FOUND, EXPIRED)
        return _parsed_response(response, stored)

    async def stream(
        self, model: str, request: AsksForStream[ResponseT], *, user_id: int | None = None
    ) -> AsyncGenerator[GenerateChunk | ResponseT, None]:
        """Generate text and yield chunks while it is generated, then the complete response.

        The chunks of each sequence come in order and add up to its output. Closing the generator ends the generation;
        so does not reading a chunk for half a minute. Raises as `ask` does.
        """
        # with a fixed seed, a second worker that takes the request over generates the same chunks
        seeded = request if request.seed is not None else request.model_copy(update={"seed": secrets.randbits(32)})
        response, record = await self._new_record(model, seeded, user_id)
        request_id, chunks = response.request_id, _ChunkMerger()
        try:
            with _redis_errors():
                await self._store.put(keys.reader(request_id), "1", ttl_seconds=_READER_SECONDS)
            await self._enqueue(changed(record, is_streamed=True))
            async for stored in self._read_chunks(response):
                for chunk in chunks.add(GenerateChunk.model_validate_json(stored)):
                    yield chunk
            completed = _parsed_response(response, await self._wait_for_stored(response, withdraws=True))
            for index, (text, reason) in enumerate(_outputs(completed)):
                complete = GenerateChunk(request_id=request_id, index=index, start=0, text=text, stop_reason=reason)
                for chunk in chunks.add(complete):
                    yield chunk
            yield completed
        finally:
            with contextlib.suppress(*STORE_ERRORS):  # both keys expire by themselves
                await self._store.delete(keys.reader(request_id), keys.pieces(request_id))

    def normalize_input(self, model: str, text: str) -> str:
        """Return a text as the tokenizer of a model reads it; the spans of a score are ranges of this text.

        Raises RUN_NOT_READY for a run that has no model.
        """
        return normalized(text, named_model(self._runs, model).effective.tokenizer.normalization)

    async def last_chat(self, run_id: str, user_id: int) -> str | None:
        """Return the session of a user's last chat with a run; None if there is none, or if it has expired."""
        with _redis_errors():
            stored = await self._store.get(keys.last_chat(run_id, user_id))
            session_id = None if stored is None else stored.decode()
            is_known = session_id is not None and await self._store.exists(keys.chat(run_id, session_id))
        return session_id if is_known else None

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

    async def _chat_fields(
        self, run_id: str, request: object, user_id: int | None, request_id: str
    ) -> dict[str, object]:
        """Return the session of a message, for which a new chat begins if it has none; nothing for other requests."""
        if not isinstance(request, ChatRequest):
            return {}
        session_id, ttl_seconds = request.session_id or request_id, self._settings.queue.chat_ttl_seconds
        if request.session_id is not None:
            await self.get_chat(run_id, session_id)
        with _redis_errors():
            if request.session_id is None:
                await self._store.begin_chat(keys.chat(run_id, session_id), ttl_seconds=ttl_seconds)
            if user_id is not None:
                await self._store.put(keys.last_chat(run_id, user_id), session_id, ttl_seconds=ttl_seconds)
        return {"session_id": session_id}

    async def _new_record(
        self,
        model: str,
        request: Asks[ResponseT],
        user_id: int | None,
        request_id: str | None = None,
        api_key: str | None = None,
        *,
        is_of_job: bool = False,
    ) -> tuple[ResponseT, InferenceRecord]:
        """Check a request for a model; return its response so far, and its record, which is not stored yet."""
        kind = kind_of(request)
        named: NamedModel = await asyncio.to_thread(named_model, self._runs, model)
        run_id, effective = named.run.run_id, named.effective
        kind.supports(request, effective.objective)
        if request.corpus is not None and request.corpus_field is not None:
            name = await asyncio.to_thread(self._corpora.full_name, request.corpus, request.corpus_field)
            request = request.model_copy(update={request.corpus_field: name})
        await kind.check(request, effective, self._corpora)
        by = api_key if user_id is None else user_id
        await asyncio.to_thread(count_look, self._looks, self._corpora, named, request, by, is_of_job=is_of_job)
        await self._replication.store_corpus(self._corpora, request.corpus)
        request_id = request_id or _new_id()
        place: dict[str, object] = {"run_id": run_id, "checkpoint": named.step}
        place |= await self._chat_fields(run_id, request, user_id, request_id)
        response, record = new_record(request, request_id=request_id, **place)
        return response, changed(record, user_id=user_id, api_key=api_key)

    async def _enqueue(self, record: InferenceRecord, *, is_new: bool = True) -> InferenceRecord:
        """Store a request, then enqueue it, so that a worker never reports on a request that is not stored.

        A request that is not new may be stored already; then it is returned with its result so far. Raises CONFLICT
        if another request is stored under its id.
        """
        response, value = record.response, record.model_dump_json()
        payload = InferenceJobPayload(kind=kind_of(record).name, run_id=response.run_id, request_id=response.request_id)
        ttl_seconds = self._settings.queue.result_ttl_seconds
        try:
            with _redis_errors():
                async with asyncio.timeout(_INFERENCE_ENQUEUE_TIMEOUT_SECONDS):
                    if not await self._store.put_new(_key(response), value, ttl_seconds=ttl_seconds):
                        record = await self._stored_before(record)
                    if record.response.status == "queued":
                        await self._enqueuer.enqueue(payload)
        except asyncio.CancelledError:  # the request may be enqueued already
            if is_new:
                await self._withdraw(response)
            raise
        return record

    async def _stored_before(self, record: InferenceRecord) -> InferenceRecord:
        """Return the request that is stored under an id; raises CONFLICT if it is another one."""
        stored = await self._store.get(_key(record.response))
        known = record if stored is None else _parse(type(record), stored)
        is_same = known.response.model == record.response.model and known.owner == record.owner
        if known.request != record.request or not is_same:
            raise AppError(ErrorCode.CONFLICT, SAME_KEY)
        return known

    async def _withdraw(self, response: Response) -> None:
        request_id, found = response.request_id, [_key(response)]
        if isinstance(response, ChatResponse) and response.session_id == request_id:
            found.append(keys.chat(response.run_id, request_id))  # the chat has begun with this message
        async with tolerate_no_redis("withdrawal_failed", request_id=request_id):  # the request expires by itself
            await self._store.delete(*found)
            await self._store.dequeue(keys.INTERACTIVE_QUEUE, request_id)

    async def _wait_for_stored(self, response: Response, *, withdraws: bool) -> bytes:
        """Wait for the stored result; raises the error that it ended with, or SERVICE_UNAVAILABLE if time is up."""
        try:
            stored = await self._stored_result(response)
        except (asyncio.CancelledError, AppError):
            if withdraws:
                await self._withdraw(response)
            raise
        if _status_of(stored) == "failed" and (failure := _parsed_response(response, stored).error):
            raise AppError(failure.code, failure.message)
        if kind_of(response).writes_run:
            await self._replication.fetch("models", response.run_id)
        return stored

    async def _stored_result(self, response: Response) -> bytes:
        """Wait for the stored result, failed or not; raises SERVICE_UNAVAILABLE if time is up."""
        key, request_id, is_unbounded = _key(response), response.request_id, kind_of(response).is_unbounded
        timeout_seconds = self._settings.queue.interactive_timeout_seconds + _MARGIN_SECONDS
        with _redis_errors():
            async with asyncio.timeout(timeout_seconds) as timeout:
                stored = await self._store.get(key)
                while stored is not None and _is_pending(stored):
                    await self._store.wait_for_answer(request_id, wait_seconds=_POLL_SECONDS)
                    stored = await self._store.get(key)
                    # a worker is on it, and itself watches for a stall
                    if is_unbounded and await self._store.exists(keys.in_progress(request_id)):
                        timeout.reschedule(asyncio.get_running_loop().time() + timeout_seconds)
            if stored is None:
                raise TimeoutError
        return stored

    async def _read_chunks(self, response: Response) -> AsyncGenerator[bytes, None]:
        """Yield stored chunks until the result is stored, or is no longer to be expected."""
        until = time.monotonic() + self._settings.queue.interactive_timeout_seconds + _MARGIN_SECONDS
        position, has_ended = "0-0", False
        while not has_ended and time.monotonic() < until:
            with _redis_errors():
                batch = await self._store.read_pieces(
                    response.request_id, position, wait_seconds=_POLL_SECONDS, keep_seconds=_READER_SECONDS
                )
                stored = None if batch.pieces or batch.has_ended else await self._store.get(_key(response))
            for piece in batch.pieces:
                yield piece
            position = batch.position
            # a restarted server may have lost the notification
            is_done = not batch.pieces and not (stored and _is_pending(stored))
            has_ended = batch.has_ended or is_done


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


def _outputs(response: Response) -> Iterator[tuple[str, FinishReason]]:
    """Yield the text of each sequence with the reason of its end; a completion knows only one of two reasons."""
    if isinstance(response, GenerateResponse):
        yield from zip(response.outputs or (), response.stop_reason or (), strict=True)
        return
    for choice in narrowed(CompletionResponse, response).choices or ():
        yield choice.text, "eos" if choice.finish_reason == "stop" else "max_new_tokens"


@contextlib.contextmanager
def _redis_errors() -> Iterator[None]:
    """Raise SERVICE_UNAVAILABLE with the reason in place of errors of Redis."""
    try:
        yield
    except STORE_ERRORS as error:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, refusal(error) or NO_RESULT) from error


def _parse(model: type[RecordT], stored: bytes) -> RecordT:
    """Parse a stored request; raises SERVICE_UNAVAILABLE if it is malformed."""
    try:
        return model.model_validate_json(stored)
    except ValidationError:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _UNREADABLE) from None


def _parsed_response(response: ResponseT, stored: bytes) -> ResponseT:
    """Parse the later state of a response."""
    return narrowed(type(response), _parse(kind_of(response).record, stored).response)


def _is_pending(stored: bytes) -> bool:
    return _status_of(stored) in ("queued", "running")


class _Progress(BaseModel):
    status: JobState


class _Stored(BaseModel):
    """The part of a stored request that tells whether it is done; its long lists are not built."""

    response: _Progress


def _status_of(stored: bytes) -> JobState:
    """Return the status of a stored request; raises SERVICE_UNAVAILABLE if it is malformed."""
    try:
        return _Stored.model_validate_json(stored).response.status
    except ValidationError:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _UNREADABLE) from None


def _key(response: Response) -> str:
    return keys.inference(kind_of(response).name, response.run_id, response.request_id)


def _new_id() -> str:
    return secrets.token_hex(8)
