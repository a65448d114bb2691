"""Records of a run: its request, its resolved request, its status and its manifest."""

import math
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Annotated, Literal, get_args

from pydantic import Field, PlainSerializer, model_validator
from pydantic.config import JsonDict
from pydantic_core import to_json

from trainer.contracts.base import (
    FileRecord,
    Frozen,
    Identifier,
    JobRecord,
    Names,
    Phase,
    RunState,
    Sha256,
    StopCause,
    Timestamp,
    WaitReason,
    changed,
    describe_fields,
    json_schema_rule,
    model_name,
    not_both,
    requires_field,
    run_of,
)
from trainer.contracts.baselines import Baseline, Baselines
from trainer.contracts.cost import Cost
from trainer.contracts.environment import Environment
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.intervals import LineLosses
from trainer.contracts.looks import LookCount
from trainer.contracts.models import BertConfig, ModelBlock, ModelConfig, ModelFamily, Objective, RnnConfig
from trainer.contracts.seeds import RunGroup, Seeds, listed_seeds
from trainer.contracts.tokenizers import TokenizerConfig
from trainer.contracts.training_options import (
    BatchRows,
    ChosenValue,
    EarlyStopping,
    Label,
    LearningRate,
    Pace,
    RowLength,
    RunNote,
    Schedule,
    Tags,
    TestAccess,
    TrainingOptions,
)

FinalState = Literal["completed", "failed", "cancelled"]
FINAL_STATES: tuple[FinalState, ...] = get_args(FinalState)
_NAME_IN_FOLDER = "^[^/.][^/]*(/+[^/.][^/]*)*/*$"
CorpusName = Annotated[
    str, Field(min_length=1, max_length=512, json_schema_extra={"x-pattern": _NAME_IN_FOLDER}), Names.TEXT
]
"""A name, or a path inside the corpus folder; the command line takes other paths, too."""
Setting = bool | int | str | None


_WARMUP = not_both("warmup_steps", "warmup_ratio")
_TOKENIZER = not_both("tokenizer", "tokenizer_id")
_FROZEN = requires_field("freeze_embeddings", {"const": False}, "init_from_run_id", {"type": "string"})
_SEEDS: JsonDict = {
    "anyOf": [{"properties": {"seeds": {"type": "null"}}}, {"properties": {"resume": {"const": False}}}]
}


LENGTHS = ("num_epochs", "max_steps", "max_seconds")
"""Fields that give the length of a training, each of which `minutes` chooses by itself."""


class TrainRequest(TrainingOptions, json_schema_extra=json_schema_rule(_WARMUP, _TOKENIZER, _FROZEN, _SEEDS)):
    """A training as requested; absent fields take the values that the rules of docs/defaults.md choose."""

    corpus: CorpusName
    """Corpus to train on: its name, or a path relative to the corpus folder."""
    validation_corpus: CorpusName | None = None
    """Corpus for validation; default: `holdout_fraction` of `corpus`."""
    test_corpus: CorpusName | None = None
    """Corpus for the test; default: `test_fraction` of `corpus`."""
    model: ModelBlock | None = None
    """Sizes of the model; absent sizes come from the preset."""
    tokenizer: TokenizerConfig | None = None
    """Tokenizer to train with the run; default: the usual one of the model family."""
    seeds: Seeds | None = None
    """Train a group of runs: 5 for the five seeds from `seed` on, or a list of seeds; not together with `resume`."""
    resume: bool = False
    """Resume your newest failed or cancelled run with the same label and request; without one, start a new run."""
    allow_same_corpus: bool = False
    """Accept a validation or test corpus with the same content as another corpus of the run."""

    @model_validator(mode="after")
    def _check(self) -> "TrainRequest":
        if self.tokenizer is not None and self.tokenizer_id is not None:
            raise ValueError("give `tokenizer` or `tokenizer_id`, not both")
        if self.freeze_embeddings and self.init_from_run_id is None:
            raise ValueError("`freeze_embeddings` needs a run to start from: random embeddings would never be trained")
        for field, length in zip(LENGTHS, (self.num_epochs, self.max_steps, self.max_seconds), strict=True):
            if self.minutes is not None and length is not None:
                raise ValueError(f"give `minutes` or `{field}`, not both: the minutes choose how long the run trains")
        if self.seeds is not None and self.resume:
            raise ValueError("give `seeds` or `resume`, not both: each run of a group is resumed by its id")
        return self

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the runs to start; one without `seeds`."""
        return listed_seeds(self.seeds, self.seed)

    def with_seed(self, seed: int) -> "TrainRequest":
        """Return the request of one run of a group."""
        given: dict[str, object] = self.model_dump(exclude_unset=True)
        return TrainRequest.model_validate(
            {name: value for name, value in given.items() if name != "seeds"} | {"seed": seed}
        )


def _given_fields(request: TrainRequest) -> dict[str, object]:
    """Dump only the fields that were given: the family's defaults must fill the others when the request is reread."""
    given: dict[str, object] = request.model_dump(mode="json", exclude_unset=True)
    return given


SentRequest = Annotated[TrainRequest, PlainSerializer(_given_fields)]


HeldOutSplit = Literal["validation", "test"]
HELD_OUT_SPLITS: tuple[HeldOutSplit, ...] = ("validation", "test")
LEAK_WORDS, LEAK_CHARACTERS = 13, 50
"""Lengths of the n-grams that are compared."""
LEAK_LETTERS = 20
"""Letters of a line that is looked for within a running text."""
MAX_LEAK_SHARE = 0.01
"""Larger shares of held-out text in the training split are warned of."""
MAX_NEAR_SHARE = 0.1
"""The same for lines that differ in case, punctuation and white space only. Those that n-grams do not find are short.

Where 9 % of the lines of Turkish Common Voice were such lines, they lowered its loss by 0.2 %.
"""
_Share = Annotated[float, Field(ge=0, le=1)]


class Shares(Frozen, json_schema_extra=describe_fields):
    """Shares of a text that stand in another text; of a long text, of a sample drawn by seed."""

    lines: _Share
    """Share of the lines that are equal to a line of the other text."""
    plain_lines: _Share | None = None
    """Share of the lines with words that are equal to one of them but for case, punctuation and white space.

    None if no line has words, and in results of earlier versions.
    """
    covered: _Share | None = None
    """Share of the words of a running text that are in it as complete lines of the other text; None for other texts.

    Case, punctuation and white space do not count, and lines have 20 letters or more.
    """
    words: _Share | None = None
    """Share of the 13-grams of words that stand in the other text; None if the text has none."""
    characters: _Share | None = None
    """Share of the 50-grams of characters that stand in the other text; None if the text has none or many words."""

    @property
    def is_large(self) -> bool:
        return self.largest > 1

    @property
    def has_near_lines(self) -> bool:
        """True if more lines are equal without case, punctuation and white space than as they are."""
        return (self.plain_lines or 0.0) > self.lines

    @property
    def largest(self) -> float:
        """The largest share, each divided by its limit."""
        read = max(share or 0.0 for share in (self.lines, self.covered, self.words, self.characters))
        return max(read / MAX_LEAK_SHARE, (self.plain_lines or 0.0) / MAX_NEAR_SHARE)


class Leak(Shares, json_schema_extra=describe_fields):
    """Shares of a held-out split, or of another text, that stand in the training text of a run and of its ancestors."""

    n_lines: int | None = None
    """Lines of the split; None before the training has begun."""
    ancestors: tuple[str, ...] = ()
    """Runs from which the run started, directly or not, whose training text was searched too."""
    unsearched: tuple[str, ...] = ()
    """Runs whose training text was not searched, because it is deleted or has changed."""
    validation: Shares | None = None
    """Shares that stand in the validation text, which chooses the weights; None for a validation split."""


Leaks = dict[HeldOutSplit, Leak]


def largest_leak(leaks: Iterable[Leak]) -> Leak | None:
    """Return the leak of the text of which most was trained on; None without any."""
    largest: Leak | None = None
    for leak in leaks:
        if largest is None or leak.largest > largest.largest:
            largest = leak
    return largest


class CorpusRef(Frozen):
    """A corpus by name and content; the name is relative to a corpus folder, never a server path."""

    name: str
    sha256: Sha256
    bytes: int

    @property
    def is_attached(self) -> bool:
        """True for a text that was attached in Discord: it has no name."""
        return self.name == self.sha256


class EffectiveRequest(TrainingOptions):
    """A resolved request: every value of the training is set."""

    corpus: CorpusRef
    validation_corpus: CorpusRef | None = None
    test_corpus: CorpusRef | None = None
    model: ModelConfig
    tokenizer: TokenizerConfig
    max_seq_len: RowLength
    num_epochs: Annotated[int, Field(ge=1)]
    """Passes over the training split; `max_steps` where a request gives only that."""
    batch_size: BatchRows
    learning_rate: LearningRate
    lr_schedule: Schedule
    has_auto_batch: bool = False
    """True for a run of version 0.1.0 whose worker chose `batch_size`: its request hash has `auto` in this place."""
    has_earlier_hash: bool = False
    """True for a run of version 0.1.0 whose request hash has fields that there are no longer."""
    early_stopping: EarlyStopping = EarlyStopping()
    test: TestAccess = "open"
    tokenizer_saw_held_out: bool = False
    """True if the vocabulary of a stored tokenizer was trained on text that this run holds out."""

    @property
    def counts_steps(self) -> bool:
        """True if `max_steps` alone gives the length of the training."""
        return self.num_epochs == self.max_steps

    @property
    def is_bidirectional(self) -> bool:
        """True if the model reads a line in both directions."""
        if isinstance(self.model, RnnConfig):
            return self.model.bidirectional
        return isinstance(self.model, BertConfig)

    @property
    def parent_run_id(self) -> str | None:
        """The run of the model that the training starts from."""
        return None if self.init_from_run_id is None else run_of(self.init_from_run_id)

    @property
    def corpora(self) -> tuple[CorpusRef, ...]:
        """The training corpus, and those of the splits that have one of their own."""
        return tuple(self.corpora_by_field().values())

    def draws_lines(self, split: str) -> bool:
        """Return True if the lines of a held-out split were drawn by lot, False if neighbouring lines are in it."""
        own_text = self.validation_corpus if split == "validation" else self.test_corpus
        return own_text is None and self.split_by == "line"

    def text_of(self, split: HeldOutSplit) -> tuple[object, ...]:
        """Return the values that decide which text is in a held-out split, but not in which form it is read."""
        text = self.validation_corpus if split == "validation" else self.test_corpus
        if text is not None:
            return (text.sha256,)
        test = self.test_fraction if self.test_corpus is None else 0.0
        drawn = self.corpus.sha256, self.split_by, self.split_seed, test
        return drawn if split == "test" else (*drawn, self.holdout_fraction)  # validation is drawn after the test

    @property
    def test_text(self) -> CorpusRef | None:
        """The text that has the test split, or that it is drawn from; None without a test split."""
        return self.test_corpus or (self.corpus if self.test_fraction > 0 else None)

    @property
    def test_id(self) -> Sha256 | None:
        """Stands for the text of the test split; None without one. Runs with equal ones are tested on one text."""
        return None if self.test_text is None else test_id_of(*self.text_of("test"))

    def corpora_by_field(self) -> dict[str, CorpusRef]:
        """Return the corpora by their fields."""
        texts = {
            "corpus": self.corpus,
            "validation_corpus": self.validation_corpus,
            "test_corpus": self.test_corpus,
        }
        return {field: text for field, text in texts.items() if text is not None}

    def hashes_by_field(self) -> dict[str, str]:
        """Return the SHA-256 of the corpora by their fields."""
        return {field: corpus.sha256 for field, corpus in self.corpora_by_field().items()}


def test_id_of(*text: object) -> Sha256:
    """Return what stands for the text of a test split, given the values that decide it: of a whole text, its hash."""
    return sha256(repr(text).encode()).hexdigest()


def flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of blocks within blocks, with dots in their names."""
    for name, value in values.items():
        if isinstance(value, dict):
            block: Mapping[str, object] = value
            yield from flat(block, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def settings_of(effective: EffectiveRequest) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the settings of a run as text; lists are JSON."""
    dumped: dict[str, object] = effective.model_dump(
        mode="json", exclude={"label", "has_auto_batch", "has_earlier_hash"}
    )
    for name, value in flat(dumped):
        if not name.endswith(".bytes"):
            yield name, value if isinstance(value, str) else to_json(value).decode()


class RunRecord(JobRecord):
    """`request.json`: an accepted run."""

    schema_version: Literal[4] = 4
    run_id: Identifier
    request: SentRequest
    effective: EffectiveRequest
    request_hash: Sha256
    requested_paths: tuple[str, ...] | None = None
    """Output folders that the experiment file names; recorded only."""
    unused_settings: dict[str, Setting] = Field(default_factory=dict)
    """Settings of the experiment file without effect, by path."""
    resumed_from_run_id: Identifier | None = None
    """The failed or cancelled run that this run resumes."""
    checkpoint_request_hash: Sha256 | None = None
    """Request hash of the resumed checkpoint, if the resumed run had another number of epochs."""
    cost: Cost | None = None
    """Estimate shown when the run was accepted; None for a resumed run."""
    chosen: tuple[ChosenValue, ...] = ()
    """The values that the request leaves out and rules have chosen, with their reasons."""
    leaks: Leaks = Field(default_factory=dict)
    """Leaks measured when the run was accepted; empty for a long corpus, which the worker measures."""
    notes: tuple[str, ...] = ()
    """What the program has chosen or left out, in sentences."""
    experiment_id: Identifier | None = None
    """The experiment that started the run, whose own messages tell of its progress."""
    study_id: Identifier | None = None
    """The study that started the run, likewise."""
    group: RunGroup | None = None
    """The runs that differ from this one in their seeds only, which were started together."""
    pace: Pace | None = None
    """What the worker that took the run has measured, if the run has `minutes`; None before."""


def describe_unused(unused_settings: Mapping[str, Setting]) -> list[str]:
    """Return the note on settings without effect; empty if there are none."""
    if not unused_settings:
        return []
    named = ", ".join(f"`{path}`" for path in unused_settings)
    return [f"Ignored settings: {named}. Each run has its own folder and log."]


class Accepted(Frozen, json_schema_extra=describe_fields):
    run_id: Identifier
    """The run; of a group, the run of its first seed."""
    job_id: Identifier
    status: RunState
    group: RunGroup | None = None
    """The group that was started, if the request has several `seeds`."""

    @classmethod
    def of(cls, record: RunRecord) -> "Accepted":
        """Return the answer to the request that started a run, or its group; a resumed member was started alone."""
        group, run_id = record.group, record.run_id
        if group is not None and run_id == group.member_id(record.effective.seed):
            return cls(run_id=group.first_id, job_id=group.first_id, status="queued", group=group)
        return cls(run_id=run_id, job_id=run_id, status="queued")

    @property
    def name(self) -> str:
        """The id of the run, or of the group."""
        return self.run_id if self.group is None else self.group.group_id

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The run, or all runs of the group."""
        group = self.group
        return (self.run_id,) if group is None else tuple(group.member_id(seed) for seed in group.seeds)


class AnnotationChange(Frozen):
    """A change of what people add to a run after its start; a field without a value stays as it is."""

    label: Label | None = None
    note: RunNote | None = None
    tags: Tags | None = None


class Annotations(AnnotationChange):
    """`annotations.json`: the note of a run, and its label and tags in place of those of its request."""

    schema_version: Literal[2] = 2


class RunStatus(Frozen, json_schema_extra=describe_fields):
    run_id: Identifier
    status: RunState
    reachable: bool
    """False for a run whose worker has stopped renewing its lease."""
    last_heartbeat_ts: float | None = None
    message: str
    """The state in words, for people; programs read `status`, `waits_for`, `phase` and `stopped_by`."""
    waits_for: WaitReason | None = None
    """The reason of waiting: its turn, a worker, a worker of another kind, the queue, or its disk."""
    phase: Phase | None = None
    """The phase of a running run; None before the first."""
    stopped_by: StopCause | None = None
    """Why the last attempt ended, until the next one starts."""
    progress: Annotated[float, Field(ge=0, le=100)]
    epoch: int
    total_epochs: int
    step: int
    total_steps: int | None = None
    train_loss: float | None = None
    """Mean since the last row of the loss curve; of a completed run: of its last complete epoch, None without one."""
    val_loss: float | None = None
    best_val_loss: float | None = None
    best_val_margin: float | None = None
    """Half the width of the 95 % interval of `best_val_loss` over the validation lines; None with too few lines."""
    train_bits_per_char: float | None = None
    """Bits per character of the training split; None for a masked model."""
    val_bits_per_char: float | None = None
    best_val_bits_per_char: float | None = None
    test_loss: float | None = None
    test_perplexity: float | None = None
    bits_per_char: float | None = None
    """Bits per character of the test split."""
    counted_val_loss: float | None = None
    """Validation loss of the best n-gram of the training split, in nats per token; None for a model without one."""
    baseline: Baseline | None = None
    """Losses of counting on the test split, or on validation without one; None until the end, and for masked models."""
    tokens_per_second: float | None = None
    chars_per_second: float | None = None
    eta_seconds: float | None = None
    last_checkpoint_step: int | None = None
    queue_position: int | None = None
    device: str | None = None
    precision: str | None = None
    vocab_size: int | None = None
    unknown_char_share: float | None = None
    """Largest share of unknown characters in a split; above 0.001, figures are too low to compare."""
    params: int | None = None
    """Number of the model's weights."""
    batch_size: int | None = None
    learning_rate: float | None = None
    """Learning rate of the last step."""
    grad_norm: float | None = None
    """Gradient norm of the last step, before clipping."""
    gpu_memory_bytes: tuple[int, ...] | None = None
    """Highest use of memory so far on each GPU of the training; None on the CPU."""
    best_epoch: int | None = None
    """Epoch with the lowest validation loss."""
    evals_without_gain: int | None = None
    """Evaluations since the lowest validation loss, which early stopping counts."""
    last_checkpoint_ts: float | None = None
    auc: float | None = None
    """Area under the training loss curve, in nats times steps; None for a curve with one row."""
    early_stopped: bool | None = None
    artifact_bytes: int | None = None
    """Size of the weights file, `model.safetensors`, of a completed run; `artifact_sha256` is its hash."""
    artifact_sha256: Sha256 | None = None
    test_access: TestAccess = "open"
    """locked: the test split is not read before an unlock."""
    test_looks: LookCount | None = None
    """The looks at its test split so far, those of other runs too; None before its end, and without a test split."""
    error: RunError | None = None
    created_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    user_id: int | None = None
    owner: str | None = None
    """Name of the API key or id of the Discord user that started the run; None for the command line."""
    model_family: ModelFamily
    objective: Objective = "causal_lm"
    """With masked_lm, each loss is per masked token."""
    is_bidirectional: bool = False
    """True if the model reads lines in both directions."""
    model_size: str | None = None
    tokenizer_id: str | None = None
    attempt: int
    label: str | None = None
    seed: int | None = None
    group: RunGroup | None = None
    """The runs that differ from this one in their seeds only."""
    leaks: Leaks = Field(default_factory=dict)
    """Shares of the held-out splits that stand in the training split; of a long corpus known when training starts."""
    warnings: tuple[str, ...] = ()
    """Warnings about the numbers of the run."""
    notes: tuple[str, ...] = ()
    """What the program has chosen or left out, in sentences."""
    tags: tuple[str, ...] = ()
    """The tags that people have given last."""
    note: str | None = None
    """The note that people have written about the run."""

    @property
    def has_ended(self) -> bool:
        return self.status in FINAL_STATES

    @property
    def bits_per_nat(self) -> float | None:
        """Bits per character of the validation split per nat of its loss per token; None if unknown."""
        bits, loss = self.best_val_bits_per_char, self.best_val_loss
        return bits / loss if bits and loss else None


class ModelFacts(Frozen):
    family: ModelFamily
    size: str | None
    params: int
    tied: bool
    vocab_size: int
    dims: ModelConfig


MAX_UNKNOWN_CHAR_SHARE = 0.001
"""Largest share of unknown characters of a text whose figures are compared with those of other tokenizers."""
MAX_SHOWN_UNKNOWN_SHARE = 0.05
"""Largest share of unknown characters of a text whose perplexity, accuracies and figures per character are shown."""


def has_unknown_text(unknown_char_share: float | None) -> bool:
    """Return True if a text has so many unknown characters that its figures are too low to compare."""
    return (unknown_char_share or 0.0) > MAX_UNKNOWN_CHAR_SHARE


def is_largely_unknown(unknown_char_share: float | None) -> bool:
    """Return True if a text has so many unknown characters that only figures over its known tokens say something."""
    return (unknown_char_share or 0.0) > MAX_SHOWN_UNKNOWN_SHARE


class SplitSizes(Frozen):
    """The size of one split; tokens are predicted targets ([EOS] counted, [BOS] not).

    Characters and bytes are those of the lines without line ends, in a stream with them.
    """

    lines: int
    chars: int
    tokens: int
    unknown_tokens: int = 0
    """Tokens unknown to the tokenizer."""
    unknown_chars: int = 0
    """Characters that the unknown tokens stand for."""
    bytes: int = 0
    """In UTF-8."""
    leak: Leak | None = None
    """The shares of a held-out split that stand in the training split, too."""

    @property
    def unknown_char_share(self) -> float:
        return self.unknown_chars / max(1, self.chars)

    def bits_per_char(self, loss_nats: float, objective: Objective) -> float | None:
        """Convert a mean loss per token of this split to bits per character.

        None for a masked model: its loss covers the masked tokens only.
        """
        return loss_nats / math.log(2) * self.tokens / self.chars if objective == "causal_lm" else None


class DataFacts(Frozen):
    corpus: CorpusRef
    train: SplitSizes
    validation: SplitSizes
    test: SplitSizes | None
    notes: tuple[str, ...] = ()
    """What the program has chosen or left out, in sentences."""

    @property
    def leaks(self) -> Leaks:
        """Return the leaks of the held-out splits."""
        return leaks_of({"validation": self.validation, "test": self.test})


def leaks_of(sizes: Mapping[HeldOutSplit, SplitSizes | None]) -> Leaks:
    """Return the leaks of the splits in which they were measured."""
    return {
        split: changed(size.leak, n_lines=size.lines)
        for split, size in sizes.items()
        if size is not None and size.leak is not None
    }


def largest_unknown_char_share(splits: Iterable[SplitSizes | None]) -> float | None:
    """Return the largest share of unknown characters in a split; None if it is not known."""
    return max((split.unknown_char_share for split in splits if split is not None), default=None)


class TokenizerFacts(Frozen):
    id: str
    sha256: Sha256


class RunMetrics(Frozen):
    """Losses of a run in nats per predicted token."""

    train: float | None = None
    """Mean of the last complete epoch; None for a run shorter than an epoch."""
    val: float | None = None
    test: float | None = None
    test_perplexity: float | None = None
    bits_per_char: float | None = None
    """Bits per character of the test split; None for a masked model, as are the other bits per character."""
    train_bits_per_char: float | None = None
    val_bits_per_char: float | None = None
    best_bits_per_char: float | None = None
    best: float | None = None
    best_margin: float | None = None
    """Half the width of the 95 % interval of `best` over the validation lines; None with too few lines."""
    auc: float | None = None
    """Area under the training loss curve, in nats times steps; None for a curve with one row."""
    initial: float | None = None
    """Validation loss before the first step of a warm start."""


class Timings(Frozen):
    created: Timestamp
    started: Timestamp | None = None
    finished: Timestamp
    train_seconds: float = 0.0
    epoch_seconds: tuple[float, ...] = ()


class KnownFigures(Frozen):
    """Figures of an evaluation over the tokens that are not unknown, with [EOS]."""

    loss: float
    """In nats per known token."""
    top1_accuracy: float
    top5_accuracy: float
    n_tokens: int


class EvalSummary(Frozen):
    """Result of an evaluation; a run keeps the latest of each split and corpus."""

    split: str
    dataset: str | None = None
    """Corpus evaluated instead of the split; None: the split itself."""
    loss: float
    perplexity: float
    bits_per_char: float | None = None
    """None for a masked model."""
    top1_accuracy: float | None = None
    top5_accuracy: float | None = None
    unknown_share: float | None = None
    """Share of unknown tokens, without [EOS]."""
    unknown_char_share: float | None = None
    """Share of unknown characters; above 0.001, all figures are too low to compare with other tokenizers."""
    known: KnownFigures | None = None
    """The figures over known tokens; None of earlier versions, and of text without any known token."""
    lines: LineLosses
    """Losses of the lines of the text."""
    leak: Leak | None = None
    """The shares of the text that the run and its ancestors have trained on; None if they were not measured."""


class RunManifest(Frozen):
    """`manifest.json`: a finished run; written once, at its end."""

    schema_version: Literal[4] = 4
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
    baselines: Baselines = Field(default_factory=dict)
    """Losses of counting, by split; empty for a masked model."""
    early_stopped: bool = False
    best_epoch: int | None = None
    steps: int = 0
    timings: Timings
    environment: Environment | None = None
    determinism: Literal["bit_exact", "best_effort"] | None = None
    seed: int
    eval: tuple[EvalSummary, ...] = ()
    test_looks: LookCount | None = None
    """The looks at its test split when its own loss there was read, or at its end if that was not read.

    None without a test split.
    """
    files: tuple[FileRecord, ...] = ()
    sampling_version: Literal[1, 2] = 1
    """Order in which a draw walks through the tokens when this run's samples are generated.

    1: likeliest first; 2: by id where neither `top_k` nor `top_p` is given, else likeliest first.
    """
    error: RunError | None = None
    last_lines: tuple[str, ...] = ()
    """Last lines of the error output, if the training process ended without an error of its own."""

    @property
    def quoted(self) -> str:
        """The run in a message."""
        return quoted_run(self.run_id, self.effective.label)

    @property
    def reported_baseline(self) -> Baseline | None:
        """The baseline on the test split, or on validation without one."""
        return self.baselines.get("test", self.baselines.get("validation"))

    def evaluation(self, split: HeldOutSplit) -> EvalSummary | None:
        """Return the evaluation of the run on one of its splits; None if it was not measured on it."""
        return next((one for one in self.eval if (one.split, one.dataset) == (split, None)), None)

    def is_unread(self, split: str) -> bool:
        """Return True for the test split of a completed run that is locked, and whose losses there were not read."""
        return split == "test" and self.effective.test == "locked" and self.metrics.test is None

    @property
    def unknown_char_share(self) -> float | None:
        """Largest share of unknown characters in a split."""
        splits = () if self.data is None else (self.data.train, self.data.validation, self.data.test)
        return largest_unknown_char_share(splits)


def quoted_run(run_id: str, label: str | None) -> str:
    """Return a run in a message: what a person has called it, with the id behind it."""
    return f"'{run_id}'" if label is None else f"'{label}' ({run_id})"


def finished_error(run_id: str) -> AppError:
    """Return the refusal to cancel a run that has ended."""
    return AppError(ErrorCode.RUN_FINISHED, f"The run '{run_id}' has already ended.")


def check_completed(manifest: RunManifest) -> None:
    """Raise RUN_NOT_READY for a run that ended without a model."""
    if manifest.status != "completed":
        message = f"The run {manifest.quoted} has been cancelled: it has no model."
        if manifest.status == "failed":
            message = f"The run {manifest.quoted} has failed: it has no model."
        raise AppError(ErrorCode.RUN_NOT_READY, message)


class RunModel(Frozen):
    """The model of a run, or of one of its checkpoints, that is tested by a job."""

    run_id: Identifier
    checkpoint: int | None = None
    """The step of the checkpoint; None for the model of the run."""
    epoch: int | None = None
    """Complete epochs before the checkpoint; None for the model of the run."""
    words: int | None = None
    """Words and tokens of the training text read before it; None for the model of the run."""
    tokens: int | None = None
    label: str | None = None
    seed: int
    series: Sha256 | None = None
    """Equal for models that differ in their seeds only; None, as the hash of the weights, for a model in a notebook."""
    weights_sha256: Sha256 | None = None

    @property
    def name(self) -> str:
        """The name of the model: `RUN`, or `RUN@1200`."""
        return model_name(self.run_id, self.checkpoint)
