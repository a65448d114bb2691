"""Comparison of runs and groups on a split or corpus, with intervals over lines and seeds; detection of regressions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean, stdev
from typing import Literal, NamedTuple, TypeAlias

from trainer.contracts.base import Frozen, ModelName, changed
from trainer.contracts.baselines import Baseline, mean_baseline
from trainer.contracts.environment import Environment
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalSplit
from trainer.contracts.intervals import (
    MAX_BLOCKS,
    Interval,
    LineLosses,
    LossDifference,
    around,
    holm,
    loss_difference,
    mean_difference,
    paired_seeds,
)
from trainer.contracts.looks import LookCount
from trainer.contracts.models import ModelConfig, NgramConfig, Objective, RnnConfig
from trainer.contracts.reports import Note, Quantity, counted_note, note
from trainer.contracts.runs import (
    EffectiveRequest,
    EvalSummary,
    KnownFigures,
    Leak,
    RunManifest,
    has_unknown_text,
    settings_of,
)
from trainer.reports.leak_notes import leak_notes, split_note, training_text_note
from trainer.reports.run_notes import SEEDLESS, looks_note
from trainer.reports.seed_differences import Basis, SeedDifference, described, seed_difference

Verdict = Literal["better", "worse", "equal", "no_clear_difference", "no_interval", "not_comparable"]
TOLERANCE = 0.01
"""Relative increase of the loss that does not count as a regression yet."""
_ROUNDING = 1e-6
"""Relative difference of two losses that sums of float32 numbers can cause."""
_OTHER_LINES = note("No interval: the two evaluations have other lines, or a few long lines have most of the text.")
_NO_LINES = note("An evaluation by an older version has no losses of lines.")
_SHARED_UNKNOWN = (
    "The tokenizer of these runs does not know {share} of the characters, so losses per character are too low to"
    " compare with those of other tokenizers."
)
_SIGNIFICANCE = 0.05
_COMPARABLE: dict[Basis | None, frozenset[str]] = {
    "loss": frozenset({"loss", "perplexity", "bits_per_char", "top1_accuracy", "top5_accuracy"}),
    "bits_per_char": frozenset({"bits_per_char"}),
    None: frozenset(),
}
"""Metrics of which a difference means something."""


class Measurement(NamedTuple):
    """A completed run, or a checkpoint of it, with an evaluation and its training speed."""

    manifest: RunManifest
    summary: EvalSummary
    tokens_per_second: float | None
    checkpoint: str | None = None
    """The name of the checkpoint, `RUN@1200`; None for the model of the run."""
    looks: LookCount | None = None
    """The looks at the test split of the run so far; None if they are not known."""

    @property
    def name(self) -> str:
        return self.checkpoint or self.manifest.run_id

    @property
    def baseline(self) -> Baseline | None:
        """The baseline of this model on the evaluated split; None on another text."""
        splits = self.manifest.baselines.items()
        of_split = (one for split, one in splits if (split, None) == (self.summary.split, self.summary.dataset))
        found, bits = next(of_split, None), self.summary.bits_per_char
        if found is None or self.checkpoint is None or bits is None:
            return found
        return changed(found, bits_per_char=bits, margin=None)  # the run's is that of its end


class MeasuredGroup(NamedTuple):
    """The completed runs of a group over seeds."""

    group_id: str
    runs: Sequence[Measurement]
    left_out: Sequence[str] = ()
    """The seeds without a completed run, each with the state of its run: `seed 3 (failed)`."""


Measured: TypeAlias = Measurement | MeasuredGroup


class Figures(Frozen):
    """Figures of a run, or their differences from those of another run; None if unknown or not comparable."""

    params: int | None
    loss: float | None
    """In nats per token of the run's tokenizer."""
    perplexity: float | None
    bits_per_char: float | None
    top1_accuracy: float | None
    """A share, as the next one."""
    top5_accuracy: float | None
    tokens_per_second: float | None
    """Predicted tokens per second in training."""


class ComparedRun(Figures):
    """A run, or the means of the completed runs of a group."""

    run_id: ModelName
    """The id of the run or the group, or the name of a checkpoint."""
    n_runs: int = 1
    ngram_bits_per_char: float | None = None
    """Bits per character of the stronger n-gram of its training text; None on another text than its splits."""
    baseline: Baseline | None = None
    """Counting on the split beside the run, or beside the mean of the group; None where it was not counted."""
    unknown_char_share: float | None = None
    """Share of unknown characters, of a group the largest one; above 0.001, figures are too low to compare."""
    known: KnownFigures | None = None
    """The figures over known tokens; None for a group, and of earlier versions."""
    deviations: Figures | None = None
    """Standard deviations (n - 1) over the runs of a group; None for one run."""
    label: str | None
    model: str
    """Short name: LSTM-2x512 has two layers of 512."""
    objective: Objective


class Difference(Frozen):
    """A field that differs between two requests; values as JSON, text without quotes."""

    field: str
    run: str
    other: str


class Against(Frozen):
    """Comparison of the first run with another run."""

    run_id: ModelName
    basis: Basis | None
    """Comparable metric; None if there is none, with the reason in `notes`."""
    rise: float | None
    """Relative increase of that metric over the other run; negative: better."""
    interval: Interval | None
    """95 % interval of `rise`, paired over the lines of the text; for groups over lines and seeds, as `over_seeds`."""
    p: float | None = None
    """Two-sided p of `rise`, by the same t as the interval; None without an interval."""
    p_holm: float | None = None
    """p adjusted for the number of comparisons with the first run (Holm 1979); None for one comparison."""
    over_seeds: SeedDifference | None = None
    """Difference of the means of that metric, if one or both are groups of several completed runs."""
    verdict: Verdict
    """`better` and `worse` only where the interval excludes zero and, of several comparisons, `p_holm` is below 0.05.

    `equal` if the rise is within rounding.
    """
    is_regression: bool
    """True if the run is worse, by more than the tolerance, and differs in more than its seed and its CPU."""
    delta: Figures
    is_on_one_text: bool
    """True if both were evaluated on the same lines in the same form."""
    notes: tuple[Note, ...]
    differences: tuple[Difference, ...]


class Comparison(Frozen):
    """Comparison of a run with others, each on its own split, or all on one corpus."""

    split: EvalSplit | None
    """Split; None: the complete `dataset`."""
    dataset: str | None
    tolerance: float
    runs: tuple[ComparedRun, ...]
    """The runs; the first one is compared with the others."""
    against: tuple[Against, ...]
    test_looks: LookCount | None = None
    """The looks at the test split of the first run so far; None on another text."""
    notes: tuple[Note, ...] = ()
    """Why this text was chosen, and how often losses on it were read."""

    @property
    def is_passed(self) -> bool:
        """True if the first run is comparable with every other run and a regression of none."""
        unknown: tuple[Verdict, ...] = ("not_comparable", "no_interval")
        return all(one.verdict not in unknown and not one.is_regression for one in self.against)


class NotEvaluated(AppError):
    """A run has no evaluation of a split."""

    def __init__(self, manifest: RunManifest, split: EvalSplit) -> None:
        super().__init__(
            ErrorCode.EVAL_NOT_FOUND,
            f"The run {manifest.quoted} has no evaluation of its {split} split. Evaluate it:"
            f" `mt eval {manifest.run_id} --split {split}`.",
        )
        self.name = manifest.effective.label or manifest.run_id
        self.split: EvalSplit = split


def check_different(run_ids: Sequence[str]) -> None:
    """Refuse to compare a run with itself, or with a group that it belongs to."""
    if len(set(run_ids)) < len(run_ids):
        raise AppError(ErrorCode.INVALID_INPUT, "A run cannot be compared with itself: give different runs.")


def chosen_split(manifests: Iterable[RunManifest]) -> tuple[EvalSplit, tuple[Note, ...]]:
    """Return the split to compare runs on where nobody has named one, and a note on it if that is not test."""
    locked = next((one.effective.label or one.run_id for one in manifests if one.is_unread("test")), None)
    if locked is None:
        return "test", ()
    message = note("The test split of `{run}` is locked: the runs are compared on validation", run=locked)
    return "validation", (message,)


def summary_on(manifest: RunManifest, split: EvalSplit) -> EvalSummary:
    """Return the latest evaluation of a split of the run; raises NotEvaluated."""
    if (summary := manifest.evaluation(split)) is not None:
        return summary
    if manifest.is_unread(split):
        raise AppError(
            ErrorCode.TEST_LOCKED,
            f"The test split of the run {manifest.quoted} is locked: compare on `validation`, and read it once"
            " by an unlock when all is decided.",
        )
    raise NotEvaluated(manifest, split)


def compare(
    measured: Sequence[Measured],
    *,
    split: EvalSplit | None = None,
    dataset: str | None = None,
    tolerance: float = TOLERANCE,
    notes: tuple[Note, ...] = (),
) -> Comparison:
    """Compare the first run or group with each other one, on the evaluations given."""
    first, *others = measured
    looks = _runs(first)[0].looks if split == "test" else None
    is_counted = looks is not None and looks.looks > 0  # not by the version that has measured the run
    check_different([run.name for one in measured for run in _runs(one)])
    return Comparison(
        split=split,
        dataset=dataset,
        tolerance=tolerance,
        runs=tuple(_row(one) for one in measured),
        against=tuple(_adjusted([_against(first, other, split, tolerance) for other in others])),
        test_looks=looks if is_counted else None,
        notes=(*notes, looks_note(looks)) if looks is not None and is_counted else notes,
    )


def _adjusted(found: Sequence[Against]) -> Iterator[Against]:
    """Yield comparisons with p, verdict and note adjusted for the number of comparisons that have a p."""
    tested = [one for one in found if one.p is not None]
    adjusted = iter(holm([one.p or 0.0 for one in tested]))
    for one in found:
        if one.p is None or len(tested) == 1:
            yield one
            continue
        p_holm = next(adjusted)
        if one.verdict == "equal":
            yield changed(one, p_holm=p_holm)
            continue
        adjusted_for = counted_note(len(tested), "comparison")
        if one.verdict in ("better", "worse") and p_holm >= _SIGNIFICANCE:
            adjustment = note(
                "Adjusted for {comparisons}, p is {p} (Holm 1979), alone {alone}: the difference is not clear, although"
                " its own interval excludes zero.",
                comparisons=adjusted_for,
                p=_probability(p_holm),
                alone=_probability(one.p),
            )
            one = changed(one, verdict="no_clear_difference", is_regression=False)
        else:
            adjustment = note(
                "Adjusted for {comparisons}, p is {p} (Holm 1979); the interval is not adjusted.",
                comparisons=adjusted_for,
                p=_probability(p_holm),
            )
        yield changed(one, p_holm=p_holm, notes=(*one.notes, adjustment))


def _probability(p: float) -> Quantity | Note:
    return Quantity(value=p, form="p") if p >= 0.0001 else note("below 0.0001")


def model_name(config: ModelConfig) -> str:
    """Return the short name of a model: LSTM-2x512, BiGRU-1x64, GPT2-12x768, 5-GRAM."""
    if isinstance(config, NgramConfig):
        return f"{config.order or config.max_order}-GRAM"
    prefix = "Bi" if isinstance(config, RnnConfig) and config.bidirectional else ""
    return f"{prefix}{config.architecture.upper()}-{config.num_layers}x{config.hidden_size}"


def _figures(one: Measurement) -> dict[str, float | None]:
    figures: dict[str, float | None] = one.summary.model_dump(include=set(Figures.model_fields))
    params = None if one.manifest.model is None else one.manifest.model.params
    return {**figures, "params": params, "tokens_per_second": one.tokens_per_second}


def _runs(one: Measured) -> Sequence[Measurement]:
    return one.runs if isinstance(one, MeasuredGroup) else [one]


def _name(one: Measured) -> str:
    return one.group_id if isinstance(one, MeasuredGroup) else one.name


def _over_runs(one: Measured, summary: Callable[[Sequence[float]], float]) -> dict[str, float | None]:
    """Return a summary of each figure over the runs; None for a figure that a run lacks."""
    figures = [_figures(run) for run in _runs(one)]
    found: dict[str, float | None] = {}
    for name in figures[0]:
        known = [value for run in figures if (value := run[name]) is not None]
        found[name] = summary(known) if len(known) == len(figures) else None
    return found


def _means(one: Measured) -> dict[str, float | None]:
    means = _over_runs(one, fmean)
    if means["params"] is not None:
        means["params"] = int(means["params"])
    return means


def _row(one: Measured) -> ComparedRun:
    runs = _runs(one)
    effective = runs[0].manifest.effective
    deviations = None if len(runs) == 1 else Figures.model_validate(_over_runs(one, stdev) | {"params": None})
    row: dict[str, object] = {
        **_means(one),
        "run_id": _name(one),
        "n_runs": len(runs),
        "ngram_bits_per_char": _ngram_bits(runs),
        "baseline": _baseline(runs),
        "unknown_char_share": max(map(_unknown_share, runs)),
        "known": runs[0].summary.known if len(runs) == 1 else None,
        "deviations": deviations,
        "label": effective.label,
        "model": model_name(effective.model),
        "objective": effective.objective,
    }
    return ComparedRun.model_validate(row)


def _baseline(runs: Sequence[Measurement]) -> Baseline | None:
    found = [one.baseline for one in runs if one.baseline is not None]
    return mean_baseline(found) if len(found) == len(runs) else None


def _ngram_bits(runs: Sequence[Measurement]) -> float | None:
    """Return the mean of the bits per character of the n-grams on the split; None if one is not known."""
    found = [one.baseline.counted_bits_per_char for one in runs if one.baseline is not None]
    return fmean(found) if len(found) == len(runs) else None


def _against(first: Measured, other: Measured, split: EvalSplit | None, tolerance: float) -> Against:
    first, other, unpaired = _paired(first, other)
    mine, its = _means(first), _means(other)
    ours, theirs = _runs(first), _runs(other)
    basis, notes = _common_basis(ours, theirs, split)
    warnings = [warning for run in (*ours, *theirs) for warning in _unknown_text(run)]
    if warnings and basis == "loss":  # of one tokenizer on one text
        warnings = [
            note(_SHARED_UNKNOWN, share=Quantity(value=max(map(_unknown_share, (*ours, *theirs))), form="share"))
        ]
    if warnings and basis == "bits_per_char":
        basis = None
    leaks = [leak for runs in (ours, theirs) if (leak := _largest_leak(runs)) is not None]
    if any(leak.is_large for _, leak in leaks):
        basis = None
    text = note("this text") if split is None else split_note(split)
    warnings += [one for name, leak in leaks for one in leak_notes(leak, text, training_text_note(name))]
    rise = None if basis is None else _relative(mine[basis], its[basis])
    comparable = {"params", "tokens_per_second", *_COMPARABLE[basis]}
    delta = {name: _less(mine[name], its[name]) if name in comparable else None for name in mine}
    one, two = ours[0].manifest.effective, theirs[0].manifest.effective
    is_of_groups = len(ours) + len(theirs) > 2
    differing = tuple(each for each in differences(one, two) if not (is_of_groups and each.field == "seed"))
    over_seeds, interval, p, reach = None, None, None, list[Note]()
    difference = None if basis is None or rise is None else _difference(ours, theirs, basis)
    if difference is not None and (error := difference.error) is not None:
        interval, p = around(rise or 0.0, error.margin / abs(its[basis or "loss"] or 1.0)), error.p(difference.value)
    found = _verdict(rise, interval)
    fields = {each.field for each in differing} | ({"seed"} if is_of_groups else set())
    chance = _chance(fields, ours[0].manifest.environment, theirs[0].manifest.environment)
    if difference is not None and basis is not None:
        if difference.seeds is not None:
            over_seeds = seed_difference(difference, difference.seeds)
            reach.append(described(over_seeds, basis))
        reach += _reach(found, difference, [*ours, *theirs], chance)
    return Against(
        run_id=_name(other),
        basis=basis,
        rise=rise,
        interval=interval,
        p=1.0 if p is not None and found == "equal" else p,
        over_seeds=over_seeds,
        verdict=found,
        is_regression=found == "worse" and rise is not None and rise > tolerance and chance is None,
        delta=Figures.model_validate(delta),
        is_on_one_text=_text(one, split) == _text(two, split),
        notes=(*notes, *warnings, *reach, *unpaired, *_missing(first), *_missing(other)),
        differences=differing,
    )


def _common_basis(
    ours: Sequence[Measurement], theirs: Sequence[Measurement], split: EvalSplit | None
) -> tuple[Basis | None, list[Note]]:
    """Return the metric that all runs of two groups have in common, and notes."""
    pairs = [(run, theirs[0]) for run in ours] + [(ours[0], run) for run in theirs[1:]]
    found = [_basis(one, other, split) for one, other in pairs]
    bases = {basis for basis, _ in found}
    basis: Basis | None = None if None in bases else "bits_per_char" if "bits_per_char" in bases else "loss"
    notes: list[Note] = []
    for of_pair, new in found:
        notes += [one for one in new if of_pair == basis and one not in notes]
    return basis, notes


def _paired(first: Measured, other: Measured) -> tuple[Measured, Measured, list[Note]]:
    """Return two groups with the runs of their common seeds only, and notes on their other runs.

    Groups with fewer than two common seeds keep all runs.
    """
    if not isinstance(first, MeasuredGroup) or not isinstance(other, MeasuredGroup):
        return first, other, []
    mine, its = _seeds(first), _seeds(other)
    common = {*paired_seeds(mine, its)}
    if not common:
        return first, other, []
    notes = [
        note("`{group}`: without a pair, so left out: {seeds}.", group=one.group_id, seeds=_seed_names(alone))
        for one, alone in ((first, mine - common), (other, its - common))
        if alone
    ]
    return _of_seeds(first, common), _of_seeds(other, common), notes


def _seed_names(seeds: set[int]) -> str:
    return ", ".join(f"seed {seed}" for seed in sorted(seeds))


def _seeds(group: MeasuredGroup) -> set[int]:
    return {run.manifest.effective.seed for run in group.runs}


def _of_seeds(group: MeasuredGroup, seeds: set[int]) -> MeasuredGroup:
    return group._replace(runs=[run for run in group.runs if run.manifest.effective.seed in seeds])


def _by_seed(runs: Sequence[Measurement], basis: Basis) -> dict[int, float]:
    """Return a metric by the seeds of runs; all of them have it."""
    values = {run.manifest.effective.seed: _figures(run)[basis] for run in runs}
    return {seed: value for seed, value in values.items() if value is not None}


def _missing(one: Measured) -> Iterator[Note]:
    """Yield the seeds of a group that do not count, because they have no completed run."""
    if isinstance(one, MeasuredGroup) and one.left_out:
        seeds = ", ".join(one.left_out)
        yield note("`{group}`: no completed run, so left out: {seeds}.", group=one.group_id, seeds=seeds)


def _verdict(rise: float | None, interval: Interval | None) -> Verdict:
    if rise is None:
        return "not_comparable"
    if abs(rise) < _ROUNDING:
        return "equal"
    if interval is None:
        return "no_interval"
    if interval.low <= 0 <= interval.high:
        return "no_clear_difference"
    return "better" if rise < 0 else "worse"


def _chance(differing: set[str], mine: Environment | None, its: Environment | None) -> Note | None:
    """Return the only reason of a difference, if two runs differ in nothing but the seed or the CPU."""
    if mine is None or its is None or (mine.git_commit, mine.libraries) != (its.git_commit, its.libraries):
        return None
    if differing == {"seed"}:
        return note("These runs differ only in their seeds: the difference is the spread of trainings.")
    if differing <= {"threads"} and mine.arithmetic != its.arithmetic:
        return note(
            "Equal seeds give equal numbers only on equal CPUs: these have other instructions, threads or devices."
        )
    return None


def _reach(
    found: Verdict, difference: LossDifference, runs: Sequence[Measurement], chance: Note | None
) -> Iterator[Note]:
    """Yield what a verdict covers, or why it has no interval."""
    seeded = [run for run in runs if not isinstance(run.manifest.effective.model, NgramConfig)]
    if not seeded and len(runs) > 2 and found != "equal":
        yield SEEDLESS
    if found == "no_interval":
        yield _without_interval(difference, runs)
    elif found != "equal":
        if chance is not None:
            yield chance
        elif not difference.has_lines:
            yield note("{reason} The interval is over seeds and does not cover other lines.", reason=_NO_LINES)
        elif difference.depends_on_seeds:
            yield note("The interval is over the lines of this text and over seeds.")
        elif seeded and len(runs) == 2:
            yield note("One seed each: the interval covers lines of the text, not the spread of trainings.")
        elif len(seeded) == 1:
            yield note(
                "One seed of `{run}`: the interval covers lines of the text, not the spread of its trainings.",
                run=seeded[0].name,
            )
        else:
            yield note("The interval is over the lines of this text.")
        if difference.lines is not None and not all(run.summary.lines.is_drawn for run in runs):
            yield note(
                "Neighbouring lines depend on each other: the interval takes them in blocks, {most} at most.",
                most=MAX_BLOCKS,
            )


def _without_interval(difference: LossDifference, runs: Sequence[Measurement]) -> Note:
    """Return why a difference has no interval."""
    if not difference.has_lines:
        return note("{reason} Evaluate the runs again.", reason=_NO_LINES)
    if difference.lines is not None:
        return note("No interval: the difference is the same in all lines.")
    missing = (run.summary.lines.missing_interval for run in runs)
    return next((one for one in missing if one is not None), _OTHER_LINES)


def _difference(ours: Sequence[Measurement], theirs: Sequence[Measurement], basis: Basis) -> LossDifference:
    """Return the difference of a metric, over seeds alone where an evaluation by an older version has no lines."""
    if all(run.summary.lines.nats for run in (*ours, *theirs)):
        return loss_difference(_lines(ours), _lines(theirs), per_char=basis == "bits_per_char")
    return mean_difference(_by_seed(ours, basis), _by_seed(theirs, basis))


def _lines(runs: Sequence[Measurement]) -> dict[int, LineLosses]:
    return {run.manifest.effective.seed: run.summary.lines for run in runs}


def _basis(first: Measurement, other: Measurement, split: EvalSplit | None) -> tuple[Basis | None, list[Note]]:
    """Return the comparable metric of two runs, and notes."""
    one, two = first.manifest, other.manifest
    if one.effective.objective != two.effective.objective:
        return None, [note("Their objectives differ, so none of their metrics are comparable.")]
    if one.effective.documents != two.effective.documents:
        return None, [note("Their `documents` differ, so none of their metrics are comparable.")]
    if _text(one.effective, split) != _text(two.effective, split):
        if split is None:
            return None, [note("Their normalizations differ, so none of their metrics are comparable.")]
        return None, [note("Their {split} splits differ, so none of their metrics are comparable.", split=note(split))]
    if _vocabulary(one) == _vocabulary(two):
        if one.effective.objective == "masked_lm" and _masking(one.effective) != _masking(two.effective):
            return "loss", [note("They were evaluated on different masked tokens: a part of the difference is chance.")]
        return "loss", []
    if one.effective.objective == "masked_lm":
        return None, [note("Their tokenizers differ, so losses per token are not comparable.")]
    notes = [note("Their tokenizers differ: only losses per character are comparable.")]
    known = first.summary.bits_per_char is not None and other.summary.bits_per_char is not None
    return ("bits_per_char" if known else None), notes


def _unknown_share(one: Measurement) -> float:
    return one.summary.unknown_char_share or 0.0


def _unknown_text(one: Measurement) -> Iterator[Note]:
    """Yield the reason why the losses per character of a run are too low to compare, if they are."""
    share = one.summary.unknown_char_share
    if one.summary.bits_per_char is not None and share is not None and has_unknown_text(share):
        yield note(
            "`{name}` does not know {share} of the characters, so its losses per character are too low to compare.",
            name=one.name,
            share=Quantity(value=share, form="share"),
        )


def _largest_leak(runs: Sequence[Measurement]) -> tuple[str, Leak] | None:
    """Return the leak of the run that has read most of the text, with its name; None if none was measured."""
    largest: tuple[str, Leak] | None = None
    for one in runs:
        summary, data = one.summary, one.manifest.data
        of_splits = {} if data is None or summary.dataset is not None else data.leaks
        leak = summary.leak or next((leak for split, leak in of_splits.items() if split == summary.split), None)
        if leak is not None and (largest is None or leak.largest > largest[1].largest):
            largest = one.name, leak
    return largest


def _vocabulary(manifest: RunManifest) -> str | None:
    """Return the hash of the tokenizer file: equal for tokenizers trained alike."""
    return None if manifest.tokenizer is None else manifest.tokenizer.sha256


def _masking(effective: EffectiveRequest) -> tuple[int, float]:
    """Return the values that determine the masked tokens."""
    return effective.split_seed, effective.mlm_probability


def _text(effective: EffectiveRequest, split: EvalSplit | None) -> tuple[object, ...]:
    """Return the values that determine the documents of a split and their normalization."""
    form = effective.tokenizer.normalization, effective.documents
    return form if split is None else (*form, *effective.text_of(split))


def differences(one: EffectiveRequest, two: EffectiveRequest) -> Iterator[Difference]:
    """Yield the fields that differ; for a corpus its name, or its hash if the names are equal."""
    mine, its = _fields(one), _fields(two)
    for field in {**mine, **its}:
        here, there = mine.get(field, "null"), its.get(field, "null")
        name = field.removesuffix(".sha256") + ".name"
        is_renamed = field.endswith(".sha256") and mine.get(name) != its.get(name)
        if here != there and not is_renamed:
            yield Difference(field=field, run=here, other=there)


_COUNTED = ("model.order", "model.ngrams", "model.discounts")
"""Fields that have a value after the counting of an n-gram model only."""


def _fields(effective: EffectiveRequest) -> dict[str, str]:
    return {name: value for name, value in settings_of(effective) if name not in ("tags", *_COUNTED)}


def _relative(mine: float | None, its: float | None) -> float | None:
    """Return the relative difference; None if a value is unknown, or the second is 0."""
    return (mine - its) / its if mine is not None and its else None


def _less(mine: float | None, its: float | None) -> float | None:
    return None if mine is None or its is None else mine - its
