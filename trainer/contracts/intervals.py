"""95 % intervals of losses over the lines of a text, from sums of losses over groups of lines, and over seeds.

A loss is a ratio of two sums over lines: of the nats of their tokens, and of their tokens or characters. Its standard
error is that of the delete-one jackknife, which for lines of equal length is the usual one of a mean. The quantile is
that of Student's t for the effective number of lines (Kish 1965): long lines count for more than short ones.

Lines that follow one another in a text are not independent. The jackknife leaves out blocks of neighbours, not single
lines (Künsch 1989), where lines were not drawn by lot.

The difference of two groups of trainings depends on the lines and on the seeds: the variances of both are added.
benchmarks/differences.py measures how often the intervals cover the true numbers.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from math import cos, exp, lgamma, log, log1p, pi, sqrt, tan
from statistics import fmean, stdev, variance
from typing import Literal, NamedTuple

from trainer.contracts.base import Frozen, describe_fields
from trainer.contracts.reports import Note, counted_note, note

MAX_LINE_GROUPS = 200
"""Largest number of groups of lines; more would make an interval narrower by 0.6 % at most."""
MAX_BLOCKS = 10
"""Largest number of blocks of neighbouring lines: few blocks are long, and long blocks hardly depend on each other.

Intervals of ten blocks are 15 % wider than those of very many, by Student's t with nine degrees of freedom.
"""
MIN_LINES = 6
"""Fewest lines of an interval; a few long lines and many short ones count as fewer than there are."""
MIN_NEIGHBOURS = 60
"""Fewest neighbouring lines of an interval: four blocks of fifteen lines, as the next two say."""
_BLOCK_LINES, _MIN_BLOCKS = 15, 3
"""Fewest lines of a block, and fewest blocks of equal information."""
_EXTRA = 4
"""By this, divided by its degrees of freedom, a variance is enlarged where it decides on those of a sum."""
_MIN_PAIRED_SEEDS = 2
_NOTHING = 1e-9
"""Largest standard error of differences that do not vary: in nats or bits, that of sums of floats."""
_NAT_BITS = 1 / log(2)
_HALVINGS, _FRACTION_TERMS = 50, 25
Method = Literal["paired", "welch", "single"]


class Interval(Frozen):
    """A 95 % interval."""

    low: float
    high: float


class Spread(Frozen, json_schema_extra=describe_fields):
    """A number over several runs, such as those that differ in their seeds only."""

    n: int
    """Number of runs."""
    mean: float
    deviation: float | None
    """Standard deviation with n - 1 in the denominator; None for one run, as the interval."""
    low: float | None
    """Lower end of the 95 % interval of the mean over other seeds, by Student's t; None without any deviation."""
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
    """Losses of the stronger n-gram of the baseline, of tokens or of characters; None where none was measured."""
    is_drawn: bool = True
    """True for lines that were drawn by lot; False for neighbouring lines: a text, or a split by position or file."""

    def ratio(self, *, per_char: bool) -> "Ratio":
        """Return the losses of each group with what divides them: nats and tokens, or bits and characters."""
        return ([nats * _NAT_BITS for nats in self.nats], self.chars) if per_char else (self.nats, self.tokens)

    @property
    def margin_nats(self) -> float | None:
        """Half the width of the 95 % interval of the loss per token; None of too few lines."""
        return margin((self.nats, self.tokens), is_drawn=self.is_drawn)

    @property
    def missing_interval(self) -> Note | None:
        """Why the loss has no interval; None if it has one."""
        return None if self.margin_nats is not None else missing_interval(len(self.nats), is_drawn=self.is_drawn)


def missing_interval(lines: int, *, is_drawn: bool) -> Note:
    """Return why a loss has no interval over so many lines."""
    if lines >= (MIN_LINES if is_drawn else MIN_NEIGHBOURS):
        return note("No interval: a few long lines have most of the text.")
    found = counted_note(lines, "line")
    if is_drawn:
        return note(
            "No interval: the text has {lines}, and an interval takes {least} or more.", lines=found, least=MIN_LINES
        )
    return note(
        "No interval: the text has {lines}, and an interval of neighbouring lines takes {least} or more.",
        lines=found,
        least=MIN_NEIGHBOURS,
    )


Ratio = tuple[Sequence[float], Sequence[int]]
"""Numerators and denominators of groups, of which the sums are divided."""


def ratio(one: Ratio) -> float:
    sums, weights = one
    return sum(sums) / sum(weights)


def around(value: float, half: float) -> Interval:
    return Interval(low=value - half, high=value + half)


class StandardError(NamedTuple):
    """The standard error of a number, with the degrees of freedom of Student's t."""

    value: float
    degrees: float

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval."""
        return t_quantile(self.degrees) * self.value

    def p(self, number: float) -> float:
        """Return the two-sided p of a number whose true value is 0; 1 for 0 itself."""
        squares = self.degrees * self.value**2
        return _two_sided_p(squares / (squares + number**2), self.degrees) if number else 1.0


def margin(plus: Ratio, minus: Ratio | None = None, *, is_drawn: bool) -> float | None:
    """Return half the width of the 95 % interval of a ratio of sums, or of the difference of two; None of few lines."""
    error = standard_error(plus, minus, is_drawn=is_drawn)
    return None if error is None else error.margin


def standard_error(plus: Ratio, minus: Ratio | None = None, *, is_drawn: bool) -> StandardError | None:
    """Return the standard error of a ratio of sums, or of the difference of two over the same groups.

    Groups of lines that were not drawn by lot are merged into at most ten blocks of fifteen neighbours or more. None if
    the groups have fewer than six lines' worth of information, or the blocks fewer than three blocks' worth.
    """
    if len(plus[0]) < (MIN_LINES if is_drawn else MIN_NEIGHBOURS):
        return None
    if not is_drawn:
        plus, minus = _in_blocks(plus), None if minus is None else _in_blocks(minus)
    ratios = [plus] if minus is None else [plus, minus]
    effective = min(sum(weights) ** 2 / sum(weight**2 for weight in weights) for _, weights in ratios)
    if effective < (MIN_LINES if is_drawn else _MIN_BLOCKS):
        return None
    values = _left_out(*plus)
    if minus is not None:
        values = [one - other for one, other in zip(values, _left_out(*minus), strict=True)]
    mean = fmean(values)
    variance = (len(values) - 1) / len(values) * sum((value - mean) ** 2 for value in values)
    return StandardError(sqrt(variance), effective - 1)


def sum_over_runs(runs: Collection[LineLosses], *, per_char: bool) -> Ratio:
    """Return the losses of each group of lines, and what divides them, summed over trainings measured on one text."""
    ratios = [run.ratio(per_char=per_char) for run in runs]
    groups = range(len(ratios[0][0]))
    sums = [sum(of_run[group] for of_run, _ in ratios) for group in groups]
    return sums, [sum(of_run[group] for _, of_run in ratios) for group in groups]


class SeedError(NamedTuple):
    """The standard error over seeds of the difference of two means."""

    method: Method
    """paired: over common seeds, by Student's t; welch: by Welch's t; single: one run against a group of several."""
    error: StandardError
    deviation: float
    """The deviation by which an effect size divides the difference."""


class LossDifference(NamedTuple):
    """The mean loss of some trainings minus that of others on the same lines, with its sources of error."""

    value: float
    """In nats per token, or bits per character."""
    n_first: int
    """Number of trainings that count, as the next one."""
    n_second: int
    lines: StandardError | None
    """Over the lines of the text; None with too few lines, or of evaluations with other lines."""
    seeds: SeedError | None
    """Over seeds; None if there is one training each. Its error is 0 of a family that does not depend on the seed."""
    has_lines: bool = True
    """False if the losses of lines are not known: the error is that over seeds alone."""

    @property
    def error(self) -> StandardError | None:
        """The standard error over lines and seeds; None without that over lines, and where nothing varies."""
        known = [self.lines] if self.has_lines else []
        known += [self.seeds.error] if self.seeds is not None else []
        errors = [error for error in known if error is not None]
        if len(errors) < len(known) or not errors:
            return None
        error = together(*errors)
        return error if error.value > _NOTHING else None

    @property
    def depends_on_seeds(self) -> bool:
        """False if all trainings of a setting have the same loss."""
        return self.seeds is not None and self.seeds.error.value > _NOTHING


def loss_difference(
    first: Mapping[int, LineLosses], second: Mapping[int, LineLosses], *, per_char: bool
) -> LossDifference:
    """Return the mean loss of the first trainings minus that of the second, which are given by their seeds.

    In nats per token, or bits per character. With two common seeds or more, only these count, in pairs.
    """
    if common := paired_seeds(first, second):
        first, second = ({seed: runs[seed] for seed in common} for runs in (first, second))
    mine, its = ({seed: ratio(run.ratio(per_char=per_char)) for seed, run in runs.items()} for runs in (first, second))
    return mean_difference(mine, its)._replace(
        lines=line_error(first.values(), second.values(), per_char=per_char), has_lines=True
    )


def mean_difference(first: Mapping[int, float], second: Mapping[int, float]) -> LossDifference:
    """Return the mean of numbers by seed minus that of others, with the error over seeds only."""
    return LossDifference(
        value=fmean(first.values()) - fmean(second.values()),
        n_first=len(first),
        n_second=len(second),
        lines=None,
        seeds=seed_error(first, second) if len(first) + len(second) > 2 else None,
        has_lines=False,
    )


def line_error(
    first: Collection[LineLosses], second: Collection[LineLosses], *, per_char: bool
) -> StandardError | None:
    """Return the standard error over lines of the difference of the mean losses of two groups of trainings.

    None with too few lines, or of evaluations with other lines.
    """
    runs = (*first, *second)
    if len({len(run.nats) for run in runs}) > 1:
        return None
    sums = [sum_over_runs(group, per_char=per_char) for group in (first, second)]
    return standard_error(*sums, is_drawn=all(run.is_drawn for run in runs))


def paired_seeds(first: Collection[int], second: Collection[int]) -> list[int]:
    """Return the seeds that two groups have in common; none if there are fewer than two, which make no pairs."""
    common = sorted({*first} & {*second})
    return common if len(common) >= _MIN_PAIRED_SEEDS else []


def seed_error(first: Mapping[int, float], second: Mapping[int, float]) -> SeedError:
    """Return the standard error of the difference of the means of two numbers by seed; one has two seeds or more.

    For one run against a group, the error is that of another run of the group: the group's deviation is taken for both
    (Crawford and Howell 1998, doi:10.1076/clin.12.4.482.7241).
    """
    mine, its = [*first.values()], [*second.values()]
    n_mine, n_its = len(mine), len(its)
    if first.keys() == second.keys():
        deviation = stdev(value - second[seed] for seed, value in first.items())
        return SeedError("paired", StandardError(deviation / sqrt(n_mine), n_mine - 1), deviation)
    if min(n_mine, n_its) == 1:
        group = max(mine, its, key=len)
        deviation = stdev(group)
        return SeedError("single", StandardError(deviation * sqrt(1 + 1 / len(group)), len(group) - 1), deviation)
    of_mine, of_its = (StandardError(sqrt(variance(values) / len(values)), len(values) - 1) for values in (mine, its))
    pooled = sqrt(((n_mine - 1) * variance(mine) + (n_its - 1) * variance(its)) / (n_mine + n_its - 2))
    return SeedError("welch", _added((of_mine, of_its), extra=0), pooled)


def together(*errors: StandardError) -> StandardError:
    """Return the standard error of a number that has one or more independent sources of error.

    The degrees of freedom are those of Satterthwaite (1946), but nearer to those of a source with few: its share of the
    variance is not well known. With the plain ones, intervals over three seeds and many lines cover 92 %.
    """
    return _added(errors, extra=_EXTRA)


def _added(errors: Sequence[StandardError], *, extra: float) -> StandardError:
    varied = [one for one in errors if one.value > 0]
    if len(varied) < 2:
        return varied[0] if varied else errors[0]
    weights = [one.value**2 * (1 + extra / one.degrees) for one in varied]
    total = sum(weight**2 / one.degrees for weight, one in zip(weights, varied, strict=True))
    return StandardError(sqrt(sum(one.value**2 for one in varied)), sum(weights) ** 2 / total)


def hedges_correction(degrees: float) -> float:
    """Return the factor that makes an effect size unbiased whose deviation has these degrees of freedom, two or more.

    That is Hedges's exact one (1981, doi:10.3102/10769986006002107), not its approximation.
    """
    return exp(lgamma(degrees / 2) - lgamma((degrees - 1) / 2)) / sqrt(degrees / 2)


def spread(values: Sequence[float], lowest: float) -> Spread:
    """Return mean, deviation, 95 % interval of the mean and range of the values of at least one run.

    The interval does not go below the lowest value that there can be. Equal values have none.
    """
    mean, half = fmean(values), margin_of_mean(values) or None
    return Spread(
        n=len(values),
        mean=mean,
        deviation=stdev(values) if len(values) > 1 else None,
        low=None if half is None else max(lowest, mean - half),
        high=None if half is None else mean + half,
        minimum=min(values),
        maximum=max(values),
    )


def margin_of_mean(values: Sequence[float]) -> float | None:
    """Return half the width of the 95 % interval of a mean, by Student's t; None for one value."""
    count = len(values)
    return t_quantile(count - 1) * stdev(values) / sqrt(count) if count > 1 else None


def t_quantile(degrees: float) -> float:
    """Return the quantile 0.975 of Student's t, by halving an interval of angles; t is sqrt(degrees) tan(angle)."""
    low, high = 0.0, pi / 2
    for _ in range(_HALVINGS):
        angle = (low + high) / 2
        low, high = (angle, high) if _two_sided_p(cos(angle) ** 2, degrees) > 0.05 else (low, angle)
    return sqrt(degrees) * tan(low)


def _two_sided_p(x: float, degrees: float) -> float:
    """Return the two-sided p of Student's t, where x = degrees / (degrees + t²)."""
    return _incomplete_beta(x, degrees / 2, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function, by its continued fraction (DLMF 8.17.22)."""
    if x <= 0:
        return 0.0
    if x > (a + 1) / (a + b + 2):  # beyond, the fraction converges slowly
        return 1 - _incomplete_beta(1 - x, b, a)
    fraction = 1.0
    for m in range(_FRACTION_TERMS, -1, -1):
        fraction = 1 - (a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)) / fraction
        if m:
            fraction = 1 + m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)) / fraction
    scale = lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)
    return exp(scale) / (a * fraction)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down method."""
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _in_blocks(groups: Ratio) -> Ratio:
    """Return the sums over at most ten blocks of fifteen neighbouring groups or more, equally many in each."""
    sums, weights = groups
    count = min(len(sums) // _BLOCK_LINES, MAX_BLOCKS)
    bounds = [*pairwise(block * len(sums) // count for block in range(count + 1))]
    return [sum(sums[begin:end]) for begin, end in bounds], [sum(weights[begin:end]) for begin, end in bounds]


def _left_out(sums: Sequence[float], weights: Sequence[int]) -> list[float]:
    """Return the ratio without each of the groups."""
    total, weight = sum(sums), sum(weights)
    return [(total - one) / (weight - its) for one, its in zip(sums, weights, strict=True)]
