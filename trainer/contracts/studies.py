"""Records of a study: settings compared on validation, a winner by a stated rule, and one look at the test split."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator
from pydantic.config import JsonDict

from trainer.contracts.base import (
    Count,
    Frozen,
    GivenName,
    Identifier,
    JobRecord,
    Names,
    RunState,
    Seed,
    Sha256,
    describe_fields,
)
from trainer.contracts.baselines import Baseline
from trainer.contracts.cost import Cost
from trainer.contracts.job_status import JobPage, JobStatus
from trainer.contracts.looks import LookCount
from trainer.contracts.models import Objective
from trainer.contracts.parameters import Query
from trainer.contracts.runs import EffectiveRequest, SentRequest, has_unknown_text
from trainer.contracts.training_options import ChosenValue, Minutes, Pace

StudyName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
"""The name of a study, or of a setting in it: part of the ids of runs."""
SET_BY_STUDY = ("test", "seed", "seeds", "label", "resume")
"""Fields of a train request that a study sets by itself."""
_TRAIN_FIELDS: JsonDict = {"x-record": "TrainRequest", "x-without": [*SET_BY_STUDY]}
"""Added to the schema of a block with some fields of a train request."""
_SPACE: JsonDict = {
    "examples": [{"learning_rate": {"low": 0.0005, "high": 0.005, "scale": "log"}, "model.dropout": [0.1, 0.3]}]
}
_ONLY_THESE_NAMES: JsonDict = {"additionalProperties": False}
MAX_VARIANTS = 256
SMALLEST_DIFFERENCE = 0.0005
"""Smaller differences of a winner, in bits or nats, count as none: reports write them as 0.000."""
MAX_P = 0.05
"""A difference with a smaller p is clear."""
TrainFields = Annotated[dict[str, JsonValue], Field(json_schema_extra=_TRAIN_FIELDS), Names.TRAINING]


class ValueRange(Frozen, json_schema_extra=describe_fields):
    """The numbers that a study draws the values of a field from; whole numbers if both ends are written so."""

    low: int | float
    high: int | float
    scale: Literal["log", "linear"] = "linear"
    """log: as many values are drawn between 0.001 and 0.01 as between 0.01 and 0.1."""

    @model_validator(mode="after")
    def _check(self) -> "ValueRange":
        if self.low >= self.high:
            raise ValueError("`low` must be below `high`")
        if self.scale == "log" and self.low <= 0:
            raise ValueError("`low` must be above 0 with `scale` log")
        return self


Values = Annotated[
    Annotated[tuple[JsonValue, ...], Field(min_length=1, max_length=MAX_VARIANTS), Tag("values")]
    | Annotated[ValueRange, Tag("range")],
    Discriminator(lambda value: "values" if isinstance(value, list | tuple) else "range"),
]


class StudyRequest(Frozen, json_schema_extra=describe_fields):
    """A study as requested: what all runs share, what varies, and how much may be trained."""

    name: StudyName
    """Name of the study: the first part of its id and of those of its runs."""
    train: TrainFields
    """Fields of the train request that all runs share; the study sets test, label and seeds itself."""
    settings: Annotated[
        dict[StudyName, TrainFields],
        Field(max_length=MAX_VARIANTS, json_schema_extra=_ONLY_THESE_NAMES),
    ] = Field(default_factory=dict)
    """The settings to compare, by name: for each, the fields of the train request that differ."""
    space: Annotated[dict[str, Values], Names.TRAINING] = Field(default_factory=dict, json_schema_extra=_SPACE)
    """In place of `settings`: for each field, as `model.dropout`, its values, or the range to draw them from.

    Without both, learning rate and dropout vary around the values that the rules choose.
    """
    variants: Annotated[int, Field(ge=2, le=MAX_VARIANTS)] = 8
    """Settings that are drawn from `space`."""
    halving: bool = True
    """Compare by rounds of short trainings, each with the better half of the last one; else by one full training."""
    finalists: Annotated[int, Field(ge=1, le=20)] = 3
    """The best settings, which are trained in full over `seeds` seeds."""
    seeds: Annotated[int, Field(ge=1, le=20)] = 3
    """Trainings of each finalist; the winner has the lowest mean validation loss over them."""
    test_seeds: Annotated[int, Field(ge=1, le=20)] = 5
    """Further trainings of the winner, with seeds that chose nothing; their test losses are read together, once."""
    read_test: bool = True
    """Train the winner for the test split, and read it; without, the study ends with the winner."""
    seed: Seed = 42
    """Seed of the drawn settings and of the first trainings; further ones have the seeds that follow."""
    runs: Count | None = None
    """Most runs of the study in all; the finalists and the test come first."""
    minutes: Minutes | None = None
    """Most minutes of training of all runs together; then no further trial starts, and the best so far go on."""

    @model_validator(mode="after")
    def _check(self) -> "StudyRequest":
        if self.settings and self.space:
            raise ValueError("give `settings` or `space`, not both")
        return self


class StudySetting(Frozen, json_schema_extra=describe_fields):
    """A setting that a study compares."""

    number: Count
    """Its place in the request, from 1; equal settings leave gaps."""
    name: StudyName
    train: dict[str, JsonValue]
    """The fields of the train request that it adds to those that all share."""
    equals: tuple[StudyName, ...] = ()
    """Names of later settings that resolve to the same training, which is done once for all of them."""


def equal_settings(settings: Iterable[StudySetting]) -> Iterator[tuple[StudyName, StudyName]]:
    """Yield the name of each setting that is not trained, with that of the equal one that is."""
    for one in settings:
        for name in one.equals:
            yield name, one.name


class StudyVariant(StudySetting):
    """A setting with its full training as it was resolved when the study was accepted."""

    request: SentRequest
    effective: EffectiveRequest
    cost: Cost
    chosen: tuple[ChosenValue, ...]
    notes: tuple[str, ...]

    @property
    def setting(self) -> StudySetting:
        return StudySetting(number=self.number, name=self.name, train=self.train, equals=self.equals)


class StudyRecord(JobRecord):
    """`request.json`: an accepted study."""

    schema_version: Literal[3] = 3
    study_id: Identifier
    request: StudyRequest
    request_hash: Sha256
    attempt: Count = 1
    """The number of times that the study was started; a later attempt uses the completed runs of earlier ones."""
    variants: tuple[StudyVariant, ...]
    pace: Pace | None = None
    """What the worker that took the study has measured, if its trainings have `minutes`; None before."""

    @property
    def run_seconds(self) -> float | None:
        """The longest estimated time of a full training; None if no comparable run has ended here."""
        known = [one.cost.seconds for one in self.variants if one.cost.seconds is not None]
        return max(known, default=None)

    @property
    def n_finalists(self) -> int:
        return min(self.request.finalists, len(self.variants))

    @property
    def n_last_runs(self) -> int:
        """The number of full trainings at the end: those of the finalists, then those that are tested."""
        asked = self.request
        return self.n_finalists * asked.seeds + (asked.test_seeds if asked.read_test else 0)


TrialPhase = Literal["round", "final", "test"]
"""A comparison of short trainings; the trainings of the finalists; those of the winner that are tested."""


_MAX_TRIES = 3


class TrialKey(NamedTuple):
    """A training of a study."""

    phase: TrialPhase
    round: int
    """From 1; 0 outside rounds."""
    variant: int
    place: int
    """The number that is added to the study's seed."""

    def __str__(self) -> str:
        return (
            f"r{self.round}-v{self.variant}" if self.phase == "round" else f"{self.phase}-v{self.variant}-{self.place}"
        )

    def run_id(self, record: StudyRecord, attempt: int) -> str:
        """Return the id of the run of this training that an attempt at the study starts."""
        return f"{record.study_id}-{self}{'' if attempt == 1 else f'-a{attempt}'}"

    def tries(self, record: StudyRecord, attempt: int) -> tuple[str, ...]:
        """Return the ids of the runs of an attempt: the next one is started if a run ended before its first step."""
        run_id = self.run_id(record, attempt)
        return (run_id, *(f"{run_id}-t{number}" for number in range(2, _MAX_TRIES + 1)))


class Trial(Frozen, json_schema_extra=describe_fields):
    """A training of a study, as far as it has come."""

    phase: TrialPhase
    round: int
    """From 1; 0 outside rounds."""
    variant: int
    """Number of the setting."""
    name: str
    """Name of the setting."""
    seed: int
    run_id: Identifier
    status: RunState
    val_loss: float | None = None
    """Validation loss in nats per token; None before the end, and for a training that failed."""
    val_bits_per_char: float | None = None
    """None for a masked model."""
    unknown_char_share: float | None = None
    """Share of unknown characters in the validation text."""
    train_seconds: float = 0.0
    reason: str | None = None
    """Why it failed."""
    is_measured: bool = True
    """False if it failed before its first step by no fault of its setting, as often as it was tried."""

    @property
    def has_ended(self) -> bool:
        return self.status in ("completed", "failed", "cancelled")

    @property
    def score(self) -> float:
        """The number by which trials are ranked: per character, as tokens of two tokenizers are not comparable."""
        loss = self.val_loss if self.val_bits_per_char is None else self.val_bits_per_char
        return float("inf") if loss is None else loss

    @property
    def unknown(self) -> float:
        """The share of unknown characters, 0 if it is small enough: only trials of one share have comparable losses."""
        share = self.unknown_char_share or 0.0
        return share if has_unknown_text(share) else 0.0


class LossEstimate(Frozen, json_schema_extra=describe_fields):
    """The mean loss of a setting over seeds, with its 95 % interval over lines and seeds."""

    value: float
    low: float | None = None
    """None for one seed, and for a text of few lines, as `high`."""
    high: float | None = None
    lines_error: float | None = None
    """Standard error over lines of text like this."""
    seeds_error: float | None = None
    """Standard error over the seeds of trainings."""


class WinnerDifference(Frozen, json_schema_extra=describe_fields):
    """The mean validation loss of the winner minus that of another finalist, with its 95 % interval.

    In bits per character, of a masked model in nats per token. The interval is over lines and seeds.
    """

    value: float
    low: float | None = None
    """None for one seed, a text of few lines, and losses that do not vary, as `high` and `p`."""
    high: float | None = None
    p: float | None = None
    """Two-sided, adjusted for all pairs of finalists, because the winner is the best of them (Holm 1979)."""

    @property
    def is_clear(self) -> bool:
        """True if the winner is clearly better."""
        return self.value < 0 and self.p is not None and self.p < MAX_P


class StudyFinalist(Frozen, json_schema_extra=describe_fields):
    """A setting that was trained in full over seeds."""

    variant: int
    name: str
    n_completed: int
    n_lost: int
    """Trainings that failed, without those that were not measured."""
    val_loss: LossEstimate | None
    """In nats per token; None if all of its trainings failed, as the next one."""
    val_bits_per_char: LossEstimate | None
    """None for a masked model."""
    winner_difference: WinnerDifference | None = None
    """None for the winner, and for a finalist whose losses are not comparable with its losses."""
    baseline: Baseline | None = None
    """Losses of counting on the validation split; None for a masked model."""


class StudyTest(Frozen, json_schema_extra=describe_fields):
    """The losses of the winner on the test split, of trainings with seeds that chose nothing."""

    run_ids: tuple[Identifier, ...]
    test_loss: LossEstimate
    """In nats per token."""
    bits_per_char: LossEstimate | None
    """None for a masked model."""
    looks: LookCount | None
    """The looks at this test text so far, with this one."""
    baseline: Baseline | None
    """Losses of counting on the test split; None for a masked model."""


class StudyResult(Frozen, json_schema_extra=describe_fields):
    """`result.json`: a completed study; written last."""

    schema_version: Literal[3] = 3
    study_id: Identifier
    name: StudyName
    objective: Objective
    variants: tuple[StudySetting, ...]
    trials: tuple[Trial, ...]
    finalists: tuple[StudyFinalist, ...]
    """The best first."""
    winner: StudySetting
    test: StudyTest | None
    """None for a study that does not read the test split."""


class StudyStatus(JobStatus, json_schema_extra=describe_fields):
    """The state of a study, read from the disk."""

    study_id: Identifier
    name: str
    message: str
    runs_done: int
    n_runs: int
    """Runs that have ended and that are still expected; fewer if trials fail or the budget ends."""
    winner: str | None = None
    """Name of the setting that has won."""
    test_loss: float | None = None
    """Its mean loss on the test split, in nats per token; `result.json` has the interval."""
    elapsed_seconds: float | None = None
    notes: tuple[str, ...] = ()
    """The settings that are equal to others, in sentences."""
    trials: tuple[Trial, ...] = ()
    """The trainings that were started."""


class StudyList(JobPage):
    """Studies, without their trials."""

    studies: tuple[StudyStatus, ...]


class StudyPath(Query):
    study_id: Annotated[GivenName, Names.JOB]
