"""The inference child: a line of JSON for each list of requests; back an empty line, and a line for each answer."""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from select import select
from typing import BinaryIO

import structlog
import torch
from pydantic import ConfigDict, TypeAdapter

from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.runs import RunStore
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, RunError
from trainer.contracts.evaluations import EvalRecord, EvalResponse
from trainer.contracts.generations import GenerateChunk
from trainer.contracts.inference import AnyRecord
from trainer.contracts.inference_fields import InferenceRecord, failed_record
from trainer.contracts.sections import SectionsRecord, SectionsResponse
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import load_input
from trainer.data.line_keys import lines_of_corpus
from trainer.inference.kinds import COMPUTE, Compute, alone
from trainer.inference.section_scores import score_experiment_texts
from trainer.system.files import to_app_error
from trainer.system.hardware import default_threads, give_memory_back, memory_held_bytes
from trainer.system.logs import setup_logging
from trainer.worker.children.evaluate_run import reevaluate
from trainer.worker.children.model_cache import LoadedRun, ModelCache

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


_batch_adapter: TypeAdapter[list[AnyRecord]] = TypeAdapter(
    list[AnyRecord], config=ConfigDict(hide_input_in_errors=True)
)
_PIECE_BYTES = 1 << 20
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
    runs, corpora = RunStore(settings.app.artifacts_root), CorpusStore(settings)
    models = ModelCache(runs, corpora, settings.app.corpus_cache, settings.queue.model_cache_bytes)
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
    """Take a list of requests with an empty line and answer them; none of their memory is in use when this returns."""
    answers.write(b"\n")
    answers.flush()
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
    """Answer requests of one kind to one model; yield each record when it is completed or has failed.

    The chunks of a streamed text come before their record. Errors other than AppError and OSError, such as lack of
    memory, end the process: the worker reports them to the clients and starts another process.
    """
    try:
        loaded = models.get(records[0].response.model)
    except AppError as error:
        yield from (failed_record(record, RunError.of(error)) for record in records)
        return
    by_id = {record.response.request_id: record for record in records}
    corpora, complete = CorpusStore(settings), list[InferenceRecord]()
    for record in records:
        try:
            complete.append(changed(record, request=load_input(record.request, corpora)))
        except (AppError, OSError) as error:
            yield failed_record(record, RunError.of(to_app_error(error, settings.app.folders())))
    for response in _kinds(settings)[records[0].kind](loaded, complete, withdrawn):
        if isinstance(response, GenerateChunk):
            yield response
        else:
            yield changed(by_id[response.request_id], response=response)


def _kinds(settings: Settings) -> Mapping[str, Compute[LoadedRun]]:
    """Return the functions of all kinds: those that need a model only, and those that write to its run."""

    def evaluate(loaded: LoadedRun, record: EvalRecord) -> EvalResponse:
        metrics = reevaluate(loaded, record.request, settings)
        return changed(record.response, status="completed", metrics=metrics)

    def score_sections(loaded: LoadedRun, record: SectionsRecord) -> SectionsResponse:
        experiment = ExperimentStore(settings.app.artifacts_root).get(record.request.experiment_id)
        looks, texts, accepted = LookLedger.of(settings), experiment.texts(), experiment.record()
        for text in () if texts is None else texts.texts:
            looks.record(text.test_id, [record.response.model], "experiment", accepted.owner)
        measured = [(record.response.model, loaded.named.effective)]
        for passages in accepted.passages.values():
            lines = lines_of_corpus(CorpusStore(settings).find(passages.name))
            looks.read_text(measured, lines, "experiment", accepted.owner)
        n_texts = score_experiment_texts(loaded.model, loaded.tokenizer, loaded.named.run.path, experiment)
        return changed(record.response, status="completed", n_texts=n_texts)

    folders = settings.app.folders()
    return {
        **COMPUTE,
        "evaluate": alone(EvalRecord, evaluate, folders),
        "sections": alone(SectionsRecord, score_sections, folders),
    }
