"""The report of an analysis of reading times: what each model explains, its effects, and how the table was read."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import exp, fsum, log
from statistics import fmean
from typing import Literal

from trainer.contracts.base import changed
from trainer.contracts.intervals import margin_of_mean
from trainer.contracts.readings import (
    Curve,
    DeltaLogLikelihood,
    Measure,
    ModelFit,
    ReadingComparison,
    ReadingFit,
    ReadingOptions,
    ReadingRecord,
    ReadingResult,
    Reason,
)
from trainer.contracts.reports import (
    Axis,
    Cell,
    Estimate,
    Figure,
    Link,
    Note,
    Part,
    Quantity,
    Report,
    Series,
    Table,
    choice,
    column,
    counted_note,
    note,
    section,
)
from trainer.contracts.seeds import group_id_of
from trainer.reports.leak_notes import unit_leak_notes
from trainer.reports.names import named, names_of_models

_MEASURES: Mapping[Measure, str] = {
    "self_paced": "self-paced reading",
    "maze": "maze task",
    "first_fixation": "first fixation",
    "gaze": "gaze duration",
    "go_past": "go-past time",
    "total": "total time",
    "skipping": "skipping",
}
_TITLES: Mapping[str, str] = {
    "perplexity": "{measure}: what surprisal explains, by the perplexity of the model",
    "training": "{measure}: what surprisal explains, over training",
    "sizes": "{measure}: what surprisal explains, over sizes",
}
_LEVEL = 0.05
"""Larger p-values show no difference."""
_AXES: Mapping[str, str] = {"perplexity": "perplexity per unit", "training": "step", "sizes": "parameters"}
_MEANS = "Means over seeds with 95 % intervals over the seeds, or over the texts where these are wider"
_MEANS_APART = (
    "Means over seeds with 95 % intervals over the seeds, or over the texts where these are wider. Not comparable: the "
    "baselines of the models are counted in different texts"
)
_GAINS = (
    "{measure}: gains of surprisal in nats per held-out time{intervals}; p by permutation over texts, corrected for"
    " the number of models (Holm)"
)
_GAINS_BY_ROW = (
    "{measure}: gains of surprisal in nats per held-out time, by rows; p by permutation over texts, corrected for the "
    "number of models (Holm)"
)
_INTERVALS: Mapping[tuple[bool, bool], str] = {
    (True, True): " with 95 % intervals by errors clustered by texts and persons",
    (False, True): " with 95 % intervals by errors clustered by texts",
    (False, False): " with 95 % intervals",
}
"""By whether errors are clustered by persons, and at all: those of earlier versions were not."""
_REASONS: Mapping[Reason, str] = {
    "first": "Left out: {rows} of first units of texts",
    "last": "Left out: {rows} of last units of texts",
    "punctuation": "Left out: {rows} of units with punctuation",
    "missing": "Left out: {rows} without a time",
    "too_short": "Left out: {rows} with too short a time",
    "too_long": "Left out: {rows} with too long a time",
    "beginning": "Left out: {rows} at the beginning of a text, where units before are missing",
    "gap": "Left out: {rows} behind a gap in positions",
    "inside_token": "Left out: {rows} of units inside a token of a model, or behind them",
    "no_predictor": "Left out: {rows} without a predictor: at the beginning of a text, behind a gap or inside a token",
}


def reading_report(result: ReadingResult, record: ReadingRecord, firsts: Mapping[Measure, ModelFit]) -> Report:
    """Return the report of an analysis, given each measure as the first model explains it."""
    by_measure = dict[Measure, list[ReadingFit]]()
    for one in result.fits:
        by_measure.setdefault(one.measure, []).append(one)
    sections = [
        *section("What surprisal explains", _explained(result, by_measure)),
        *section("Effects", _all_effects(by_measure, firsts)),
        *section("To know", _notes(result, record.options, by_measure)),
    ]
    report = Report(title=note("Reading times {name}", name=result.data.name), sections=tuple(sections))
    return named(report, names_of_models(record.runs))


def measure_note(measure: Measure) -> Note:
    """Return the name of a measure."""
    return note(_MEASURES[measure])


def _explained(result: ReadingResult, by_measure: Mapping[Measure, Sequence[ReadingFit]]) -> Iterator[Part]:
    yield from (_gains(result, measure, fits) for measure, fits in by_measure.items())
    yield from (table for measure, fits in by_measure.items() for table in _over_seeds(measure, fits))
    text = note(_MEANS_APART if result.differing else _MEANS)
    yield from (changed(figure, text=text) for figure in _figures(by_measure))


def _figures(by_measure: Mapping[Measure, Sequence[ReadingFit]]) -> Iterator[Figure]:
    for measure, fits in by_measure.items():
        models = [fit for fit in fits if fit.counts is None]
        if len(fits) > 1:
            known = [fit for fit in fits if fit.perplexity is not None]
            yield _figure(measure, "perplexity", _lines(known), lambda fit: fit.step, _perplexity)
        trained = {line: fits for line, fits in _lines(models).items() if len({fit.step for fit in fits}) > 1}
        if trained:
            yield _figure(measure, "training", trained, lambda fit: fit.step, lambda alike: alike[0].step)
        ends = [fit for fit in models if "@" not in fit.model and fit.params is not None]
        if len({fit.params for fit in ends}) > 1:
            yield _figure(
                measure, "sizes", _families(ends), lambda fit: fit.params or 0, lambda alike: alike[0].params or 0
            )


def _gains(result: ReadingResult, measure: Measure, fits: Sequence[ReadingFit]) -> Table:
    """Return the gain of each model, with the difference from the first one."""
    columns = (
        *(column("model"), column("perplexity per unit", "count"), column("line", "figures")),
        *(column("spline", "figures"), column("minus the first", "figures"), column("p", "p")),
    )
    compared_with = {(one.measure, one.second): one for one in result.comparisons}
    rows: list[tuple[Cell, ...]] = []
    for fit in fits:
        compared = compared_with.get((measure, fit.name))
        difference = None if compared is None else compared.difference
        p_holm = None if compared is None else compared.p_holm
        line, spline = _estimate(fit.delta_log_likelihood), _estimate(fit.spline_delta_log_likelihood)
        rows.append((_model(fit), fit.perplexity, line, spline, difference, p_holm))
    title = measure_note(measure)
    caption = note(_GAINS_BY_ROW, measure=title)
    if fits[0].delta_log_likelihood.low is not None:
        caption = note(_GAINS, measure=title, intervals=note(", with 95 % intervals by a bootstrap over texts"))
    return Table(name=f"gains-{measure}", title=title, caption=caption, columns=columns, rows=tuple(rows))


def _over_seeds(measure: Measure, fits: Sequence[ReadingFit]) -> Iterator[Table]:
    """Yield the mean gains of runs that differ in their seeds only, and of their checkpoints of equal steps."""
    rows = tuple(
        [
            (line, step, len(of_seeds), _mean(of_seeds))
            for line, of_line in _lines([fit for fit in fits if fit.counts is None]).items()
            for step, of_seeds in sorted(_alike(of_line, lambda fit: fit.step).items())
            if of_seeds[1:]
        ]
    )
    if rows:
        columns = column("model"), column("step", "count"), column("seeds", "count"), column("mean", "figures")
        caption = note(
            "{measure}: mean gains of runs that differ in their seeds only{intervals}",
            measure=measure_note(measure),
            intervals=note(
                ", with 95 % intervals by Student's t over the seeds, or those of the table above where they are wider"
            ),
        )
        yield Table(
            name=f"seeds-{measure}", title=note("Over seeds"), caption=caption, columns=columns, rows=rows, n_titles=2
        )


def _figure(
    measure: Measure,
    name: Literal["perplexity", "training", "sizes"],
    lines: Mapping[str, Sequence[ReadingFit]],
    key: Callable[[ReadingFit], int],
    place: Callable[[Sequence[ReadingFit]], float],
) -> Figure:
    """Return the mean gains of the fits of a line that have an equal key, at the place of these fits."""
    means = {line: {place(group): _mean(group) for group in _alike(fits, key).values()} for line, fits in lines.items()}
    places = sorted({at for of_line in means.values() for at in of_line})
    return Figure(
        name=f"{name}-{measure}",
        title=note(_TITLES[name], measure=measure_note(measure)),
        text=note(_MEANS),
        axes=(Axis(title=note(_AXES[name]), places=tuple(places)),),
        y=note("nats per held-out time"),
        form="figures",
        series=tuple([Series(name=line, values=tuple([*map(of_line.get, places)])) for line, of_line in means.items()]),
    )


def _alike(fits: Sequence[ReadingFit], key: Callable[[ReadingFit], int]) -> Mapping[int, Sequence[ReadingFit]]:
    """Return the fits by a key, of each run one: the checkpoint of its last step is the model of its end."""
    groups = dict[int, dict[str, ReadingFit]]()
    for fit in fits:
        groups.setdefault(key(fit), {}).setdefault(fit.run_id, fit)
    return {number: [*of_runs.values()] for number, of_runs in groups.items()}


def _perplexity(fits: Sequence[ReadingFit]) -> float:
    """Return the geometric mean of perplexities."""
    return exp(fsum([log(fit.perplexity) for fit in fits if fit.perplexity]) / len(fits))


def _lines(fits: Sequence[ReadingFit]) -> Mapping[str, Sequence[ReadingFit]]:
    """Return the fits by lines: counts, a run with its checkpoints, or all runs that differ in their seeds only."""
    runs = dict[str, set[str]]()
    for fit in fits:
        if fit.counts is None:
            runs.setdefault(fit.series, set()).add(fit.run_id)
    lines = dict[str, list[ReadingFit]]()
    for fit in fits:
        seeds = _name_of(fit, runs[fit.series]) if len(runs.get(fit.series, ())) > 1 else fit.run_id
        lines.setdefault(fit.name if fit.counts is not None else seeds, []).append(fit)
    return lines


def _families(ends: Sequence[ReadingFit]) -> Mapping[str, Sequence[ReadingFit]]:
    """Return the fits by families; of one size, those that differ in more than their seeds have lines of their own."""
    of_sizes = dict[tuple[str, int | None], set[str]]()
    for fit in ends:
        of_sizes.setdefault((fit.family, fit.params), set()).add(fit.series)
    families = dict[str, list[ReadingFit]]()
    for line, fits in _lines(ends).items():
        for fit in fits:
            is_only = len(of_sizes[fit.family, fit.params]) == 1
            families.setdefault(fit.family if is_only else line, []).append(fit)
    return families


def _name_of(fit: ReadingFit, run_ids: Iterable[str]) -> str:
    """Return the name for runs that differ in their seeds only: that of their group, if they are of one."""
    groups = {*map(group_id_of, run_ids)}
    return (groups.pop() if len(groups) == 1 else None) or f"{fit.family} {fit.series[:6]}"


def _mean(fits: Sequence[ReadingFit]) -> Estimate:
    """Return the gain of a model, or the mean gain of models that differ in their seeds only.

    More seeds do not make more texts: the interval of a mean is never narrower than those of the models in the mean.
    """
    gains = [fit.delta_log_likelihood for fit in fits]
    lows, highs = [one.low for one in gains if one.low is not None], [one.high for one in gains if one.high is not None]
    estimates = [one.estimate for one in gains]
    mean, half = fmean(estimates), margin_of_mean(estimates) or 0.0
    if not lows or not highs:  # by rows
        return Estimate(value=mean)
    return Estimate(value=mean, low=min(fmean(lows), mean - half), high=max(fmean(highs), mean + half))


def _all_effects(
    by_measure: Mapping[Measure, Sequence[ReadingFit]], firsts: Mapping[Measure, ModelFit]
) -> Iterator[Part]:
    yield choice("Effects", [_effects(measure, fits) for measure, fits in by_measure.items()])
    for measure, first in firsts.items():
        response = first.fit.coefficients[0].unit
        yield Figure(
            name=f"effect-{measure}",
            title=note("{measure}: the effect of surprisal", measure=measure_note(measure)),
            text=note("The effect of a unit's own surprisal by {model}, less that at the mean", model=first.fit.name),
            axes=(Axis(title=note("surprisal in bits"), places=first.line.places, is_linear=True),),
            y=note(response),
            form="figures",
            series=(_series("line", first.line), _series("spline", first.spline)),
        )
        yield Figure(
            name=f"residuals-{measure}",
            title=note("{measure}: residuals", measure=measure_note(measure)),
            text=note("Mean residuals by the expected times, in twenty groups of as many times"),
            axes=(Axis(title=note("expected"), places=first.residuals.places, is_linear=True),),
            y=note(response),
            form="figures",
            series=(_series("residuals", first.residuals),),
        )


def _series(name: str, curve: Curve) -> Series:
    points = zip(curve.values, curve.lows, curve.highs, strict=True)
    return Series(name=name, values=tuple([Estimate(value=value, low=low, high=high) for value, low, high in points]))


def _effects(measure: Measure, fits: Sequence[ReadingFit]) -> Table:
    columns = column("model"), column("predictor"), column("unit"), column("estimate", "figures")
    rows = [
        (_model(fit), one.predictor, one.unit, Estimate(value=one.estimate, low=one.low, high=one.high))
        for fit in fits
        for one in fit.coefficients
        if one.predictor.partition("_")[0] == "surprisal"
    ]
    caption = note(
        "{measure}: effects of surprisal{intervals}, by all times that were kept; others are in `effects.csv`",
        measure=measure_note(measure),
        intervals=note(_INTERVALS[fits[0].is_of_persons, fits[0].coefficients[0].clustered_error is not None]),
    )
    title = measure_note(measure)
    return Table(name=f"effects-{measure}", title=title, caption=caption, columns=columns, rows=tuple(rows), n_titles=2)


def _notes(
    result: ReadingResult, options: ReadingOptions, by_measure: Mapping[Measure, Sequence[ReadingFit]]
) -> Iterator[Note]:
    data = result.data
    yield note(
        "{texts}, {units}, {persons}",
        texts=counted_note(data.n_texts, "text"),
        units=counted_note(data.n_units, "unit"),
        persons=counted_note(data.n_persons, "person") if data.n_persons else note("means over persons"),
    )
    yield from data.notes
    for measure, fits in by_measure.items():
        first = fits[0]
        yield note(
            "{measure}: {times} of {texts} kept",
            measure=measure_note(measure),
            times=counted_note(first.n_observations, "time"),
            texts=counted_note(first.n_texts, "text"),
        )
        for one in first.excluded:
            if one.n_rows:
                yield note(_REASONS[one.reason], rows=counted_note(one.n_rows, "row"))
    yield from _on_p(result.comparisons)
    if result.differing:
        yield note(
            "Warning: {predictors} of the baseline are counted in different texts, so gains of these models are not "
            "comparable. `frequencies` names one run in whose training text they are counted for all",
            predictors=", ".join(f"`{name}`" for name in result.differing),
        )
    if options.baseline:
        collinearity, nearest = max((fit.collinearity, fit.name) for fit in result.fits if fit.counts is None)
        yield note(
            "The largest correlation of a column of surprisal with one of the baseline is {correlation}, of {model}",
            correlation=Quantity(value=collinearity, form="hundredths"),
            model=nearest,
        )
    for fit in by_measure[result.fits[0].measure]:
        yield from _notes_on_model(fit)
    if options.fold_by == "row":
        yield note(
            "Warning: folds are by row, so a text stands in training and test at once. The gains are for comparisons "
            "with older papers only"
        )
    if not all(fit.is_of_persons for fit in result.fits):
        yield note("Intervals of effects are for these persons; too narrow if readers differ in their effect")
    if any(fit.analysis == "mixed" for fit in result.fits):
        yield note("Random slopes are not fitted. The scripts `reading-….R` among the files can fit them")


def _on_p(comparisons: Sequence[ReadingComparison]) -> Iterator[Note]:
    """Explain p-values that few texts keep large, and those of 1."""
    smallest = {one.measure: one.p_smallest for one in comparisons if one.p_smallest is not None}
    for measure, p_value in smallest.items():
        if p_value > _LEVEL:
            yield note(
                "{measure}: p is {smallest} or more, whatever the data: so few texts allow few changes of signs. Take "
                "more texts or fewer models",
                measure=measure_note(measure),
                smallest=Quantity(value=p_value, form="p"),
            )
    if any(one.p_holm >= 1 for one in comparisons):
        yield note("A p of 1 is that of equal gains, or one that the correction for the number of models brings to 1")


def _notes_on_model(fit: ReadingFit) -> Iterator[Note]:
    if fit.is_masked:
        yield note(
            "Warning: {model} is a masked model: its surprisals are given the text after a unit, too",
            model=fit.name,
        )
    if fit.n_unknown and fit.counts is None:
        yield note(
            "{model}: {tokens} unknown to its tokenizer, whose surprisal is not that of the words",
            model=fit.name,
            tokens=counted_note(fit.n_unknown, "token"),
        )
    yield from unit_leak_notes(fit.leak, note("the text of the table"), fit.run_id)
    if fit.n_cut:
        texts = counted_note(fit.n_cut, "text")
        yield note("{model}: {texts} longer than its context, scored by windows", model=fit.name, texts=texts)
    if fit.bound_bits:
        bound = Quantity(value=fit.bound_bits, form="figures")
        yield note(
            "{model}: a surprisal may be lower by {bound} bits at most, given the tokenizations that were continued",
            model=fit.name,
            bound=bound,
        )


def _model(fit: ReadingFit) -> Cell:
    return Link(text=fit.name, address=f"runs/{fit.run_id}")


def _estimate(found: DeltaLogLikelihood) -> Estimate:
    return Estimate(value=found.estimate, low=found.low, high=found.high)
