"""Options of a training: the fields that a train request and a resolved request share."""

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict, JsonValue

from trainer.contracts.base import (
    Count,
    Frozen,
    GivenName,
    Identifier,
    Names,
    Positive,
    Probability,
    Seed,
    describe_fields,
    exactly_one,
    is_ascending,
    json_schema_rule,
    requirement,
    requires,
)
from trainer.contracts.models import PRESETS, ModelFamily, Objective
from trainer.contracts.tokenizers import DocumentMode, SplitBy


def _sort_unique(names: tuple["DecayFree", ...]) -> tuple["DecayFree", ...]:
    return tuple(sorted(set(names)))


def _schedule_tag(value: object) -> str | None:
    if isinstance(value, dict):
        has_counts, has_rule = (
            any(name in value for name in block.model_fields) for block in (CheckpointThresholds, CheckpointRule)
        )
        return "rule" if not has_counts else None if has_rule else "thresholds"
    tags: dict[type[object], str] = {list: "list", tuple: "list", CheckpointRule: "rule"}
    tags[CheckpointThresholds] = "thresholds"
    return tags.get(type(value))


def _thresholds_tag(value: object) -> str | None:
    return "counts" if isinstance(value, (list, tuple)) else "log2" if value == "log2" else None


def _count_of(value: object) -> object:
    """Return the number of a text such as 500k or 1.5M; other values are for the type of the field to judge."""
    if not isinstance(value, str):
        return value
    if re.fullmatch(_COUNT_TEXT, value) is None:
        raise requirement("a whole number, or text such as '500k', '1.5M' or '2B'")
    return int(Decimal(value.rstrip("kKmMbB")) * _UNITS.get(value[-1].lower(), 1))


_DEVICE = "^(auto|cpu|cuda(:[0-9]{1,2})?)$"
_Device = requires(re.compile(_DEVICE).fullmatch, "'auto', 'cpu', 'cuda' or 'cuda:N'")
_Ascending = requires(is_ascending, "in ascending order, each step once")
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Strategy = Literal["ddp", "fsdp"]
_PRINTABLE = (
    r"^[^\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]*$"
)
"""No control characters, line separators and invisible characters, and none that change the direction of a line."""
_Printable = requires(re.compile(_PRINTABLE).fullmatch, "printable characters only", "must hold")
MAX_NOTE_CHARACTERS = 2000
_BREAKING = re.compile(_PRINTABLE.replace("[^", "[", 1).strip("^$*"))


def one_line(text: str) -> str:
    """Return a text of a person as one line of printable characters, of the length of a note at most."""
    return " ".join(_BREAKING.sub(" ", text).split())[:MAX_NOTE_CHARACTERS]


def is_one_line(text: str) -> bool:
    """Return True for a line of printable characters that is no longer than a note."""
    return len(text) <= MAX_NOTE_CHARACTERS and _BREAKING.search(text) is None


RunNote = Annotated[str, Field(max_length=MAX_NOTE_CHARACTERS, json_schema_extra={"x-pattern": _PRINTABLE}), _Printable]
MAX_LABEL_CHARACTERS = 64
Label = Annotated[
    str, Field(min_length=1, max_length=MAX_LABEL_CHARACTERS, json_schema_extra={"x-pattern": _PRINTABLE}), _Printable
]
Tags = Annotated[tuple[Label, ...], Field(max_length=32)]
_sizes: list[JsonValue] = [*sorted({size for sizes in PRESETS.values() for size in sizes})]
_AnySize: JsonDict = {"x-enum": _sizes}
ModelSize = Annotated[str, Field(json_schema_extra=_AnySize)]
DecayFree = Literal["bias", "embedding", "norm"]
DEFAULT_MLM_PROBABILITY = 0.15
DEFAULT_DECAY_RATIO = 0.2
_MAX_SCHEDULED_STEPS = 10_000
_MAX_COUNT = 10**15
_UNITS = {"k": 10**3, "m": 10**6, "b": 10**9}
_COUNT_TEXT = (
    r"^([0-9]{1,15}|[0-9]{1,12}(\.[0-9]{1,3})?[kK]|[0-9]{1,9}(\.[0-9]{1,6})?[mM]|[0-9]{1,6}(\.[0-9]{1,9})?[bB])$"
)
"""Whole numbers below 10^15: no unit has more decimals than it has zeros."""


class Options(Frozen, json_schema_extra=describe_fields):
    """A block of a request; the docstring of each field is its description in `mt train --help`."""


class OptimizerConfig(Options):
    """The optimizer and its settings."""

    name: Literal["adamw", "adam", "sgd", "muon"] = "adamw"
    """Optimizer; muon moves the matrices of hidden layers, and adamw all others. By rule: muon for transformers."""
    betas: tuple[Probability, Probability] | None = None
    """Decay rates of the moments of adamw (with muon, too) and adam; default: those of torch."""
    eps: Positive | None = None
    """Epsilon of adamw (with muon, too) and adam; default: that of torch."""
    momentum: Probability | None = None
    """Momentum of muon; default: that of torch."""
    weight_decay: NonNegativeFloat | None = None
    """Weight decay. By rule: for transformers 0.3 with muon, 0.1 with adamw; else that of torch for this optimizer."""
    weight_decay_exclude: Annotated[tuple[DecayFree, ...], AfterValidator(_sort_unique)] = ("bias", "norm")
    """Parameters without weight decay: biases, normalization weights, token and position embeddings."""


class EarlyStopping(Options):
    """Early stopping on the validation loss."""

    enabled: bool = False
    """Stop the training when the validation loss no longer improves. By rule: yes, unless `max_steps` is given."""
    patience: Annotated[int, Field(ge=1, le=100)] = 2
    """Evaluations without improvement before the training stops. By rule: a fifth of the epochs, at least 3."""
    min_delta: NonNegativeFloat = 0.0
    """Smallest decrease of the validation loss, in nats, that counts as an improvement."""


class Provenance(Options):
    """Origin of the corpus; recorded, without effect on the training."""

    source_corpus: str
    """Source of the corpus, as free text."""


class ComputeOptions(Options):
    """Options of the computation; the numbers of the training stay the same but for rounding."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory; transformers only."""
    tf32: bool = True
    """Allow TF32 for fp32 matrix products on CUDA."""


class LoggingOptions(Options):
    """Options of the run's log file."""

    level: LogLevel = "INFO"
    """Lowest level that the run's log records."""


class CheckpointRule(Options):
    """Rule for a checkpoint schedule: dense in the first epoch, sparse in later ones."""

    first_epoch_checkpoints: Annotated[int, Field(gt=0, le=_MAX_SCHEDULED_STEPS)] = 20
    """Checkpoints in the first epoch, evenly spaced; at most one per step."""
    subsequent_epochs_spacing: Literal["linear", "log"] = "log"
    """Spacing after the first epoch: every `linear_interval` steps, or at powers of `log_base`."""
    log_base: Annotated[int, Field(ge=2, le=1_000_000)] = 2
    """With log spacing, checkpoints at the steps that are powers of this base."""
    linear_interval: Count | None = None
    """With linear spacing, steps between checkpoints; default: the spacing of the first epoch."""
    min_checkpoint_interval: Count = 100
    """Fewest steps between two checkpoints after the first epoch, except before the last step."""
    min_checkpoints_per_epoch: Annotated[int, Field(ge=0, le=_MAX_SCHEDULED_STEPS)] = 5
    """Fewest checkpoints in each later epoch; fewer where `min_checkpoint_interval` leaves no room for them."""


_count_schema: list[JsonValue] = [
    {"type": "integer", "minimum": 0, "maximum": _MAX_COUNT},
    {"type": "string", "x-pattern": _COUNT_TEXT},
]
WrittenCount = Annotated[
    int,
    Field(ge=0, le=_MAX_COUNT),
    BeforeValidator(_count_of),
    WithJsonSchema({"anyOf": _count_schema}),
]
_Counts = Annotated[
    tuple[WrittenCount, ...],
    Field(max_length=_MAX_SCHEDULED_STEPS, json_schema_extra={"minItems": 1}),
    requires(bool, "at least one count", "must have"),
    requires(is_ascending, "in ascending order, each count once"),
]
Thresholds = Annotated[
    Annotated[_Counts, Tag("counts")] | Annotated[Literal["log2"], Tag("log2")],
    Discriminator(_thresholds_tag, custom_error_type="thresholds", custom_error_message="a list of counts, or 'log2'"),
]


class CheckpointThresholds(Options, json_schema_extra=json_schema_rule(exactly_one("steps", "words", "tokens"))):
    """Checkpoints at the first steps that reach counts of steps, words or tokens: exactly one of the three."""

    steps: Thresholds | None = None
    """Optimizer steps: an ascending list, or log2 (1, 2, 4, 8 … to the end)."""
    words: Thresholds | None = None
    """Words of training text read, such as [500k, 1M, 1.5M], or log2; a word is what white space separates."""
    tokens: Thresholds | None = None
    """Tokens of training text read, or log2."""

    @model_validator(mode="after")
    def _check_one(self) -> "CheckpointThresholds":
        if [self.steps, self.words, self.tokens].count(None) != len(CheckpointThresholds.model_fields) - 1:
            raise requirement("exactly one of steps, words and tokens", "must have")
        return self


_Steps = tuple[Annotated[int, Field(ge=0, le=1_000_000_000)], ...]
BlockSchedule = Annotated[
    Annotated[_Steps, Field(max_length=_MAX_SCHEDULED_STEPS), _Ascending, Tag("list")]
    | Annotated[CheckpointThresholds, Tag("thresholds")],
    Discriminator(lambda value: "thresholds" if isinstance(value, dict | CheckpointThresholds) else "list"),
]
"""A schedule in the block form of a file, in which a rule has fields of its own."""
CheckpointSchedule = Annotated[
    Annotated[_Steps, Field(min_length=1, max_length=_MAX_SCHEDULED_STEPS), _Ascending, Tag("list")]
    | Annotated[CheckpointThresholds, Tag("thresholds")]
    | Annotated[CheckpointRule, Tag("rule")],
    Discriminator(
        _schedule_tag,
        custom_error_type="schedule",
        custom_error_message="a list of steps, a block with steps, words or tokens, or a block with fields of a rule",
    ),
]


RowLength = Annotated[int, Field(ge=8, le=4096)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
Minutes = Annotated[float, Field(gt=0, le=10_000)]
BatchRows = Annotated[int, Field(ge=1, le=4096)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Schedule = Literal["constant", "linear", "cosine", "wsd"]
SamplePrompts = Literal["held_out", "none"]
TestAccess = Literal["open", "locked"]


class ChosenValue(Frozen, json_schema_extra=describe_fields):
    """A value of a training that its request leaves out, as a rule of docs/defaults.md chooses it."""

    field: str
    """Path of the field in a request."""
    value: bool | int | float | str
    reason: str
    """Why the rule chooses this value, for people."""

    def shown_value(self) -> str:
        """Return the value as YAML writes it."""
        return str(self.value).lower() if isinstance(self.value, bool) else f"{self.value}"


class Pace(Frozen):
    """The model that is best after so many minutes on a machine, and its speed there."""

    minutes: float
    size: ModelSize | None
    """Preset of the model's sizes; None if the request gives the sizes."""
    tokens: float
    """Tokens that it trains on in this time."""
    step_seconds: float


class TrainingOptions(Options):
    """The fields that a train request and a resolved request share."""

    model_family: ModelFamily
    """Model family; char_lstm is an LSTM of characters with a tied output layer."""
    model_size: ModelSize | None = None
    """Preset of the model's sizes: tiny, small, base or paper. By rule: by the length of the text."""
    split_by: SplitBy = "line"
    """Unit drawn for the validation and test splits: lines, complete files, or (position) the last lines of the corpus.

    The default with `documents` stream is position.
    """
    documents: DocumentMode = "line"
    """Each line by itself (line), or each split as one text with its newlines as tokens (stream; causal_lm only)."""
    objective: Objective = "causal_lm"
    """Training objective: predict the next token (causal_lm) or masked tokens (masked_lm)."""
    mlm_probability: Annotated[float, Field(ge=0, le=1)] = DEFAULT_MLM_PROBABILITY
    """Share of tokens masked by masked_lm; at least one per row."""
    max_seq_len: RowLength | None = None
    """Tokens per training row. By rule: 128 or fewer."""
    num_epochs: Epochs | None = None
    """Passes over the training split. By rule: by its length, or as many as `max_steps` needs."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps."""
    max_seconds: Positive | None = None
    """Stop after this many seconds of training."""
    minutes: Minutes | None = None
    """Minutes that the run takes: they choose size, steps and batch; not with `num_epochs`, `max_steps`, `max_seconds`.

    A resumed run counts only the time in which it trained.
    """
    batch_size: BatchRows | Literal["auto"] | None = None
    """Rows per batch. By rule, and with auto: such that a short text has many steps."""
    gradient_accumulation: Annotated[int, Field(ge=1, le=1024)] = 1
    """Batches per optimizer step."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer and its settings."""
    learning_rate: LearningRate | None = None
    """Learning rate at its highest, after the warm-up. By rule: by model and width."""
    lr_schedule: Schedule | None = None
    """Learning rate schedule after the warm-up; wsd is warm-up, stable, decay. By rule: cosine."""
    decay_ratio: Annotated[float, Field(gt=0, le=1)] = DEFAULT_DECAY_RATIO
    """Share of all steps in which the rate of wsd falls, at the end."""
    min_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Learning rate at the end of a linear, cosine or wsd schedule."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    """Steps of linear warm-up; not together with `warmup_ratio`; 0: none."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of all steps used for warm-up; not together with `warmup_steps`. By rule: 0.05, but at least 20 steps."""
    gradient_clipping: Positive | None = 1.0
    """Largest gradient norm; null: no clipping."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of the moving average of the weights, which replaces them in the results; null: no average."""
    holdout_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the lines of the corpus for the validation split."""
    test_fraction: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Share of the lines of the corpus for the test split."""
    test: TestAccess | None = None
    """locked: the run shows validation only, and `mt unlock` reads its test split once; open: it shows both.

    Default: open, unless the corpus, the parent of a warm start or APP__TEST_SPLIT locks it."""
    split_seed: Seed = 42
    """Seed of the splits and of the masks in evaluations: runs that differ in `seed` only are measured on one text."""
    seed: Seed = 42
    """Seed of the initial weights, the order of rows, dropout, masks in training and samples; not of the splits."""
    tokenizer_id: Annotated[Identifier, Names.TOKENIZER] | None = None
    """Trained tokenizer to use; not together with `tokenizer`."""
    init_from_run_id: Annotated[GivenName, Names.WEIGHTS] | None = None
    """Completed run, or kept checkpoint as RUN@1200, to take the initial weights and the tokenizer from."""
    freeze_embeddings: bool = False
    """Do not train the embedding, nor an output layer tied to it; needs `init_from_run_id`."""
    early_stopping: EarlyStopping | None = None
    """Early stopping on the validation loss."""
    device: Annotated[str, Field(json_schema_extra={"x-pattern": _DEVICE}), _Device] = "auto"
    """Device: auto, cpu, cuda or cuda:N; auto: CUDA where there is one."""
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that train together, each on its own GPU or with its share of the CPU threads."""
    strategy: Strategy = "ddp"
    """With several `devices`: a copy of the model on each (ddp), or a shard of it on each (fsdp; transformers only)."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Precision of training steps; evaluation is always fp32. auto: fp16 with CUDA, fp32 on the CPU."""
    compute: ComputeOptions = ComputeOptions()
    """Options of the computation."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads; 0: the worker that trains chooses them for its machine and the model."""
    data_num_workers: Annotated[int, Field(ge=0, le=64)] | None = None
    """Threads that prepare batches; default: up to 4 with CUDA, 0 on the CPU."""
    data_pin_memory: bool | None = None
    """Copy batches to the GPU from pinned memory; default: with CUDA only."""
    checkpoint_every_steps: Count | None = None
    """Steps between the checkpoints that a run resumes from; default: after each epoch."""
    checkpoint_schedule: CheckpointSchedule | None = None
    """Steps whose weights are stored permanently: a list, counts of text read, or a rule; 0: the initial weights."""
    eval_every_steps: Count | None = None
    """Steps between evaluations; default: after each epoch."""
    log_every_steps: Count = 10
    """Steps between rows of the loss curve."""
    logging: LoggingOptions = LoggingOptions()
    """Options of the run's log file."""
    sample_every_steps: Count | None = None
    """Steps between samples of generated text in `training_samples.jsonl`; default: none."""
    sample_prompts: SamplePrompts = "held_out"
    """Texts that samples continue: the first words of held-out lines, or none; none for somebody else's corpus."""
    provenance: Provenance | None = None
    """Origin of the corpus; recorded only."""
    label: Label | None = None
    """Name of the run; default: corpus and model, as `demo-gru`, with a number where another run has this name."""
    tags: Tags = ()
    """Tags, by which lists of runs are searched and filtered; they change no number."""

    @model_validator(mode="after")
    def _check_warmup(self) -> "TrainingOptions":
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give `warmup_steps` or `warmup_ratio`, not both")
        return self
