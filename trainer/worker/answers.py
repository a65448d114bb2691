"""The inference child: a request on standard input, its answer on standard output, a line of JSON each."""

import os
import signal
import sys
from typing import assert_never

import structlog
import torch

from trainer.contracts.errors import AppError, RunError
from trainer.contracts.inference import (
    EvalRecord,
    EvalResponse,
    GenerateRecord,
    InferenceRecord,
    ScoreRecord,
    failed_record,
    inference_adapter,
)
from trainer.contracts.settings import Settings
from trainer.data.tokens import prepare
from trainer.device import resolve
from trainer.generation import generate
from trainer.logs import setup_logging
from trainer.queue import physical_cores
from trainer.runs import RunStore
from trainer.scoring import score_text
from trainer.worker.measure import measure_run, places
from trainer.worker.models import WarmModels

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


def answer_requests(settings: Settings) -> int:
    """Answer until standard input closes; return 0."""
    setup_logging(settings, "model-trainer-worker", sys.stderr)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end of the input is the end, with the answer that is under way
    torch.set_num_threads(physical_cores())
    models = WarmModels(RunStore(settings.app.artifacts_root))
    # whatever else is printed must not get between the answers
    with open(0, "rb", closefd=False) as requests, open(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        for line in requests:
            answered = answer(inference_adapter.validate_json(line), models, settings)
            answers.write(answered.model_dump_json().encode() + b"\n")
            answers.flush()
    return 0


def answer(record: InferenceRecord, models: WarmModels, settings: Settings) -> InferenceRecord:
    """Do what a record asks; a request that cannot be answered is answered with its error.

    What is no AppError, memory that ran out say, ends the process: its asker is told so, and the next one starts anew.
    """
    try:
        return _answer(record, models, settings)
    except AppError as error:
        return failed_record(record, RunError.of(error))


def _answer(record: InferenceRecord, models: WarmModels, settings: Settings) -> InferenceRecord:
    run_id, request_id = record.response.run_id, record.response.request_id
    loaded = models.get(run_id)
    match record:
        case ScoreRecord():
            scored = score_text(loaded.model, loaded.tokenizer, record.request, run_id=run_id, request_id=request_id)
            return ScoreRecord(request=record.request, response=scored)
        case GenerateRecord():
            generated = generate(loaded.model, loaded.tokenizer, record.request, run_id=run_id, request_id=request_id)
            return GenerateRecord(request=record.request, response=generated)
        case EvalRecord():
            effective = loaded.manifest.effective
            compute = resolve(effective)
            _, corpus = prepare(effective, *places(settings, effective), loaded.tokenizer)
            metrics = measure_run(
                loaded.run, effective, loaded.model, loaded.tokenizer, corpus, record.request.split, compute
            )
            measured = EvalResponse(request_id=request_id, run_id=run_id, status="completed", metrics=metrics)
            return EvalRecord(request=record.request, response=measured)
        case _:
            assert_never(record)
