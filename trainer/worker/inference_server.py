"""The inference child: requests on standard input, a line of JSON at a time; a line for each answer back."""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from select import select
from typing import Annotated, BinaryIO, assert_never

import structlog
import torch
from pydantic import ConfigDict, Field, TypeAdapter

from trainer.artifacts.runs import RunStore
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, RunError
from trainer.contracts.inference import (
    ChatRecord,
    ChatResponse,
    EvalRecord,
    EvalResponse,
    GenerateChunk,
    GenerateRecord,
    GenerateResponse,
    InferenceRecord,
    PredictRecord,
    PredictResponse,
    ScoreRecord,
    ScoreResponse,
    failed_record,
)
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import load_input
from trainer.inference.chat import chat_answer, chat_prompt
from trainer.inference.generation import GenerationJob, generate_together
from trainer.inference.prediction import predict
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.system.files import to_app_error
from trainer.system.hardware import default_threads, give_memory_back, memory_held_bytes
from trainer.system.logs import setup_logging
from trainer.worker.model_cache import LoadedRun, ModelCache
from trainer.worker.reevaluation import reevaluate

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


_batch_adapter: TypeAdapter[list[InferenceRecord]] = TypeAdapter(
    list[Annotated[InferenceRecord, Field(discriminator="kind")]], config=ConfigDict(hide_input_in_errors=True)
)
_answer_adapter: TypeAdapter[InferenceRecord | GenerateChunk] = TypeAdapter(
    Annotated[InferenceRecord | GenerateChunk, Field(discriminator="kind")]
)

_PIECE_BYTES = 1 << 20
_STDIN = 0
_MAX_FREED_BYTES = 128 << 20
"""So much more memory than before may stay with this process, for the next request."""


class Requests:
    """Lines of a file: lists of requests, and between them the ids of those that nobody waits for any more."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._begun: list[bytes] = []
        self._batches: deque[bytes] = deque()
        self._withdrawn: set[str] = set()

    def batches(self) -> Iterator[bytes]:
        """Wait for a list and yield it, until the file ends."""
        while self._batches or self._read():
            while self._batches:
                yield self._batches.popleft()
                self._withdrawn.clear()

    def withdrawn(self) -> Collection[str]:
        """The requests that have been withdrawn by now, of the list that was yielded last; waits for nothing."""
        while select([self._file], [], [], 0)[0] and self._read():
            pass
        return self._withdrawn

    def _read(self) -> bool:
        data = os.read(self._file, _PIECE_BYTES)
        first, *others = data.split(b"\n")
        self._begun.append(first)
        for begun in others:
            line, self._begun = b"".join(self._begun), [begun]
            if line.startswith(b"["):
                self._batches.append(line)
            else:
                self._withdrawn.add(line.decode())
        return bool(data)


def answer_requests(settings: Settings) -> int:
    """Answer until standard input closes; return 0."""
    setup_logging(settings, "model-trainer-worker", sys.stderr)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end of the input is the end, with the answer that is under way
    torch.set_num_threads(settings.queue.inference_threads or default_threads())
    models = ModelCache(RunStore(settings.app.artifacts_root), settings.queue.model_cache_bytes)
    # whatever else is printed must not get between the answers
    requests = Requests(_STDIN)
    held_bytes = memory_held_bytes()
    with open(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        for line in requests.batches():
            _answer_line(line, answers, models, settings, requests)
            del line
            if memory_held_bytes() > held_bytes + _MAX_FREED_BYTES:
                give_memory_back()
                held_bytes = memory_held_bytes()
    return 0


def _answer_line(line: bytes, answers: BinaryIO, models: ModelCache, settings: Settings, requests: Requests) -> None:
    """Answer a list of requests; nothing of it, nor of the answers, is in use when this returns."""
    batch = _batch_adapter.validate_json(line)
    for answered in answer(batch, models, settings, withdrawn=requests.withdrawn):
        answers.write(_answer_adapter.dump_json(answered))
        answers.write(b"\n")
        answers.flush()


def answer(
    records: Sequence[InferenceRecord],
    models: ModelCache,
    settings: Settings,
    *,
    withdrawn: Callable[[], Collection[str]] = tuple,
) -> Iterator[InferenceRecord | GenerateChunk]:
    """Do what records ask of one run, and give each back once that is done; what cannot be done, with its error.

    The pieces of a text that is streamed come before the record that they are of.

    What is no AppError, memory that ran out say, ends the process: its askers are told so, and the next one starts
    anew.
    """
    try:
        loaded = models.get(records[0].response.run_id)
    except AppError as error:
        yield from (failed_record(record, RunError.of(error)) for record in records)
        return
    asked = {record.response.request_id: record for record in records}
    for response in _responses(records, loaded, settings, withdrawn):
        if isinstance(response, GenerateChunk):
            yield response
            continue
        update: dict[str, object] = {"response": response}
        yield asked[response.request_id].model_copy(update=update)


def _responses(
    records: Sequence[InferenceRecord],
    loaded: LoadedRun,
    settings: Settings,
    withdrawn: Callable[[], Collection[str]],
) -> Iterator[ScoreResponse | GenerateResponse | GenerateChunk | PredictResponse | ChatResponse | EvalResponse]:
    corpora = CorpusStore(settings)
    texts: list[ScoringJob] = []
    prompts: list[tuple[GenerationJob, ChatResponse | None]] = []
    for record in records:
        try:
            match record:
                case ScoreRecord(request=to_score, response=score):
                    texts.append(ScoringJob.of(loaded.tokenizer, load_input(to_score, corpora), score))
                case GenerateRecord() | ChatRecord():
                    prompts.append(_continuation(record, loaded, corpora))
                case PredictRecord(request=to_predict, response=prediction):
                    yield predict(loaded.model, loaded.tokenizer, to_predict, prediction, loaded.prefixes)
                case EvalRecord(request=to_measure, response=evaluation):
                    metrics = reevaluate(loaded, to_measure, settings)
                    measured: dict[str, object] = {"status": "completed", "metrics": metrics}
                    yield evaluation.model_copy(update=measured)
                case _:
                    assert_never(record)
        except (AppError, OSError) as error:
            yield failed_record(record, RunError.of(to_app_error(error, settings.app.folders()))).response
    if texts:
        yield from score_texts(loaded.model, loaded.tokenizer, texts)
    if prompts:
        chats = {continuation.request_id: chat for continuation, chat in prompts}
        continuations = [continuation for continuation, _ in prompts]
        for written in generate_together(loaded.model, continuations, withdrawn=withdrawn):
            chat = chats[written.request_id]
            yield written if chat is None or isinstance(written, GenerateChunk) else chat_answer(chat, written)


def _continuation(
    record: GenerateRecord | ChatRecord, loaded: LoadedRun, corpora: CorpusStore
) -> tuple[GenerationJob, ChatResponse | None]:
    """Return the generation job of a request, and for a chat the response without its answer."""
    model, tokenizer = loaded.model, loaded.tokenizer
    if isinstance(record, GenerateRecord):
        prompt = load_input(record.request, corpora)
        return GenerationJob(model, tokenizer, prompt, record.response, is_streamed=record.is_streamed), None
    chat = record.response
    prompt, dropped = chat_prompt(model, tokenizer, record.request, record.turns)
    queued = GenerateResponse(request_id=chat.request_id, run_id=chat.run_id, status="queued")
    told: dict[str, object] = {"turns_dropped": dropped}
    return GenerationJob(model, tokenizer, prompt, queued), chat.model_copy(update=told)
