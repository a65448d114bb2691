"""Linear mixed models against the published results of lme4, and against the dense likelihood of random data."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import fmin
from scipy.stats import multivariate_normal

from tests.support.properties import for_all_pairs
from trainer.contracts.errors import AppError
from trainer.reading.mixed import Design, Floats, Levels, MixedFit, fit_linear, inverted

FIXTURES = Path(__file__).parents[2] / "fixtures" / "reading"
Sds = tuple[float, float]


def table(name: str) -> Floats:
    """Return the numbers of a table without its first row and column."""
    lines = (FIXTURES / name).read_text(encoding="utf-8").splitlines()[1:]
    rows = [[float(cell) for cell in line.split("\t")[1:]] for line in lines]
    numbers: Floats = np.array(rows)
    return numbers


def standard_errors(fit: MixedFit) -> list[float]:
    variances: Floats = np.diag(fit.covariance)
    errors: list[float] = np.sqrt(variances).tolist()
    return errors


def numbers(values: Floats) -> list[float]:
    listed: list[float] = values.tolist()
    return listed


def each(x: Floats) -> Design:
    """Return a design with a row for each observation."""
    return Design(x, np.arange(len(x)))


def array(*values: float) -> Floats:
    made: Floats = np.array(values)
    return made


def test_sleepstudy__gives_the_published_estimates_of_lme4() -> None:
    times = table("sleepstudy.tsv")
    rows: Levels = np.arange(180)
    ones, days = np.ones(180), (rows % 10).astype(np.float64)
    fit = fit_linear(times.ravel(), each(np.column_stack((ones, days))), (rows // 10, None))
    assert numbers(fit.coefficients) == pytest.approx([251.4051, 10.4673], abs=5e-5)
    assert standard_errors(fit) == pytest.approx([9.7467, 0.8042], abs=5e-5)
    assert [*fit.group_sds, fit.residual_sd] == pytest.approx([37.124, 0.0, 30.991], abs=5e-4)
    assert fit.criterion == pytest.approx(1786.465, abs=5e-4)
    # the prediction of a balanced design has a closed form (Searle, Casella and McCulloch 1992, section 3.4)
    intercept, slope = numbers(fit.coefficients)
    means: Floats = times @ np.ones(10) / 10 - intercept - slope * 4.5
    shrunk: Floats = means / (1 + fit.residual_sd**2 / (10 * fit.group_sds[0] ** 2))
    assert numbers(fit.effects[0]) == pytest.approx(numbers(shrunk), abs=1e-6)
    assert len(fit.effects[1]) == 0


@pytest.mark.parametrize("is_plate_first", [True, False])
def test_penicillin__gives_the_published_estimates_of_lme4_in_either_order(is_plate_first: bool) -> None:
    rows: Levels = np.arange(144)
    plates, samples = rows // 6, rows % 6
    groups = (plates, samples) if is_plate_first else (samples, plates)
    fit = fit_linear(table("penicillin.tsv").ravel(), each(np.ones((144, 1))), groups)
    expected = [0.8467, 1.9316] if is_plate_first else [1.9316, 0.8467]
    assert [*fit.group_sds, fit.residual_sd] == pytest.approx([*expected, 0.5499], abs=5e-5)
    assert numbers(fit.coefficients) == pytest.approx([22.9722], abs=5e-5)
    assert standard_errors(fit) == pytest.approx([0.8086], abs=5e-5)
    assert fit.criterion == pytest.approx(330.8606, abs=5e-5) and fit.log_likelihood == -fit.criterion / 2
    assert [len(effects) for effects in fit.effects] == ([24, 6] if is_plate_first else [6, 24])


def crossed_groups(rng: np.random.Generator, n: int) -> tuple[Levels, Levels]:
    """Return two groups of up to 6 and 15 levels, drawn for each observation."""
    first: tuple[Levels, Levels] = np.unique(rng.integers(0, 6, n), return_inverse=True)
    second: tuple[Levels, Levels] = np.unique(rng.integers(0, 15, n), return_inverse=True)
    return first[1], second[1]


class Data:
    """Unbalanced random data of two crossed groups."""

    def __init__(self, seed: int, sds: Sds) -> None:
        rng = np.random.default_rng(seed)
        n = 60
        self.groups = crossed_groups(rng, n)
        ones: Floats = np.ones(n)
        self.x: Floats = np.column_stack((ones, rng.standard_normal(n), rng.exponential(size=n)))
        self.indicators: list[Floats] = [np.eye(15)[levels] for levels in self.groups]
        self.y: Floats = self.x @ array(300.0, 10.0, -5.0) + 100 * rng.standard_normal(n)
        for indicator, sd in zip(self.indicators, sds, strict=True):
            self.y += indicator @ (sd * rng.standard_normal(15))

    def covariance(self, theta: Sds) -> Floats:
        """Return that of y, divided by the residual variance."""
        first, second = self.indicators
        covariance: Floats = np.eye(len(self.y))
        return covariance + theta[0] ** 2 * first @ first.T + theta[1] ** 2 * second @ second.T

    def estimates(self, covariance: Floats) -> tuple[Floats, Floats]:
        """Return generalized least squares and their covariance."""
        of_x = inverted(self.x.T @ inverted(covariance) @ self.x)
        return of_x @ self.x.T @ inverted(covariance) @ self.y, of_x

    def criterion(self, theta: Sds, residual_sd: float, is_reml: bool) -> float:
        """Return -2 log-likelihood by the dense density, and for REML that of y without X (Harville 1974)."""
        covariance = residual_sd**2 * self.covariance(theta)
        coefficients, of_x = self.estimates(covariance)
        value = -2 * float(multivariate_normal(self.x @ coefficients, covariance).logpdf(self.y))
        if is_reml:
            determinant: tuple[float, float] = np.linalg.slogdet(of_x)
            value -= determinant[1] + len(of_x) * float(np.log(2 * np.pi))
        return value


sds = st.sampled_from([(0.0, 0.0), (50.0, 0.0), (0.0, 50.0), (10.0, 400.0), (50.0, 50.0)])


@settings(max_examples=12)  # each has two slow searches
@for_all_pairs(st.integers(0, 10_000), sds)
def test_fit__is_the_maximum_of_the_dense_likelihood(seed: int, sds: Sds) -> None:
    data, is_reml = Data(seed, sds), seed % 2 == 0
    fit = fit_linear(data.y, each(data.x), data.groups, is_reml=is_reml)
    theta = fit.group_sds[0] / fit.residual_sd, fit.group_sds[1] / fit.residual_sd
    assert fit.criterion == pytest.approx(data.criterion(theta, fit.residual_sd, is_reml), abs=1e-7)

    def dense(parameters: NDArray[np.float64]) -> float:
        first, second, log_sd = numbers(parameters)
        return data.criterion((first, second), float(np.exp(log_sd)), is_reml)

    for start in ((*theta, float(np.log(fit.residual_sd))), (1.0, 1.0, 4.6)):
        lowest: Floats = fmin(dense, start, ftol=1e-9, maxfun=600, disp=False)
        assert fit.criterion <= dense(lowest) + 1e-7
    covariance = data.covariance(theta)
    expected, of_x = data.estimates(covariance)
    assert np.allclose(fit.coefficients, expected, rtol=1e-8)
    assert np.allclose(fit.covariance, fit.residual_sd**2 * of_x, rtol=1e-7)
    residuals: Floats = inverted(covariance) @ (data.y - data.x @ expected)
    for scale, indicator, effects in zip(theta, data.indicators, fit.effects, strict=True):
        predicted: Floats = scale**2 * indicator.T @ residuals
        assert np.allclose(effects, predicted[: len(effects)], rtol=1e-6, atol=1e-6)


def test_fit__without_groups_is_least_squares() -> None:
    data = Data(3, (0.0, 0.0))
    expected, of_x = data.estimates(np.eye(60))
    residuals: Floats = data.y - data.x @ expected
    squares = float(residuals @ residuals)
    for is_reml, degrees in ((True, 57), (False, 60)):
        fit = fit_linear(data.y, each(data.x), (None, None), is_reml=is_reml)
        assert np.allclose(fit.coefficients, expected, rtol=1e-9)
        assert fit.residual_sd**2 == pytest.approx(squares / degrees)
        assert np.allclose(fit.covariance, squares / degrees * of_x, rtol=1e-9)


@pytest.mark.parametrize(("noise", "tolerance", "of_sds"), [(0.1, 1e-6, 1e-4), (0.001, 1e-2, 1e-2)])
def test_effects_far_above_the_residuals__are_fitted_as_well_as_rounding_allows(
    noise: float, tolerance: float, of_sds: float
) -> None:
    """The criterion is flat at its least value, so that the standard deviations are known less well than it is."""
    data, rng = Data(5, (0.0, 0.0)), np.random.default_rng(5)
    first, second = data.indicators
    y: Floats = 80 * first @ rng.standard_normal(15) + 20 * second @ rng.standard_normal(15)
    y += noise * rng.standard_normal(60)
    fits = [fit_linear(y, each(data.x), data.groups, start=start) for start in (array(1.0, 1.0), array(0.1, 400.0))]
    assert fits[0].criterion == pytest.approx(fits[1].criterion, abs=tolerance)
    assert fits[0].group_sds == pytest.approx(fits[1].group_sds, rel=of_sds) and min(fits[0].group_sds) > 10
    assert fits[0].residual_sd == pytest.approx(noise, rel=0.3)


def test_similar_start__leads_to_the_same_fit_even_from_0() -> None:
    data = Data(8, (0.0, 0.0))
    fit = fit_linear(data.y, each(data.x), data.groups)
    assert 0.0 in fit.group_sds
    other = Data(9, (50.0, 50.0))
    near = fit_linear(other.y, each(other.x), other.groups, start=fit.optimum)
    anew = fit_linear(other.y, each(other.x), other.groups)
    assert near.criterion == pytest.approx(anew.criterion, abs=1e-8) and min(anew.group_sds) > 0
    assert np.allclose(near.coefficients, anew.coefficients, rtol=1e-8)


def test_refusal__says_what_is_wrong_with_the_data() -> None:
    intercept, rows = each(np.ones((8, 1))), np.arange(8)
    pairs: Levels = rows // 2
    with pytest.raises(AppError, match=r"several observations of some person and unit\. Give `analysis=means`"):
        fit_linear(rows.astype(np.float64) ** 2, intercept, (rows, None))
    with pytest.raises(AppError, match="leaves no residuals"):
        fit_linear(pairs.astype(np.float64), intercept, (pairs, None))
    with pytest.raises(AppError, match="leaves no residuals"):
        fit_linear(np.ones(8), intercept, (None, None))
