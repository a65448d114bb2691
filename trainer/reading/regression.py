"""Regressions of reading times on surprisal: coefficients with intervals, and held-out log-likelihoods over texts.

Times are explained by a baseline (length, log frequency, position and those of the units before) with and without
surprisal. Three kinds of models are fitted:

means
    least squares on one time per unit
mixed
    a linear mixed model with random intercepts of persons and units (REML), as R's lme4 has it
logistic
    the same for answers of 0 or 1, such as whether a unit is skipped

Log-likelihoods are of densities, so they depend on the scale of the response: a difference between two models means
something only if both explain raw times, or both the logarithms.

Intervals of coefficients are by standard errors that are clustered by texts and persons (`clusters.py`).
"""

from collections.abc import Sequence
from math import log, pi
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.readings import FoldBy, Form
from trainer.reading.clusters import Clustered, Clusters, Working, clustered
from trainer.reading.mixed import Design, Floats, Levels, MixedFit, fit_linear
from trainer.reading.skipping import fit_logistic, probabilities
from trainer.reading.tables import check_number_of_texts

Kind: TypeAlias = Literal["means", "mixed", "logistic"]
_Chosen: TypeAlias = "NDArray[np.bool_]"
"""True for the chosen observations (n,)."""

KNOT_SHARES = (0.05, 0.35, 0.65, 0.95)
"""Quantiles of a predictor at which its spline has knots (Harrell 2015, Regression Modeling Strategies, table 2.3)."""
_COLLINEAR = 1e-9
_NODES = 20
"""Of the Gauss-Hermite quadrature over the effect of a new unit."""


class Predictors(NamedTuple):
    """Columns of predictors of units, by their names in the tidy table."""

    names: tuple[str, ...]
    columns: Floats
    """(units, names); NaN only for units without observations."""

    @property
    def each(self) -> list[Floats]:
        columns: list[Floats] = list(self.columns.T)
        return columns


class Sample(NamedTuple):
    """The n observations of a measure, one per unit or one per person and unit."""

    response: Floats
    """Times in milliseconds, their logarithms, or 1 for a skipped unit and 0 for another (n,)."""
    texts: Levels
    units: Levels
    """The unit of each observation, from all texts, as the row of its predictors (n,)."""
    persons: "Levels | None"
    baseline: Predictors
    surprisal: Predictors
    """Surprisal of the unit, and of units before it."""

    def chosen(self, rows: _Chosen) -> "Sample":
        return Sample(
            self.response[rows],
            self.texts[rows],
            self.units[rows],
            None if self.persons is None else self.persons[rows],
            self.baseline,
            self.surprisal,
        )

    @property
    def surprisals(self) -> list[Floats]:
        """Columns of surprisal with a number for each observation (n,)."""
        return [column[self.units] for column in self.surprisal.each]


class Estimate(NamedTuple):
    """A coefficient in units of the response per unit of the predictor, with its 95 % interval."""

    name: str
    """`intercept`, or that of a predictor."""
    value: float
    standard_error: float
    """That of the model, as lme4 has it."""
    clustered_error: float
    """That of the interval."""
    low: float
    high: float


class Regression(NamedTuple):
    """A model that was fitted to a sample."""

    kind: Kind
    form: Form | None
    """The form of surprisal; None for the baseline alone."""
    names: tuple[str, ...]
    """Of the coefficients."""
    knots: tuple[Floats, ...]
    """Of each column of surprisal; none for a line."""
    known_levels: tuple[Levels, Levels]
    """Persons and units in ascending order, whose effects `fit` has."""
    fit: MixedFit

    def estimates(self, errors: Clustered) -> tuple[Estimate, ...]:
        """Return the coefficients with their intervals."""
        values: list[float] = self.fit.coefficients.tolist()
        of_model: list[float] = np.sqrt(np.diag(self.fit.covariance)).tolist()
        of_clusters: list[float] = errors.errors(np.eye(len(values))).tolist()
        return tuple(
            Estimate(name, value, of_one, error, value - errors.quantile * error, value + errors.quantile * error)
            for name, value, of_one, error in zip(self.names, values, of_model, of_clusters, strict=True)
        )

    def clustered(self, sample: Sample) -> Clustered:
        """Return the clustered covariances of the coefficients, given the sample that the model was fitted to."""
        persons, units = (_grouped(levels, self.kind)[1] for levels in (sample.persons, sample.units))
        errors = sample.response - self.expected(sample)
        variance = self.fit.residual_sd**2
        weights: Floats = np.full(len(errors), 1 / variance)
        if self.kind == "logistic":
            variance, weights = 1.0, (sample.response - errors) * (1 - sample.response + errors)
        return clustered(
            _design(sample, self.form, self.knots),
            (persons, units),
            self.fit,
            Working(weights, errors / variance),
            Clusters(sample.texts, persons),
        )

    def log_densities(self, sample: Sample) -> Floats:
        """Return the log density of each response (n,) in nats, with the fitted numbers taken as the true ones.

        The effect of a known person or unit is its predicted one. A new one has the variance of its group: it is added
        to that of the residuals, or averaged over for answers of 0 or 1.
        """
        expected, variance = self._predicted(sample)
        if self.kind == "logistic":
            return _bernoulli(sample.response, expected, variance)
        return _normal(sample.response - expected, variance + self.fit.residual_sd**2)

    def expected(self, sample: Sample) -> Floats:
        """Return the expected responses (n,), with the predicted effects of known persons and units."""
        expected, _ = self._predicted(sample)
        return probabilities(expected) if self.kind == "logistic" else expected

    def effect(self, sample: Sample, errors: Clustered, bits: Floats) -> tuple[Floats, Floats]:
        """Return the effect of a unit's own surprisal at bits (m,) less that at its mean, and its clustered errors."""
        own = sample.surprisals[0]
        mean: Floats = np.full(1, float(np.sum(own)) / len(own))
        contrast: Floats = self._basis(bits) - self._basis(mean)
        first = 1 + len(sample.baseline.names)
        contrasts: Floats = np.zeros((len(bits), len(self.names)))
        contrasts[:, first : first + len(contrast.T)] = contrast
        return contrasts @ self.fit.coefficients, errors.errors(contrasts)

    def _basis(self, bits: Floats) -> Floats:
        return natural_spline(bits, self.knots[0]) if self.form == "spline" else bits[:, np.newaxis]

    def _predicted(self, sample: Sample) -> tuple[Floats, Floats]:
        """Return the expected responses, or their logits, and the variances of the effects of new levels."""
        design = _design(sample, self.form, self.knots)
        expected = design.of_observations(design.distinct @ self.fit.coefficients)
        variance: Floats = np.zeros(len(expected))
        levels_of = sample.persons, sample.units
        for levels, known, effects, sd in zip(
            levels_of, self.known_levels, self.fit.effects, self.fit.group_sds, strict=True
        ):
            if levels is not None and len(known):
                places: Levels = np.minimum(np.searchsorted(known, levels), len(known) - 1)
                is_known: _Chosen = known[places] == levels
                expected += np.where(is_known, effects[places], 0.0)
                variance += np.where(is_known, 0.0, sd**2)
        return expected, variance


def fit(sample: Sample, kind: Kind, form: Form | None, *, start: "Floats | None" = None) -> Regression:
    """Fit a model to a sample; without a form, the baseline alone.

    Raises INVALID_INPUT for a predictor that is a combination of others, and for a sample that is too small.
    """
    knots: tuple[Floats, ...] = ()
    if form == "spline":
        knots = tuple(_knots(column) for column in sample.surprisals)
    design = _design(sample, form, knots)
    names = _names(sample, form, knots)
    _check_independent(design, names)
    persons, units = (_grouped(levels, kind) for levels in (sample.persons, sample.units))
    groups = persons[1], units[1]
    if kind == "logistic":
        found = fit_logistic(sample.response, design, groups, start=start)
    else:
        found = fit_linear(sample.response, design, groups, start=start)
    return Regression(kind, form, names, knots, (persons[0], units[0]), found)


def _knots(column: Floats) -> Floats:
    knots: Floats = np.unique(np.quantile(column, KNOT_SHARES))
    return knots


def natural_spline(x: Floats, knots: Floats) -> Floats:
    """Return the columns of a natural cubic spline (n, knots - 1): x itself, and one for each inner knot.

    Beyond the outer knots it is a line (Hastie, Tibshirani and Friedman 2009, equation 5.4). Fewer than three knots
    give x alone.
    """
    places: list[float] = knots.tolist()
    above: list[Floats] = [np.maximum(x - place, 0.0) for place in places]
    cubes = [one**3 for one in above]
    columns = [x]
    for cube, place in zip(cubes[:-2], places[:-2], strict=True):
        last, before = places[-1], places[-2]
        bent: Floats = cube - (cubes[-2] * (last - place) - cubes[-1] * (before - place)) / (last - before)
        columns.append(bent / (last - places[0]) ** 2)
    return np.column_stack(columns)


def _design(sample: Sample, form: Form | None, knots: Sequence[Floats]) -> Design:
    """Return the intercept, the baseline, and surprisal in a form, with a row for each unit that has observations."""
    known, rows = _numbered(sample.units)
    parts: list[Floats] = [np.ones((len(known), 1)), sample.baseline.columns[known]]
    if form == "linear":
        parts.append(sample.surprisal.columns[known])
    elif form == "spline":
        columns = sample.surprisal.each
        parts += [natural_spline(column[known], each) for column, each in zip(columns, knots, strict=True)]
    return Design(np.concatenate(parts, axis=1), rows)


def _names(sample: Sample, form: Form | None, knots: Sequence[Floats]) -> tuple[str, ...]:
    names = ["intercept", *sample.baseline.names]
    if form == "linear":
        names += sample.surprisal.names
    elif form == "spline":
        for name, each in zip(sample.surprisal.names, knots, strict=True):
            names += [name, *(f"{name}_spline_{number}" for number in range(1, len(each) - 1))]
    return tuple(names)


def _check_independent(design: Design, names: Sequence[str]) -> None:
    """Raise INVALID_INPUT if a column is a combination of those before it."""
    count = len(design.distinct)
    if count <= len(names):
        message = f"The model has {len(names)} coefficients for {count} units. Take more units or fewer predictors."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    rest: Floats = np.abs(np.diag(_of_length_one(design.orthonormal()[1])))
    shares: list[float] = rest.tolist()
    for name, share in zip(names, shares, strict=True):
        if share < _COLLINEAR:
            message = f"`{name}` is constant or a combination of other predictors. Leave some out of `baseline`."
            raise AppError(ErrorCode.INVALID_INPUT, message)


def _grouped(levels: "Levels | None", kind: Kind) -> "tuple[Levels, Levels | None]":
    """Return the same as `_numbered`, and no levels for means."""
    return (np.zeros(0, dtype=np.int64), None) if levels is None or kind == "means" else _numbered(levels)


def _numbered(levels: Levels) -> tuple[Levels, Levels]:
    """Return the levels that occur, and the place of each observation's level among them (n,)."""
    occurs: _Chosen = np.bincount(levels) > 0
    places: Levels = np.cumsum(occurs) - 1
    return np.flatnonzero(occurs), places[levels]


def _normal(errors: Floats, variances: Floats) -> Floats:
    logs: Floats = np.log(2 * pi * variances)
    return -(logs + errors**2 / variances) / 2


def _bernoulli(answers: Floats, logits: Floats, variances: Floats) -> Floats:
    """Return the log probabilities of answers, averaged over normal effects with these variances."""
    nodes_and_weights: tuple[Floats, Floats] = np.polynomial.hermite_e.hermegauss(_NODES)
    nodes, weights = nodes_and_weights
    sds: Floats = np.sqrt(variances)
    all_logits: Floats = logits[:, np.newaxis] + sds[:, np.newaxis] * nodes
    signs: Floats = 2 * answers - 1
    logs: Floats = np.log(probabilities(signs[:, np.newaxis] * all_logits) @ weights)
    return logs - log(2 * pi) / 2


def collinearity(sample: Sample) -> float:
    """Return the largest correlation of a column of surprisal with one of the baseline, without its sign; 0 of none."""
    if not sample.baseline.names:
        return 0.0
    triangle = _design(sample, "linear", ()).orthonormal()[1]
    unit = _of_length_one(triangle[1:, 1:])  # without the intercept, as it is without means
    count = len(sample.baseline.names)
    correlations: Floats = np.abs(unit[:, :count].T @ unit[:, count:])
    return float(np.max(correlations))


def _of_length_one(columns: Floats) -> Floats:
    """Return columns divided by their lengths; a column of zeros stays."""
    squares: Floats = np.sum(columns**2, axis=0)
    lengths: Floats = np.sqrt(squares)
    return columns / np.where(lengths > 0, lengths, 1.0)


def assign_folds(texts: Levels, n_folds: int, fold_by: FoldBy, seed: int) -> Levels:
    """Return the fold of each observation (n,): texts by lot in folds of equally many, or rows in their order.

    There are at most as many folds as texts. Raises INVALID_INPUT for fewer than five texts.
    """
    known, numbers = np.unique(texts, return_inverse=True)
    check_number_of_texts(len(known))
    if fold_by == "row":
        return np.arange(len(texts)) * n_folds // len(texts)
    folds: Levels = np.random.default_rng(seed).permutation(len(known)) % min(n_folds, len(known))
    return folds[numbers]


def check_folds(texts: Levels, folds: Levels) -> None:
    """Raise INVALID_INPUT for a text that is in two folds."""
    pairs: Levels = np.unique(np.column_stack((texts, folds)), axis=0)
    if len(pairs) > len(np.unique(texts)):
        message = "A text is in two folds, so the model has read what it is tested on. Keep each text in one fold."
        raise AppError(ErrorCode.INVALID_INPUT, message)


def held_out(sample: Sample, folds: Levels, kind: Kind, form: Form | None, *, fold_by: FoldBy = "text") -> Floats:
    """Return the log density of each response (n,) in nats, by the model of the other folds.

    Splines have their knots at quantiles of the other folds. Raises INVALID_INPUT for a text in two folds, unless folds
    are by row.
    """
    if fold_by == "text":
        check_folds(sample.texts, folds)
    densities: Floats = np.zeros(len(sample.response))
    start: Floats | None = None
    numbers: list[int] = np.unique(folds).tolist()
    for number in numbers:
        is_held_out: _Chosen = folds == number
        model = fit(sample.chosen(~is_held_out), kind, form, start=start)
        densities[is_held_out] = model.log_densities(sample.chosen(is_held_out))
        start = model.fit.optimum if (kind, form) != ("logistic", "spline") else None
    return densities


class TrainingCost(NamedTuple):
    """The log-likelihood that a sample loses because coefficients are estimated, which differs by chance."""

    mean: float
    """In nats of all observations."""
    variance: float
    """In nats²."""


def training_cost(sample: Sample, with_surprisal: Regression) -> TrainingCost:
    """Return the cost of estimating the coefficients of surprisal: k / 2 and k / 2 for k ones of least squares.

    Estimates that differ by e from the true ones cost e' H e / 2 nats, where H are the cross-products of surprisal,
    without what the baseline explains of it, times the information of an observation. With the covariance C of e, that
    is tr(CH) / 2 on average, and its variance is tr(CHCH) / 2.
    """
    count = len(with_surprisal.names) - len(sample.baseline.names) - 1
    triangle = _design(sample, with_surprisal.form, with_surprisal.knots).orthonormal()[1]
    own = triangle[-count:, -count:]
    rate = float(np.sum(sample.response)) / len(sample.response)
    variance = with_surprisal.fit.residual_sd**2 + with_surprisal.fit.group_sds[1] ** 2
    information = rate * (1 - rate) if with_surprisal.kind == "logistic" else 1 / variance
    spread: Floats = with_surprisal.fit.covariance[-count:, -count:] @ (own.T @ own) * information
    return TrainingCost(float(np.sum(np.diag(spread))) / 2, float(np.sum(spread * spread.T)) / 2)
