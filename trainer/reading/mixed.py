"""Linear mixed models with random intercepts of up to two crossed groups, such as persons and units.

y = X b + Z₁ u₁ + Z₂ u₂ + e, where the effects of group k have the standard deviation θₖ σ, and the residuals σ. The
profiled criterion of lme4 (Bates et al. 2015, https://doi.org/10.18637/jss.v067.i01, equations 34 and 41) is a function
of θ alone. It comes from the Cholesky factor of one matrix of cross-products:

    [θZ'Zθ + I   θZ'X   θZ'y]
    [X'Zθ        X'X    X'y ]
    [y'Zθ        y'X    y'y ]

The block of the larger group is diagonal and is eliminated first. The cross-products are computed once: the criterion
for another θ costs O(s² l) for groups of s and l levels, whatever the number of observations is.
"""

from collections.abc import Callable
from math import log, pi, sqrt
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode

Floats: TypeAlias = "NDArray[np.float64]"
Levels: TypeAlias = "NDArray[np.int64]"
"""The level of each observation (n,), from 0."""
Groups: TypeAlias = "tuple[Levels | None, Levels | None]"
"""Two groups with random intercepts, or one, or none."""
Objective: TypeAlias = Callable[[Floats], tuple[float, Floats]]
"""Returns a value and its gradient."""

_Part = TypeVar("_Part")
_MAX_STEPS, _SMALLEST_DECREASE, _ROUNDING, _DIFFERENCE, _FLATTEST = 200, 1e-9, 1e-13, 1e-5, 1e-8
_SMALLEST_SHARE = 0.01
"""Of the decrease that the slope promises for a step, which is halved until it keeps the promise."""
_SMALLEST_THETA = 1e-5
"""A smaller one is 0, to which the search comes only as near as rounding allows."""


class MixedFit(NamedTuple):
    """A mixed model with p coefficients, fitted to observations."""

    coefficients: Floats
    covariance: Floats
    """Of the coefficients (p, p)."""
    effects: tuple[Floats, Floats]
    """Predicted effect of each level of both groups; no numbers for a group that is None."""
    group_sds: tuple[float, float]
    """Standard deviations of the effects of both groups; 0 for a group that is None."""
    residual_sd: float
    """1 of a logistic model."""
    criterion: float
    """The REML criterion, or -2 log-likelihood of a fit by maximum likelihood."""
    optimum: Floats
    """θ of the larger and of the smaller group, and more of a logistic model: a start for similar data."""

    @property
    def log_likelihood(self) -> float:
        return -self.criterion / 2


class Design(NamedTuple):
    """The predictors of n observations, many of which have the same, such as those of a unit that many persons read."""

    distinct: Floats
    """(u, p)."""
    rows: Levels
    """The row of each observation (n,); each row has one."""

    def orthonormal(self) -> tuple[Floats, Floats]:
        """Return the distinct rows (u, p) of an orthonormal basis of the n rows, and the triangle (p, p) from it."""
        counts: Floats = np.bincount(self.rows).astype(np.float64)
        weights: Floats = np.sqrt(counts)[:, np.newaxis]
        basis_and_triangle: tuple[Floats, Floats] = np.linalg.qr(weights * self.distinct)
        return basis_and_triangle[0] / weights, basis_and_triangle[1]

    def sums(self, values: Floats) -> Floats:
        """Return the sums of values (n,) over the observations of each distinct row."""
        return np.bincount(self.rows, values).astype(np.float64)

    def of_observations(self, values: Floats) -> Floats:
        """Return the number of each observation (n,) from those of the distinct rows."""
        numbers: Floats = values[self.rows]
        return numbers


def fit_linear(
    y: Floats, design: Design, groups: Groups, *, is_reml: bool = True, start: "Floats | None" = None
) -> MixedFit:
    """Fit a linear mixed model by REML, or by maximum likelihood.

    The columns of the design are independent of each other. Raises INVALID_INPUT for a group with as many levels as
    there are observations, and for times that the model fits without residuals.
    """
    crossing = Crossing.of(groups, len(y))
    problem = _LinearProblem(y, design, crossing, is_reml=is_reml)
    optimum, _ = minimum(problem, theta_start(start))
    return problem.fit(crossing.theta(optimum))


def theta_start(near: "Floats | None") -> Floats:
    """Return a start for the standard deviations; a search that begins at 0 would stay there."""
    return np.ones(2) if near is None else np.maximum(near[:2], 0.05)


class Elimination(NamedTuple):
    """The matrix [[D, F], [F', K]] of l + m rows, where D is diagonal, by its Schur complement K - F' D⁻¹ F."""

    diagonal: Floats
    """D (l,)."""
    cross: Floats
    """F (l, m)."""
    schur: Floats
    """(m, m)."""

    @classmethod
    def of(cls, diagonal: Floats, cross: Floats, dense: Floats) -> "Elimination":
        scaled: Floats = cross / np.sqrt(diagonal)[:, np.newaxis]
        return cls(diagonal, cross, dense - scaled.T @ scaled)  # a product by itself takes half the time

    def log_determinant(self, size: int) -> float:
        """Return the logarithm of the determinant of the first l + `size` rows and columns."""
        found: tuple[float, float] = np.linalg.slogdet(self.schur[:size, :size])
        logs: Floats = np.log(self.diagonal)
        return float(np.sum(logs)) + found[1]

    def through(self, size: int) -> Floats:
        """Return D⁻¹ F for the first columns of F."""
        return self.cross[:, :size] / self.diagonal[:, np.newaxis]

    def inverse_trace(self, inverse: Floats) -> float:
        """Return the sum of `inverse_diagonal`, in less time."""
        through = self.through(len(inverse))
        sums: Floats = 1 / self.diagonal
        return float(np.sum(sums) + np.sum((through.T @ through) * inverse))

    def inverse_diagonal(self, inverse: Floats) -> Floats:
        """Return the first l numbers of the diagonal of the inverse of as many rows as an inverse of `schur` has."""
        through = self.through(len(inverse))
        sums: Floats = np.sum((through @ inverse) * through, axis=1)
        return 1 / self.diagonal + sums


def inverted(matrix: Floats) -> Floats:
    """Return the inverse; raises LinAlgError if there is none."""
    inverse: Floats = np.linalg.matrix_power(matrix, -1)
    return inverse


class Crossing(NamedTuple):
    """Two crossed groups of n observations, the larger one first; a group that is None has no levels."""

    large: Levels
    small: Levels
    n_large: int
    n_small: int
    is_swapped: bool
    """True if the larger group was given as the second one."""

    @classmethod
    def of(cls, groups: Groups, n: int) -> "Crossing":
        counted = [(np.zeros(n, dtype=np.int64), 0) if one is None else (one, int(np.max(one)) + 1) for one in groups]
        if max(size for _, size in counted) >= n:
            message = "A mixed model needs several observations of some person and unit. Give `analysis=means`."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        (first, n_first), (second, n_second) = counted
        if n_first < n_second:
            return cls(second, first, n_second, n_first, is_swapped=True)
        return cls(first, second, n_first, n_second, is_swapped=False)

    def sums(self, values: Floats) -> tuple[Floats, Floats]:
        """Return the sums of values (n,) over the levels of both groups."""
        large: Floats = np.bincount(self.large, values, self.n_large)[: self.n_large].astype(np.float64)
        small: Floats = np.bincount(self.small, values, self.n_small)[: self.n_small].astype(np.float64)
        return large, small

    def table(self, weights: Floats) -> Floats:
        """Return the sums of weights (n,) for each pair of levels (n_large, n_small)."""
        pairs: Levels = self.large * self.n_small + self.small
        size = self.n_large * self.n_small
        sums: Floats = np.bincount(pairs, weights, size)[:size].astype(np.float64)
        return np.reshape(sums, (self.n_large, self.n_small))

    def theta(self, optimum: Floats) -> Floats:
        """Return θ without signs and without the rounding of what is 0; 0 for a group without levels."""
        sizes: Floats = np.abs(optimum[:2])
        has_levels: NDArray[np.bool_] = np.array((self.n_large > 0, self.n_small > 0))
        return np.where(has_levels & (sizes > _SMALLEST_THETA), sizes, 0.0)

    def as_given(self, large: _Part, small: _Part) -> tuple[_Part, _Part]:
        """Return what belongs to the larger and to the smaller group in the order of the groups."""
        return (small, large) if self.is_swapped else (large, small)

    def of_observations(self, large: Floats, small: Floats) -> Floats:
        """Return the sum of the effects of both levels of each observation (n,)."""
        padded_large, padded_small = (effects if len(effects) else np.zeros(1) for effects in (large, small))
        total: Floats = padded_large[self.large] + padded_small[self.small]
        return total

    def of_pairs(self, table: Floats) -> Floats:
        """Return the number of a table (n_large, n_small) for the pair of levels of each observation (n,)."""
        if not self.n_large or not self.n_small:
            return np.zeros(len(self.large))
        numbers: Floats = table[self.large, self.small]
        return numbers


class _LinearProblem:
    """The cross-products of observations; a call returns the criterion for θ of the larger and the smaller group.

    θ and -θ are the same model, so the search has no bounds, and a standard deviation of 0 is a minimum like another.
    """

    def __init__(self, y: Floats, design: Design, crossing: Crossing, *, is_reml: bool) -> None:
        basis, self._triangle = design.orthonormal()
        self._projected: Floats = basis.T @ design.sums(y)
        self._sum_of_squares = float(y @ y)
        residuals = y - design.of_observations(basis @ self._projected)  # so that nothing large cancels in y'y
        small = crossing.n_small
        size = small + len(self._triangle) + 1
        ones: Floats = np.ones(len(y))
        self._counts, of_small = crossing.sums(ones)
        self._cross, self._dense = np.zeros((crossing.n_large, size)), np.zeros((size, size))
        self._cross[:, :small] = crossing.table(ones)
        self._dense[:small, :small] = np.diag(of_small)
        for place in range(small, size - 1):
            column = design.of_observations(basis[:, place - small])
            self._cross[:, place], self._dense[:small, place] = crossing.sums(column)
        self._cross[:, -1], self._dense[:small, -1] = crossing.sums(residuals)
        self._dense[small:, :small] = self._dense[:small, small:].T
        self._dense[small:, small:] = np.diag([*[1.0] * len(self._triangle), float(residuals @ residuals)])
        self._crossing = crossing
        self._determined = size - 1 if is_reml else small
        """Rows after the larger group whose determinant the criterion has."""
        self._degrees = len(y) - len(self._triangle) if is_reml else len(y)

    def __call__(self, theta: Floats) -> tuple[float, Floats]:
        solution = self._solve(theta)
        inverse = inverted(solution.factor.schur[: self._determined, : self._determined])
        diagonal: Floats = np.diag(inverse)[: self._crossing.n_small]
        traces = solution.factor.inverse_trace(inverse), float(np.sum(diagonal))
        scales: list[float] = theta.tolist()
        slopes = [
            2 * (len(effects) - trace - self._degrees * float(effects @ effects) / solution.rss) / (scale or 1.0)
            for effects, trace, scale in zip((solution.large, solution.small), traces, scales, strict=True)
        ]
        gradient: Floats = np.array(slopes)
        return self._criterion(solution), gradient

    def _solve(self, theta: Floats) -> "_Solution":
        scales: list[float] = theta.tolist()
        small = self._crossing.n_small
        scale: Floats = np.ones(len(self._dense))
        scale[:small] = scales[1]
        dense: Floats = self._dense * np.outer(scale, scale)
        dense[:small, :small] += np.eye(small)
        factor = Elimination.of(scales[0] ** 2 * self._counts + 1, scales[0] * scale * self._cross, dense)
        inverse = inverted(factor.schur[:-1, :-1])
        within, beside = factor.schur[:-1, :-1], factor.schur[:-1, -1]
        rest: Floats = inverse @ beside
        rest += inverse @ (beside - within @ rest)  # an inverse alone loses digits where θ is large
        total: float = factor.schur[-1, -1]
        rss = float(total - rest @ (2 * beside - within @ rest))
        if rss <= _ROUNDING * self._sum_of_squares:
            raise no_residuals()
        large: Floats = (factor.cross[:, -1] - factor.cross[:, :-1] @ rest) / factor.diagonal
        return _Solution(factor, rest[small:], large, rest[:small], rss, inverse[small:, small:])

    def _criterion(self, solution: "_Solution") -> float:
        value = solution.factor.log_determinant(self._determined)
        if self._determined > self._crossing.n_small:
            logs: Floats = np.log(np.abs(np.diag(self._triangle)))
            value += 2 * float(np.sum(logs))
        return value + self._degrees * (1 + log(2 * pi * solution.rss / self._degrees))

    def fit(self, theta: Floats) -> MixedFit:
        """Return the model with this θ."""
        solution, to_given = self._solve(theta), inverted(self._triangle)
        residual_sd = sqrt(solution.rss / self._degrees)
        scales: list[float] = theta.tolist()
        return MixedFit(
            to_given @ (self._projected + solution.in_basis),
            residual_sd**2 * to_given @ solution.inverse @ to_given.T,
            self._crossing.as_given(scales[0] * solution.large, scales[1] * solution.small),
            self._crossing.as_given(scales[0] * residual_sd, scales[1] * residual_sd),
            residual_sd,
            self._criterion(solution),
            theta,
        )


class _Solution(NamedTuple):
    """Solution of the penalized least squares for a θ."""

    factor: Elimination
    in_basis: Floats
    """Coefficients (p,) in the orthonormal basis of X."""
    large: Floats
    """Effects of the larger group, divided by their standard deviation, as those of the smaller one."""
    small: Floats
    rss: float
    """Penalized residual sum of squares."""
    inverse: Floats
    """Covariance of the coefficients in that basis (p, p), divided by the residual variance."""


def minimum(objective: Objective, start: Floats) -> tuple[Floats, Floats]:
    """Return the minimum of a function by Newton's method, and the Hessian there.

    Raises INVALID_INPUT if there is none.
    """
    here = start
    value, gradient = objective(here)
    for _ in range(_MAX_STEPS):
        hessian = _hessian(objective, here, gradient)
        decomposed: tuple[Floats, Floats] = np.linalg.eigh(hessian)
        curvatures, axes = decomposed
        sizes: Floats = np.maximum(np.abs(curvatures), _FLATTEST * max(1.0, _largest(curvatures)))
        step: Floats = -axes @ ((axes.T @ gradient) / sizes)
        step *= min(1.0, (1 + _largest(here)) / (_largest(step) or 1.0))
        decrease = -float(gradient @ step)
        share = _SMALLEST_SHARE
        while (there := objective(here + step))[0] > value - share * decrease + _ROUNDING * abs(value):
            step, share = step / 2, share / 2
            if share < _ROUNDING:  # nothing but rounding is left to win
                return here, hessian
        here, (value, gradient) = here + step, there
        if decrease < _SMALLEST_DECREASE and float(np.min(curvatures)) > -_FLATTEST:
            return here, hessian
    raise no_residuals()


def no_residuals() -> AppError:
    message = "The model has no best fit: it leaves no residuals. Take more observations or fewer predictors."
    return AppError(ErrorCode.INVALID_INPUT, message)


def _hessian(objective: Objective, here: Floats, gradient: Floats) -> Floats:
    """Return second derivatives by differences of the gradient."""
    sizes: Floats = np.abs(here)
    steps: list[float] = (_DIFFERENCE * (1 + sizes)).tolist()
    hessian: Floats = np.empty((len(steps), len(steps)))
    for place, step in enumerate(steps):
        there = here.copy()
        there[place : place + 1] += step
        hessian[place] = (objective(there)[1] - gradient) / step
    return (hessian + hessian.T) / 2


def _largest(numbers: Floats) -> float:
    sizes: Floats = np.abs(numbers)
    return float(np.max(sizes))
