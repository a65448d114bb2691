"""Logistic mixed models against Laplace's approximation by dense matrices, and against published results of lme4."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from scipy.optimize import fmin

from tests.support.properties import for_all_pairs
from tests.unit.reading.test_mixed import FIXTURES, Sds, array, crossed_groups, each, numbers, standard_errors
from trainer.contracts.errors import AppError
from trainer.reading.mixed import Floats, Levels, inverted
from trainer.reading.skipping import fit_logistic, probabilities


def test_cbpp__gives_the_published_estimates_of_lme4() -> None:
    """lme4's published search ends early; ours and lme4's with `rhoend=1e-9` differ by 0.00001."""
    answers, herds, periods = list[float](), list[int](), list[int]()
    lines = (FIXTURES / "cbpp.tsv").read_text(encoding="utf-8").splitlines()[1:]
    for herd, period, incidence, size in ([int(cell) for cell in line.split("\t")] for line in lines):
        answers += [1.0] * incidence + [0.0] * (size - incidence)
        herds += [herd - 1] * size
        periods += [period - 1] * size
    in_period: Floats = np.eye(4)[periods]
    in_period[:, 0] = 1.0
    of_rows: Levels = np.array(herds)
    fit = fit_logistic(array(*answers), each(in_period), (of_rows, None))
    assert numbers(fit.coefficients) == pytest.approx([-1.3983, -0.9919, -1.1282, -1.5797], abs=1e-3)
    assert standard_errors(fit) == pytest.approx([0.2325, 0.3066, 0.3266, 0.4274], abs=1e-3)
    assert fit.group_sds == pytest.approx((0.6421, 0.0), abs=5e-4)


class Data:
    """Unbalanced random answers of two crossed groups."""

    def __init__(self, seed: int, sds: Sds) -> None:
        rng = np.random.default_rng(seed)
        n = 150
        self.groups = crossed_groups(rng, n)
        ones: Floats = np.ones(n)
        self.x: Floats = np.column_stack((ones, 8 + 3 * rng.standard_normal(n)))
        self._indicators: list[Floats] = [np.eye(15)[levels] for levels in self.groups]
        logits: Floats = self.x @ array(-1.0, 0.1)
        for indicator, sd in zip(self._indicators, sds, strict=True):
            logits += indicator @ (sd * rng.standard_normal(15))
        self.y: Floats = (rng.random(n) < probabilities(logits)).astype(np.float64)

    def deviance(self, theta: Sds, coefficients: Floats) -> float:
        """Return -2 log of Laplace's approximation, at modes that Newton's method finds with dense matrices."""
        scaled: list[Floats] = [sd * one for sd, one in zip(theta, self._indicators, strict=True)]
        z: Floats = np.concatenate(scaled, axis=1)
        modes: Floats = np.zeros(30)
        for _ in range(50):
            means = self._means(coefficients, z @ modes)
            modes = modes + inverted(_curvature(z, means)) @ (z.T @ (self.y - means) - modes)
        means = self._means(coefficients, z @ modes)
        losses: Floats = np.log(np.abs(1 - self.y - means))
        determinant: tuple[float, float] = np.linalg.slogdet(_curvature(z, means))
        return float(modes @ modes) - 2 * float(np.sum(losses)) + determinant[1]

    def _means(self, coefficients: Floats, effects: Floats) -> Floats:
        powers: Floats = np.exp(-self.x @ coefficients - effects)
        return 1 / (1 + powers)

    def at(self, optimum: Floats) -> float:
        first, second, *_ = numbers(optimum)
        return self.deviance((first, second), optimum[2:])


def _curvature(z: Floats, means: Floats) -> Floats:
    weights: Floats = means * (1 - means)
    curvature: Floats = z.T @ (z * weights[:, np.newaxis]) + np.eye(30)
    return curvature


sds = st.sampled_from([(0.0, 0.0), (0.5, 0.0), (0.0, 1.5), (1.5, 0.5)])


@settings(max_examples=5)  # each has hundreds of slow searches
@for_all_pairs(st.integers(0, 10_000), sds)
def test_fit__is_the_maximum_of_the_dense_approximation(seed: int, sds: Sds) -> None:
    data = Data(seed, sds)
    fit = fit_logistic(data.y, each(data.x), data.groups)
    optimum: Floats = np.concatenate((fit.group_sds, fit.coefficients))
    assert fit.criterion == pytest.approx(data.at(optimum), abs=1e-6)
    lowest: Floats = fmin(data.at, optimum, ftol=1e-8, maxfun=100, disp=False)
    assert fit.criterion <= data.at(lowest) + 1e-6


def test_standard_errors__are_those_of_the_curvature_of_the_dense_approximation() -> None:
    data = Data(2, (1.5, 0.5))
    fit = fit_logistic(data.y, each(data.x), data.groups)
    optimum: Floats = np.concatenate((fit.group_sds, fit.coefficients))
    steps: list[Floats] = [step * axis for step, axis in zip((0.02, 0.02, 0.02, 0.002), np.eye(4), strict=True)]
    hessian: Floats = np.zeros((4, 4))
    for row, one in enumerate(steps):
        for column, other in enumerate(steps):
            area = 4 * float(np.sum(one)) * float(np.sum(other))
            plus = data.at(optimum + one + other) + data.at(optimum - one - other)
            hessian[row, column] = (plus - data.at(optimum + one - other) - data.at(optimum - one + other)) / area
    variances: Floats = np.diag(2 * inverted(hessian))[2:]
    assert min(fit.group_sds) > 0.1 and standard_errors(fit) == pytest.approx(numbers(np.sqrt(variances)), rel=2e-3)


@pytest.mark.parametrize("is_near", [True, False])
def test_start__leads_to_the_same_fit(is_near: bool) -> None:
    data = Data(5, (1.5, 0.5))
    fit = fit_logistic(data.y, each(data.x), data.groups)
    again = fit_logistic(
        data.y, each(data.x), data.groups, start=fit.optimum if is_near else array(30.0, 9.0, 8.0, -8.0)
    )
    assert np.allclose(again.coefficients, fit.coefficients, rtol=1e-6)


def test_answers_that_are_told_apart__are_refused() -> None:
    units: Floats = np.arange(40.0)
    x: Floats = np.column_stack((np.ones(40), units))
    for answers in (np.zeros(40), (units > 19).astype(np.float64)):
        with pytest.raises(AppError, match="leaves no residuals"):
            fit_logistic(answers, each(x), (np.arange(40) % 4, None))
