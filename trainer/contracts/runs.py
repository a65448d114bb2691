"""A run: what was asked, what it was resolved to, how it stands, and what came of it."""

import math
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    PlainSerializer,
    Tag,
    model_validator,
)

from trainer.contracts.base import (
    Count,
    FileRecord,
    Frozen,
    Identifier,
    Positive,
    Probability,
    RunState,
    Sha256,
    Timestamp,
)
from trainer.contracts.cost import Cost
from trainer.contracts.errors import RunError
from trainer.contracts.models import ModelBlock, ModelConfig, ModelFamily, Objective
from trainer.contracts.tokenizers import TokenizerConfig

FinalState = Literal["completed", "failed", "cancelled"]
CorpusName = Annotated[str, Field(min_length=1, max_length=512)]


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", name):
        raise ValueError("must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return name


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must hold printable characters only")
    return text


def _ascending(steps: tuple[int, ...]) -> tuple[int, ...]:
    if any(later <= step for step, later in pairwise(steps)):
        raise ValueError("must be in ascending order, each step once")
    return steps


def _in_one_order(parts: tuple["DecayFree", ...]) -> tuple["DecayFree", ...]:
    return tuple(sorted(set(parts)))


def _kind_of_schedule(value: object) -> str:
    return "steps" if isinstance(value, (list, tuple)) else "rule"


LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Setting = bool | int | str | None
Label = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]


DecayFree = Literal["bias", "embedding", "norm"]


class OptimizerConfig(Frozen):
    """The optimizer; a value that is None is torch's default of that optimizer."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    betas: tuple[Probability, Probability] | None = None
    eps: Positive | None = None
    weight_decay: NonNegativeFloat | None = None
    weight_decay_exclude: Annotated[tuple[DecayFree, ...], AfterValidator(_in_one_order)] = ("bias", "norm")
    """What does not decay: biases, the weights of normalizations, the tables of tokens and of positions."""


class EarlyStopping(Frozen):
    """Stop after `patience` evaluations without a fall of more than `min_delta` nats."""

    enabled: bool = False
    patience: Annotated[int, Field(ge=1, le=100)] = 2
    min_delta: NonNegativeFloat = 0.0


class Provenance(Frozen):
    """Where a corpus came from; recorded, never read."""

    source_corpus: str


class ComputeOptions(Frozen):
    """How a training computes, which changes none of its numbers."""

    gradient_checkpointing: bool = False
    """Compute what lies between the layers again in the backward pass, in place of keeping it: transformers only."""
    tf32: bool = True
    """Multiply matrices of fp32 in TF32 where CUDA has it; nothing to the CPU."""


class LoggingOptions(Frozen):
    """What the run's own log keeps."""

    level: LogLevel = "INFO"


_MOST_STEPS = 10_000
DEFAULT_MLM_PROBABILITY = 0.15


class CheckpointRule(Frozen):
    """A checkpoint schedule that follows from the length of a training: dense in the first epoch, sparse later."""

    first_epoch_checkpoints: Annotated[int, Field(gt=0, le=_MOST_STEPS)] = 20
    """Evenly spaced; in an epoch of fewer steps each of them."""
    subsequent_epochs_spacing: Literal["linear", "log"] = "log"
    log_base: Annotated[int, Field(ge=2, le=1_000_000)] = 2
    """With `log`, the steps that are powers of it."""
    linear_interval: Count | None = None
    """Steps from one to the next with `linear`; None: as in the first epoch."""
    min_checkpoint_interval: Count = 100
    """After the first epoch none comes sooner after another, but for the last step."""
    min_checkpoints_per_epoch: Annotated[int, Field(ge=0, le=_MOST_STEPS)] = 5
    """A later epoch in which the spacing has fewer gets so many, evenly spaced, or what the interval allows."""


_Steps = tuple[Annotated[int, Field(ge=0, le=1_000_000_000)], ...]
ScheduledSteps = Annotated[_Steps, Field(max_length=_MOST_STEPS), AfterValidator(_ascending)]
CheckpointSchedule = Annotated[
    Annotated[_Steps, Field(min_length=1, max_length=_MOST_STEPS), AfterValidator(_ascending), Tag("steps")]
    | Annotated[CheckpointRule, Tag("rule")],
    Discriminator(_kind_of_schedule),
]


class TrainingOptions(Frozen):
    """All that a request may say of a training besides the model, the tokenizer and the texts."""

    model_family: ModelFamily
    model_size: str | None = None
    split_by: Literal["line", "file", "position"] = "line"
    """What is drawn for the held-out splits: lines, whole files, or nothing: the end of the text is cut off."""
    objective: Objective = "causal_lm"
    mlm_probability: Annotated[float, Field(ge=0, le=1)] = DEFAULT_MLM_PROBABILITY
    """The share of tokens that masked_lm masks; each row has one at least. Nothing to causal_lm."""
    max_seq_len: Annotated[int, Field(ge=8, le=4096)] = 512
    num_epochs: Annotated[int, Field(ge=1, le=1000)] = 5
    max_steps: Count | None = None
    max_seconds: Positive | None = None
    batch_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = "auto"
    gradient_accumulation: Annotated[int, Field(ge=1, le=1024)] = 1
    optimizer: OptimizerConfig = OptimizerConfig()
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    min_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Where a linear or a cosine schedule ends; a constant one has no end."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    gradient_clipping: Positive | None = 1.0
    holdout_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    test_fraction: Annotated[float, Field(ge=0, lt=0.5)] = 0.15
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    tokenizer_id: Identifier | None = None
    """A tokenizer that is there already, instead of one made from the training split."""
    init_from_run_id: Identifier | None = None
    """Begin with the weights and the tokenizer of a completed run."""
    freeze_embeddings: bool = False
    """Keep the embedding as it is, and with a tied head the head's weights too; its bias and projection learn."""
    early_stopping: EarlyStopping = EarlyStopping()
    device: Annotated[str, AfterValidator(_device)] = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of the forward pass of training; what is measured and scored is fp32. auto: fp16 with CUDA, fp32 on the CPU."""
    compute: ComputeOptions = ComputeOptions()
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    data_num_workers: Annotated[int, Field(ge=0, le=64)] | None = None
    """Threads that gather batches ahead of the training; None: up to 4 with CUDA, none on the CPU."""
    data_pin_memory: bool | None = None
    """None: with CUDA only."""
    checkpoint_every_steps: Count | None = None
    checkpoint_schedule: CheckpointSchedule | None = None
    """Steps whose weights are kept for good, the last one always; 0 stands for those before the first step."""
    eval_every_steps: Count | None = None
    log_every_steps: Count = 10
    logging: LoggingOptions = LoggingOptions()
    sample_every_steps: Count | None = None
    """How often the training writes what the model generates by then to `training_samples.jsonl`."""
    provenance: Provenance | None = None
    label: Label | None = None
    tags: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=32)] = ()

    @model_validator(mode="after")
    def _one_warmup(self) -> "TrainingOptions":
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give `warmup_steps` or `warmup_ratio`, not both")
        return self


class TrainRequest(TrainingOptions):
    """A training as a person asks for it; what is absent is filled from the family's preset."""

    corpus: CorpusName
    validation_corpus: CorpusName | None = None
    test_corpus: CorpusName | None = None
    model: ModelBlock | None = None
    tokenizer: TokenizerConfig | None = None
    resume: bool = False
    """Go on with the newest run of the same person, label and request where that failed or was cancelled.

    Where there is none that left a checkpoint, or the newest is completed, the training begins anew.
    """

    @model_validator(mode="after")
    def _one_tokenizer(self) -> "TrainRequest":
        if self.tokenizer is not None and self.tokenizer_id is not None:
            raise ValueError("give `tokenizer` or `tokenizer_id`, not both")
        return self

    @model_validator(mode="after")
    def _frozen_weights_are_given(self) -> "TrainRequest":
        if self.freeze_embeddings and self.init_from_run_id is None:
            raise ValueError(
                "`freeze_embeddings` needs `init_from_run_id`, the run to take the embedding from: without one the"
                " embedding would stay random"
            )
        return self


def _as_sent(request: TrainRequest) -> dict[str, object]:
    """The fields that were given: asked again, the others must stay open to their family's defaults."""
    given: dict[str, object] = request.model_dump(mode="json", exclude_unset=True)
    return given


SentRequest = Annotated[TrainRequest, PlainSerializer(_as_sent)]


class CorpusRef(Frozen):
    """A text by name and content; `name` is relative to one of the corpus places, never a server path."""

    name: str
    sha256: Sha256
    bytes: int


class EffectiveRequest(TrainingOptions):
    """A training with every value resolved: what the run does."""

    corpus: CorpusRef
    validation_corpus: CorpusRef | None = None
    test_corpus: CorpusRef | None = None
    model: ModelConfig
    tokenizer: TokenizerConfig


class RunRecord(Frozen):
    """`request.json`: what was promised when the run was accepted."""

    schema_version: Literal[1] = 1
    run_id: Identifier
    user_id: int | None
    """The Discord user who is told of it; None for a run of the command line."""
    created_at: Timestamp
    request: SentRequest
    effective: EffectiveRequest
    request_hash: Sha256
    requested_paths: tuple[str, ...] | None = None
    unused_settings: dict[str, Setting] = Field(default_factory=dict)
    """What its file says that has no effect here, by path."""
    resumed_from_run_id: Identifier | None = None
    """The failed or cancelled run that this one goes on with."""
    cost: Cost | None = None
    """The estimate that was shown when the run was accepted; None of a resumed run."""


def without_effect(unused_settings: Mapping[str, Setting]) -> list[str]:
    """The line that tells of settings without effect; none where there are none."""
    if not unused_settings:
        return []
    named = ", ".join(f"`{path}`" for path in unused_settings)
    return [f"Without effect here: {named}. A run has a folder and a log of its own."]


class Accepted(Frozen):
    """The answer to a train request."""

    run_id: Identifier
    job_id: Identifier
    status: RunState


class RunStatus(Frozen):
    """How a run stands."""

    run_id: Identifier
    status: RunState
    reachable: bool
    """False: it should be running, but no worker has renewed its lease."""
    last_heartbeat_ts: float | None
    message: str
    progress: Annotated[float, Field(ge=0, le=100)]
    epoch: int
    total_epochs: int
    step: int
    total_steps: int | None
    train_loss: float | None
    val_loss: float | None
    best_val_loss: float | None
    train_bits_per_char: float | None = None
    """Each loss over the characters of its own split; None, as the next two, for a masked model."""
    val_bits_per_char: float | None = None
    best_val_bits_per_char: float | None = None
    test_loss: float | None
    test_perplexity: float | None
    bits_per_char: float | None
    """Of the test split."""
    tokens_per_second: float | None
    chars_per_second: float | None
    eta_seconds: float | None
    last_checkpoint_step: int | None
    queue_position: int | None
    device: str | None
    precision: str | None
    vocab_size: int | None
    error: RunError | None
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    user_id: int | None
    model_family: ModelFamily
    objective: Objective = "causal_lm"
    """With masked_lm every loss is per masked token."""
    model_size: str | None
    tokenizer_id: str | None
    attempt: int
    label: str | None

    @property
    def bits_per_nat(self) -> float | None:
        """The bits per character of the validation split that one nat per token of it is; None where unknown."""
        bits, loss = self.best_val_bits_per_char, self.best_val_loss
        return bits / loss if bits and loss else None


class ModelFacts(Frozen):
    """What the trained model is."""

    family: ModelFamily
    size: str | None
    params: int
    tied: bool
    vocab_size: int
    dims: ModelConfig


class SplitSizes(Frozen):
    """The size of one split; tokens are predicted targets ([EOS] counted, [BOS] not)."""

    lines: int
    chars: int
    tokens: int
    unknown_tokens: int | None = None
    """How many of them the tokenizer does not know; None, as the next one, in a manifest from before it was counted."""
    bytes: int | None = None
    """Of its lines in UTF-8, without their ends."""

    def bits_per_char(self, loss_nats: float, objective: Objective) -> float | None:
        """Spread the mean loss of this split's tokens over its characters, in bits (DEC D57).

        None for a masked model, whose loss is over some of the tokens only.
        """
        return loss_nats / math.log(2) * self.tokens / self.chars if objective == "causal_lm" else None


class DataFacts(Frozen):
    """What the run was trained, selected and tested on."""

    corpus: CorpusRef
    train: SplitSizes
    validation: SplitSizes
    test: SplitSizes | None


class TokenizerFacts(Frozen):
    id: str
    sha256: Sha256


class RunMetrics(Frozen):
    """The losses of a run in nats per predicted token; `auc` is the area under the training curve over steps."""

    train: float | None = None
    val: float | None = None
    test: float | None = None
    test_perplexity: float | None = None
    bits_per_char: float | None = None
    """Of the test split; None, as the next two, for a masked model."""
    val_bits_per_char: float | None = None
    best_bits_per_char: float | None = None
    best: float | None = None
    auc: float | None = None
    initial: float | None = None
    """Validation before the first step, of a warm start."""


class Timings(Frozen):
    created: Timestamp
    started: Timestamp | None = None
    finished: Timestamp
    train_seconds: float = 0.0
    epoch_seconds: tuple[float, ...] = ()


class Environment(Frozen):
    """Where a run was trained."""

    python: str
    libraries: dict[str, str]
    cpu: str
    gpu: str | None
    threads: int
    device: str
    git_commit: str | None


class EvalSummary(Frozen):
    """One evaluation of a run; the latest of each split and text is kept."""

    split: str
    dataset: str | None = None
    """The corpus that was measured in place of the split; None: the split itself."""
    loss: float
    perplexity: float
    bits_per_char: float | None = None
    """None for a masked model."""
    top1_accuracy: float | None = None
    top5_accuracy: float | None = None
    unknown_share: float | None = None


class RunManifest(Frozen):
    """`manifest.json`: written once, when the run has ended."""

    schema_version: Literal[1] = 1
    run_id: Identifier
    status: FinalState
    request: SentRequest
    effective: EffectiveRequest
    request_hash: Sha256
    requested_paths: tuple[str, ...] | None = None
    unused_settings: dict[str, Setting] = Field(default_factory=dict)
    model: ModelFacts | None = None
    data: DataFacts | None = None
    tokenizer: TokenizerFacts | None = None
    parent_run_id: Identifier | None = None
    resumed_from_run_id: Identifier | None = None
    metrics: RunMetrics = RunMetrics()
    early_stopped: bool = False
    best_epoch: int | None = None
    steps: int = 0
    timings: Timings
    environment: Environment | None = None
    determinism: Literal["bit_exact", "best_effort"] | None = None
    seed: int
    eval: tuple[EvalSummary, ...] = ()
    files: tuple[FileRecord, ...] = ()
    error: RunError | None = None
    last_lines: tuple[str, ...] = ()
    """Of the error output, where the training ended without a word of its own."""
