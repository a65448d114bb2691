"""What the surprisals of models explain of the measures of a table: fits of each model, and comparisons of them."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import fsum

import numpy as np

from trainer.contracts.base import changed
from trainer.contracts.intervals import holm
from trainer.contracts.readings import (
    COUNTED,
    Coefficient,
    Curve,
    DeltaLogLikelihood,
    Form,
    Measure,
    ModelFit,
    Predictor,
    ReadingComparison,
    ReadingFit,
    ReadingOptions,
    ScoringModel,
)
from trainer.reading.clusters import Clustered
from trainer.reading.differences import TextSums, delta, paired_p, smallest_p
from trainer.reading.mixed import Floats, Levels
from trainer.reading.predictors import Observations, observations, tidy_csv
from trainer.reading.r_script import r_script
from trainer.reading.regression import (
    Kind,
    Predictors,
    Regression,
    Sample,
    assign_folds,
    collinearity,
    fit,
    held_out,
    training_cost,
)
from trainer.reading.tables import Times

Scores = Mapping[Predictor, Sequence[float | None]]
"""Numbers of all units by predictor, surprisals and entropies in bits."""
_CURVE_POINTS, _GROUPS = 30, 20
_QUANTILE = 1.959963984540054
"""Of a normal distribution, for 95 % intervals."""
_UNITS: Mapping[str, str] = {
    **dict.fromkeys(("surprisal", "entropy", "unigram", "ngram"), "{what} per bit"),
    "length": "{what} per character",
    "log_frequency": "{what} per nat",
    "position": "{what} per word",
}


class MeasureAnalysis:
    """The analysis of one measure: what differs between models are their scores alone."""

    def __init__(self, times: Times, measure: Measure, options: ReadingOptions) -> None:
        self._times, self.measure, self._options = times, measure, options
        self._is_mixed = bool(times.persons) and options.analysis != "means"
        of_units = [unit.text for unit in times.units]
        self._texts: Levels = np.array(of_units, dtype=np.int64)
        """The number of the text of each unit."""
        of_texts = _numbered([text.item for text in times.texts])
        items: Levels = np.array(of_texts, dtype=np.int64)
        self._items: Levels = items[self._texts]
        """The number of the item of each unit."""
        self._baselines: dict[bytes, Floats] = {}
        """Held-out log densities of baselines that were fitted, by what they were fitted to."""

    @property
    def kind(self) -> Kind:
        """The kind of its models."""
        if not self._is_mixed:
            return "means"
        return "logistic" if self.measure == "skipping" else "mixed"

    def observations(self, scores: Scores) -> Observations:
        """Return the observations with the predictors of a model, whose means over persons are taken if asked for."""
        rows = observations(self._times, self.measure, self._options, scores)
        return _means(rows) if self._times.persons and not self._is_mixed else rows

    def folds(self, rows: Observations) -> Levels:
        """Return the fold of each observation (n,); raises INVALID_INPUT for fewer than five texts."""
        options = self._options
        return assign_folds(self._items[rows.unit], options.n_folds, options.fold_by, options.seed)

    def tables(self, scores: Scores) -> dict[str, Iterable[str]]:
        """Return the parts of the tidy table of a model, and of the script for R that reads it, by their names."""
        rows = self.observations(scores)
        table = f"predictors-{self.measure}.csv"
        names = rows.needed
        of_surprisal = [name for name in names if _predictor(name) == "surprisal"]
        baseline = [name for name in names if name not in of_surprisal]
        return {
            table: tidy_csv(self._times, rows, self.folds(rows)),
            f"reading-{self.measure}.R": [r_script(self.kind, baseline, of_surprisal, table, rows.response)],
        }

    def explained_by(self, model: ScoringModel, scores: Scores) -> ModelFit:
        """Fit the measure with and without the surprisals of a model, or of counts; raises INVALID_INPUT."""
        options, kind = self._options, self.kind
        rows = self.observations(scores)
        texts: Levels = self._items[rows.unit]
        sample = _sample(rows, texts, is_mixed=self._is_mixed)
        folds = self.folds(rows)
        baseline = self._baseline(sample, folds)
        regression, spline = fit(sample, kind, "linear"), fit(sample, kind, "spline")
        errors = regression.clustered(sample)

        def gains(form: Form, whole: Regression) -> tuple[Floats, DeltaLogLikelihood]:
            found = held_out(sample, folds, kind, form, fold_by=options.fold_by) - baseline
            estimate = delta(found, texts, training_cost(sample, whole), options.seed)
            return found, estimate if options.fold_by == "text" else changed(estimate, low=None, high=None)

        linear, of_line = gains("linear", regression)
        _, of_spline = gains("spline", spline)
        surprisals: list[float] = [bits for bits in scores["surprisal"] if bits is not None]
        person_sd, unit_sd = regression.fit.group_sds
        of_model: dict[str, object] = model.model_dump()
        found: dict[str, object] = of_model | {
            "measure": self.measure,
            "analysis": "mixed" if self._is_mixed else "means",
            "n_observations": len(rows.values),
            "n_texts": len(np.unique(self._texts[rows.unit])),
            "excluded": rows.excluded,
            "perplexity": _perplexity(surprisals),
            "coefficients": tuple(_coefficients(regression, errors, rows.response)),
            "delta_log_likelihood": of_line,
            "spline_delta_log_likelihood": of_spline,
            "person_sd": person_sd if self._is_mixed else None,
            "unit_sd": unit_sd if self._is_mixed else None,
            "residual_sd": regression.fit.residual_sd,
            "is_of_persons": errors.has_persons,
            "collinearity": collinearity(sample),
        }
        gains_of_texts: list[float] = TextSums.of(linear, texts).sums.tolist()
        return ModelFit(
            fit=ReadingFit.model_validate(found),
            text_nats=tuple(gains_of_texts),
            line=_effect(regression, errors, sample),
            spline=_effect(spline, spline.clustered(sample), sample),
            residuals=_residuals(sample, regression),
        )

    def _baseline(self, sample: Sample, folds: Levels) -> Floats:
        """Return the held-out log densities without surprisal, which models with equal frequencies share."""
        key = sample.baseline.columns.tobytes() + sample.units.tobytes() + sample.response.tobytes()
        if key not in self._baselines:
            self._baselines[key] = held_out(sample, folds, self.kind, None, fold_by=self._options.fold_by)
        return self._baselines[key]


def with_common_units(scores: Sequence[Scores]) -> list[Scores]:
    """Return the scores of several models without the units that one of them has no surprisal for.

    So all models explain the same observations.
    """
    unknown = {number for one in scores for number, bits in enumerate(one["surprisal"]) if bits is None}
    found: list[Scores] = []
    for one in scores:
        surprisal = [None if number in unknown else bits for number, bits in enumerate(one["surprisal"])]
        found.append({**one, "surprisal": surprisal})
    return found


def differing(baseline: Sequence[Predictor], scores: Sequence[Scores]) -> tuple[Predictor, ...]:
    """Return the predictors of a baseline whose numbers differ between models."""
    first, *others = scores
    return tuple(
        name for name in baseline if name in COUNTED and any(tuple(one[name]) != tuple(first[name]) for one in others)
    )


def comparisons(fitted: Sequence[ModelFit], seed: int) -> tuple[ReadingComparison, ...]:
    """Return the differences of the models of a measure from the first one, corrected for their number (Holm)."""
    first, *others = fitted
    texts: Levels = np.arange(len(first.text_nats))
    nats: list[Floats] = [np.array(one.text_nats, dtype=np.float64) for one in fitted]
    p_values = [paired_p(one, nats[0], texts, seed) for one in nats[1:]]
    smallest = min(1.0, smallest_p(len(texts)) * len(others))
    return tuple(
        ReadingComparison(
            measure=one.fit.measure,
            first=first.fit.name,
            second=one.fit.name,
            difference=one.fit.delta_log_likelihood.estimate - first.fit.delta_log_likelihood.estimate,
            p_value=p_value,
            p_holm=p_holm,
            p_smallest=smallest,
        )
        for one, p_value, p_holm in zip(others, p_values, holm(p_values), strict=True)
    )


def _numbered(names: Sequence[str]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]


def _perplexity(bits: Sequence[float]) -> float | None:
    with suppress(OverflowError):
        return math.pow(2, fsum(bits) / len(bits))
    return None


def _means(rows: Observations) -> Observations:
    """Return one observation for each unit: the mean over persons."""
    units, places = np.unique(rows.unit, return_inverse=True)
    sums: Floats = np.bincount(places, rows.values).astype(np.float64)
    counts: Floats = np.bincount(places).astype(np.float64)
    nobody: Levels = np.zeros(len(units), dtype=np.int64)
    return rows._replace(values=sums / counts, unit=units, person=nobody, has_persons=False)


def _sample(rows: Observations, texts: Levels, *, is_mixed: bool) -> Sample:
    def columns(names: Sequence[str]) -> Predictors:
        chosen = [rows.predictors[name] for name in names]
        table: Floats = np.column_stack(chosen) if chosen else np.empty((int(np.max(rows.unit)) + 1, 0))
        return Predictors(tuple(names), table)

    of_surprisal = [name for name in rows.needed if _predictor(name) == "surprisal"]
    return Sample(
        rows.values,
        texts,
        rows.unit,
        rows.person if is_mixed else None,
        columns([name for name in rows.needed if name not in of_surprisal]),
        columns(of_surprisal),
    )


def _effect(regression: Regression, errors: Clustered, sample: Sample) -> Curve:
    """Return the effect of the unit's own surprisal between its 1st and 99th percentile."""
    own = sample.surprisals[0]
    shares: Floats = np.arange(_CURVE_POINTS) / (_CURVE_POINTS - 1)
    low, high = (float(np.quantile(own, share)) for share in (0.01, 0.99))
    bits: Floats = low + shares * (high - low)
    values, of_values = regression.effect(sample, errors, bits)
    return _curve(bits, values, errors.quantile * of_values)


def _residuals(sample: Sample, regression: Regression) -> Curve:
    """Return mean residuals in groups of equally many observations, by their expected values."""
    expected = regression.expected(sample)
    order: Levels = np.argsort(expected)
    groups: Levels = np.arange(len(order)) * _GROUPS // len(order)
    residuals: Floats = (sample.response - expected)[order]
    counts: Floats = np.bincount(groups).astype(np.float64)

    def means(values: Floats) -> Floats:
        sums: Floats = np.bincount(groups, values).astype(np.float64)
        return sums / counts

    centre = means(residuals)
    return _curve(means(expected[order]), centre, _QUANTILE * np.sqrt((means(residuals**2) - centre**2) / counts))


def _curve(places: Floats, values: Floats, half: Floats) -> Curve:
    at, centre, low, high = (_floats(one) for one in (places, values, values - half, values + half))
    return Curve(places=at, values=centre, lows=low, highs=high)


def _floats(numbers: Floats) -> tuple[float, ...]:
    found: list[float] = numbers.tolist()
    return tuple(found)


def _predictor(column: str) -> str:
    """Return the predictor of a column, such as `surprisal` of `surprisal_1`."""
    return column.removesuffix("_1").removesuffix("_2")


def _coefficients(regression: Regression, errors: Clustered, response: str) -> Iterator[Coefficient]:
    what = {"time": "ms", "log_time": "log ms", "skipping": "logit" if regression.kind == "logistic" else "share"}[
        response
    ]
    for one in regression.estimates(errors):
        per = _UNITS.get(_predictor(one.name))
        unit = what if per is None else per.format(what=what)
        yield Coefficient(
            predictor=one.name,
            unit=unit,
            estimate=one.value,
            standard_error=one.standard_error,
            clustered_error=one.clustered_error,
            low=one.low,
            high=one.high,
        )
