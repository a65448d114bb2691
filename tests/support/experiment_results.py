"""A finished experiment made by hand: seven languages, two models with the baseline, two seeds."""

from datetime import UTC, datetime
from itertools import combinations
from math import exp

from trainer.contracts.base import FileRecord, RunState, changed
from trainer.contracts.errors import ErrorClass, ErrorCode, RunError
from trainer.contracts.experiments import (
    TRIGRAM,
    AsymmetryRow,
    Cell,
    Correlation,
    CurveRow,
    ExperimentResult,
    ExperimentStatus,
    Gap,
    ListenersRow,
    MatrixRow,
    ModelTables,
    PerplexityRow,
    Rating,
    Replacement,
    ScoringMode,
    SectionScore,
    SectionsFile,
    SeedRow,
    Tables,
    TextKind,
    TreeJoin,
    Validity,
    ValidityCheck,
)

LANGUAGES = ("tr", "az", "kk", "ky", "uz", "ug", "fi")
BRANCHES = {"tr": "oghuz", "az": "oghuz", "kk": "kipchak", "ky": "kipchak", "uz": "karluk", "ug": "karluk"}
TRAINED = ("lstm", "gru")
MODELS = (*TRAINED, TRIGRAM)
MODES: tuple[ScoringMode, ...] = ("skip", "unk")
SEEDS = (1, 2)
EXPERIMENT = "turkic-1a2b3c4d"
_WITHIN = {"oghuz": 0.42, "kipchak": 0.36, "karluk": 0.55}
_ACROSS = {frozenset({"kipchak", "karluk"}): 0.8, frozenset({"oghuz", "kipchak"}): 0.95}
_OGHUZ_KARLUK, _CONTROL = 0.9, 1.6
_NATIVE = dict(zip(LANGUAGES, (1.71, 1.69, 1.82, 1.86, 1.77, 1.91, 1.64), strict=True))
_HALF_WIDTH, _SD, _ASYMMETRY, _PERPLEXITY_SD = 0.031, 0.012, 0.02, 0.034
_FACTORS: dict[str, float] = {"lstm": 1.0, "gru": 1.1, TRIGRAM: 0.7}

JOINS = (
    TreeJoin(left=("kk",), right=("ky",), height=0.36),
    TreeJoin(left=("az",), right=("tr",), height=0.42),
    TreeJoin(left=("ug",), right=("uz",), height=0.55),
    TreeJoin(left=("kk", "ky"), right=("ug", "uz"), height=0.8),
    TreeJoin(left=("az", "tr"), right=("kk", "ky", "ug", "uz"), height=0.925),
    TreeJoin(left=("fi",), right=("az", "kk", "ky", "tr", "ug", "uz"), height=1.6),
)
"""The tree of the distances, joined by hand."""
GAP = Gap(within=0.443333, across=0.883333, gap=0.44, control_distances={"fi": 1.6})


def distance(first: str, second: str) -> float:
    """Return the symmetric distance of two languages."""
    if first == second:
        return 0.0
    branches = frozenset(BRANCHES.get(language, "") for language in (first, second))
    if "" in branches:
        return _CONTROL
    return _WITHIN[min(branches)] if len(branches) == 1 else _ACROSS.get(branches, _OGHUZ_KARLUK)


def excess(listener: str, text: str) -> float:
    """Return an excess; the asymmetry grows with the distance between the languages in the list."""
    steps = LANGUAGES.index(listener) - LANGUAGES.index(text)
    return distance(listener, text) + _ASYMMETRY * steps


def matrix_row(listener: str, text: str, mode: ScoringMode, factor: float = 1.0) -> MatrixRow:
    value = factor * excess(listener, text)
    half = 0.0 if listener == text else _HALF_WIDTH
    return MatrixRow(
        listener_language=listener,
        text_language=text,
        scoring_mode=mode,
        cross_entropy=_NATIVE[text] + value,
        native_cross_entropy=_NATIVE[text],
        excess_cross_entropy=value,
        interval_low=value - half,
        interval_high=value + half,
        fraction_scored=0.9125,
        n_scored=14_600,
    )


def model_tables(model: str, kind: TextKind) -> ModelTables:
    factor = _FACTORS[model]
    pairs = [(mode, a, b) for mode in MODES for a, b in combinations(sorted(LANGUAGES), 2)]
    return ModelTables(
        model=model,
        kind=kind,
        tables=Tables(
            matrix=tuple(matrix_row(a, b, mode, factor) for mode in MODES for a in LANGUAGES for b in LANGUAGES),
            listeners=tuple(
                ListenersRow(
                    text_language=text,
                    listener_a=a,
                    listener_b=b,
                    scoring_mode=mode,
                    difference=factor * (excess(a, text) - excess(b, text)),
                    interval_low=factor * (excess(a, text) - excess(b, text)) - _HALF_WIDTH,
                    interval_high=factor * (excess(a, text) - excess(b, text)) + _HALF_WIDTH,
                )
                for text in sorted(LANGUAGES)
                for mode, a, b in pairs
                if text not in (a, b)
            ),
            asymmetry=tuple(
                AsymmetryRow(
                    language_a=a,
                    language_b=b,
                    scoring_mode=mode,
                    excess_a_on_b=factor * excess(a, b),
                    excess_b_on_a=factor * excess(b, a),
                    asymmetry=factor * (excess(a, b) - excess(b, a)),
                    interval_low=factor * (excess(a, b) - excess(b, a)) - _HALF_WIDTH,
                    interval_high=factor * (excess(a, b) - excess(b, a)) + _HALF_WIDTH,
                )
                for mode, a, b in pairs
            ),
        ),
        tree=tuple(TreeJoin(left=join.left, right=join.right, height=factor * join.height) for join in JOINS),
        gap=GAP,
    )


def seed_row(model: str, kind: TextKind, listener: str, text: str, mode: ScoringMode) -> SeedRow:
    value = _FACTORS[model] * excess(listener, text)
    is_random = model != TRIGRAM
    return SeedRow(
        model=model,
        kind=kind,
        listener_language=listener,
        text_language=text,
        scoring_mode=mode,
        n_seeds=len(SEEDS) if is_random else 1,
        cross_entropy_mean=_NATIVE[text] + value,
        cross_entropy_sd=_SD if is_random else None,
        excess_mean=value,
        excess_sd=(0.0 if listener == text else _SD) if is_random else None,
    )


def perplexity_row(model: str, kind: TextKind, mode: ScoringMode, listener: str, text: str) -> PerplexityRow:
    nats = _NATIVE[text] + _FACTORS[model] * excess(listener, text)
    return PerplexityRow(
        model=model,
        kind=kind,
        listener_language=listener,
        text_language=text,
        scoring_mode=mode,
        n_seeds=1 if model == TRIGRAM else len(SEEDS),
        cross_entropy=nats,
        perplexity=exp(nats),
        perplexity_sd=None if model == TRIGRAM else _PERPLEXITY_SD,
        n_scored=14_600,
    )


def curve_row(model: str, language: str, seed: int) -> CurveRow:
    best = _NATIVE[language] + 0.05 * MODELS.index(model) + 0.01 * seed
    return CurveRow(
        model=model,
        language=language,
        seed=seed,
        run_id=f"char_lstm-20261120-{model}{language}{seed}",
        phase="single",
        steps=3020,
        epochs=5,
        early_stopped=seed == 2,
        initial_val_loss=3.55,
        best_val_loss=best,
        test_loss=best + 0.02,
        test_perplexity=6.2,
        bits_per_char=2.5,
        auc=best + 0.3,
    )


VALIDITY = Validity(
    passed=False,
    checks=(
        ValidityCheck(
            name="passages",
            passed=True,
            message="Passages: the gap is 0.440 nats, and the tree joins every branch first.",
            gap=GAP,
            joins_branches_first=True,
        ),
        ValidityCheck(
            name="shuffled",
            passed=False,
            message="Shuffled: the gap is 0.300 nats, which is not below half of 0.440 nats.",
            gap=GAP,
        ),
    ),
)


CORRELATIONS = (
    Correlation(
        model="lstm",
        kind="passages",
        mode="skip",
        statistic="pearson",
        pairs="all",
        n_languages=4,
        n_pairs=12,
        n_permutations=24,
        r=-0.812345,
        p=1 / 24,
        p_holm=1 / 12,
        is_primary=False,
    ),
    Correlation(
        model="lstm",
        kind="passages",
        mode="skip",
        statistic="spearman",
        pairs="all",
        n_languages=4,
        n_pairs=12,
        n_permutations=24,
        r=-0.79,
        p=1 / 12,
        p_holm=None,
        is_primary=True,
    ),
    Correlation(
        model="gru",
        kind="passages",
        mode="skip",
        statistic="spearman",
        pairs="across_branches",
        n_languages=2,
        n_pairs=2,
        n_permutations=2,
        r=None,
        p=None,
        p_holm=None,
        is_primary=False,
    ),
)
"""The tests of the human ratings: one of them primary, one without a correlation."""


def finished_experiment() -> ExperimentResult:
    kinds: tuple[TextKind, ...] = ("passages", "held_out")
    return ExperimentResult(
        experiment_id=EXPERIMENT,
        name="turkic",
        languages=LANGUAGES,
        text_languages=LANGUAGES,
        branches=BRANCHES,
        controls=("fi",),
        seeds=SEEDS,
        modes=MODES,
        common_characters=("a", "b", "ɯ", "<"),
        headline=("lstm", "passages"),
        models=tuple(model_tables(model, kind) for model in MODELS for kind in kinds),
        seed_rows=tuple(
            seed_row(model, kind, a, b, mode)
            for model in MODELS
            for kind in kinds
            for mode in MODES
            for a in LANGUAGES
            for b in LANGUAGES
        ),
        perplexities=tuple(
            perplexity_row(model, kind, mode, a, b)
            for model in MODELS
            for kind in kinds
            for mode in MODES
            for a in LANGUAGES
            for b in LANGUAGES
        ),
        curves=tuple(curve_row(model, a, seed) for model in TRAINED for a in LANGUAGES for seed in SEEDS),
        replacements=(
            Replacement(
                model="lstm", listener_language="fi", seed=1, character="ɯ", replacement="u", distance=2.0, count=120
            ),
            Replacement(
                model="lstm", listener_language="fi", seed=2, character="<", replacement=None, distance=None, count=1
            ),
        ),
        correlations=CORRELATIONS,
        validity=VALIDITY,
    )


def with_one_seed() -> ExperimentResult:
    """Return the experiment as it would be with the first seed alone."""
    result = finished_experiment()
    return changed(
        result,
        seeds=(1,),
        seed_rows=tuple(changed(row, n_seeds=1, cross_entropy_sd=None, excess_sd=None) for row in result.seed_rows),
        perplexities=tuple(changed(row, n_seeds=1, perplexity_sd=None) for row in result.perplexities),
        curves=tuple(row for row in result.curves if row.seed == 1),
    )


def section_scores() -> SectionsFile:
    """Return the scores of one section of two languages."""
    score = SectionScore(section=0, loss_sum=10.5, n_scored=6, n_total=7)
    return SectionsFile(
        sections={listener: {text: (score,) for text in ("kk", "ky")} for listener in ("kk", "ky")},
        branches=BRANCHES,
        controls=("fi",),
        ratings=(Rating(listener="kk", language="ky", mean_rating=4.5),),
    )


def experiment_status(status: RunState, *states: RunState) -> ExperimentStatus:
    """Return the status of an experiment whose trainings have some states, language by language."""
    languages = [LANGUAGES[number % len(LANGUAGES)] for number in range(len(states))]
    return ExperimentStatus(
        experiment_id=EXPERIMENT,
        name="turkic",
        status=status,
        message="A model per language is trained.",
        cells=tuple(
            Cell(kind="train", model="lstm", language=language, seed=1, status=state)
            for language, state in zip(languages, states, strict=True)
        ),
        cells_done=states.count("completed"),
        created_at=datetime(2026, 11, 20, 12, tzinfo=UTC),
        elapsed_seconds=754.0,
        error=RunError(
            code=ErrorCode.OUT_OF_MEMORY, error_class=ErrorClass.FATAL, message="The model of `kk` did not fit."
        )
        if status == "failed"
        else None,
        is_valid=False if status == "completed" else None,
        files=(FileRecord(path="report.html", bytes=120_000, sha256="0" * 64),) if status == "completed" else (),
    )
