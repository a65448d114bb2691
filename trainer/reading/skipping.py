"""Logistic mixed models with random intercepts of up to two crossed groups, for whether a unit is skipped.

The likelihood is that of Laplace's approximation, as lme4's `glmer` has it: at the modes u of the effects, which
penalized iteratively reweighted least squares find for given θ and coefficients b,

    d(θ, b) = -2 log p(y | u) + u'u + log |A|,    A = θZ'WZθ + I,    W = diag(μ (1 - μ)).

d is minimized over θ and b together. Its gradient is exact: the modes move by A⁻¹ times the change of their equations.
"""

from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.reading.mixed import (
    Crossing,
    Design,
    Elimination,
    Floats,
    Groups,
    MixedFit,
    inverted,
    minimum,
    no_residuals,
    theta_start,
)

_SMALLEST_DECREMENT, _SEPARATED = 1e-13, 1e-4


def fit_logistic(y: Floats, design: Design, groups: Groups, *, start: "Floats | None" = None) -> MixedFit:
    """Fit a logistic mixed model of answers `y` (n,), 0 or 1, by maximum likelihood.

    The columns of the design are independent of each other. Raises INVALID_INPUT for a group with as many levels as
    there are observations, and for answers that the model tells apart without errors.
    """
    problem = _LogisticProblem(y, design, Crossing.of(groups, len(y)))
    coefficients: Floats = np.zeros(np.shape(design.distinct)[1]) if start is None else start[2:]
    optimum, hessian = minimum(problem, np.concatenate((theta_start(start), coefficients)))
    return problem.fit(optimum, hessian)


def _theta_slope(
    scale: float, modes: Floats, inverse_diagonal: Floats, moved: Floats, errors: Floats, slopes: Floats
) -> float:
    """Return the derivative of d by a group's θ, from numbers of its levels."""
    of_likelihood = float(modes @ (slopes - 2 * errors) + moved @ errors)
    return of_likelihood + 2 * (len(modes) - float(np.sum(inverse_diagonal))) / (scale or 1.0)


def probabilities(logits: Floats) -> Floats:
    """Return 1 / (1 + exp(-logits)), without overflow."""
    halves: Floats = np.tanh(logits / 2)
    return (1 + halves) / 2


class _Modes(NamedTuple):
    """The modes of the effects for given θ and coefficients, divided by θ, and what belongs to them."""

    large: Floats
    small: Floats
    means: Floats
    """Probabilities of the observations (n,)."""
    deviance: float
    """-2 log p(y | u) + u'u."""
    factor: Elimination
    """Of A."""
    inverse: Floats
    """Of the Schur complement of A."""

    def solved(self, large: Floats, small: Floats) -> tuple[Floats, Floats]:
        """Return A⁻¹ times a vector, which is given in two parts, as the result."""
        of_small: Floats = self.inverse @ (small - self.factor.cross.T @ (large / self.factor.diagonal))
        return (large - self.factor.cross @ of_small) / self.factor.diagonal, of_small


class _LogisticProblem:
    """Answers and predictors; a call returns d of θ and of coefficients in an orthogonal basis, and its gradient."""

    def __init__(self, y: Floats, design: Design, crossing: Crossing) -> None:
        basis, triangle = design.orthonormal()
        scale: float = len(y) ** 0.5
        self._basis: Floats = basis * scale
        self._to_given: Floats = scale * inverted(triangle)
        self._y, self._design, self._crossing = y, design, crossing
        self._last = np.zeros(crossing.n_large), np.zeros(crossing.n_small)

    def __call__(self, optimum: Floats) -> tuple[float, Floats]:
        modes = self._modes(optimum)
        scales: list[float] = optimum[:2].tolist()
        weights: Floats = modes.means * (1 - modes.means)
        errors: Floats = self._y - modes.means
        through: Floats = modes.factor.through(len(modes.inverse)) @ modes.inverse
        of_large, of_small = modes.factor.inverse_diagonal(modes.inverse), np.diag(modes.inverse)
        leverages: Floats = self._crossing.of_observations(scales[0] ** 2 * of_large, scales[1] ** 2 * of_small)
        leverages -= 2 * scales[0] * scales[1] * self._crossing.of_pairs(through)
        slopes: Floats = leverages * weights * (1 - 2 * modes.means)  # of log |A| by the logits
        large, small = self._crossing.sums(slopes)
        moved = modes.solved(scales[0] * large, scales[1] * small)
        slopes -= weights * self._crossing.of_observations(scales[0] * moved[0], scales[1] * moved[1])
        errors_large, errors_small = self._crossing.sums(errors)
        slopes_large, slopes_small = self._crossing.sums(slopes)
        of_theta = (
            _theta_slope(scales[0], modes.large, of_large, moved[0], errors_large, slopes_large),
            _theta_slope(scales[1], modes.small, of_small, moved[1], errors_small, slopes_small),
        )
        of_coefficients: Floats = self._basis.T @ self._design.sums(slopes - 2 * errors)
        gradient: Floats = np.concatenate((of_theta, of_coefficients))
        return modes.deviance + modes.factor.log_determinant(len(modes.inverse)), gradient

    def _modes(self, optimum: Floats) -> _Modes:
        """Find the modes by Newton's method from the last ones."""
        fixed = self._design.of_observations(self._basis @ optimum[2:])
        scales: list[float] = optimum[:2].tolist()
        modes = self._at(fixed, scales, *self._last)
        decrement = inf
        while decrement > _SMALLEST_DECREMENT:
            large, small = self._crossing.sums(self._y - modes.means)
            slope_large, slope_small = scales[0] * large - modes.large, scales[1] * small - modes.small
            large, small = modes.solved(slope_large, slope_small)
            decrement = float(large @ slope_large + small @ slope_small)
            highest = modes.deviance * (1 + _SMALLEST_DECREMENT)
            while (there := self._at(fixed, scales, modes.large + large, modes.small + small)).deviance > highest:
                large, small = large / 2, small / 2
            modes = there
        self._last = modes.large, modes.small
        return modes

    def _at(self, fixed: Floats, scales: list[float], large: Floats, small: Floats) -> _Modes:
        logits: Floats = fixed + self._crossing.of_observations(scales[0] * large, scales[1] * small)
        means = probabilities(logits)
        losses: Floats = np.logaddexp(0.0, (1 - 2 * self._y) * logits)
        weights: Floats = means * (1 - means)
        of_large, of_small = self._crossing.sums(weights)
        factor = Elimination.of(
            scales[0] ** 2 * of_large + 1,
            scales[0] * scales[1] * self._crossing.table(weights),
            np.diag(scales[1] ** 2 * of_small + 1),
        )
        deviance = 2 * float(np.sum(losses)) + float(large @ large + small @ small)
        return _Modes(large, small, means, deviance, factor, inverted(factor.schur))

    def fit(self, optimum: Floats, hessian: Floats) -> MixedFit:
        """Return the model with these parameters, and the covariance of its coefficients by the Hessian of d."""
        theta = self._crossing.theta(optimum)
        modes = self._modes(np.concatenate((theta, optimum[2:])))
        errors: Floats = np.abs(self._y - modes.means)
        if float(np.max(errors)) < _SEPARATED:
            raise no_residuals()
        scales: list[float] = theta.tolist()
        has_levels = self._crossing.n_large > 0, self._crossing.n_small > 0
        is_free: NDArray[np.bool_] = np.concatenate((has_levels, np.ones(len(optimum) - 2, dtype=np.bool_)))
        covariance: Floats = 2 * inverted(hessian[np.ix_(is_free, is_free)])
        in_basis: Floats = covariance[sum(has_levels) :, sum(has_levels) :]
        return MixedFit(
            self._to_given @ optimum[2:],
            self._to_given @ in_basis @ self._to_given.T,
            self._crossing.as_given(scales[0] * modes.large, scales[1] * modes.small),
            self._crossing.as_given(scales[0], scales[1]),
            1.0,
            modes.deviance + modes.factor.log_determinant(len(modes.inverse)),
            np.concatenate((theta, optimum[2:])),
        )
