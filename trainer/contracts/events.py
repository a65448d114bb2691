"""What happens to a run, as its event log and the stream tell it: no paths, no corpus text, finite numbers."""

from datetime import datetime
from typing import Annotated, Literal, TypedDict

from pydantic import Field, TypeAdapter

from trainer.contracts.base import Frozen, Identifier, Sha256, Timestamp, now
from trainer.contracts.errors import ErrorClass, ErrorCode
from trainer.contracts.inference import InferenceKind
from trainer.contracts.models import ModelFamily


class EventBase(Frozen):
    """`event_id` is run:kind:step, so that an event that is told again after a resume is known as the same."""

    event_id: str
    seq: Annotated[int, Field(ge=0)] = 0
    """The place in the run's log, from 1; given by the log."""
    ts: Timestamp
    job_id: Identifier
    user_id: int | None


class Stamp(TypedDict):
    """What every event says of itself."""

    event_id: str
    ts: datetime
    job_id: str
    user_id: int | None


def stamp(run_id: str, user_id: int | None, key: str, at: datetime | None = None) -> Stamp:
    """The stamp of a run's event that is the only one with its key (kind:step)."""
    return Stamp(event_id=f"{run_id}:{key}", ts=at or now(), job_id=run_id, user_id=user_id)


class JobQueued(EventBase):
    type: Literal["trainer.job.queued.v1"] = "trainer.job.queued.v1"


class JobStarted(EventBase):
    """A child has taken the run up; `attempt` counts from 1."""

    type: Literal["trainer.job.started.v1"] = "trainer.job.started.v1"
    queue: str
    attempt: int


class JobProgress(EventBase):
    """The run entered a phase that has no steps: reading, testing."""

    type: Literal["trainer.job.progress.v1"] = "trainer.job.progress.v1"
    progress: Annotated[float, Field(ge=0, le=100)]
    message: str
    payload: dict[str, float] = Field(default_factory=dict)


class JobCompleted(EventBase):
    type: Literal["trainer.job.completed.v1"] = "trainer.job.completed.v1"
    result_id: Identifier
    result_bytes: int


class JobFailed(EventBase):
    type: Literal["trainer.job.failed.v1"] = "trainer.job.failed.v1"
    error_kind: Literal["user", "system"]
    code: ErrorCode
    error_class: ErrorClass = Field(alias="class")
    message: str


class JobCancelled(EventBase):
    type: Literal["trainer.job.cancelled.v1"] = "trainer.job.cancelled.v1"


class MetricsConfig(EventBase):
    """What the run resolved to when training began."""

    type: Literal["trainer.metrics.config.v1"] = "trainer.metrics.config.v1"
    model_family: ModelFamily
    model_size: str | None
    total_epochs: int
    total_steps: int
    batch_size: int
    learning_rate: float
    params: int
    vocab_size: int
    device: str
    precision: str
    threads: int
    tokenizer_id: str


class Progress(Frozen):
    """How training stands after `step`; losses in nats per predicted token.

    The training loss is the mean since the last row of the curve; `val_*` are there where they were just measured.
    """

    epoch: int
    total_epochs: int
    step: int
    total_steps: int
    progress: Annotated[float, Field(ge=0, le=100)]
    """Percent."""
    train_loss: float
    train_perplexity: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    chars_per_second: float
    eta_seconds: float | None
    val_loss: float | None = None
    val_perplexity: float | None = None
    best_val_loss: float | None = None
    train_bits_per_char: float | None = None
    """Each loss over the characters of its own split; None, as the next two, for a masked model."""
    val_bits_per_char: float | None = None
    best_val_bits_per_char: float | None = None


class MetricsProgress(EventBase, Progress):
    type: Literal["trainer.metrics.progress.v1"] = "trainer.metrics.progress.v1"


class ArtifactRef(Frozen):
    kind: Literal["model"] = "model"
    id: Identifier
    bytes: int
    sha256: Sha256


class MetricsCompleted(EventBase):
    type: Literal["trainer.metrics.completed.v1"] = "trainer.metrics.completed.v1"
    test_loss: float | None
    test_perplexity: float | None
    bits_per_char: float | None
    artifact: ArtifactRef


class CheckpointSaved(EventBase):
    type: Literal["trainer.checkpoint.saved.v1"] = "trainer.checkpoint.saved.v1"
    step: int
    val_loss: float | None
    is_best: bool


class EvalCompleted(EventBase):
    type: Literal["trainer.eval.completed.v1"] = "trainer.eval.completed.v1"
    split: str
    loss: float
    perplexity: float


class InferenceEvent(EventBase):
    """A question to a run's model on its way, `user_id` being who asks: told on the stream alone, as its record is."""

    request_id: Identifier
    kind: InferenceKind


class InferenceStarted(InferenceEvent):
    type: Literal["inference.job.started.v1"] = "inference.job.started.v1"


class InferenceCompleted(InferenceEvent):
    type: Literal["inference.job.completed.v1"] = "inference.job.completed.v1"


class InferenceFailed(InferenceEvent):
    type: Literal["inference.job.failed.v1"] = "inference.job.failed.v1"
    code: ErrorCode
    error_class: ErrorClass = Field(alias="class")
    message: str


Event = (
    JobQueued
    | JobStarted
    | JobProgress
    | JobCompleted
    | JobFailed
    | JobCancelled
    | MetricsConfig
    | MetricsProgress
    | MetricsCompleted
    | CheckpointSaved
    | EvalCompleted
)
event_adapter: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])
