"""A finished experiment made by hand: seven languages, two models with the baseline, two seeds."""

from datetime import UTC, datetime
from itertools import combinations, cycle, product
from math import exp

from trainer.contracts.base import FileRecord, RunState, changed
from trainer.contracts.batteries import BatteryRow
from trainer.contracts.errors import AppError, ErrorCode, RunError
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
    Validity,
    ValidityCheck,
)
from trainer.contracts.reports import TreeJoin

Fields = dict[str, object]
LANGUAGES = ("tr", "az", "kk", "ky", "uz", "ug", "fi")
BRANCHES = {"tr": "oghuz", "az": "oghuz", "kk": "kipchak", "ky": "kipchak", "uz": "karluk", "ug": "karluk"}
TRAINED = ("lstm", "gru")
MODELS = (*TRAINED, TRIGRAM)
MODES: tuple[ScoringMode, ...] = ("skip", "unk")
SEEDS = (1, 2)
EXPERIMENT = "turkic-1a2b3c4d"
BATTERIES = (("tr", "multiblimp:tur"), ("kk", "kk_words"), ("kk", "ties"))
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
    value, native = factor * excess(listener, text), _NATIVE[text]
    fields = _cell(listener, text, mode) | _interval(value, 0.0 if listener == text else _HALF_WIDTH)
    fields |= {"cross_entropy": native + value, "native_cross_entropy": native, "excess_cross_entropy": value}
    fields |= {"fraction_scored": 0.9125, "n_scored": 14_600}
    return MatrixRow.model_validate(fields)


def _cell(listener: str, text: str, mode: ScoringMode) -> Fields:
    return {"listener_language": listener, "text_language": text, "scoring_mode": mode}


def _interval(value: float, half: float = _HALF_WIDTH) -> Fields:
    return {"interval_low": value - half, "interval_high": value + half}


def listeners_row(text: str, mode: ScoringMode, a: str, b: str, factor: float) -> ListenersRow:
    difference = factor * (excess(a, text) - excess(b, text))
    fields: Fields = {"text_language": text, "listener_a": a, "listener_b": b, "scoring_mode": mode}
    fields |= {"difference": difference, **_interval(difference)}
    return ListenersRow.model_validate(fields)


def asymmetry_row(mode: ScoringMode, a: str, b: str, factor: float) -> AsymmetryRow:
    asymmetry = factor * (excess(a, b) - excess(b, a))
    fields: Fields = {"language_a": a, "language_b": b, "scoring_mode": mode, "asymmetry": asymmetry}
    fields |= {"excess_a_on_b": factor * excess(a, b), "excess_b_on_a": factor * excess(b, a), **_interval(asymmetry)}
    return AsymmetryRow.model_validate(fields)


def model_tables(model: str, kind: TextKind) -> ModelTables:
    factor, ordered = _FACTORS[model], sorted(LANGUAGES)
    pairs = [(mode, a, b) for mode in MODES for a, b in combinations(ordered, 2)]
    triples = [(text, mode, a, b) for text in ordered for mode, a, b in pairs if text not in (a, b)]
    tables = Tables(
        matrix=tuple(matrix_row(a, b, mode, factor) for mode, a, b in product(MODES, LANGUAGES, LANGUAGES)),
        listeners=tuple(listeners_row(*triple, factor) for triple in triples),
        asymmetry=tuple(asymmetry_row(*pair, factor) for pair in pairs),
    )
    tree = tuple(TreeJoin(left=join.left, right=join.right, height=factor * join.height) for join in JOINS)
    return ModelTables(model=model, kind=kind, tables=tables, tree=tree, gap=GAP)


def seed_row(model: str, kind: TextKind, mode: ScoringMode, listener: str, text: str) -> SeedRow:
    value, is_random = _FACTORS[model] * excess(listener, text), model != TRIGRAM
    fields: Fields = {"model": model, "kind": kind, "n_seeds": len(SEEDS) if is_random else 1}
    fields |= {**_cell(listener, text, mode), "excess_mean": value}
    fields |= {"cross_entropy_mean": _NATIVE[text] + value, "cross_entropy_sd": _SD if is_random else None}
    fields |= {"excess_sd": (0.0 if listener == text else _SD) if is_random else None}
    return SeedRow.model_validate(fields)


def perplexity_row(model: str, kind: TextKind, mode: ScoringMode, listener: str, text: str) -> PerplexityRow:
    nats, is_random = _NATIVE[text] + _FACTORS[model] * excess(listener, text), model != TRIGRAM
    fields: Fields = {"model": model, "kind": kind, "n_seeds": len(SEEDS) if is_random else 1, "n_scored": 14_600}
    fields |= {**_cell(listener, text, mode), "perplexity_sd": _PERPLEXITY_SD if is_random else None}
    fields |= {"cross_entropy": nats, "perplexity": exp(nats)}
    return PerplexityRow.model_validate(fields)


def curve_row(model: str, language: str, seed: int) -> CurveRow:
    best = _NATIVE[language] + 0.05 * MODELS.index(model) + 0.01 * seed
    fields: Fields = {"model": model, "language": language, "seed": seed, "phase": "single", "steps": 3020}
    fields |= {"run_id": f"char_lstm-20261120-{model}{language}{seed}", "epochs": 5, "early_stopped": seed == 2}
    fields |= {"initial_val_loss": 3.55, "best_val_loss": best, "test_loss": best + 0.02, "auc": best + 0.3}
    fields |= {"test_perplexity": 6.2, "bits_per_char": 2.5}
    return CurveRow.model_validate(fields)


_JOINED = "Passages: the gap is 0.440 nats, and the tree joins every branch first."
_SHUFFLED = "Shuffled: the gap is 0.300 nats, which is not below half of 0.440 nats."
VALIDITY = Validity(
    passed=False,
    checks=(
        ValidityCheck(name="passages", passed=True, message=_JOINED, gap=GAP, joins_branches_first=True),
        ValidityCheck(name="shuffled", passed=False, message=_SHUFFLED, gap=GAP),
    ),
)
_TEST: Fields = {"model": "lstm", "kind": "passages", "mode": "skip", "statistic": "spearman", "pairs": "all"}
_TEST |= {"n_languages": 4, "n_pairs": 12, "n_permutations": 24, "p_holm": None, "is_primary": True}
_TEST |= {"r": -0.79, "p": 1 / 12}
_PRIMARY = Correlation.model_validate(_TEST)
_FEW: Fields = {"model": "gru", "pairs": "across_branches", "n_languages": 2, "n_pairs": 2, "n_permutations": 2}
CORRELATIONS = (
    changed(_PRIMARY, statistic="pearson", r=-0.812345, p=1 / 24, p_holm=1 / 12, is_primary=False),
    _PRIMARY,
    changed(_PRIMARY, r=None, p=None, is_primary=False, **_FEW),
)
"""The tests of the human ratings: one of them primary, one without a correlation."""


def finished_experiment() -> ExperimentResult:
    kinds: tuple[TextKind, ...] = ("passages", "held_out")
    cells = list(product(MODELS, kinds, MODES, LANGUAGES, LANGUAGES))
    fields: Fields = {"model": "lstm", "listener_language": "fi", "seed": 1, "character": "ɯ", "count": 120}
    fields |= {"replacement": "u", "distance": 2.0}
    replacement = Replacement.model_validate(fields)
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
        models=tuple(model_tables(model, kind) for model, kind in product(MODELS, kinds)),
        seed_rows=tuple(seed_row(*cell) for cell in cells),
        perplexities=tuple(perplexity_row(*cell) for cell in cells),
        curves=tuple(curve_row(*training) for training in product(TRAINED, LANGUAGES, SEEDS)),
        replacements=(
            replacement,
            changed(replacement, seed=2, character="<", replacement=None, distance=None, count=1),
        ),
        correlations=CORRELATIONS,
        validity=VALIDITY,
    )


def with_batteries() -> ExperimentResult:
    """Return the experiment with a battery of Turkish, one of Kazakh, and one of Kazakh whose items are all ties."""
    fields: Fields = {"level": "battery", "name": "", "measure": "sum", "n_items": 200}
    rows: list[BatteryRow] = []
    for model, language, (of, battery) in product(TRAINED, LANGUAGES, BATTERIES):
        share = 0.9 if language == of else 0.62
        spread: Fields = {"accuracy": share, "deviation": 0.025, "low": share - 0.08, "high": share + 0.08}
        if battery == "ties":
            spread = dict.fromkeys(spread)
        names: Fields = {"model": model, "model_language": language, "battery_language": of, "battery": battery}
        n_seeds = 0 if battery == "ties" else len(SEEDS)
        rows.append(BatteryRow.model_validate(fields | names | spread | {"n_seeds": n_seeds}))
        rows.append(changed(rows[-1], level="paradigm", name="agreement", n_items=50))
    return changed(finished_experiment(), batteries=tuple(rows), battery_ids=("words-1a2b3c4d",))


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
    cells = tuple(
        Cell(kind="train", model="lstm", language=language, seed=1, status=state)
        for language, state in zip(cycle(LANGUAGES), states, strict=False)
    )
    failed = RunError.of(AppError(ErrorCode.OUT_OF_MEMORY, "The model of `kk` did not fit."))
    return ExperimentStatus(
        experiment_id=EXPERIMENT,
        name="turkic",
        status=status,
        message="A model per language is trained.",
        cells=cells,
        cells_done=states.count("completed"),
        n_cells=len(states),
        created_at=datetime(2026, 11, 20, 12, tzinfo=UTC),
        elapsed_seconds=754.0,
        error=failed if status == "failed" else None,
        is_valid=False if status == "completed" else None,
        files=(FileRecord(path="report.html", bytes=120_000, sha256="0" * 64),) if status == "completed" else (),
    )
