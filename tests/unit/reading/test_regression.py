"""Regressions of reading times against closed forms, scipy, and loops that hold out one text after the other."""

from collections.abc import Callable
from math import sqrt
from typing import Literal, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.interpolate import CubicSpline
from scipy.stats import norm, pearsonr, t

from tests.unit.reading.samples import simulated
from tests.unit.reading.test_mixed import array, each, numbers, standard_errors
from trainer.contracts.errors import AppError
from trainer.contracts.readings import Form
from trainer.reading.mixed import Design, Floats, Groups, Levels, MixedFit, fit_linear, inverted
from trainer.reading.regression import (
    Kind,
    Predictors,
    Sample,
    assign_folds,
    check_folds,
    collinearity,
    fit,
    held_out,
    natural_spline,
    training_cost,
)
from trainer.reading.skipping import fit_logistic

Chosen: TypeAlias = "NDArray[np.bool_]"
Fit: TypeAlias = Callable[[Floats, Design, Groups], MixedFit]


def design(sample: Sample) -> Floats:
    ones: Floats = np.ones((len(sample.response), 1))
    of_units: Floats = np.concatenate((sample.baseline.columns, sample.surprisal.columns), axis=1)
    return np.concatenate((ones, of_units[sample.units]), axis=1)


def test_means__have_the_errors_of_least_squares_and_intervals_by_leaving_out_each_text() -> None:
    """The clustered covariance of least squares is that of the jackknife, which fits the other texts again."""
    sample = simulated("means")
    x, degrees = design(sample), len(sample.response) - 4
    of_x = inverted(x.T @ x)
    coefficients: Floats = of_x @ x.T @ sample.response
    residuals: Floats = sample.response - x @ coefficients
    variances: Floats = np.diag(of_x) * float(residuals @ residuals) / degrees
    squares: Floats = np.zeros(4)
    for text in range(6):
        rest: Chosen = sample.texts != text
        its_x: Floats = x[rest]
        without: Floats = inverted(its_x.T @ its_x) @ its_x.T @ sample.response[rest]
        squares += (without - coefficients) ** 2
    half: Floats = float(t.ppf(0.975, 5)) * np.sqrt(squares * 5 / 6)
    model = fit(sample, "means", "linear")
    estimates = model.estimates(model.clustered(sample))
    assert [one.name for one in estimates] == ["intercept", "length", "surprisal", "surprisal_1"]
    assert [one.value for one in estimates] == pytest.approx(numbers(coefficients))
    assert [one.standard_error for one in estimates] == pytest.approx(numbers(np.sqrt(variances)))
    assert [one.low for one in estimates] == pytest.approx(numbers(coefficients - half))
    assert [one.high for one in estimates] == pytest.approx(numbers(coefficients + half))


@pytest.mark.parametrize(("kind", "fitted"), [("mixed", fit_linear), ("logistic", fit_logistic)])
def test_mixed__has_the_errors_of_the_model_with_a_row_for_each_observation(kind: Kind, fitted: Fit) -> None:
    sample = simulated(kind)
    expected = fitted(sample.response, each(design(sample)), (sample.persons, sample.units))
    model = fit(sample, kind, "linear")
    estimates = model.estimates(model.clustered(sample))
    assert [one.standard_error for one in estimates] == pytest.approx(standard_errors(expected), rel=1e-5)
    for one, value in zip(estimates, numbers(expected.coefficients), strict=True):
        assert one.value == pytest.approx(value)
        assert one.high - one.value == pytest.approx(float(t.ppf(0.975, 5)) * one.clustered_error)
        assert one.value - one.low == pytest.approx(one.high - one.value)


def test_clustered_errors__of_a_predictor_that_one_text_has_are_finite() -> None:
    sample = simulated("means")
    in_first: Floats = np.where(np.arange(90) < 7, 1.0, 0.0)
    sample = sample._replace(baseline=Predictors(("length",), in_first[:, np.newaxis]))
    model = fit(sample, "means", "linear")
    assert all(0 <= one.clustered_error < 1e3 for one in model.estimates(model.clustered(sample)))


def of_clusters(levels: Levels, v_x: Floats, x: Floats, residuals: Floats, *, is_jackknife: bool = True) -> Floats:
    """The squares of how far each cluster moves the coefficients, by the cross-products of all rows and of its own."""
    names: list[int] = np.unique(levels).tolist()
    total: Floats = np.zeros(len(x.T))
    for name in names:
        own: Chosen = levels == name
        information: Floats = v_x.T @ x - (v_x[own].T @ x[own] if is_jackknife else 0.0)
        total += (inverted(information) @ v_x[own].T @ residuals[own]) ** 2
    squares: Floats = total * (1 - 1 / len(names) if is_jackknife else 1.0)
    return squares


@pytest.mark.parametrize("n_persons", [12, 4])
@pytest.mark.parametrize("kind", ["mixed", "logistic"])
def test_clustered_errors__are_those_of_dense_matrices(kind: Kind, n_persons: int) -> None:
    """Texts, plus what persons have beyond the cells of both; texts alone where there are fewer than five persons."""
    sample = simulated(kind, n_persons=n_persons, n_texts=8, n_units=9)
    assert sample.persons is not None
    model = fit(sample, kind, "linear")
    x, y = design(sample), sample.response
    of_persons: Floats = np.eye(n_persons)[sample.persons]
    known: list[int] = np.unique(sample.units).tolist()
    of_rows: list[int] = sample.units.tolist()
    of_units: Floats = np.eye(72)[[known.index(unit) for unit in of_rows]]
    persons, units = model.fit.effects
    person_sd, unit_sd = model.fit.group_sds
    logits = x @ model.fit.coefficients + of_persons @ persons + of_units[:, : len(units)] @ units
    variances: Floats = np.full(len(y), model.fit.residual_sd**2)
    errors: Floats = y - logits
    if kind == "logistic":
        powers: Floats = np.exp(-logits)
        variances = (1 + powers) ** 2 / powers
        errors = (y - 1 / (1 + powers)) * variances
    v: Floats = np.diag(variances)
    for indicators, sd in ((of_persons, person_sd), (of_units, unit_sd)):
        v = v + sd**2 * indicators @ indicators.T
    v_x = inverted(v) @ x
    expected = of_clusters(sample.texts, v_x, x, errors + of_units[:, : len(units)] @ units)
    if n_persons >= 5:
        beside = of_clusters(sample.persons, v_x, x, errors + of_persons @ persons)
        cells: Levels = 100 * sample.persons + sample.texts
        beside -= of_clusters(cells, v_x, x, errors, is_jackknife=False)
        expected += np.maximum(beside, 0.0)
    clustered = model.clustered(sample)
    found = [one.clustered_error for one in model.estimates(clustered)]
    assert found == pytest.approx(numbers(np.sqrt(expected)), rel=1e-6)
    assert clustered.quantile == pytest.approx(float(t.ppf(0.975, 7)))


def test_held_out_means__are_predicted_by_least_squares_on_the_other_folds() -> None:
    sample = simulated("means")
    folds = assign_folds(sample.texts, 3, "text", seed=4)
    x, y = design(sample), sample.response
    expected: Floats = np.zeros(len(y))
    for number in range(3):
        inside: Chosen = folds != number
        outside: Chosen = ~inside
        its_x: Floats = x[inside]
        its_y: Floats = y[inside]
        coefficients: Floats = inverted(its_x.T @ its_x) @ its_x.T @ its_y
        residuals: Floats = its_y - its_x @ coefficients
        sd = sqrt(float(residuals @ residuals) / (len(residuals) - 4))
        errors: Floats = y - x @ coefficients
        densities = array(*(float(norm.logpdf(error, scale=sd)) for error in numbers(errors)))
        expected[outside] = densities[outside]
    assert np.allclose(held_out(sample, folds, "means", "linear"), expected, rtol=1e-9)


def test_held_out_times__have_the_effect_of_a_known_person_and_the_variance_of_a_new_unit() -> None:
    sample = simulated("mixed")
    assert sample.persons is not None
    is_new_person: Chosen = sample.persons == 2
    is_new_text: Chosen = sample.texts == 0
    model = fit(sample.chosen(~(is_new_person | is_new_text)), "mixed", "linear")
    persons, units = model.fit.effects
    person_sd, unit_sd = model.fit.group_sds
    assert len(persons) == 5 and min(person_sd, unit_sd) > 0
    fixed: list[float] = (design(sample) @ model.fit.coefficients).tolist()
    place_of_person = {0: 0, 1: 1, 3: 2, 4: 3, 5: 4}
    known: list[int] = model.known_levels[1].tolist()
    place_of_unit = {unit: place for place, unit in enumerate(known)}
    rows: list[tuple[int, int]] = np.column_stack((sample.persons, sample.units)).tolist()
    densities = numbers(model.log_densities(sample))
    for (person, unit), mean, y, density in zip(rows, fixed, numbers(sample.response), densities, strict=True):
        known_person, known_unit = place_of_person.get(person), place_of_unit.get(unit)
        variance = model.fit.residual_sd**2
        variance += person_sd**2 if known_person is None else 0
        variance += unit_sd**2 if known_unit is None else 0
        mean += 0 if known_person is None else numbers(persons)[known_person]
        mean += 0 if known_unit is None else numbers(units)[known_unit]
        assert density == pytest.approx(float(norm.logpdf(y, mean, sqrt(variance))))


def test_held_out_answers__are_averaged_over_the_effects_of_new_units() -> None:
    sample = simulated("logistic", n_persons=20)
    outside: Chosen = sample.texts == 0
    model = fit(sample.chosen(~outside), "logistic", "linear")
    held = sample.chosen(outside)
    sd = model.fit.group_sds[1]
    assert held.persons is not None and sd > 0.1
    of_persons: Floats = model.fit.effects[0][held.persons]
    logits = numbers(design(held) @ model.fit.coefficients + of_persons)
    for logit, y, density in zip(logits[:9], numbers(held.response), numbers(model.log_densities(held)), strict=False):

        def weighted(effect: float, at: float = (2 * y - 1) * logit, sign: float = 2 * y - 1) -> float:
            return float(norm.pdf(effect, scale=sd)) / (1 + float(np.exp(-at - sign * effect)))

        probability: tuple[float, float] = quad(weighted, -10 * sd, 10 * sd)
        assert density == pytest.approx(float(np.log(probability[0])), abs=1e-8)


def test_spline__has_every_natural_cubic_spline_with_its_knots() -> None:
    knots, x = array(2.0, 3.0, 5.0, 9.0), np.linspace(0.0, 12.0, 49)
    basis = np.column_stack((np.ones(49), natural_spline(x, knots)))
    assert basis.shape == (49, 4)
    for values in (array(1.0, 0.0, 0.0, 0.0), array(0.0, 3.0, -1.0, 2.0)):
        curve = CubicSpline(knots, values, bc_type="natural")
        slopes = numbers(curve(array(2.0, 9.0), 1))
        first, *_, last = numbers(values)
        expected: Floats = curve(x)
        expected = np.where(x < 2, first + slopes[0] * (x - 2), expected)
        expected = np.where(x > 9, last + slopes[1] * (x - 9), expected)
        weights: Floats = inverted(basis.T @ basis) @ basis.T @ expected
        assert np.allclose(basis @ weights, expected, atol=1e-8)
    assert np.array_equal(natural_spline(x, array(2.0, 3.0)), x[:, np.newaxis]), "a line"


def test_spline__finds_a_curve_that_a_line_does_not() -> None:
    sample = simulated("means", n_texts=30)
    surprisal: Floats = sample.surprisal.columns[:, 0]
    curved = sample._replace(response=sample.response + 4 * (surprisal - 10) ** 2)
    folds = assign_folds(sample.texts, 10, "text", seed=0)
    line, curve = (held_out(curved, folds, "means", form) for form in ("linear", "spline"))
    assert float(np.sum(curve - line)) / len(line) > 0.3
    names = fit(curved, "means", "spline").names
    assert names[2:5] == ("surprisal", "surprisal_spline_1", "surprisal_spline_2") and len(names) == 8


def test_folds__keep_texts_whole_and_are_equally_large() -> None:
    texts: Levels = np.arange(1200) // 100
    folds = assign_folds(texts, 5, "text", seed=3)
    check_folds(texts, folds)
    sizes: list[int] = np.bincount(folds).tolist()
    assert sorted(sizes) == [200, 200, 200, 300, 300]
    assert np.array_equal(folds, assign_folds(texts, 5, "text", seed=3))
    assert not np.array_equal(folds, assign_folds(texts, 5, "text", seed=4))
    assert len(np.unique(assign_folds(texts, 100, "text", seed=3))) == 12, "not more folds than texts"
    by_row = assign_folds(texts, 5, "row", seed=3)
    assert np.array_equal(by_row, np.arange(1200) // 240)


def test_text_in_two_folds__is_refused_unless_folds_are_by_row() -> None:
    sample = simulated("means")
    folds = assign_folds(sample.texts, 4, "row", seed=0)
    with pytest.raises(AppError, match="A text is in two folds"):
        held_out(sample, folds, "means", "linear")
    assert np.all(held_out(sample, folds, "means", "linear", fold_by="row") < 0)


@pytest.mark.parametrize("fold_by", ["text", "row"])
def test_fewer_than_five_texts__are_one_clear_sentence(fold_by: Literal["text", "row"]) -> None:
    with pytest.raises(
        AppError, match=r"need 5 or more texts, and the table has 4 of different items and words\. Take more texts"
    ):
        assign_folds(np.arange(40) // 10, 2, fold_by, seed=0)


@pytest.mark.parametrize("kind", ["means", "mixed", "logistic"])
def test_predictor_that_repeats_others__is_named(kind: Kind) -> None:
    sample = simulated(kind)
    length: Floats = sample.baseline.columns[:, 0]
    repeated: Floats = np.column_stack((length, 3 * length - 2))
    with pytest.raises(
        AppError, match=r"`length_1` is constant or a combination of other predictors\. Leave some out of `baseline`"
    ):
        fit(sample._replace(baseline=Predictors(("length", "length_1"), repeated)), kind, None)
    constant: Floats = np.zeros((len(length), 1))
    with pytest.raises(AppError, match="`entropy` is constant"):
        fit(sample._replace(baseline=Predictors(("entropy",), constant)), kind, None)


def test_too_few_units__are_refused() -> None:
    sample = simulated("means")
    with pytest.raises(AppError, match="4 coefficients for 4 units"):
        fit(sample.chosen(sample.units < 4), "means", "linear")


def test_collinearity__is_the_largest_correlation() -> None:
    sample = simulated("mixed")
    length: Floats = design(sample)[:, 1]
    found = [float(pearsonr(length, one).statistic) for one in sample.surprisals]
    assert collinearity(sample) == pytest.approx(max(abs(one) for one in found))
    none: Floats = np.zeros((len(sample.baseline.columns), 0))
    assert collinearity(sample._replace(baseline=Predictors((), none))) == 0


@pytest.mark.parametrize(("form", "columns"), [("linear", 2), ("spline", 6)])
def test_training_cost__is_half_the_number_of_coefficients_of_least_squares(form: Form, columns: int) -> None:
    sample = simulated("means")
    cost = training_cost(sample, fit(sample, "means", form))
    assert cost.mean == pytest.approx(columns / 2) == cost.variance


def test_training_cost__is_larger_where_times_of_a_unit_depend_on_each_other() -> None:
    sample = simulated("mixed", n_persons=30)
    model = fit(sample, "mixed", "linear")
    unit_sd, residual_sd, per_unit = model.fit.group_sds[1], model.fit.residual_sd, 30 * 0.9
    effect = (residual_sd**2 + per_unit * unit_sd**2) / (residual_sd**2 + unit_sd**2)  # of the design, as in surveys
    cost = training_cost(sample, model)
    assert cost.mean == pytest.approx(effect, rel=0.05) and cost.variance == pytest.approx(effect**2, rel=0.05)
    answers = simulated("logistic", n_persons=30)
    assert 0.5 < training_cost(answers, fit(answers, "logistic", "linear")).mean < effect
