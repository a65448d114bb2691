"""Ages at which a model acquires words: a falling sigmoid is fitted to the surprisals of a word over its checkpoints.

The method is that of Chang and Bergen (2022, "Word Acquisition in Neural Language Models", TACL 10): the mean surprisal
of a word over its contexts, against the logarithm of the step,

    surprisal = end + (start - end) / (1 + exp(slope * (log10(step) - midpoint)))

Their age is the step at which this curve is half way between the surprisal of chance, ln V, and the lowest surprisal.
That needs words of one token each: those of several tokens have no such chance. Here half way is between the two ends
of the curve, at its midpoint, as in the variant `midpoint` of the code that they have published.
Step 0 has no logarithm and is left out.

The interval of an age is that of the profile of its curve (Bates and Watts 1988, "Nonlinear Regression Analysis and Its
Applications", 6.1): all midpoints at which the best other parameters leave a sum of squares below the least one times
1 + t² / (n - 4), for n checkpoints and Student's t with n - 4 degrees of freedom.
"""

from collections.abc import Mapping, Sequence
from math import log, log10, pow, tanh
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.base import changed
from trainer.contracts.development import (
    CURVE_PARAMETERS,
    MIN_CHECKPOINTS,
    MIN_R_SQUARED,
    MIN_SHARE_SEEN,
    Acquisition,
    CheckpointPoint,
    Misfit,
    WordScores,
)
from trainer.contracts.intervals import t_quantile

_FALL = 2 * log(9)
"""A sigmoid of slope 1 falls from 90 % to 10 % of its height within this distance."""
_SLOPES, _MIDPOINTS = 24, 64
"""A fit starts from each of these numbers of slopes and midpoints."""
_PROFILE_SLOPES, _PROFILE_MIDPOINTS, _PROFILES_AT_ONCE = 32, 512, 64
_ITERATIONS = 150
"""Among 1,000 noisy curves, the slowest needed fewer than 100."""
_MAX_DAMPING = 1e15
_TINY = 1e-100
"""Keeps an equation solvable that says nothing."""

Numbers: TypeAlias = "NDArray[np.float64]"
_Flags: TypeAlias = "NDArray[np.bool_]"


class Fit(NamedTuple):
    """The falling sigmoid with the least squares."""

    start_nats: float
    end_nats: float
    slope: float
    midpoint: float
    """log10 of the step at half way."""
    r_squared: float
    low: float
    """The lower end of the 95 % interval of the midpoint."""
    high: float


class _Range(NamedTuple):
    """The slopes and midpoints of fits.

    The midpoint is between the first and the last checkpoint. The fall from 90 % to 10 % takes at least the distance
    between the two checkpoints around its midpoint, because they cannot show a quicker one. It takes at most twice the
    distance from the first to the last.
    """

    logs: Numbers
    """Logarithms of the steps, (n,)."""
    lowest: tuple[float, float]
    """The lowest slope and midpoint."""
    last: float
    """The highest midpoint."""

    @classmethod
    def of(cls, steps: Sequence[int]) -> "_Range":
        """Return the range for steps in ascending order."""
        first, last = log10(steps[0]), log10(steps[-1])
        return cls(np.log10(steps), (_FALL / (2 * (last - first)), first), last)

    def highest(self, midpoints: Numbers) -> Numbers:
        """Return the highest slope and midpoint (W, 2) near midpoints (W, 1)."""
        steepest: Numbers = _FALL / np.diff(self.logs)
        gaps: NDArray[np.intp] = np.searchsorted(self.logs, midpoints, side="right") - 1
        slopes: Numbers = steepest[np.clip(gaps, 0, len(steepest) - 1)]
        both: Numbers = np.concatenate((slopes, np.full_like(midpoints, self.last)), axis=1)
        return both

    def clipped(self, places: Numbers) -> Numbers:
        """Return slopes and midpoints (W, 2) within the range."""
        midpoints: Numbers = np.clip(places[:, 1:], self.lowest[1], self.last)
        inside: Numbers = np.clip(places, self.lowest, self.highest(midpoints))
        return inside


def fit_acquisition(steps: Sequence[int], nats: Sequence[Sequence[float]]) -> list[Fit | None]:
    """Fit a curve to the surprisals of each word (W, n) at n steps, which ascend from 1 on.

    None for a word whose last surprisal is not below its first. From the best of 1,536 slopes and midpoints, Newton's
    method goes down to the least squares within `_Range`; the two ends follow by linear regression.
    """
    curves: Numbers = np.array(nats, dtype=np.float64)
    limits = _Range.of(steps)
    found: list[Fit | None] = [None] * len(nats)
    falling: NDArray[np.intp] = np.flatnonzero(curves[:, -1] < curves[:, 0])
    if not len(falling):
        return found
    of_falling: Numbers = curves[falling]
    means = _means(of_falling)
    centred: Numbers = of_falling - means
    places = _descend(_starts(limits, centred), limits, centred)
    shape = _Shape.of(places, limits.logs, centred)
    ends: Numbers = means - shape.heights * shape.means
    explained: Numbers = 1 - shape.squares / _sums(np.square(centred))
    midpoints = _midpoint_intervals(limits, centred, shape.squares, places[:, 1:])
    columns: Numbers = np.concatenate((ends + shape.heights, ends, places, explained, midpoints), axis=1)
    rows: list[list[float]] = columns.tolist()
    numbers: list[int] = falling.tolist()
    for number, row in zip(numbers, rows, strict=True):
        found[number] = Fit(*row)
    return found


class _Shape(NamedTuple):
    """Sigmoids from 1 to 0 for W curves of n points, each times the height that fits its curve best."""

    offsets: Numbers
    """Logarithms of the steps less the midpoint, (W, n)."""
    values: Numbers
    """Values of the sigmoids, (W, n)."""
    means: Numbers
    """(W, 1)"""
    heights: Numbers
    """(W, 1)"""
    residuals: Numbers
    """(W, n)"""
    squares: Numbers
    """Sums of the squared residuals, (W, 1); infinite for a sigmoid that would have to rise."""

    @classmethod
    def of(cls, places: Numbers, logs: Numbers, centred: Numbers) -> "_Shape":
        """Return the sigmoids of slopes and midpoints (W, 2) for curves (W, n) less their means."""
        offsets: Numbers = logs - places[:, 1:]
        values = _sigmoids(places[:, :1] * offsets)
        means = _means(values)
        around_mean: Numbers = values - means
        heights: Numbers = _sums(around_mean * centred) / _sums(np.square(around_mean))
        residuals: Numbers = centred - heights * around_mean
        squares: Numbers = np.where(heights > 0, _sums(np.square(residuals)), np.inf)
        return cls(offsets, values, means, heights, residuals, squares)

    def derivatives(self, slopes: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Return the descent (W, 2), the curvature (W, 2, 2) and its scale (W, 2) of half the sum of squares.

        They are those by slope (W, 1) and midpoint, while the ends follow (Golub and Pereyra 1973).
        """
        steepness: Numbers = self.values * (1 - self.values)
        bend: Numbers = steepness * (1 - 2 * self.values)
        first: Numbers = np.stack((-self.offsets * steepness, slopes * steepness), axis=2)
        first -= _means(first)
        mixed: Numbers = steepness - bend * slopes * self.offsets
        second: Numbers = np.stack((bend * np.square(self.offsets), mixed, mixed, bend * np.square(slopes)), axis=2)
        around_mean: Numbers = self.values - self.means
        descent: Numbers = np.einsum("wn,wnp->wp", self.residuals, first)
        of_heights: Numbers = np.einsum("wn,wnp->wp", around_mean, first)
        along: Numbers = (self.heights * of_heights - descent) / np.sqrt(_sums(np.square(around_mean)))
        alike: Numbers = np.einsum("wnp,wnq->wpq", first, first)
        alike *= np.square(self.heights)[:, None]
        of_residuals: Numbers = np.einsum("wn,wnp->wp", self.residuals, second)
        curvature: Numbers = alike - along[:, :, None] * along[:, None, :]
        curvature -= (self.heights * of_residuals).reshape(-1, 2, 2)
        return self.heights * descent, curvature, _diagonals(alike)


def _sums(values: Numbers) -> Numbers:
    sums: Numbers = np.sum(values, axis=1, keepdims=True)
    return sums


def _means(values: Numbers) -> Numbers:
    means: Numbers = np.mean(values, axis=1, keepdims=True)
    return means


def _sigmoids(exponents: Numbers) -> Numbers:
    """Return 1 / (1 + exp(x)) without an overflow."""
    values: Numbers = 0.5 - 0.5 * np.tanh(0.5 * exponents)
    return values


def _diagonals(matrices: Numbers) -> Numbers:
    """Return the diagonals (W, 2) of matrices (W, 2, 2)."""
    diagonals: Numbers = np.einsum("wpp->wp", matrices)
    return diagonals


def _grid(limits: _Range, n_midpoints: int, n_slopes: int) -> tuple[Numbers, Numbers]:
    """Return slopes and midpoints (n_midpoints * n_slopes, 2) and their sigmoids (…, n) with mean 0 and length 1."""
    midpoints: Numbers = np.linspace(limits.lowest[1], limits.last, n_midpoints)[:, None]
    slopes: Numbers = np.geomspace(limits.lowest[0], limits.highest(midpoints)[:, 0], n_slopes, axis=1)
    grid: Numbers = np.stack((slopes, np.broadcast_to(midpoints, slopes.shape)), axis=-1).reshape(-1, 2)
    values = _sigmoids(grid[:, :1] * (limits.logs - grid[:, 1:]))
    values -= _means(values)
    values /= np.sqrt(_sums(np.square(values)))
    return grid, values


def _starts(limits: _Range, centred: Numbers) -> Numbers:
    """Return the slope and the midpoint of a grid with the least squares for each curve, (W, 2)."""
    grid, values = _grid(limits, _MIDPOINTS, _SLOPES)
    best: NDArray[np.intp] = np.argmax(centred @ values.T, axis=1)
    starts: Numbers = grid[best]
    return starts


def _midpoint_intervals(limits: _Range, centred: Numbers, squares: Numbers, midpoints: Numbers) -> Numbers:
    """Return the ends (W, 2) of the 95 % intervals of midpoints (W, 1) whose fits leave sums of squares (W, 1).

    An end is the first place of a fine grid outside the interval, or the first or last checkpoint.
    """
    grid, values = _grid(limits, _PROFILE_MIDPOINTS, _PROFILE_SLOPES)
    places: Numbers = grid[::_PROFILE_SLOPES, 1]
    degrees = len(limits.logs) - CURVE_PARAMETERS
    most: Numbers = squares * (1 + t_quantile(degrees) ** 2 / degrees)
    distances: Numbers = np.abs(places - midpoints)
    half_gap = (limits.last - limits.lowest[1]) / (_PROFILE_MIDPOINTS - 1) / 2
    profiles: list[Numbers] = []
    for begin in range(0, len(centred), _PROFILES_AT_ONCE):
        part: Numbers = centred[begin : begin + _PROFILES_AT_ONCE]
        explained: Numbers = np.square(np.maximum(part @ values.T, 0.0))
        profiles.append(_peaks(explained.reshape(-1, _PROFILE_MIDPOINTS, _PROFILE_SLOPES)))
    left: Numbers = _sums(np.square(centred)) - np.concatenate(profiles)
    is_inside: _Flags = (left <= most) | (distances <= half_gap)  # the fit is inside, whatever the grid
    backwards: _Flags = is_inside[:, ::-1]
    before: NDArray[np.intp] = np.argmax(is_inside, axis=1)
    behind: NDArray[np.intp] = np.argmax(backwards, axis=1)
    outside: NDArray[np.intp] = np.stack((before - 1, len(places) - behind), axis=1)
    ends: Numbers = places[np.clip(outside, 0, len(places) - 1)]
    return ends


def _peaks(values: Numbers) -> Numbers:
    """Return the highest values (W, M) over the slopes of (W, M, slopes), between them by a parabola."""
    best: NDArray[np.intp] = np.argmax(values, axis=2, keepdims=True)
    inner: NDArray[np.intp] = np.clip(best, 1, _PROFILE_SLOPES - 2)
    before, peak, after = (_taken(values, inner + offset) for offset in (-1, 0, 1))
    bend: Numbers = before - 2 * peak + after
    highest: Numbers = np.max(values, axis=2)
    is_peak: _Flags = np.equal(best, inner)[:, :, 0] & (bend < 0)
    rise: Numbers = np.zeros_like(highest)
    np.divide(np.square(before - after), -8 * bend, out=rise, where=is_peak)
    return highest + rise


def _taken(values: Numbers, places: NDArray[np.intp]) -> Numbers:
    """Return the values (W, M) at places (W, M, 1) of the last axis."""
    taken: Numbers = np.take_along_axis(values, places, axis=2)[:, :, 0]
    return taken


def _descend(places: Numbers, limits: _Range, centred: Numbers) -> Numbers:
    """Return the slopes and midpoints (W, 2) with the least squares, from the given ones on."""
    damping: Numbers = np.full((len(places), 1), 1e-3)
    for _ in range(_ITERATIONS):
        shape = _Shape.of(places, limits.logs, centred)
        descent, curvature, scale = shape.derivatives(places[:, :1])
        is_low: _Flags = (places <= limits.lowest) & (descent < 0)
        is_high: _Flags = (places >= limits.highest(places[:, 1:])) & (descent > 0)
        moved = limits.clipped(places + _newton_steps(descent, curvature, damping * scale, is_low | is_high))
        is_better: _Flags = _Shape.of(moved, limits.logs, centred).squares < shape.squares
        places = np.where(is_better, moved, places)
        damping = np.where(is_better, damping / 10, np.minimum(damping * 10, _MAX_DAMPING))
    return places


def _newton_steps(descent: Numbers, curvature: Numbers, damping: Numbers, is_held: _Flags) -> Numbers:
    """Return the steps (W, 2) of Newton's method with a damping (W, 2); those that are held are 0."""
    diagonal: Numbers = np.where(is_held, 1.0, _diagonals(curvature) + damping + _TINY)
    is_alone: _Flags = np.any(is_held, axis=1, keepdims=True)
    mixed: Numbers = np.where(is_alone, 0.0, curvature[:, :1, 1])
    free: Numbers = np.where(is_held, 0.0, descent)
    crossed: Numbers = diagonal[:, ::-1] * free - mixed * free[:, ::-1]
    steps: Numbers = crossed / (diagonal[:, :1] * diagonal[:, 1:] - np.square(mixed))
    return steps


def acquisitions(
    scores: Sequence[WordScores], points: Sequence[CheckpointPoint], frequencies: Mapping[str, float] | None = None
) -> tuple[Acquisition, ...]:
    """Return the ages of words, in the order in which these first come, from their scores at all checkpoints.

    `frequencies` are per million words of the training text.
    """
    words: dict[str, dict[int, WordScores]] = {}
    for score in scores:
        words.setdefault(score.word, {})[score.step] = score
    by_steps: dict[tuple[int, ...], list[str]] = {}
    for word, of_word in words.items():
        by_steps.setdefault(tuple(sorted(step for step in of_word if step > 0)), []).append(word)
    found: dict[str, Acquisition] = {}
    for steps, alike in by_steps.items():
        has_enough = len(steps) >= MIN_CHECKPOINTS
        nats = [[words[word][step].nats for step in steps] for word in alike]
        fits = fit_acquisition(steps, nats) if has_enough else [None] * len(alike)
        for word, fit in zip(alike, fits, strict=True):
            unfit = Acquisition(
                word=word,
                n_contexts=min(score.n_contexts for score in words[word].values()),
                frequency_per_million=None if frequencies is None else frequencies.get(word, 0.0),
                fits=False,
                reason="no_fall" if has_enough else "too_few_checkpoints",
            )
            found[word] = unfit if fit is None else _with_fit(unfit, fit, steps, points)
    return tuple(found[word] for word in words)


def _with_fit(word: Acquisition, fit: Fit, steps: Sequence[int], points: Sequence[CheckpointPoint]) -> Acquisition:
    """Return a word with its curve, and with its age or the reason why it has none."""
    reason = _misfit(fit, _Range.of(steps))
    ages: dict[str, float | None] = {}
    if reason is None:
        for end, midpoint in (("", fit.midpoint), ("_low", fit.low), ("_high", fit.high)):
            step = min(max(pow(10.0, midpoint), float(steps[0])), float(steps[-1]))
            ages |= {f"age_steps{end}": step, f"age_words{end}": words_at(step, points)}
    return changed(
        word,
        fits=reason is None,
        reason=reason,
        **ages,
        start_nats=fit.start_nats,
        end_nats=fit.end_nats,
        slope=fit.slope,
        r_squared=fit.r_squared,
    )


def _misfit(fit: Fit, limits: _Range) -> Misfit | None:
    if fit.r_squared < MIN_R_SQUARED:
        return "poor_fit"
    if not limits.lowest[1] < fit.midpoint < limits.last:
        return "outside"
    first, last = (0.5 * tanh(0.5 * fit.slope * (end - fit.midpoint)) for end in (limits.lowest[1], limits.last))
    return None if last - first > MIN_SHARE_SEEN else "no_plateau"


def words_at(step: float, points: Sequence[CheckpointPoint]) -> float | None:
    """Return the words that were read up to a step, on a line between checkpoints; None where they are unknown."""
    known = {point.step: float(point.words) for point in points if point.words is not None}
    steps = sorted(known)
    if not steps or not steps[0] <= step <= steps[-1]:
        return None
    return float(np.interp(step, steps, [known[one] for one in steps]))
