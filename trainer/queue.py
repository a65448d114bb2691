"""One typed method per job: check, write to disk, then enqueue; the only way in for bot, HTTP and command line."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, TypeVar

import structlog
from pydantic import Field, TypeAdapter, ValidationError

from trainer.checkpoint_files import newest_whole
from trainer.contracts import keys
from trainer.contracts.base import JobState, now
from trainer.contracts.compatibility import check_generates
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
from trainer.contracts.jobs import InferenceJobPayload, TokenizerTrainPayload, TrainJobPayload
from trainer.contracts.presets import request_hash, resolve
from trainer.contracts.runs import Accepted, CorpusRef, EffectiveRequest, RunRecord, RunStatus, TrainRequest
from trainer.contracts.settings import Settings
from trainer.contracts.store import STORE_ERRORS, Store, connect
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerRecord, TokenizerTrainRequest
from trainer.contracts.validation import parse
from trainer.corpora import CorpusStore
from trainer.data.normalization import normalized
from trainer.data.text import text_files
from trainer.given_text import with_text
from trainer.machine import may_have_cuda, physical_cores
from trainer.runs import Origin, RunDirectory, RunStore, finish_run, manifest_of, new_run_id
from trainer.tokenizer_store import TokenizerDirectory, TokenizerStore, resolve_tokenizer
from trainer.vocabulary import read_manifest, unknown_share

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_ANSWER_WAIT_SECONDS = 2.0
_RING_WAIT_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0
"""So long people wait for a store that is away: what is on disk reaches the queue without them."""
_SAMPLED_LINES = 1000
_MOST_UNKNOWN = 0.5
RecordT = TypeVar("RecordT", ScoreRecord, GenerateRecord, EvalRecord)


class JobQueue:
    """The jobs of one installation."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.runs = RunStore(settings.app.artifacts_root)
        self.corpora = CorpusStore(settings)
        self.tokenizers = TokenizerStore(settings.app.artifacts_root)
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
        return await self.accept(request, await resolve_request(request, self.corpora, self._settings), user_id=user_id)

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
        }
        return await self._accept(old.model_copy(update=own), origin)

    async def _accept(self, record: RunRecord, origin: Origin | None = None) -> Accepted:
        run = await asyncio.to_thread(self._create, record, origin)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
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
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await enqueue_tokenizer(self._store, tokenizer.tokenizer_id)
            except STORE_ERRORS as error:
                log.warning(
                    "tokenizer accepted while the queue is away",
                    tokenizer_id=tokenizer.tokenizer_id,
                    error=type(error).__name__,
                )
        status = tokenizer.status()
        return TokenizerAccepted(tokenizer_id=status.tokenizer_id, job_id=status.tokenizer_id, status=status.status)

    async def score(self, run_id: str, request: ScoreRequest) -> ScoreResponse:
        """Score a text with a finished run and wait for the answer."""
        return (await self._answered(await self.enqueue_score(run_id, request))).response

    async def enqueue_score(self, run_id: str, request: ScoreRequest) -> ScoreRecord:
        """Queue the scoring of a text; returns at once, with the request id that `get_score` finds the answer by."""
        await asyncio.to_thread(with_text, request, self.corpora)
        response = ScoreResponse(request_id=_new_id(), run_id=run_id, status="queued")
        return await self._enqueue(ScoreRecord(request=request, response=response))

    async def score_json(self, run_id: str, request: ScoreRequest) -> bytes:
        """Score a text and wait for the record as it is stored, which a process may hand on without reading it."""
        return await self._answer(await self.enqueue_score(run_id, request))

    async def get_score(self, run_id: str, request_id: str) -> ScoreRecord:
        """What was asked, and the answer as far as there is one; raises DATA_NOT_FOUND where it has expired."""
        return await self._stored(ScoreRecord, keys.inference("score", self.runs.get(run_id).run_id, request_id))

    def text_as_read(self, run_id: str, text: str) -> str:
        """A text in the form in which a finished run's tokenizer reads it, which the spans of a score are ranges of."""
        return normalized(text, self.runs.get(run_id).completed_manifest().effective.tokenizer.normalization)

    async def generate(self, run_id: str, request: GenerateRequest) -> GenerateResponse:
        """Let a finished run continue a prompt and wait for the answer."""
        return (await self._answered(await self.enqueue_generate(run_id, request))).response

    async def enqueue_generate(self, run_id: str, request: GenerateRequest) -> GenerateRecord:
        """Queue the continuing of a prompt; returns at once, with the request id of the answer."""
        check_generates(self.runs.get(run_id).completed_manifest().effective.objective)
        await asyncio.to_thread(with_text, request, self.corpora)
        response = GenerateResponse(request_id=_new_id(), run_id=run_id, status="queued")
        return await self._enqueue(GenerateRecord(request=request, response=response))

    async def get_generate(self, run_id: str, request_id: str) -> GenerateRecord:
        """What was asked, and the answer as far as there is one; raises DATA_NOT_FOUND where it has expired."""
        return await self._stored(GenerateRecord, keys.inference("generate", self.runs.get(run_id).run_id, request_id))

    async def evaluate(self, run_id: str, request: EvalRequest) -> EvalMetrics:
        """Measure a finished run, on one of its splits or on another text, and wait for the numbers."""
        if request.path_override is not None:
            await self.corpora.describe(request.path_override)
        response = EvalResponse(request_id=_new_id(), run_id=run_id, status="queued")
        record = await self._enqueue(EvalRecord(request=request, response=response))
        metrics = (await self._answered(record)).response.metrics
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
                async with asyncio.timeout(_PATIENCE_SECONDS):
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
            async with asyncio.timeout(_PATIENCE_SECONDS):
                lease = await self._store.get(keys.lease(run_id))
                heartbeat = await self._store.get(keys.heartbeat(run_id))
                position = await self._store.queue_position(self._settings.queue.name, run_id)
        except STORE_ERRORS:
            return status.model_copy(update=_UNREACHABLE)
        changes: dict[str, object] = {
            "reachable": status.status == "queued" or lease is not None,
            "last_heartbeat_ts": _unix_seconds(heartbeat) or status.last_heartbeat_ts,
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

    async def _enqueue(self, record: RecordT) -> RecordT:
        """Store a request, then queue it: whatever a worker writes comes after (INF-16)."""
        self.runs.get(record.response.run_id).completed_manifest()
        payload = InferenceJobPayload(
            kind=record.kind, run_id=record.response.run_id, request_id=record.response.request_id
        )
        try:
            ttl_seconds = self._settings.queue.result_ttl_seconds
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._store.put(_key(record), record.model_dump_json(), ttl_seconds=ttl_seconds)
                await self._store.enqueue(keys.INTERACTIVE_QUEUE, "infer", payload.request_id, payload)
        except STORE_ERRORS as error:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_ANSWER) from error
        return record

    async def _answered(self, record: RecordT) -> RecordT:
        """Wait until a request is answered; raises the error that it ended with."""
        return _read(type(record), await self._answer(record))

    async def _answer(self, record: RecordT) -> bytes:
        try:
            async with asyncio.timeout(self._settings.queue.interactive_timeout_seconds + 30):
                stored = await self._store.get(_key(record))
                while stored is not None and (_says(stored, "queued") or _says(stored, "running")):
                    bell = keys.answer_bell(record.response.request_id)
                    await self._store.wait_for_answer(bell, wait_seconds=_ANSWER_WAIT_SECONDS)
                    stored = await self._store.get(_key(record))
            if stored is None:
                raise TimeoutError
        except (*STORE_ERRORS, TimeoutError) as error:
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


def _read(model: type[RecordT], stored: bytes) -> RecordT:
    """A stored request; raises SERVICE_UNAVAILABLE for what is none."""
    try:
        return model.model_validate_json(stored)
    except ValidationError:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _UNREADABLE) from None


def _unix_seconds(stored: bytes | None) -> float | None:
    """A stored time; None for what is none."""
    try:
        return None if stored is None else _seconds_adapter.validate_json(stored)
    except ValidationError:
        return None


def _says(stored: bytes, status: JobState) -> bool:
    """Whether a stored request stands so, found without reading all of it, which may be long.

    A quote inside of a text is escaped there, so no text looks like the field.
    """
    return f'"status":"{status}"'.encode() in stored


def _key(record: ScoreRecord | GenerateRecord | EvalRecord) -> str:
    return keys.inference(record.kind, record.response.run_id, record.response.request_id)


_NO_ANSWER = "No worker has answered; try again in a minute."
_UNREADABLE = "What is stored of this question cannot be read: ask once more."
_seconds_adapter: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(allow_inf_nan=False)])
_EXPIRED = "This question and its answer are no longer kept: ask once more."
_UNREACHABLE: dict[str, object] = {"reachable": False}


async def resolve_request(request: TrainRequest, corpora: CorpusStore, settings: Settings) -> EffectiveRequest:
    """Check a training and all that it names, and fill its absent values; raises AppError, having changed nothing."""

    async def describe(corpus: str | None) -> CorpusRef | None:
        return None if corpus is None else await corpora.describe(corpus)

    _check_device(request.device, settings)
    parent = _parent(request, RunStore(settings.app.artifacts_root))
    tokenizer_folder = _tokenizer_folder(request, parent, settings)
    tokenizer = None if tokenizer_folder is None else read_manifest(tokenizer_folder)
    effective = resolve(
        request,
        corpus=await corpora.describe(request.corpus, minimum_lines=splits_of_corpus(request)),
        validation_corpus=await describe(request.validation_corpus),
        test_corpus=await describe(request.test_corpus),
        threads=request.threads or physical_cores(),
        parent=None if parent is None else parent.completed_manifest(),
        tokenizer=tokenizer,
    )
    _check_files(request, corpora)
    if tokenizer_folder is not None:
        await asyncio.to_thread(_check_vocabulary, tokenizer_folder, corpora, request)
    return effective


async def resolve_origin(run: RunDirectory, corpora: CorpusStore, settings: Settings) -> Origin:
    """Check that a run can be gone on with, and that its request still means the same; raises AppError."""
    manifest = run.manifest()
    if manifest is None:
        raise AppError(ErrorCode.RUN_NOT_READY, f"The run '{run.run_id}' has not ended: it goes on by itself.")
    if manifest.status == "completed":
        raise AppError(
            ErrorCode.RUN_FINISHED,
            f"The run '{run.run_id}' is completed: to train on from its weights, begin another one with"
            " it as `init_from_run_id`.",
        )
    state = await asyncio.to_thread(newest_whole, run.checkpoints)
    if state is None:
        raise AppError(
            ErrorCode.CONFLICT,
            f"The run '{run.run_id}' has no whole checkpoint to go on from: start it anew with `mt train`.",
        )
    await _check_same(run.record(), corpora, settings)
    return Origin(run, state)


async def _check_same(record: RunRecord, corpora: CorpusStore, settings: Settings) -> None:
    """Refuse to go on where the request, asked again, is another training: the checkpoint is of the old one."""
    threads: dict[str, object] = {"threads": record.effective.threads}  # as many as there were, on any machine
    same_texts = False
    for request in (record.request, as_sent(record.request)):
        try:
            again = await resolve_request(request.model_copy(update=threads), corpora, settings)
        except AppError as error:
            raise AppError(error.code, f"The run '{record.run_id}' cannot go on. {error.message}") from None
        if request_hash(again) == record.request_hash:
            return
        same_texts = _texts(again) == _texts(record.effective)
    what = "its request means something else by now" if same_texts else "its text has changed since"
    raise AppError(
        ErrorCode.CONFLICT, f"The run '{record.run_id}' cannot go on: {what}. Start it anew with `mt train`."
    )


def _texts(effective: EffectiveRequest) -> tuple[CorpusRef | None, ...]:
    return effective.corpus, effective.validation_corpus, effective.test_corpus


def as_sent(request: TrainRequest) -> TrainRequest:
    """A request of the first release, which kept the general defaults as if they had been asked for."""
    given: dict[str, object] = request.model_dump(mode="json")
    bare = TrainRequest(model_family=request.model_family, corpus=request.corpus)
    defaults: dict[str, object] = bare.model_dump(mode="json")
    required = bare.model_fields_set
    return parse(TrainRequest, {k: v for k, v in given.items() if k in required or v != defaults[k]})


async def enqueue_training(store: Store, settings: Settings, run_id: str) -> None:
    """Queue a run that is on disk; does nothing where it is queued already."""
    await store.enqueue(*_training_job(settings, run_id))


async def enqueue_tokenizer(store: Store, tokenizer_id: str) -> None:
    """Queue a tokenizer that is on disk; does nothing where it is queued already."""
    await store.enqueue(*_tokenizer_job(tokenizer_id))


async def restore_training(store: Store, settings: Settings, run: RunDirectory) -> bool:
    """Queue an unfinished run anew where the queue has lost it: then True."""
    since = (await asyncio.to_thread(run.record)).created_at.timestamp()
    job, lease_seconds = _training_job(settings, run.run_id), settings.queue.lease_seconds
    return await store.restore(*job, since=since, lease_seconds=lease_seconds)


async def restore_tokenizer(store: Store, settings: Settings, tokenizer: TokenizerDirectory) -> bool:
    """Queue an unfinished tokenizer anew where the queue has lost it: then True."""
    since = (await asyncio.to_thread(tokenizer.record)).created_at.timestamp()
    job, lease_seconds = _tokenizer_job(tokenizer.tokenizer_id), settings.queue.lease_seconds
    return await store.restore(*job, since=since, lease_seconds=lease_seconds)


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


def _check_device(device: str, settings: Settings) -> None:
    """Refuse CUDA where the worker is on this machine, which has none; a worker elsewhere says it by itself."""
    if device.startswith("cuda") and settings.redis.url is None and not may_have_cuda():
        raise AppError(
            ErrorCode.CUDA_NOT_AVAILABLE, f"`device` is '{device}', but this machine has no CUDA: use 'cpu'."
        )


def _check_files(request: TrainRequest, corpora: CorpusStore) -> None:
    """Refuse to split a corpus by files where there are too few."""
    files, needed = len(text_files(corpora.find(request.corpus))), splits_of_corpus(request)
    if request.split_by == "file" and files < needed:
        raise AppError(
            ErrorCode.CORPUS_EMPTY,
            f"`split_by` is 'file', which needs a folder of at least {needed} texts, one for each split;"
            f" '{request.corpus}' has {files}.",
        )


def _parent(request: TrainRequest, runs: RunStore) -> RunDirectory | None:
    """The completed run that a warm start begins from."""
    if request.init_from_run_id is None:
        return None
    try:
        parent = runs.get(request.init_from_run_id)
        parent.completed_manifest()
    except AppError as error:
        raise AppError(error.code, f"`init_from_run_id` names no run to start from. {error.message}") from None
    return parent


def _tokenizer_folder(request: TrainRequest, parent: RunDirectory | None, settings: Settings) -> Path | None:
    """Where the tokenizer is that the run is to use; None for one that makes its own."""
    if parent is not None:
        return parent.tokenizer
    if request.tokenizer_id is None:
        return None
    tokenizers = TokenizerStore(settings.app.artifacts_root)
    tokenizers.completed_manifest(request.tokenizer_id)
    return tokenizers.folder(request.tokenizer_id)


def _check_vocabulary(tokenizer_folder: Path, corpora: CorpusStore, request: TrainRequest) -> None:
    """Refuse a text that the given tokenizer hardly knows: its model would learn to predict unknown tokens."""
    lines = corpora.sample_lines(request.corpus, _SAMPLED_LINES, request.seed)
    unknown = unknown_share(tokenizer_folder, lines)
    if unknown > _MOST_UNKNOWN:
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"The tokenizer does not know {unknown:.0%} of the tokens of '{request.corpus}': train one on texts like it"
            " (`mt tokenizer train`), or start from a run in the same script.",
        )


def splits_of_corpus(request: TrainRequest) -> int:
    """How many parts are cut from the corpus, each of which needs a line."""
    cut_test = request.test_corpus is None and request.test_fraction > 0
    return 1 + (request.validation_corpus is None) + cut_test


def _new_id() -> str:
    return secrets.token_hex(8)
