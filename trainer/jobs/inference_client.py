"""What is asked of finished runs: one typed method per question, which is stored, then queued, then waited for."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

import structlog
from pydantic import ValidationError

from trainer.artifacts.artifacts_id import own_artifacts_id
from trainer.artifacts.runs import RunStore
from trainer.config.settings import Settings
from trainer.contracts.base import JobState
from trainer.contracts.compatibility import check_generates, check_scores
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
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
)
from trainer.contracts.jobs import InferenceJobPayload
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import with_text
from trainer.data.normalization import normalized
from trainer.store import keys
from trainer.store.connection import STORE_ERRORS
from trainer.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

PATIENCE_SECONDS = 2.0
"""So long people wait for a store that is away: what is on disk reaches the queue without them."""
_QUEUE_SECONDS = 10.0
"""A question does not: it is given longer, by many who ask at once on a machine that has other work."""
_ANSWER_WAIT_SECONDS = 2.0
_MARGIN_SECONDS = 30.0
"""By so much the worker gives up before its asker."""
_READER_SECONDS = 30.0
RecordT = TypeVar("RecordT", ScoreRecord, GenerateRecord, PredictRecord, ChatRecord, EvalRecord)
_NO_ANSWER = "No worker has answered; try again in a minute."
_UNREADABLE = "What is stored of this question cannot be read: ask once more."
_EXPIRED = "This question and its answer are no longer kept: ask once more."
CHAT_EXPIRED = "This chat is no longer kept: begin a new one."


class Questions:
    """The questions to the finished runs of one installation; `user_id` is who asks, None at a terminal."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.runs = RunStore(settings.app.artifacts_root)
        self.corpora = CorpusStore(settings)
        self._settings = settings
        self._store = store

    async def score(
        self, run_id: str, request: ScoreRequest, *, user_id: int | None = None, is_kept: bool = True
    ) -> ScoreResponse:
        """Score a text with a finished run and wait for the answer; one that is not kept leaves nothing behind."""
        record = await self.enqueue_score(run_id, request, user_id=user_id)
        response = (await self._answered(record)).response
        if not is_kept:
            await self._withdraw(record)
        return response

    async def enqueue_score(self, run_id: str, request: ScoreRequest, *, user_id: int | None = None) -> ScoreRecord:
        """Queue the scoring of a text; returns at once, with the request id that `get_score` finds the answer by."""
        check_scores(request, self.runs.get(run_id).completed_manifest().effective.objective)
        await asyncio.to_thread(with_text, request, self.corpora)
        response = ScoreResponse(request_id=_new_id(), run_id=run_id, status="queued")
        return await self._enqueue(ScoreRecord(user_id=user_id, request=request, response=response))

    async def score_json(self, run_id: str, request: ScoreRequest, *, user_id: int | None = None) -> bytes:
        """Score a text and wait for the record as it is stored, which a process may hand on without reading it."""
        return await self._answer(await self.enqueue_score(run_id, request, user_id=user_id))

    async def get_score(self, run_id: str, request_id: str) -> ScoreRecord:
        """What was asked, and the answer as far as there is one; raises DATA_NOT_FOUND where it has expired."""
        return await self._stored(ScoreRecord, keys.inference("score", self.runs.get(run_id).run_id, request_id))

    def text_as_read(self, run_id: str, text: str) -> str:
        """A text in the form in which a finished run's tokenizer reads it, which the spans of a score are ranges of."""
        return normalized(text, self.runs.get(run_id).completed_manifest().effective.tokenizer.normalization)

    async def generate(self, run_id: str, request: GenerateRequest, *, user_id: int | None = None) -> GenerateResponse:
        """Let a finished run continue a prompt and wait for the answer."""
        return (await self._answered(await self.enqueue_generate(run_id, request, user_id=user_id))).response

    async def enqueue_generate(
        self, run_id: str, request: GenerateRequest, *, user_id: int | None = None
    ) -> GenerateRecord:
        """Queue the continuing of a prompt; returns at once, with the request id of the answer."""
        return await self._enqueue(await self._to_generate(run_id, request, user_id, is_streamed=False))

    async def stream_generate(
        self, run_id: str, request: GenerateRequest, *, user_id: int | None = None
    ) -> AsyncGenerator[GenerateChunk | GenerateResponse, None]:
        """Let a finished run continue a prompt and read along: pieces as they are written, at last the whole answer.

        The pieces of each sequence come in order, and are its output. Closing this, or half a minute without taking the
        next piece, ends the writing. Raises as `generate` does.
        """
        drawn: dict[str, object] = {"seed": secrets.randbits(32) if request.seed is None else request.seed}
        # so a worker that takes it over from another one writes the same
        record = await self._to_generate(run_id, request.model_copy(update=drawn), user_id, is_streamed=True)
        request_id, told = record.response.request_id, _Told()
        try:
            with _away_is_told():
                await self._store.put(keys.reader(request_id), "1", ttl_seconds=_READER_SECONDS)
            await self._enqueue(record)
            async for stored in self._pieces(record):
                for piece in told.new(GenerateChunk.model_validate_json(stored)):
                    yield piece
            response = (await self._answered(record)).response
            for piece in told.rest(response):
                yield piece
            yield response
        finally:
            with contextlib.suppress(*STORE_ERRORS):  # they go away by themselves
                await self._store.forget(keys.reader(request_id), keys.pieces(request_id))

    async def _pieces(self, record: GenerateRecord) -> AsyncGenerator[bytes, None]:
        """The pieces of a text as they are written, until the answer is there, or is not to be expected any more."""
        until = time.monotonic() + self._settings.queue.interactive_timeout_seconds + _MARGIN_SECONDS
        position, has_ended = "0-0", False
        while not has_ended and time.monotonic() < until:
            with _away_is_told():
                heard = await self._store.read_pieces(
                    record.response.request_id,
                    position,
                    wait_seconds=_ANSWER_WAIT_SECONDS,
                    keep_seconds=_READER_SECONDS,
                )
                stored = None if heard.pieces or heard.has_ended else await self._store.get(_key(record))
            for piece in heard.pieces:
                yield piece
            position = heard.position
            # a server that was away may have forgotten its bell
            is_silent = not heard.pieces and not (stored and (_says(stored, "queued") or _says(stored, "running")))
            has_ended = heard.has_ended or is_silent

    async def _to_generate(
        self, run_id: str, request: GenerateRequest, user_id: int | None, *, is_streamed: bool
    ) -> GenerateRecord:
        check_generates(self.runs.get(run_id).completed_manifest().effective.objective)
        await asyncio.to_thread(with_text, request, self.corpora)
        response = GenerateResponse(request_id=_new_id(), run_id=run_id, status="queued")
        return GenerateRecord(user_id=user_id, request=request, response=response, is_streamed=is_streamed)

    async def get_generate(self, run_id: str, request_id: str) -> GenerateRecord:
        """What was asked, and the answer as far as there is one; raises DATA_NOT_FOUND where it has expired."""
        return await self._stored(GenerateRecord, keys.inference("generate", self.runs.get(run_id).run_id, request_id))

    async def predict(self, run_id: str, request: PredictRequest, *, user_id: int | None = None) -> PredictResponse:
        """Ask a finished run for the likeliest next tokens of a text and wait for the answer."""
        return (await self._answered(await self.enqueue_predict(run_id, request, user_id=user_id))).response

    async def enqueue_predict(
        self, run_id: str, request: PredictRequest, *, user_id: int | None = None
    ) -> PredictRecord:
        """Queue the question for the next tokens of a text; returns at once, with the request id of the answer."""
        check_generates(self.runs.get(run_id).completed_manifest().effective.objective)
        response = PredictResponse(request_id=_new_id(), run_id=run_id, status="queued")
        return await self._enqueue(PredictRecord(user_id=user_id, request=request, response=response))

    async def get_predict(self, run_id: str, request_id: str) -> PredictRecord:
        """What was asked, and the answer as far as there is one; raises DATA_NOT_FOUND where it has expired."""
        return await self._stored(PredictRecord, keys.inference("predict", self.runs.get(run_id).run_id, request_id))

    async def chat(self, run_id: str, request: ChatRequest, *, user_id: int | None = None) -> ChatResponse:
        """Say something to a finished run and wait for the answer."""
        return (await self._answered(await self.enqueue_chat(run_id, request, user_id=user_id))).response

    async def enqueue_chat(self, run_id: str, request: ChatRequest, *, user_id: int | None = None) -> ChatRecord:
        """Queue a message; returns at once, with the ids of the chat and of the answer.

        Begins a chat where the request names none; raises DATA_NOT_FOUND for one that is not kept, or no more.
        """
        check_generates(self.runs.get(run_id).completed_manifest().effective.objective)
        session_id = request.session_id or _new_id()
        chat = keys.chat(run_id, session_id)
        if request.session_id is None:
            with _away_is_told():
                await self._store.begin_chat(chat, ttl_seconds=self._settings.queue.chat_ttl_seconds)
        else:
            await self.get_chat(run_id, session_id)
        response = ChatResponse(request_id=_new_id(), run_id=run_id, session_id=session_id, status="queued")
        return await self._enqueue(ChatRecord(user_id=user_id, request=request, response=response))

    async def get_chat(self, run_id: str, session_id: str) -> ChatHistory:
        """What was said in a chat; raises DATA_NOT_FOUND for one that is not kept, or no more."""
        with _away_is_told():
            stored = await self._store.turns(keys.chat(self.runs.get(run_id).run_id, session_id))
        if stored is None:
            raise AppError(ErrorCode.DATA_NOT_FOUND, CHAT_EXPIRED)
        turns = tuple(ChatTurn.model_validate_json(turn) for turn in stored)
        return ChatHistory(run_id=run_id, session_id=session_id, turns=turns)

    async def get_chat_answer(self, run_id: str, session_id: str, request_id: str) -> ChatRecord:
        """A message of a chat, and the answer as far as there is one; raises DATA_NOT_FOUND where it has expired."""
        record = await self._stored(ChatRecord, keys.inference("chat", self.runs.get(run_id).run_id, request_id))
        if record.response.session_id != session_id:
            raise AppError(ErrorCode.DATA_NOT_FOUND, _EXPIRED)
        return record

    async def delete_chat(self, run_id: str, session_id: str) -> None:
        """Forget a chat with all that was said in it; raises as `get_chat` does."""
        history = await self.get_chat(run_id, session_id)
        turns = [keys.inference("chat", run_id, turn.request_id) for turn in history.turns]
        with _away_is_told():
            await self._store.forget(keys.chat(run_id, session_id), *turns)

    async def evaluate(self, run_id: str, request: EvalRequest, *, user_id: int | None = None) -> EvalMetrics:
        """Measure a finished run, on one of its splits or on another text, and wait for the numbers."""
        if request.path_override is not None:
            await self.corpora.describe(request.path_override)
        response = EvalResponse(request_id=_new_id(), run_id=run_id, status="queued")
        record = await self._enqueue(EvalRecord(user_id=user_id, request=request, response=response))
        metrics = (await self._answered(record)).response.metrics
        if metrics is None:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_ANSWER)
        return metrics

    async def _enqueue(self, record: RecordT) -> RecordT:
        """Store a request, then queue it: whatever a worker writes comes after (INF-16)."""
        self.runs.get(record.response.run_id).completed_manifest()
        payload = InferenceJobPayload(
            kind=record.kind, run_id=record.response.run_id, request_id=record.response.request_id
        )
        try:
            ttl_seconds = self._settings.queue.result_ttl_seconds
            async with asyncio.timeout(_QUEUE_SECONDS):
                await self._store.put(_key(record), record.model_dump_json(), ttl_seconds=ttl_seconds)
                artifacts = await asyncio.to_thread(own_artifacts_id, self._settings.app.artifacts_root)
                await self._store.enqueue(
                    keys.INTERACTIVE_QUEUE, "infer", payload.request_id, payload, artifacts=artifacts
                )
        except asyncio.CancelledError:  # it may be there already
            await self._withdraw(record)
            raise
        except STORE_ERRORS as error:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_ANSWER) from error
        return record

    async def _answered(self, record: RecordT) -> RecordT:
        """Wait until a request is answered; raises the error that it ended with."""
        return _read(type(record), await self._answer(record))

    async def _withdraw(self, record: RecordT) -> None:
        """Take a request back, or what is left of it, which its asker has no use for any more."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._store.withdraw(keys.INTERACTIVE_QUEUE, record.response.request_id, _key(record))
        except STORE_ERRORS as error:
            request_id = record.response.request_id
            log.info("request not withdrawn: it ends by itself", request_id=request_id, error=type(error).__name__)

    async def _answer(self, record: RecordT) -> bytes:
        """Wait for the stored answer; a request whose asker goes before it is there is withdrawn."""
        try:
            patience_seconds = self._settings.queue.interactive_timeout_seconds + _MARGIN_SECONDS
            async with asyncio.timeout(patience_seconds) as waiting:
                stored = await self._store.get(_key(record))
                while stored is not None and (_says(stored, "queued") or _says(stored, "running")):
                    bell = keys.answer_bell(record.response.request_id)
                    await self._store.wait_for_answer(bell, wait_seconds=_ANSWER_WAIT_SECONDS)
                    stored = await self._store.get(_key(record))
                    if record.kind in UNBOUNDED_KINDS and await self._store.has(
                        keys.in_progress(record.response.request_id)
                    ):  # its worker, which sees whether it gets on, is there
                        waiting.reschedule(asyncio.get_running_loop().time() + patience_seconds)
            if stored is None:
                raise TimeoutError
        except asyncio.CancelledError:
            await self._withdraw(record)
            raise
        except (*STORE_ERRORS, TimeoutError) as error:
            await self._withdraw(record)
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_ANSWER) from error
        if _says(stored, "failed") and (failure := _read(type(record), stored).response.error):
            raise AppError(failure.code, failure.message)
        return stored

    async def _stored(self, model: type[RecordT], key: str) -> RecordT:
        try:
            stored = await self._store.get(key)
        except STORE_ERRORS as error:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_ANSWER) from error
        if stored is None:
            raise AppError(ErrorCode.DATA_NOT_FOUND, _EXPIRED)
        return _read(model, stored)


class _Told:
    """What was told of the sequences of a text, so that each piece is told once, in its place, and none is missing."""

    def __init__(self) -> None:
        self._characters: dict[int, int] = {}
        self._ended: set[int] = set()

    def new(self, piece: GenerateChunk) -> Iterator[GenerateChunk]:
        """The piece, without what was told already; nothing where pieces before it are missing: the answer has all."""
        told = self._characters.get(piece.index, 0)
        text = piece.text[max(0, told - piece.start) :]
        if piece.start > told or piece.index in self._ended or not (text or piece.stop_reason):
            return
        self._characters[piece.index] = told + len(text)
        if piece.stop_reason is not None:
            self._ended.add(piece.index)
        update: dict[str, object] = {"start": told, "text": text}
        yield piece.model_copy(update=update)

    def rest(self, answer: GenerateResponse) -> Iterator[GenerateChunk]:
        """What of an answer was not told."""
        for index, (text, reason) in enumerate(zip(answer.outputs or (), answer.stop_reason or (), strict=True)):
            whole = GenerateChunk(request_id=answer.request_id, index=index, start=0, text=text, stop_reason=reason)
            yield from self.new(whole)


@contextlib.contextmanager
def _away_is_told() -> Iterator[None]:
    try:
        yield
    except STORE_ERRORS as error:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_ANSWER) from error


def _read(model: type[RecordT], stored: bytes) -> RecordT:
    """A stored request; raises SERVICE_UNAVAILABLE for what is none."""
    try:
        return model.model_validate_json(stored)
    except ValidationError:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _UNREADABLE) from None


def _says(stored: bytes, status: JobState) -> bool:
    """Whether a stored request stands so, found without reading all of it, which may be long.

    A quote inside of a text is escaped there, so no text looks like the field.
    """
    return f'"status":"{status}"'.encode() in stored


def _key(record: InferenceRecord) -> str:
    return keys.inference(record.kind, record.response.run_id, record.response.request_id)


def _new_id() -> str:
    return secrets.token_hex(8)
