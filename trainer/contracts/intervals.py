"""95 % intervals of losses over the lines of a text, from sums of losses over groups of lines, and over seeds.

A loss is a ratio of two sums over lines: of the nats of their tokens, and of their tokens or characters. Its standard
error is that of the delete-one jackknife, which for lines of equal length is the usual one of a mean. The quantile is
that of Student's t for the effective number of lines (Kish 1965): long lines count for more than short ones.
"""

from collections.abc import Sequence
from math import cos, gamma, pi, pow, sqrt, tan
from statistics import fmean, stdev

from trainer.contracts.base import Frozen, describe_fields

MAX_LINE_GROUPS = 200
"""Largest number of groups of lines; more would make an interval narrower by 0.6 % at most."""
_MIN_EFFECTIVE_LINES = 6.0
_NORMAL = 1.959963984540054
"""The quantile 0.975 of the normal distribution."""
_FEW_DEGREES = {1.0: 12.706205, 2.0: 4.302653, 3.0: 3.182446, 4.0: 2.776445}
_MIN_EXPANDED_DEGREES = 5.0
_INTEGRAL_STEPS, _HALVINGS = 200, 50


class Interval(Frozen):
    """A 95 % interval."""

    low: float
    high: float


class Spread(Frozen, json_schema_extra=describe_fields):
    """A number of runs that differ in their seeds only."""

    n: int
    """Number of runs."""
    mean: float
    deviation: float | None
    """Standard deviation with n - 1 in the denominator; None for one run, as the interval."""
    low: float | None
    """Lower end of the 95 % interval of the mean, by Student's t."""
    high: float | None
    minimum: float
    maximum: float


class LineLosses(Frozen):
    """Sums over groups of consecutive lines of a text; each line is a group if there are at most 200 lines."""

    nats: tuple[float, ...]
    """Losses of the predicted tokens of each group."""
    tokens: tuple[int, ...]
    """Predicted tokens of each group."""
    chars: tuple[int, ...]
    """Characters of each group, in a stream with newlines."""
    ngram_nats: tuple[float, ...] | None = None
    """Losses of the best n-gram of the training split on the same tokens; None where no baseline was measured."""


Ratio = tuple[Sequence[float], Sequence[int]]
"""Numerators and denominators of groups, of which the sums are divided."""


def ratio(one: Ratio) -> float:
    sums, weights = one
    return sum(sums) / sum(weights)


def around(value: float, half: float) -> Interval:
    return Interval(low=value - half, high=value + half)


def margin(plus: Ratio, minus: Ratio | None = None) -> float | None:
    """Return half the width of the 95 % interval of a ratio of sums, or of the difference of two over the same groups.

    None if the groups have fewer than six lines' worth of information.
    """
    ratios = [plus] if minus is None else [plus, minus]
    effective = min(sum(weights) ** 2 / sum(weight**2 for weight in weights) for _, weights in ratios)
    if effective < _MIN_EFFECTIVE_LINES:
        return None
    values = _left_out(*plus)
    if minus is not None:
        values = [one - other for one, other in zip(values, _left_out(*minus), strict=True)]
    mean = fmean(values)
    variance = (len(values) - 1) / len(values) * sum((value - mean) ** 2 for value in values)
    return t_quantile(effective - 1) * sqrt(variance)


def spread(values: Sequence[float]) -> Spread:
    """Return mean, deviation, 95 % interval of the mean and range of the values of at least one run."""
    mean, half = fmean(values), margin_of_mean(values)
    return Spread(
        n=len(values),
        mean=mean,
        deviation=stdev(values) if len(values) > 1 else None,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
        minimum=min(values),
        maximum=max(values),
    )


def margin_of_mean(values: Sequence[float]) -> float | None:
    """Return half the width of the 95 % interval of a mean, by Student's t; None for one value."""
    count = len(values)
    return t_quantile(count - 1) * stdev(values) / sqrt(count) if count > 1 else None


def t_quantile(degrees: float) -> float:
    """Return the quantile 0.975 of Student's t with one degree of freedom or more, to four digits.

    Source: the expansion of Abramowitz and Stegun 1964, 26.7.5, from five degrees on, and their table 26.10 for fewer
    whole degrees.
    """
    if degrees in _FEW_DEGREES:
        return _FEW_DEGREES[degrees]
    if degrees < _MIN_EXPANDED_DEGREES:
        return _integrated_quantile(degrees)
    z = _NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, 1))


def _integrated_quantile(degrees: float) -> float:
    """Halve an interval of angles until t = sqrt(degrees) tan(angle) has the probability 0.475 above 0.

    In the angle, the density is a power of its cosine, which Simpson's rule integrates.
    """
    factor = gamma((degrees + 1) / 2) / (sqrt(pi) * gamma(degrees / 2))
    low, high = 0.0, pi / 2
    for _ in range(_HALVINGS):
        angle = (low + high) / 2
        step = angle / _INTEGRAL_STEPS
        heights = [pow(cos(place * step), degrees - 1) for place in range(_INTEGRAL_STEPS + 1)]
        integral = step / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))
        low, high = (low, angle) if factor * integral > 0.475 else (angle, high)
    return sqrt(degrees) * tan(low)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down method."""
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _left_out(sums: Sequence[float], weights: Sequence[int]) -> list[float]:
    """Return the ratio without each of the groups."""
    total, weight = sum(sums), sum(weights)
    return [(total - one) / (weight - its) for one, its in zip(sums, weights, strict=True)]
