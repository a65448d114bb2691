"""The inference child: requests on standard input, a line of JSON at a time; a line for each answer back."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, assert_never

import structlog
import torch
from pydantic import ConfigDict, Field, TypeAdapter

from trainer.contracts.compatibility import check_generates
from trainer.contracts.errors import AppError, RunError
from trainer.contracts.inference import (
    EvalRecord,
    EvalResponse,
    GenerateRecord,
    GenerateRequest,
    GenerateResponse,
    InferenceRecord,
    ScoreRecord,
    ScoreResponse,
    failed_record,
)
from trainer.contracts.settings import Settings
from trainer.corpora import CorpusStore
from trainer.generation import generate_together
from trainer.given_text import with_text
from trainer.logs import setup_logging
from trainer.machine import physical_cores
from trainer.runs import RunStore
from trainer.scoring import TextToScore, read_text, score_texts
from trainer.worker.measure import measure_again
from trainer.worker.models import LoadedRun, WarmModels

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


_batch_adapter: TypeAdapter[list[InferenceRecord]] = TypeAdapter(
    list[Annotated[InferenceRecord, Field(discriminator="kind")]], config=ConfigDict(hide_input_in_errors=True)
)


def answer_requests(settings: Settings) -> int:
    """Answer until standard input closes; return 0."""
    setup_logging(settings, "model-trainer-worker", sys.stderr)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end of the input is the end, with the answer that is under way
    torch.set_num_threads(physical_cores())
    models = WarmModels(RunStore(settings.app.artifacts_root), settings.queue.warm_model_bytes)
    # whatever else is printed must not get between the answers
    with open(0, "rb", closefd=False) as requests, open(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        for line in requests:
            for answered in answer(_batch_adapter.validate_json(line), models, settings):
                answers.write(answered.model_dump_json().encode() + b"\n")
                answers.flush()
    return 0


def answer(records: Sequence[InferenceRecord], models: WarmModels, settings: Settings) -> Iterator[InferenceRecord]:
    """Do what records ask of one run, and give each back once that is done; what cannot be done, with its error.

    What is no AppError, memory that ran out say, ends the process: its askers are told so, and the next one starts
    anew.
    """
    try:
        loaded = models.get(records[0].response.run_id)
    except AppError as error:
        yield from (failed_record(record, RunError.of(error)) for record in records)
        return
    asked = {record.response.request_id: record for record in records}
    for response in _responses(records, loaded, settings):
        update: dict[str, object] = {"response": response}
        yield asked[response.request_id].model_copy(update=update)


def _responses(
    records: Sequence[InferenceRecord], loaded: LoadedRun, settings: Settings
) -> Iterator[ScoreResponse | GenerateResponse | EvalResponse]:
    corpora = CorpusStore(settings)
    texts: list[TextToScore] = []
    prompts: list[tuple[GenerateRequest, GenerateResponse]] = []
    for record in records:
        try:
            match record:
                case ScoreRecord(request=to_score, response=score):
                    texts.append(read_text(loaded.tokenizer, with_text(to_score, corpora), score))
                case GenerateRecord(request=to_continue, response=generation):
                    check_generates(loaded.model.objective)
                    prompts.append((with_text(to_continue, corpora), generation))
                case EvalRecord(request=to_measure, response=evaluation):
                    metrics = measure_again(loaded, to_measure, settings)
                    measured: dict[str, object] = {"status": "completed", "metrics": metrics}
                    yield evaluation.model_copy(update=measured)
                case _:
                    assert_never(record)
        except AppError as error:
            yield failed_record(record, RunError.of(error)).response
    if texts:
        yield from score_texts(loaded.model, loaded.tokenizer, texts)
    if prompts:
        yield from generate_together(loaded.model, loaded.tokenizer, prompts)
