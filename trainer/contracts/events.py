"""Events of runs, for the event log and the event stream; without paths and corpus text."""

from datetime import datetime
from typing import Annotated, Literal, TypedDict, get_args

from pydantic import ConfigDict, Field, TypeAdapter

from trainer.contracts.base import Frozen, Identifier, Phase, Sha256, StopCause, Timestamp, now
from trainer.contracts.baselines import Baseline
from trainer.contracts.errors import ErrorClass, ErrorCode
from trainer.contracts.inference import KindName
from trainer.contracts.models import ModelFamily
from trainer.contracts.runs import Leaks


class EventBase(Frozen):
    """An event; `event_id` is run:kind:step, so that an event repeated after a resume is recognized."""

    event_id: str
    seq: Annotated[int, Field(ge=0)] = 0
    """Number in the run's event log, from 1; assigned by the log."""
    ts: Timestamp
    job_id: Identifier
    user_id: int | None


class Stamp(TypedDict):
    """Fields that all events share."""

    event_id: str
    ts: datetime
    job_id: str
    user_id: int | None


def stamp(run_id: str, user_id: int | None, key: str, at: datetime | None = None) -> Stamp:
    """Return the shared fields of an event; `key` is kind:step and unique in the run."""
    return Stamp(event_id=f"{run_id}:{key}", ts=at or now(), job_id=run_id, user_id=user_id)


class JobQueued(EventBase):
    """The run was accepted, or resumed after a pause."""

    type: Literal["trainer.job.queued.v1"] = "trainer.job.queued.v1"


class JobStarted(EventBase):
    """A training process started the run; `attempt` counts from 1."""

    type: Literal["trainer.job.started.v1"] = "trainer.job.started.v1"
    queue: str
    attempt: int


class JobProgress(EventBase):
    """The run entered a phase without steps, or an attempt ended before its time."""

    type: Literal["trainer.job.progress.v1"] = "trainer.job.progress.v1"
    progress: Annotated[float, Field(ge=0, le=100)]
    message: str
    """For people; programs read `phase` and `cause`."""
    phase: Phase | None = None
    cause: StopCause | None = None
    """The cause of an attempt's end; the run continues with another attempt."""
    payload: dict[str, float] = Field(default_factory=dict)


class JobPaused(EventBase):
    """The run was paused: no worker trains it until it is resumed."""

    type: Literal["trainer.job.paused.v1"] = "trainer.job.paused.v1"


class JobCompleted(EventBase):
    type: Literal["trainer.job.completed.v1"] = "trainer.job.completed.v1"
    result_id: Identifier
    result_bytes: int
    """Size of the result at the end of the training: `manifest.json` and the files that it names."""


class JobFailed(EventBase):
    type: Literal["trainer.job.failed.v1"] = "trainer.job.failed.v1"
    error_kind: Literal["user", "system"]
    code: ErrorCode
    error_class: ErrorClass = Field(alias="class")
    message: str


class JobCancelled(EventBase):
    type: Literal["trainer.job.cancelled.v1"] = "trainer.job.cancelled.v1"


RUN_ENDS = (JobCompleted, JobFailed, JobCancelled)
"""The classes of the last event of a run."""


class MetricsConfig(EventBase):
    """Resolved values of the run, at the start of training."""

    type: Literal["trainer.metrics.config.v1"] = "trainer.metrics.config.v1"
    model_family: ModelFamily
    model_size: str | None
    total_epochs: int
    total_steps: int
    batch_size: int
    learning_rate: float
    params: int
    vocab_size: int
    unknown_char_share: float | None = None
    """Largest share of unknown characters in a split."""
    device: str
    precision: str
    threads: int
    tokenizer_id: str
    counted_val_loss: float | None = None
    """Validation loss of the best n-gram of the training split, in nats per token; None for a model without one."""
    leaks: Leaks = Field(default_factory=dict)
    """Shares of the held-out splits that stand in the training split."""
    notes: tuple[str, ...] = ()
    """What the program has chosen or left out, in sentences."""


class Progress(Frozen):
    """Progress after a step; losses in nats per predicted token.

    The training loss is the mean since the last row of the curve; `val_*` are set right after an evaluation.
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
    best_val_margin: float | None = None
    """Half the width of the 95 % interval of `best_val_loss` over the validation lines; None with too few lines."""
    train_bits_per_char: float | None = None
    """Bits per character of the training split; None for a masked model, as are the other bits per character."""
    val_bits_per_char: float | None = None
    best_val_bits_per_char: float | None = None
    best_epoch: int | None = None
    """Epoch of `best_val_loss`."""
    evals_without_gain: int = 0
    """Evaluations since the validation loss last fell by `min_delta`, which early stopping counts."""
    gpu_memory_bytes: tuple[int, ...] | None = None
    """Highest use of memory so far on each GPU of the training; None on the CPU."""
    tokens: int | None = None
    """Tokens of the training text read so far, over all epochs; None in runs of older versions."""
    words: int | None = None
    """Words of the training text read so far, over all epochs; None in runs of older versions."""


class MetricsProgress(EventBase, Progress):
    type: Literal["trainer.metrics.progress.v1"] = "trainer.metrics.progress.v1"
    cpu_cores: float | None = None
    """Mean number of CPU cores that the training process has used since its last report; None in older versions."""
    memory_bytes: int | None = None
    """Resident memory of the training process; None outside Linux and in runs of older versions."""


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
    train_loss: float | None = None
    """Mean training loss of the last complete epoch; None for a run shorter than an epoch."""
    train_bits_per_char: float | None = None
    auc: float | None = None
    """Area under the training loss curve, in nats times steps; None with one row."""
    early_stopped: bool | None = None
    best_epoch: int | None = None
    baseline: Baseline | None = None
    """Losses of counting on the test split, or on validation without one; None for masked models."""


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
    """Event of an inference request, published on the stream only; `user_id` is the requester."""

    request_id: Identifier
    kind: KindName


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
    | JobPaused
    | JobCompleted
    | JobFailed
    | JobCancelled
    | MetricsConfig
    | MetricsProgress
    | MetricsCompleted
    | CheckpointSaved
    | EvalCompleted
)
event_adapter: TypeAdapter[Event] = TypeAdapter(
    Annotated[Event, Field(discriminator="type")], config=ConfigDict(defer_build=True)
)


def event_types() -> list[str]:
    """Return the types of the events in a run's event log."""
    members: tuple[type[EventBase], ...] = get_args(Event)
    return [type_of(member) for member in members]


def type_of(event: type[EventBase]) -> str:
    """Return the type of the events of a class."""
    name: str = event.model_fields["type"].default
    return name
