"""Records of a cross-language experiment: a model per language, and every language scored by every model."""

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, JsonValue
from pydantic.config import JsonDict

from trainer.contracts.base import (
    Count,
    FileRecord,
    Frozen,
    Identifier,
    JobRecord,
    Names,
    RunState,
    Seed,
    Sha256,
    are_different,
    describe_fields,
    is_ascending,
    requires,
)
from trainer.contracts.baselines import Baseline
from trainer.contracts.batteries import MAX_BATTERIES, BatteryInfo, BatteryRow, BatteryScores, DevelopmentOptions
from trainer.contracts.job_status import JobPage, JobStatus
from trainer.contracts.reports import TreeJoin
from trainer.contracts.runs import CorpusName, CorpusRef, Leak
from trainer.contracts.tokenizers import Normalization

LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2,8}(-[a-z0-9]{1,8})*$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
"""The name of an experiment, of a model in it, or of a branch: part of file names."""
ScoringMode = Literal["skip", "unk", "assimilate"]
"""The positions that are scored: those whose character every model knows; all; all, after unknown characters have been
replaced by the nearest known ones."""
TextKind = Literal["passages", "held_out", "shuffled"]
"""Passages given per language; the test split of each corpus; the same with the characters of each section shuffled."""
Encoding = Literal["raw", "assimilated"]
CorrelationKind = Literal["pearson", "spearman"]
PairSet = Literal["all", "across_branches"]
"""All rated pairs of languages; those that are not two languages of one branch."""
_ONLY_THESE_NAMES: JsonDict = {"additionalProperties": False}
"""Added to the schema of a block whose names have a pattern."""
_TRAIN_FIELDS: JsonDict = {"x-record": "TrainRequest"}
"""Added to the schema of a block with some fields of a train request."""
RATING_COLUMNS = (
    ("listener", "language", "mean_rating"),
    ("listener_language", "text_language", "mean_human_rating"),
)
"""The columns of a file of human ratings: one of these sets."""
TRIGRAM = "trigram"
"""The name of the baseline among the models."""


class ExperimentOptions(Frozen, json_schema_extra=describe_fields):
    """A block of an experiment request."""


class LanguageOptions(ExperimentOptions):
    """A language of the experiment."""

    corpus: CorpusName | None = None
    """Corpus to train on; default: the language code, in the folder `corpora`."""
    branch: Name | None = None
    """Branch of the language family. The validity checks compare pairs within a branch with pairs across branches."""
    is_control: bool = False
    """An unrelated language: it is scored and scores like the others, but counts in no mean over pairs."""
    is_trained: bool = True
    """Train models on it. Without, the models of the other languages score its texts, and no excess is computed."""
    batteries: Annotated[
        tuple[str, ...],
        Field(max_length=MAX_BATTERIES),
        requires(are_different, "each battery once", "must name"),
        Names.BATTERY,
    ] = ()
    """Batteries of the language by name, such as `multiblimp:tur`. The models of all languages score them."""


class TransferOptions(ExperimentOptions):
    """Training in two phases: the first language from random weights, the others from the weights of the first."""

    first: LanguageCode
    """The language of the first phase."""
    train: Annotated[dict[str, JsonValue], Names.TRAINING] = Field(
        default_factory=dict, json_schema_extra=_TRAIN_FIELDS
    )
    """Fields of the train request of the second phase that differ from the first."""


class ModelOptions(ExperimentOptions):
    """A kind of model, trained once per language and seed."""

    train: Annotated[dict[str, JsonValue], Names.TRAINING] = Field(json_schema_extra=_TRAIN_FIELDS)
    """Fields of the train request; the experiment adds corpus, label and seed."""
    has_shared_tokenizer: bool = False
    """Train one tokenizer on the corpora of all languages instead of one per language."""
    transfer: TransferOptions | None = None


class TextOptions(ExperimentOptions):
    """The texts that all models score, cut into sections: one line is one section."""

    passages: CorpusName | None = None
    """Folder with one corpus per language, named by its code; a line is a section."""
    held_out: bool = True
    """Score the test split of each corpus."""
    shuffled: bool = True
    """Score the test split with the characters of each section shuffled."""
    min_characters: Annotated[int, Field(ge=2, le=100_000)] = 20
    """Sections with fewer characters are dropped."""
    max_characters: Count | None = None
    """Characters per text, cut at the end of a section; default: all."""


class PrimaryTest(ExperimentOptions):
    """The one correlation with human ratings whose p-value is a test. All other correlations are exploratory."""

    model: Name | None = None
    """Default: the first model."""
    kind: TextKind | None = None
    """Default: passages if the experiment has them, otherwise held_out."""
    mode: ScoringMode | None = None
    """Default: the first mode."""
    statistic: CorrelationKind = "spearman"
    """The correlation of numbers (pearson) or of their ranks (spearman)."""
    pairs: PairSet = "all"
    """All rated pairs of languages, or those that are not two languages of one branch."""


Modes = Annotated[
    tuple[ScoringMode, ...],
    Field(min_length=1, max_length=3),
    requires(are_different, "each mode once", "must name"),
]
Seeds = Annotated[
    tuple[Seed, ...],
    Field(min_length=1, max_length=20),
    requires(is_ascending, "in ascending order, each seed once"),
]


class ExperimentRequest(Frozen, json_schema_extra=describe_fields):
    """An experiment as requested: languages x models x seeds."""

    name: Name
    """Name of the experiment: the first part of its id."""
    languages: Annotated[
        dict[LanguageCode, LanguageOptions], Field(min_length=2, max_length=32, json_schema_extra=_ONLY_THESE_NAMES)
    ]
    """The languages by code; the order of the tables."""
    corpora: CorpusName | None = None
    """Folder of the corpora that are named by their language code; default: the corpus folder itself."""
    models: Annotated[dict[Name, ModelOptions], Field(min_length=1, max_length=16, json_schema_extra=_ONLY_THESE_NAMES)]
    """The models by name; figures and headline tables show the first."""
    seeds: Seeds = (1, 2, 3, 4, 5)
    """One training per language, model and seed. With one seed, intervals do not cover the spread of trainings."""
    modes: Modes = ("skip", "unk", "assimilate")
    """Scoring modes; figures and headline tables show the first."""
    texts: TextOptions = TextOptions()
    min_occurrences: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """With mode skip, score only characters that occur this often in the training split of every corpus."""
    has_trigram_baseline: bool = True
    """Add a character trigram model per language, scored on the same positions."""
    ratings: CorpusName | None = None
    """CSV in the corpus folder: how well people understand. Its columns are listener, language and mean_rating, or
    listener_language, text_language and mean_human_rating."""
    primary_test: PrimaryTest = PrimaryTest()
    """The correlation with the ratings that is tested; choose it before you see the results."""
    development: DevelopmentOptions | None = None
    """Measurements at the checkpoints that each training keeps, in addition to the batteries of its language."""

    @property
    def trained_languages(self) -> tuple[str, ...]:
        """The languages that models are trained on."""
        return tuple(code for code, options in self.languages.items() if options.is_trained)

    @property
    def family(self) -> dict[str, str]:
        """The branch of each trained language that has one and is no control."""
        options = {code: self.languages[code] for code in self.trained_languages}
        return {code: each.branch for code, each in options.items() if each.branch and not each.is_control}


class ExperimentRecord(JobRecord):
    """`request.json`: an accepted experiment."""

    schema_version: Literal[2] = 2
    experiment_id: Identifier
    request: ExperimentRequest
    request_hash: Sha256
    corpora: dict[LanguageCode, CorpusRef]
    passages: dict[LanguageCode, CorpusRef] = Field(default_factory=dict)
    ratings: CorpusRef | None = None
    batteries: dict[LanguageCode, tuple[BatteryInfo, ...]] = Field(default_factory=dict)
    """Those of each language that has some; their items are in `items.jsonl`."""
    to_fetch: dict[LanguageCode, tuple[str, ...]] = Field(default_factory=dict)
    """Names of batteries that the worker fetches before all else: it moves them into `batteries`."""

    @property
    def all_corpora(self) -> tuple[CorpusRef, ...]:
        """The corpora of the languages, the passages and the ratings."""
        ratings = () if self.ratings is None else (self.ratings,)
        return (*self.corpora.values(), *self.passages.values(), *ratings)


class ExperimentText(Frozen):
    """A text as stored: one section per line."""

    text_id: Identifier
    """`<kind>-<language>`, with hyphens: `held-out-kk`."""
    kind: TextKind
    language: LanguageCode
    sections: int
    characters: int
    sha256: Sha256
    test_id: Sha256 | None = None
    """Stands for the test split that it is of; None for passages."""


class ExperimentTexts(Frozen):
    """`texts.json`: the texts of an experiment, by kind, then by language."""

    normalization: Normalization
    texts: tuple[ExperimentText, ...]


class CellKey(NamedTuple):
    """A model of one language and seed: it is trained, and then scores all texts."""

    model: str
    language: str
    seed: int

    def __str__(self) -> str:
        return f"{self.model} {self.language}, seed {self.seed}"


class CellRun(Frozen):
    """The run of a model, language and seed."""

    model: Name
    language: LanguageCode
    seed: int
    run_id: Identifier
    is_reused: bool
    """True for an equal run that was not started by this experiment; cancelling the experiment leaves it alone."""

    @property
    def key(self) -> CellKey:
        return CellKey(self.model, self.language, self.seed)


class CellBattery(Frozen):
    """The battery job of the runs of a model and seed, one per language; or the development of one run."""

    model: Name
    language: LanguageCode | None = None
    """The language of the run whose development this is; None for a battery job."""
    seed: int
    battery_id: Identifier
    is_reused: bool
    """True for an equal job that was not started by this experiment; cancelling the experiment leaves it alone."""


class CellRuns(Frozen):
    """`runs.json`: the runs of an experiment that have been accepted so far, and its jobs that score batteries."""

    runs: tuple[CellRun, ...] = ()
    batteries: tuple[CellBattery, ...] = ()


CellKind = Literal["train", "score", "battery"]


class Cell(Frozen):
    """A training, or the scores of all texts or of all batteries by one run."""

    kind: CellKind
    model: Name
    language: LanguageCode
    seed: int
    status: RunState
    run_id: Identifier | None = None
    """None until the run has been accepted."""


class ExperimentStatus(JobStatus):
    """The state of an experiment, read from the disk."""

    experiment_id: Identifier
    name: str
    message: str
    cells: tuple[Cell, ...]
    cells_done: int
    n_cells: int
    elapsed_seconds: float | None = None
    is_valid: bool | None = None
    """All validity checks passed; None until the end, and without branches."""
    files: tuple[FileRecord, ...] = ()
    """The files of the report, after the end."""


class ExperimentList(JobPage):
    """Experiments, without their cells and files."""

    experiments: tuple[ExperimentStatus, ...]


class SectionScore(Frozen):
    """The score of one section: the sum of the losses of its scored positions, in nats."""

    section: int | str
    loss_sum: float
    n_scored: Annotated[int, Field(ge=0)]
    n_total: Annotated[int, Field(ge=0)]


SectionTable = dict[str, dict[str, tuple[SectionScore, ...]]]
"""Section scores by listener, then by language of the text."""


class SectionColumns(Frozen):
    """The scores of one listener on one text, column by column: the fields of `SectionScore`."""

    section: tuple[int, ...]
    loss_sum: tuple[float, ...]
    n_scored: tuple[int, ...]
    n_total: tuple[int, ...]


class ScoreTable(Frozen):
    """The section scores of one model and one seed on one kind of text in one mode."""

    model: str
    kind: TextKind
    mode: ScoringMode
    seed: int | None = None
    """None: the trigram baseline, which has no seed."""
    are_seeds_linked: bool = False
    """The models of one seed start from the weights of the first phase: the bootstrap draws their seeds together."""
    sections: dict[str, dict[str, SectionColumns]]
    """By listener, then by language of the text."""


class SectionsFile(Frozen):
    """`sections.json`: everything that the tables and figures are computed from.

    Only `sections` is needed: then all other fields have these defaults.
    """

    sections: SectionTable
    """The headline table: the first model, on the first kind of text, in the first mode; means over seeds."""
    scoring_mode: ScoringMode = "skip"
    branches: dict[str, str] = Field(default_factory=dict)
    """Branch by language, for the languages that have one."""
    controls: tuple[str, ...] = ()
    tables: tuple[ScoreTable, ...] = ()
    """The scores of each seed, those of `sections` first. The tables of numbers use the means of `loss_sum` over seeds;
    with several seeds, intervals resample the scores of each."""
    ratings: tuple["Rating", ...] = ()
    batteries: tuple[BatteryScores, ...] = ()
    """The results of each run on the batteries of each language, from which `batteries.csv` is computed."""


class Rating(Frozen):
    """The mean of the ratings by people of the listener's language: how well they understand a language."""

    listener: str
    language: str
    mean_rating: float


class MatrixRow(Frozen):
    """A row of `matrix.csv`: how surprised a listener is by a text. Losses in nats per position."""

    listener_language: str
    text_language: str
    scoring_mode: ScoringMode
    cross_entropy: float
    native_cross_entropy: float
    excess_cross_entropy: float
    interval_low: float
    interval_high: float
    fraction_scored: float
    n_scored: int
    n_seeds: int = 1
    """The interval covers sections, and seeds if there are several."""


class ListenersRow(Frozen):
    """A row of `listeners.csv`: the difference of two listeners' excess on one text, neither of them its own model."""

    text_language: str
    listener_a: str
    listener_b: str
    scoring_mode: ScoringMode
    difference: float
    """excess(a, text) - excess(b, text)"""
    interval_low: float
    interval_high: float
    n_seeds: int = 1


class AsymmetryRow(Frozen):
    """A row of `asymmetry.csv`: does a understand b better than b understands a?"""

    language_a: str
    language_b: str
    scoring_mode: ScoringMode
    excess_a_on_b: float
    excess_b_on_a: float
    asymmetry: float
    """excess(a, b) - excess(b, a)"""
    interval_low: float
    interval_high: float
    n_seeds: int = 1


class Tables(Frozen):
    """The three tables of one score table."""

    matrix: tuple[MatrixRow, ...]
    listeners: tuple[ListenersRow, ...]
    asymmetry: tuple[AsymmetryRow, ...]


class Gap(Frozen):
    """Mean symmetric distance within and across branches, controls left out; gap = across - within."""

    within: float
    across: float
    gap: float
    control_distances: dict[str, float] = Field(default_factory=dict)
    """The smallest distance of a control to a language that is no control, by control."""


CheckName = Literal["passages", "held_out", "shuffled", "control"]


class ValidityCheck(Frozen):
    """A check of the battery with its numbers."""

    name: CheckName
    passed: bool
    message: str
    """One sentence with the numbers."""
    gap: Gap
    joins_branches_first: bool | None = None


class Validity(Frozen):
    """`validity.json`: the battery of the headline model and mode. A failed check is a result, not an error."""

    passed: bool | None
    """None if there was nothing to check: no two branches, or no such text."""
    checks: tuple[ValidityCheck, ...] = ()


class Correlation(Frozen):
    """Excess cross-entropy against human ratings over ordered pairs of different languages, with a permutation test."""

    model: str
    kind: TextKind
    mode: ScoringMode
    statistic: CorrelationKind
    pairs: PairSet
    n_languages: int
    """Languages in a rated pair: the ones that are permuted."""
    n_pairs: int
    n_permutations: int
    """Permutations of the languages, the identity included; p is no smaller than 1 / n_permutations."""
    r: float | None
    """None for fewer than three pairs, or equal numbers for all pairs."""
    p: float | None
    """Two-sided: the share of permutations with a correlation at least as large. Not adjusted."""
    p_holm: float | None
    """p adjusted for the number of exploratory tests; None for the primary test."""
    is_primary: bool


class SeedRow(Frozen):
    """A row of `seeds.csv`: one listener on one text, mean and standard deviation over seeds (n - 1)."""

    model: str
    kind: TextKind
    listener_language: str
    text_language: str
    scoring_mode: ScoringMode
    n_seeds: int
    cross_entropy_mean: float
    cross_entropy_sd: float | None
    """None for one seed."""
    excess_mean: float
    excess_sd: float | None


class PerplexityRow(Frozen):
    """A row of `perplexity.csv`: a model of one language on one text; the cross-entropy is the mean over seeds."""

    model: str
    kind: TextKind
    listener_language: str
    text_language: str
    scoring_mode: ScoringMode
    n_seeds: int
    cross_entropy: float
    """Nats per scored position."""
    perplexity: float
    """exp(cross_entropy)"""
    perplexity_sd: float | None
    """Standard deviation of the perplexities of the seeds (n - 1); None for one seed."""
    n_scored: int


class CurveRow(Frozen):
    """A row of `curves.csv`: a training of the experiment and its figures; losses in nats per token."""

    model: str
    language: str
    seed: int
    run_id: str
    phase: Literal["single", "first", "second"]
    steps: int
    epochs: int
    early_stopped: bool
    initial_val_loss: float | None
    best_val_loss: float | None
    test_loss: float | None
    test_perplexity: float | None
    bits_per_char: float | None
    auc: float | None
    """The area under the training loss over steps, in nats times steps; None for a curve with one row."""

    @property
    def has_parents_weights(self) -> bool:
        """True if no evaluation was better than that of the weights with which the training started."""
        first, best = self.initial_val_loss, self.best_val_loss
        return self.phase != "single" and first is not None and best is not None and best >= first


class Replacement(Frozen):
    """A row of `assimilation.csv`: a character that a listener's model does not know, and the one read instead."""

    model: str
    listener_language: str
    seed: int | None
    """None: the trigram baseline, which has no seed."""
    character: str
    replacement: str | None
    """None: the model reads its unknown token. It knows no vowel or no consonant, or the character is neither."""
    distance: float | None
    count: int
    """Occurrences in all texts of the experiment."""


class ModelTables(Frozen):
    """The tables of one model on one kind of text, in all modes."""

    model: str
    kind: TextKind
    tables: Tables
    tree: tuple[TreeJoin, ...]
    """The joins of the average-linkage tree in the first scoring mode."""
    gap: Gap | None = None
    """The gap between branches in the first scoring mode; None without two branches."""


class CellBaseline(Frozen):
    """The runs of a model and language against counting in their training text, mean over seeds, on the test split."""

    model: Name
    language: str
    baseline: Baseline


class TextLeak(Frozen):
    """How much of a text of the experiment the runs of a model and language, and their ancestors, have trained on."""

    model: str
    language: str
    run_id: str
    """The run of the first seed: all seeds have read the same text."""
    text_id: str
    leak: Leak


class ExperimentResult(Frozen):
    """`result.json`: the numbers of a finished experiment; the report is made of it."""

    schema_version: Literal[3] = 3
    experiment_id: Identifier
    name: str
    languages: tuple[str, ...]
    """The languages that models were trained on."""
    text_languages: tuple[str, ...]
    """The languages of the texts: also those without a model."""
    branches: Mapping[str, str] = Field(default_factory=dict)
    controls: tuple[str, ...] = ()
    seeds: tuple[int, ...]
    modes: tuple[ScoringMode, ...]
    common_characters: tuple[str, ...] | None = None
    """The characters that mode skip scores, in order of code points; None for models of larger tokens."""
    headline: tuple[str, TextKind]
    """Model and kind of text of the headline tables and figures, in the first mode."""
    models: tuple[ModelTables, ...]
    """The headline first."""
    seed_rows: tuple[SeedRow, ...] = ()
    perplexities: tuple[PerplexityRow, ...] = ()
    baselines: tuple[CellBaseline, ...] = ()
    """In the order of models and languages; without models that have no baseline, such as masked ones."""
    leaks: tuple[TextLeak, ...] = ()
    """Those that are above 1 %, or that could not be measured; shuffled texts are not searched for."""
    curves: tuple[CurveRow, ...] = ()
    replacements: tuple[Replacement, ...] = ()
    correlations: tuple[Correlation, ...] = ()
    batteries: tuple[BatteryRow, ...] = ()
    """The accuracies on batteries; empty if no language has one."""
    battery_ids: tuple[str, ...] = ()
    """The jobs that have scored the batteries: their results have controls, and differences between runs."""
    development_ids: tuple[str, ...] = ()
    """The jobs that have measured the checkpoints of each run, in the order of models, languages and seeds."""
    validity: Validity
