"""Batteries: items to choose or to compare, the request to score them, and the results."""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from trainer.contracts.base import (
    CountOptions,
    FileRecord,
    Frozen,
    GivenName,
    Identifier,
    JobRecord,
    ModelName,
    Names,
    Sha256,
    are_different,
    describe_fields,
    requires,
)
from trainer.contracts.evaluations import EvalSplit
from trainer.contracts.job_status import JobPage, SteppedStatus
from trainer.contracts.reports import Note
from trainer.contracts.runs import MAX_LEAK_SHARE, RunModel
from trainer.contracts.sequences import Separator, SequenceParts, SequenceScore

Measure = Literal["sum", "token", "char", "byte", "end"]
"""The surprisal of a sequence, by its number of tokens, characters or bytes, or with that of the line end after it."""
MEASURES: tuple[Measure, ...] = get_args(Measure)
Quoting = Literal["csv", "none"]
"""Cells that begin with a quotation mark are quoted, or quotation marks are plain characters."""
QUOTINGS: tuple[Quoting, ...] = get_args(Quoting)
Outcome = Literal["right", "wrong", "tie"]
Level = Literal["battery", "field", "phenomenon", "paradigm"]
"""Sets of items, from all to the smallest that the authors of a battery have named."""
LEVELS: tuple[Level, ...] = get_args(Level)
Variant = Literal["trained", "untrained"]
"""Items scored by the run, and by its architecture with random weights."""

TIE_NATS = 1e-4
"""Surprisals that differ by less, with the same divisor, are a tie: scores are not more exact."""
MAX_CONTROL_ITEMS = 1000
"""Items of a battery that the controls score, which are spread evenly over it."""
LEAK_WORDS = 8
MAX_RUNS = 100
MAX_BATTERIES = 100
MAX_WORDS = 500
MAX_FILE_CHARACTERS = 10_000_000


class Suite(Frozen):
    """The regions of a paradigm whose items have conditions, and the formulas that should hold for each item."""

    regions: Mapping[int, str]
    """Names of the regions by number."""
    formulas: tuple[str, ...] = ()


class BatteryItem(Frozen):
    """An item: sequences of which the first should be the least surprising, or one sequence for each condition."""

    battery: str
    name: str
    """Name of its file without suffix, and its line or its number there."""
    paradigm: str
    phenomenon: str = ""
    field: str = ""
    sequences: Annotated[tuple[SequenceParts, ...], Field(min_length=1)]
    conditions: tuple[str, ...] = ()
    """Names of the conditions; empty for an item whose sequences are choices."""
    regions: tuple[tuple[int, ...], ...] = ()
    """The numbers of the regions of each condition, which are the parts of its sequence."""


class BatteryInfo(Frozen):
    """A battery that has been read."""

    name: str
    sha256: Sha256
    """Hash of its files in the order of their names."""
    n_items: int
    n_sequences: int
    suites: Mapping[str, Suite] = {}
    """The suites of its paradigms."""
    notes: tuple[Note, ...] = ()
    """How its files were read: their columns, and what was guessed or left out."""
    source: str | None = None
    """The data set that it was fetched from, with its revision."""
    licence: str | None = None


class BatteryFile(Frozen, json_schema_extra=describe_fields):
    """A file of items in a request."""

    name: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]{1,100}$")]
    """Its suffix tells the form: .jsonl, .tsv, .csv or .json."""
    content: Annotated[str, Field(min_length=1, max_length=MAX_FILE_CHARACTERS)]
    """Its text, such as a table with the columns good and bad."""
    battery: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]{1,100}$")] | None = None
    """The name of the battery that the file is a part of; default: a battery of its own, with the file's name."""


class DevelopmentOptions(Frozen, json_schema_extra=describe_fields):
    """Measurements at each kept checkpoint of a run, in addition to the items of batteries."""

    split: EvalSplit = "test"
    """The split whose loss is measured, and which has the words."""
    has_loss: bool = True
    """Measure the loss of the split."""
    has_words: bool = False
    """Measure the mean surprisals of words, from which the ages at which they are acquired are computed."""
    words: Annotated[tuple[str, ...], Field(max_length=MAX_WORDS)] = ()
    """The words to measure; default: the most frequent ones."""
    follows: bool = False
    """Wait for the checkpoints that the training of the run is still to keep, and measure each at once."""

    @property
    def reads_split(self) -> bool:
        """True if the split is measured, and not only the items of batteries."""
        return self.has_loss or self.has_words


class BatteryOptions(CountOptions, json_schema_extra=describe_fields):
    """Options for reading, scoring and reporting batteries."""

    columns: Mapping[str, str] = {}
    """The columns of tables with other names, by the names that are known: `{"good": "grammatical"}`."""
    formulas: tuple[str, ...] = ()
    """Formulas that should hold for each item of a table of regions: `(2;%a%) - (2;%b%) > 0`."""
    separator: Separator | None = None
    """What stands between a context and its text, and between regions; default: a space where one is written."""
    quoting: Quoting | None = None
    """Read quotation marks of tables as those around cells (csv) or as plain characters (none); default: as fits."""
    keep_na: bool = False
    """Read `NA`, `NaN`, `null` and `<NA>` in tables as words; default: as empty cells."""
    measure: Measure = "sum"
    """The measure of comparisons between runs and over seeds.

    Accuracies are computed by all measures, by `end` only if it is given here, for causal models.
    """
    pll_within_word: bool = False
    """For masked models: mask the later tokens of a word too (Kauf and Ivanova 2023)."""
    development: DevelopmentOptions | None = None
    """Score one run at all checkpoints that it has kept, without controls; default: score the runs as they are."""
    has_controls: bool = True
    """Score items by the untrained architecture and by counts, and search the training text."""


class BatteryRequest(BatteryOptions):
    """A request to score batteries by runs."""

    runs: Annotated[
        tuple[GivenName, ...],
        Field(min_length=1, max_length=MAX_RUNS),
        requires(are_different, "different from each other"),
        Names.RUN,
    ]
    """Runs, or checkpoints of runs: `RUN@1200`."""
    batteries: Annotated[tuple[str, ...], Field(max_length=MAX_BATTERIES), Names.BATTERY] = ()
    """Names: a known battery, a folder or a file in the folder of batteries, or a part of one: `blimp:passive_1`."""
    files: Annotated[tuple[BatteryFile, ...], Field(max_length=MAX_BATTERIES)] = ()
    """Items of your own."""

    @model_validator(mode="after")
    def _some_items(self) -> "BatteryRequest":
        if self.development is None and not self.batteries and not self.files:
            raise ValueError("`batteries` or `files` must name something to score")
        if self.development is not None and len(self.runs) > 1:
            raise ValueError("`development` is that of one run: give one in `runs`")
        return self


class BatteryRecord(JobRecord):
    """`request.json`; the items are in `items.jsonl` beside it."""

    schema_version: Literal[4] = 4
    battery_id: Identifier
    options: BatteryOptions
    development_of: Identifier | None = None
    """The run whose checkpoints are `runs`; None for a job that scores runs as they are."""
    runs: tuple[RunModel, ...]
    batteries: tuple[BatteryInfo, ...]
    to_fetch: tuple[str, ...] = ()
    """Names of batteries that the worker fetches before all else: it moves them into `batteries`."""
    items_sha256: Sha256
    request_hash: Sha256

    @property
    def has_words(self) -> bool:
        """True if its results have surprisals and frequencies of single words of the texts of its run."""
        return self.options.development is not None and self.options.development.has_words


class ItemScores(Frozen):
    """A line of the scores of a run: those of the sequences of an item, by its place in `items.jsonl`."""

    schema_version: Literal[2] = 2
    item: int
    scores: tuple[SequenceScore, ...]


class Accuracy(Frozen):
    """The share of items whose first sequence is the least surprising, or whose formulas hold, without ties."""

    measure: Measure
    n_right: int
    n_wrong: int
    n_ties: int
    accuracy: float | None = None
    """None if all items are ties, as are the ends of the interval."""
    low: float | None = None
    """The lower end of the 95 % interval of Wilson (1927)."""
    high: float | None = None


class GroupResult(Frozen):
    """The items of a paradigm, a phenomenon, a field or a battery, and their accuracy by every measure."""

    battery: str
    level: Level
    name: str
    n_items: int
    n_identical: int
    """Items with two equal sequences, which are always a tie."""
    n_duplicates: int = 0
    """Items whose sequences are those of an item before in the group."""
    n_prefix: int = 0
    """Items with a sequence that begins another one, whose sum without the line end is nearly always the larger one."""
    n_unknown: int
    """Items with an unknown token."""
    n_cut: int
    """Items with a sequence beyond the model's context."""
    n_inside: int = 0
    """Items of suites with a region that has no token of its own, so that its surprisal counts as 0."""
    accuracies: tuple[Accuracy, ...]
    mean_over_paradigms: Mapping[Measure, float] = {}
    """The mean of the paradigms' accuracies; empty for a paradigm."""

    def by(self, measure: Measure) -> Accuracy | None:
        """Return the accuracy by a measure, of suites by the sum, which is their only one; None without formulas."""
        is_suite = [one.measure for one in self.accuracies] == ["sum"]
        return next((one for one in self.accuracies if is_suite or one.measure == measure), None)


class FormulaResult(Frozen):
    """The share of items for which a complete formula holds, without those where it is undecided."""

    battery: str
    paradigm: str
    formula: str
    n_items: int
    n_right: int
    n_undecided: int = 0
    """Items where the formula depends on two values that differ by less than 0.0001 nats."""
    accuracy: float | None
    """None if the formula is undecided for all items, as are the ends of the interval."""
    low: float | None
    """The lower end of the 95 % interval of Wilson (1927)."""
    high: float | None
    chance: float | None = None
    """The share of random surprisals for which the formula holds; None in results of version 0.1.0."""


class Effect(Frozen):
    """The mean over items of a region's surprisal, or of the difference between the two sides of a comparison."""

    battery: str
    paradigm: str
    what: str
    """A condition, or a comparison of a formula."""
    region: int | None = None
    """The region of a condition; None for a comparison."""
    n_items: int
    nats: float
    low: float | None = None
    """The lower end of the 95 % interval by Student's t; None for one item."""
    high: float | None = None


class Counts(Frozen):
    """The accuracies of n-grams, counted in the training text of a run as tokens of the run."""

    order: int
    """Tokens of the n-gram with the lowest loss on the validation split."""
    unigram: Accuracy
    ngram: Accuracy


class Controls(Frozen):
    """The controls of a battery on a sample of its choices, by the measure of the request, or of a suite by the sum."""

    battery: str
    suite: str = ""
    """The paradigm of a suite; empty for choices."""
    n_items: int
    chance: float
    """The accuracy of guessing; for a suite, the share of random surprisals for which all formulas hold."""
    untrained: Accuracy
    """By the architecture of the run with random weights."""
    is_at_chance: bool | None
    """True if the interval of the untrained accuracy has chance in it; None if all items are ties."""
    counts: Counts | None = None
    """None if the training text is gone."""


class LeakedItems(Frozen):
    """Shares of the items of which a sequence stands in the training text, compared by words without punctuation.

    The training text is that of the run and of its ancestors.
    """

    battery: str
    n_items: int
    whole: float
    """The share of items with a whole sequence in a line of the training text."""
    ngrams: float
    """The share of items with eight words in a row of a sequence in it."""
    validation_whole: float = 0.0
    """The share of items with a whole sequence in a line of the validation text, which chooses the weights."""
    validation_ngrams: float = 0.0
    """The share of items with eight words in a row of a sequence in the validation text."""
    ancestors: tuple[str, ...] = ()
    """Runs from which the run started, directly or not, whose text was searched too."""
    unsearched: tuple[str, ...] = ()
    """Ancestors whose text was not searched, because it is deleted or has changed."""

    def is_like(self, other: "LeakedItems") -> bool:
        """Return True if two runs have read as many of the items, but for 1 % of them."""
        whole, ngrams = abs(self.whole - other.whole), abs(self.ngrams - other.ngrams)
        return max(whole, ngrams) <= MAX_LEAK_SHARE


class RunResult(Frozen):
    """The results of a run."""

    run: RunModel
    groups: tuple[GroupResult, ...]
    formulas: tuple[FormulaResult, ...] = ()
    effects: tuple[Effect, ...] = ()
    controls: tuple[Controls, ...] = ()
    leaks: tuple[LeakedItems, ...] = ()
    """Empty if the training text is no longer there, or was not asked for."""


class Comparison(Frozen):
    """The difference in accuracy between two runs over the items that are a tie for neither."""

    battery: str
    level: Level
    name: str
    first_run_id: ModelName
    second_run_id: ModelName
    n_items: int
    n_first_only: int
    """Items that only the first run gets right."""
    n_second_only: int
    difference: float
    """The accuracy of the first run less that of the second."""
    low: float
    """The lower end of the 95 % score interval of Tango (1998), widened until it agrees with `p`: see the docs."""
    high: float
    p: float
    """Two-sided, of the exact test of McNemar (1947)."""
    p_holm: float | None = None
    """Adjusted for the number of all comparisons (Holm 1979)."""


class SeedBand(Frozen):
    """Accuracies of runs that differ in their seeds only."""

    battery: str
    level: Level
    name: str
    run_ids: tuple[ModelName, ...]
    mean: float
    deviation: float
    """The standard deviation of the seeds' accuracies."""
    low: float
    """The lower end of the 95 % band of the mean: by Student's t over seeds, or by Wilson over the items if lower."""
    high: float


class BatterySummary(Frozen):
    """`result.json`."""

    schema_version: Literal[3] = 3
    measure: Measure
    batteries: tuple[BatteryInfo, ...]
    runs: tuple[RunResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    """None of two runs on a battery of which one has trained on more items than the other, by more than 1 %."""
    seeds: tuple[SeedBand, ...] = ()
    notes: tuple[Note, ...] = ()
    """The comparisons that are left out."""


class BatteryScores(Frozen):
    """The results of a run of an experiment on the batteries of one language."""

    model: str
    language: str
    """The language that the run was trained on."""
    seed: int
    battery_language: str
    groups: tuple[GroupResult, ...]


class BatteryRow(Frozen):
    """A row of `batteries.csv`: the accuracy of a language's models on items of its own or another language."""

    model: str
    model_language: str
    battery_language: str
    battery: str
    level: Level
    name: str
    measure: Measure
    n_seeds: int
    """Seeds with an accuracy: those whose items are not all ties."""
    n_items: int
    accuracy: float | None
    """The mean over seeds; None without an accuracy."""
    deviation: float | None
    """The standard deviation of the seeds' accuracies (n - 1); None for one seed."""
    low: float | None
    """The lower end of the 95 % interval: of Wilson (1927) for one seed, that of `SeedBand` for several."""
    high: float | None


class BatteryManifest(Frozen):
    """`manifest.json`: what the results depend on, and the files."""

    schema_version: Literal[3] = 3
    battery_id: Identifier
    program_version: str
    runs: tuple[RunModel, ...]
    batteries: tuple[BatteryInfo, ...]
    options: BatteryOptions
    files: tuple[FileRecord, ...]


class BatteryStatus(SteppedStatus):
    """The state of a job, whose steps are items, counted once for each run and control."""

    battery_id: Identifier
    batteries: tuple[str, ...]
    development_of: Identifier | None = None
    """The run whose checkpoints are scored; None for a job that scores runs as they are."""


class BatteryList(JobPage):
    """Batteries, without their files."""

    batteries: tuple[BatteryStatus, ...]
