"""Payloads of queued jobs: ids only; each reader validates them."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.inference import InferenceKind


class TrainJobPayload(Frozen):
    run_id: Identifier


class TokenizerTrainPayload(Frozen):
    tokenizer_id: Identifier


class ExperimentPayload(Frozen):
    experiment_id: Identifier


class InferenceJobPayload(Frozen):
    kind: InferenceKind
    run_id: Identifier
    request_id: Identifier


class JobDefinition(Frozen):
    """A job as arq stores it; `a` is the payload, `et` the time of queueing in milliseconds since 1970.

    `i` is the id of the artifacts folder that has the run.
    """

    t: None
    f: str
    a: tuple[dict[str, str]]
    k: Annotated[dict[str, str], Field(max_length=0)]
    et: Annotated[int, Field(ge=0, lt=1 << 47)]
    i: str = ""


class WorkerInfo(Frozen):
    """The record that a worker publishes of itself."""

    name: str
    """Host and process id."""
    version: str
    slots: int
    """Runs that it trains at the same time."""
    seen_at: float
    """Unix time."""


job_id_adapter: TypeAdapter[str] = TypeAdapter(Identifier)

JobPayload = TrainJobPayload | TokenizerTrainPayload | ExperimentPayload | InferenceJobPayload
