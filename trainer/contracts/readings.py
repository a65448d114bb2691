"""Records of reading times: a table of times, how it is read and analysed, and what surprisal explains of the times."""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import Field

from trainer.contracts.base import (
    CountOptions,
    Frozen,
    GivenName,
    Identifier,
    JobRecord,
    ModelName,
    Names,
    Seed,
    Sha256,
    are_different,
    describe_fields,
    requires,
)
from trainer.contracts.batteries import MAX_RUNS, Quoting
from trainer.contracts.cells import CodePage
from trainer.contracts.job_status import JobPage, SteppedStatus
from trainer.contracts.models import ModelFamily
from trainer.contracts.parameters import Query
from trainer.contracts.reports import Note
from trainer.contracts.runs import Leak, RunModel
from trainer.contracts.sequences import Separator, Tokenizations

Measure = Literal["self_paced", "maze", "first_fixation", "gaze", "go_past", "total", "skipping"]
"""Times in milliseconds for a unit, and whether the eyes skip it.

They are of self-paced reading and the maze task, or of eye movements: the first fixation, all fixations before the eyes
leave the unit, all time before they go past it, and all fixations.
"""
MEASURES: tuple[Measure, ...] = get_args(Measure)
Predictor = Literal["surprisal", "entropy", "length", "log_frequency", "unigram", "ngram", "position"]
"""Predictors of the time for a unit.

Its surprisal, the entropy before it, and its surprisals by unigrams and by the best n-gram are in bits, its length in
characters. The log frequency is that of its words in the training text, the position its place in the text.
"""
PREDICTORS: tuple[Predictor, ...] = get_args(Predictor)
COUNTED: tuple[Predictor, ...] = ("log_frequency", "unigram", "ngram")
"""Predictors that are counted in the training text of a run."""
Exclusion = Literal["first", "last", "punctuation"]
"""Units that are left out: the first and the last of a text, and those that have punctuation."""
Reason = Literal[
    "first",
    "last",
    "punctuation",
    "missing",
    "too_short",
    "too_long",
    "beginning",
    "gap",
    "inside_token",
    "no_predictor",
]
"""Reasons for which a row is left out, which counts for the first of them.

The times of skipped units are missing. The units before are needed at the beginning of a text and behind a gap in
positions. A unit inside a token has no surprisal. Earlier versions counted the last three together as `no_predictor`.
"""
Scale = Literal["raw", "log"]
"""Times in milliseconds, or their natural logarithm."""
Analysis = Literal["mixed", "means"]
"""A mixed model with random intercepts of person and unit, or least squares on the means of the units."""
Form = Literal["linear", "spline"]
"""The effect of surprisal: a line, or a natural cubic spline."""
FoldBy = Literal["text", "row"]
"""The part that is held out as a whole: a text, or rows in their order, whose texts are also trained on."""
MAX_NOTE_CHARACTERS = 10_000
"""Most characters of a note on a table, such as the one on its columns."""
MIN_TEXTS = 5
"""Fewest texts for held-out likelihoods and their intervals."""
MIN_PERSONS = 5
"""Fewest persons for intervals of effects that hold for other persons, too."""
MAX_TABLE_CHARACTERS = 1 << 28
"""Most characters of a table, which `mt` on the machine of the server takes; other requests have fewer."""
LIMITS_MS: Mapping[Measure, tuple[float, float]] = {
    "self_paced": (100.0, 3000.0),
    "maze": (100.0, 5000.0),
    "first_fixation": (80.0, 2000.0),
    "gaze": (80.0, 3000.0),
    "go_past": (80.0, 10_000.0),
    "total": (80.0, 10_000.0),
}
"""The shortest and the longest time that is kept by default."""


def _is_baseline(names: tuple[Predictor, ...]) -> bool:
    return "surprisal" not in names


class ReadingFile(Frozen, json_schema_extra=describe_fields):
    """A table of times in a request: a row for each unit, or for each person and unit."""

    name: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]{1,100}$")]
    """Its suffix tells the form: .csv, .tsv or .jsonl."""
    content: Annotated[str, Field(min_length=1, max_length=MAX_TABLE_CHARACTERS)]
    """Its text, such as a table with the columns text, position, word, person and rt."""
    notes: Annotated[tuple[Annotated[str, Field(max_length=MAX_NOTE_CHARACTERS)], ...], Field(max_length=100)] = ()
    """Sentences of a client on how it has read another table, of which this one has the known columns."""


class TableOptions(Frozen, json_schema_extra=describe_fields):
    """Options for reading a table of times."""

    columns: Mapping[str, str] = {}
    """The columns of a table with other names, by the names that are known: `{"self_paced": "RT_ms"}`.

    `+` joins the columns that name a text or a person together: `{"person": "list+subject"}`.
    """
    encoding: CodePage | None = None
    """The encoding of a file that is not in UTF-8; default: any, if all give the same text."""
    quoting: Quoting | None = None
    """Read quotation marks as those around cells (csv) or as plain characters (none); default: as fits."""
    keep_na: bool = False
    """Read `NA`, `NaN`, `null` and `<NA>` as words; default: as empty cells."""


class ReadingOptions(TableOptions, CountOptions):
    """Options for the analysis of reading times."""

    measures: Annotated[tuple[Measure, ...], requires(are_different, "different from each other")] = ()
    """The measures to analyse, each by itself; default: all that the table has."""
    separator: Separator | None = None
    """The characters between two units of a text without a running text; default: a space where one is written."""
    tokenizations: Tokenizations = "canonical"
    """The tokenizations of subwords to score: the tokenizer's (canonical), or all (marginal), which takes longer."""
    exclude: tuple[Exclusion, ...] = ("first", "last")
    """Units that are left out."""
    min_ms: Annotated[float, Field(ge=0)] | None = None
    """Leave out shorter times; default: by the measure."""
    max_ms: Annotated[float, Field(gt=0)] | None = None
    """Leave out longer times; default: by the measure."""
    scale: Scale = "raw"
    analysis: Analysis | None = None
    """The regression; default: mixed where the table has persons."""
    baseline: Annotated[
        tuple[Predictor, ...],
        requires(_is_baseline, "without `surprisal`, which is compared with it"),
        requires(are_different, "different from each other"),
    ] = ("length", "log_frequency", "position")
    """Predictors that stand beside the surprisal, and alone in the model that it is compared with."""
    frequencies: Annotated[GivenName, Names.RUN] | None = None
    """The run in whose training text the baselines of all models are counted; default: each in its own."""
    spillover: Annotated[int, Field(ge=0, le=2)] = 2
    """Also take the predictors of so many units before."""
    n_folds: Annotated[int, Field(ge=2, le=100)] = 10
    """Parts of the texts, each of which is held out once."""
    fold_by: FoldBy = "text"
    seed: Seed = 0
    """The seed of the folds, the bootstrap and the permutations."""

    @property
    def unset(self) -> set[str]:
        """Fields that are not set, and that earlier versions did not have: hashes of requests are without them."""
        return self.unset_counts | (set() if self.frequencies is not None else {"frequencies"})


class ReadingRequest(ReadingOptions):
    """A request to explain reading times by the surprisals of runs."""

    runs: Annotated[
        tuple[GivenName, ...],
        Field(min_length=1, max_length=MAX_RUNS),
        requires(are_different, "different from each other"),
        Names.RUN,
    ]
    """Runs, groups of runs over seeds, or checkpoints of runs: `RUN@1200`."""
    has_checkpoints: bool = False
    """Also take the checkpoints that the schedules of the runs have kept."""
    file: ReadingFile


class Excluded(Frozen):
    """Rows of a measure that were left out for a reason."""

    reason: Reason
    n_rows: int


class ReadingData(Frozen):
    """A table of times that has been read."""

    name: str
    sha256: Sha256
    n_texts: int
    n_units: int
    n_persons: int
    """0 for a table of means."""
    measures: tuple[Measure, ...]
    notes: tuple[Note, ...] = ()
    """How the table was read: its columns, and what was guessed; in results also what could not be counted."""


class ReadingRecord(JobRecord):
    """`request.json`; the table is in `times.csv` beside it, with the known names of its columns."""

    schema_version: Literal[2] = 2
    reading_id: Identifier
    options: ReadingOptions
    runs: tuple[RunModel, ...]
    data: ReadingData
    request_hash: Sha256

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures to analyse."""
        return self.options.measures or self.data.measures

    @property
    def n_steps(self) -> int:
        """Models that score the texts, and fits of each measure by them; counts of their texts come to these."""
        return len(self.runs) * (1 + len(self.measures))


class UnitScores(Frozen):
    """`scores/MODEL.json`: what a model says about each unit, in the order of the texts."""

    surprisal_nats: tuple[float | None, ...]
    """None for a unit without tokens of its own."""
    entropy_nats: tuple[float | None, ...]
    """The entropies of the predictions before the first token of each unit."""
    bound_nats: float | None = None
    """How much lower a surprisal can be, given the continued tokenizations; None for canonical ones."""
    n_cut: int
    """Texts that are longer than the model's context, so that they are scored by windows."""
    n_unknown: int
    """Tokens that stand for words or characters which the tokenizer does not know."""


class Coefficient(Frozen, json_schema_extra=describe_fields):
    """The effect of a predictor on the times, with its 95 % interval, which is that of the clustered error."""

    predictor: str
    """Its name in the tidy table, such as `surprisal`, or `surprisal_1` of the unit before."""
    unit: str
    """The unit of the effect, such as `ms per bit`."""
    estimate: float
    standard_error: float | None = None
    """That of the model, as lme4 has it; None in results of earlier versions, as the clustered one."""
    clustered_error: float | None = None
    """The standard error that is clustered by texts, and by persons if there are five or more."""
    low: float
    high: float


class DeltaLogLikelihood(Frozen, json_schema_extra=describe_fields):
    """What surprisal adds to the log-likelihood of held-out times, in nats per observation, with its 95 % interval."""

    estimate: float
    low: float | None
    """The lower end, by a bootstrap over texts; None for folds by rows, as `high`."""
    high: float | None


class ScoringModel(Frozen, json_schema_extra=describe_fields):
    """A model that gives surprisals, or the counts of its training text."""

    model: ModelName
    """A run, or a checkpoint of a run."""
    counts: Literal["unigram", "ngram"] | None = None
    """The surprisals are those of counts in the training text of the run; None for those of the model."""
    family: ModelFamily
    params: int | None
    """None for a checkpoint of a run that has not completed."""
    step: int
    """The step of the checkpoint, or the last one of the training."""
    series: Sha256
    """Equal for runs that differ in their seeds only."""
    is_masked: bool = False
    """True if surprisals are also given the text after a unit."""
    n_cut: int = 0
    """Texts that are longer than the model's context, so that they are scored by windows."""
    n_unknown: int = 0
    """Tokens of the texts that stand for words or characters which the tokenizer does not know."""
    bound_bits: float | None = None
    """How much lower the surprisal of a unit can be, given the continued tokenizations; None for canonical ones."""
    leak: Leak | None = None
    """How much of the texts the run and its ancestors have trained on.

    None for counts, without their texts, and in results of earlier versions.
    """

    @property
    def name(self) -> str:
        """The name of the model or of the counts."""
        match self.counts:
            case None:
                return self.model
            case "unigram":
                return f"unigram of {self.model}"
            case _:
                return f"ngram of {self.model}"


class ReadingFit(ScoringModel):
    """What a model explains of a measure."""

    schema_version: Literal[2] = 2
    measure: Measure
    analysis: Analysis
    n_observations: int
    n_texts: int
    excluded: tuple[Excluded, ...]
    perplexity: float | None
    """The perplexity per unit of the scored units; None where it is too large, as for whole paragraphs."""
    coefficients: tuple[Coefficient, ...]
    delta_log_likelihood: DeltaLogLikelihood
    spline_delta_log_likelihood: DeltaLogLikelihood
    """The gain with a spline of surprisal in place of a line."""
    person_sd: float | None
    """Standard deviations of the random intercepts and of the rest, in the scale of the times; None of means."""
    unit_sd: float | None
    residual_sd: float | None
    is_of_persons: bool = False
    """True if the intervals of the coefficients hold for other persons, too: their errors are clustered by persons."""
    collinearity: float
    """The largest correlation of a column of surprisal with a column of the baseline, without its sign."""

    @property
    def run_id(self) -> str:
        """The run of the model, or that whose training text is counted."""
        return self.model.partition("@")[0]


class Curve(Frozen, json_schema_extra=describe_fields):
    """Numbers at some places, with the ends of their 95 % intervals."""

    places: tuple[float, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


class ModelFit(Frozen):
    """`fits/NAME.json`: a measure explained by a model, with what surprisal adds on each text."""

    fit: ReadingFit
    text_nats: tuple[float, ...]
    """The gains of the held-out times of each text together."""
    line: Curve
    """The effect of a unit's own surprisal by its bits, less that at the mean, as a line and as a spline."""
    spline: Curve
    residuals: Curve
    """Mean residuals by mean expected times, in groups of as many times."""


class ReadingComparison(Frozen, json_schema_extra=describe_fields):
    """The difference of what two models add on a measure, per observation, with a paired permutation over texts."""

    measure: Measure
    first: str
    second: str
    difference: float
    p_value: float
    p_holm: float
    """The p-value corrected for all comparisons of the measure (Holm 1979)."""
    p_smallest: float | None = None
    """The smallest corrected p-value that so many texts and comparisons allow; None in results of earlier versions."""


class ReadingResult(Frozen, json_schema_extra=describe_fields):
    """`result.json`: written last."""

    schema_version: Literal[2] = 2
    reading_id: Identifier
    data: ReadingData
    fits: tuple[ReadingFit, ...]
    comparisons: tuple[ReadingComparison, ...] = ()
    differing: tuple[Predictor, ...] = ()
    """Predictors of the baseline that differ between models, as they are counted in different texts."""


class ReadingStatus(SteppedStatus, json_schema_extra=describe_fields):
    """The state of a job, whose steps are models that score the texts, and fits of times."""

    reading_id: Identifier
    name: str


class ReadingList(JobPage):
    """Jobs of reading times, newest first."""

    readings: tuple[ReadingStatus, ...]


class ReadingPath(Query):
    reading_id: Annotated[GivenName, Names.JOB]
