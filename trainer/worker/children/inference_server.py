"""The inference child: requests on standard input, a line of JSON at a time; a line for each answer back."""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from select import select
from typing import Annotated, BinaryIO, assert_never, get_args

import structlog
import torch
from pydantic import ConfigDict, Field, TypeAdapter

from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.runs import RunStore
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.completions import CompletionRecord, CompletionResponse
from trainer.contracts.errors import AppError, RunError
from trainer.contracts.inference import (
    ChatRecord,
    ChatResponse,
    EvalRecord,
    EvalResponse,
    GenerateChunk,
    GenerateRecord,
    GenerateResponse,
    GenerationPrecision,
    InferenceRecord,
    PredictRecord,
    PredictResponse,
    ScoreRecord,
    ScoreResponse,
    SectionsRecord,
    SectionsResponse,
    failed_record,
)
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import load_input
from trainer.inference.chat import chat_answer, chat_prompt
from trainer.inference.completion import CompletionJob, complete_together
from trainer.inference.generation import GenerationJob, generate_together
from trainer.inference.prediction import predict
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.inference.section_scores import score_experiment_texts
from trainer.system.files import to_app_error
from trainer.system.hardware import default_threads, give_memory_back, memory_held_bytes
from trainer.system.logs import setup_logging
from trainer.worker.children.evaluate_run import reevaluate
from trainer.worker.children.model_cache import LoadedRun, ModelCache

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


_batch_adapter: TypeAdapter[list[InferenceRecord]] = TypeAdapter(
    list[Annotated[InferenceRecord, Field(discriminator="kind")]], config=ConfigDict(hide_input_in_errors=True)
)
_PIECE_BYTES = 1 << 20
_PRECISIONS: tuple[GenerationPrecision, ...] = get_args(GenerationPrecision)
"""Continuations of different precision are generated one after the other."""
_Continuation = tuple[GenerationJob, ChatResponse | None]
"""A generation job, and for a chat the response without its answer."""
_Response = (
    ScoreResponse
    | GenerateResponse
    | CompletionResponse
    | PredictResponse
    | ChatResponse
    | EvalResponse
    | SectionsResponse
)
_STDIN = 0
_MAX_HELD_BYTES = 128 << 20
"""Memory of earlier requests that this process may hold for the next one."""


class Requests:
    """Lines of a file: lists of requests, and between them the ids of withdrawn requests."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._unfinished = b""
        self._batches: deque[bytes] = deque()
        self._withdrawn: set[str] = set()

    def batches(self) -> Iterator[bytes]:
        """Wait for a list and yield it, until the file ends."""
        while self._batches or self._read():
            while self._batches:
                yield self._batches.popleft()
                self._withdrawn.clear()

    def withdrawn(self) -> Collection[str]:
        """Return the withdrawn requests of the list that was yielded last, without waiting."""
        while select([self._file], [], [], 0)[0] and self._read():
            pass
        return self._withdrawn

    def _read(self) -> bool:
        data = os.read(self._file, _PIECE_BYTES)
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in lines:
            if line.startswith(b"["):
                self._batches.append(line)
            else:
                self._withdrawn.add(line.decode())
        return bool(data)


def answer_requests(settings: Settings) -> int:
    """Answer until standard input closes; return 0."""
    setup_logging(settings, "model-trainer-worker", sys.stderr)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its input, after the current answer
    torch.set_num_threads(settings.queue.inference_threads or default_threads())
    models = ModelCache(RunStore(settings.app.artifacts_root), settings.queue.model_cache_bytes)
    requests = Requests(_STDIN)
    held_bytes = memory_held_bytes()
    with open(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # other output must not get between the answers
        for line in requests.batches():
            _answer_line(line, answers, models, settings, requests)
            del line
            held_bytes = limit_memory(held_bytes)
    return 0


def limit_memory(held_bytes: int) -> int:
    """Return freed memory to the system if much more than `held_bytes` is held; return the number to compare with."""
    if memory_held_bytes() <= held_bytes + _MAX_HELD_BYTES:
        return held_bytes
    give_memory_back()
    return memory_held_bytes()


def _answer_line(line: bytes, answers: BinaryIO, models: ModelCache, settings: Settings, requests: Requests) -> None:
    """Answer a list of requests; none of their memory is in use when this returns."""
    batch = _batch_adapter.validate_json(line)
    for answered in answer(batch, models, settings, withdrawn=requests.withdrawn):
        answers.write(answered.model_dump_json().encode() + b"\n")
        answers.flush()


def answer(
    records: Sequence[InferenceRecord],
    models: ModelCache,
    settings: Settings,
    *,
    withdrawn: Callable[[], Collection[str]] = tuple,
) -> Iterator[InferenceRecord | GenerateChunk]:
    """Answer requests to one run; yield each record when it is completed or has failed.

    The chunks of a streamed text come before their record. Errors other than AppError and OSError, such as lack of
    memory, end the process: the worker reports them to the clients and starts another process.
    """
    try:
        loaded = models.get(records[0].response.run_id)
    except AppError as error:
        yield from (failed_record(record, RunError.of(error)) for record in records)
        return
    by_id = {record.response.request_id: record for record in records}
    for response in _responses(records, loaded, settings, withdrawn):
        if isinstance(response, GenerateChunk):
            yield response
        else:
            yield changed(by_id[response.request_id], response=response)


def _responses(
    records: Sequence[InferenceRecord], loaded: LoadedRun, settings: Settings, withdrawn: Callable[[], Collection[str]]
) -> Iterator[_Response | GenerateChunk]:
    corpora = CorpusStore(settings)
    texts: list[ScoringJob] = []
    prompts: list[_Continuation] = []
    completions: list[CompletionJob] = []
    model, tokenizer = loaded.model, loaded.tokenizer
    for record in records:
        try:
            match record:
                case ScoreRecord(request=to_score, response=score):
                    texts.append(ScoringJob.of(tokenizer, load_input(to_score, corpora), score))
                case GenerateRecord() | ChatRecord():
                    prompts.append(_continuation(record, loaded, corpora))
                case CompletionRecord(request=to_complete, response=completion, is_streamed=is_streamed):
                    completions.append(
                        CompletionJob(model, tokenizer, to_complete, completion, is_streamed=is_streamed)
                    )
                case PredictRecord(request=to_predict, response=prediction):
                    yield predict(model, tokenizer, to_predict, prediction, loaded.prefixes)
                case EvalRecord(request=to_measure, response=evaluation):
                    metrics = reevaluate(loaded, to_measure, settings)
                    yield changed(evaluation, status="completed", metrics=metrics)
                case SectionsRecord(request=of_experiment, response=sections):
                    experiment = ExperimentStore(settings.app.artifacts_root).get(of_experiment.experiment_id)
                    n_texts = score_experiment_texts(model, tokenizer, loaded.run.path, experiment)
                    yield changed(sections, status="completed", n_texts=n_texts)
                case _:
                    assert_never(record)
        except (AppError, OSError) as error:
            yield failed_record(record, RunError.of(to_app_error(error, settings.app.folders()))).response
    if texts:
        yield from score_texts(model, tokenizer, texts)
    yield from _continued(prompts, loaded, withdrawn)
    yield from complete_together(model, completions, withdrawn=withdrawn)


def _continued(
    prompts: Sequence[_Continuation], loaded: LoadedRun, withdrawn: Callable[[], Collection[str]]
) -> Iterator[GenerateResponse | GenerateChunk | ChatResponse]:
    """Continue prompts and chats, those of each precision together."""
    chats = {job.request_id: chat for job, chat in prompts}
    for precision in _PRECISIONS:
        alike = [job for job, _ in prompts if job.request.precision == precision]
        for written in generate_together(loaded.model, alike, withdrawn=withdrawn):
            chat = chats[written.request_id]
            yield written if chat is None or isinstance(written, GenerateChunk) else chat_answer(chat, written)


def _continuation(record: GenerateRecord | ChatRecord, loaded: LoadedRun, corpora: CorpusStore) -> _Continuation:
    """Return the generation job of a request, and for a chat the response without its answer."""
    model, tokenizer = loaded.model, loaded.tokenizer
    if isinstance(record, GenerateRecord):
        prompt = load_input(record.request, corpora)
        return GenerationJob(model, tokenizer, prompt, record.response, is_streamed=record.is_streamed), None
    chat = record.response
    prompt, dropped = chat_prompt(model, tokenizer, record.request, record.turns)
    queued = GenerateResponse(request_id=chat.request_id, run_id=chat.run_id, status="queued")
    return GenerationJob(model, tokenizer, prompt, queued), changed(chat, turns_dropped=dropped)
