"""Compares the accuracies of runs on the same items, and describes those of runs that differ in their seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from math import exp, fsum, lgamma, log
from statistics import fmean, stdev
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.base import changed
from trainer.contracts.batteries import (
    BatteryRow,
    BatteryRun,
    BatteryScores,
    Comparison,
    GroupResult,
    Level,
    Measure,
    Outcome,
    SeedBand,
)
from trainer.contracts.intervals import Interval, holm, margin_of_mean

RESAMPLES = 10_000
_SEED = 19
_ENDS = (0.025, 0.975)

_DECIDED: tuple[Outcome, ...] = ("right", "wrong")
Draws: TypeAlias = "NDArray[np.int64]"
RunOutcomes = Mapping[str, Sequence[Outcome | None]]
"""The outcomes of each run by the place of an item; None for an item without one."""


class Paradigm(NamedTuple):
    """A paradigm of a battery with the places of its items."""

    battery: str
    name: str
    places: Sequence[int]


class _Counts(NamedTuple):
    """Items of a paradigm that both runs get right or wrong, and those that only one gets right."""

    n_items: int
    n_first_only: int
    n_second_only: int


def comparisons_of(paradigms: Sequence[Paradigm], outcomes: RunOutcomes) -> tuple[Comparison, ...]:
    """Compare each run with each later one, on all batteries and their paradigms."""
    pairs = combinations(outcomes, 2)
    return tuple(each for first, second in pairs for each in _comparisons(paradigms, outcomes, first, second))


def _comparisons(paradigms: Sequence[Paradigm], outcomes: RunOutcomes, first: str, second: str) -> Iterator[Comparison]:
    by_battery: dict[str, dict[str, _Counts]] = {}
    for one in paradigms:
        counts = _counts(one, outcomes[first], outcomes[second])
        if counts.n_items:
            by_battery.setdefault(one.battery, {})[one.name] = counts
    runs = (first, second)
    for battery, by_name in by_battery.items():
        yield _comparison(battery, "battery", "", runs, [*by_name.values()])
        found = [_comparison(battery, "paradigm", name, runs, [each]) for name, each in by_name.items()]
        adjusted = holm([one.p for one in found])
        yield from (changed(one, p_holm=p) for one, p in zip(found, adjusted, strict=True))


def _counts(paradigm: Paradigm, first: Sequence[Outcome | None], second: Sequence[Outcome | None]) -> _Counts:
    decided = [
        (first[place], second[place])
        for place in paradigm.places
        if first[place] in _DECIDED and second[place] in _DECIDED
    ]
    return _Counts(len(decided), decided.count(("right", "wrong")), decided.count(("wrong", "right")))


def _comparison(battery: str, level: Level, name: str, runs: tuple[str, str], counts: Sequence[_Counts]) -> Comparison:
    n_items = sum(one.n_items for one in counts)
    first_only, second_only = sum(one.n_first_only for one in counts), sum(one.n_second_only for one in counts)
    interval = bootstrap_interval(counts)
    return Comparison(
        battery=battery,
        level=level,
        name=name,
        first_run_id=runs[0],
        second_run_id=runs[1],
        n_items=n_items,
        n_first_only=first_only,
        n_second_only=second_only,
        difference=(first_only - second_only) / n_items,
        low=interval.low,
        high=interval.high,
        p=mcnemar(first_only, second_only),
    )


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the two-sided p of the exact test: as many heads, or more uneven, in so many tosses of a fair coin."""
    tosses, fewer = first_only + second_only, min(first_only, second_only)
    if first_only == second_only:
        return 1.0
    ways = (lgamma(tosses + 1) - lgamma(k + 1) - lgamma(tosses - k + 1) for k in range(fewer + 1))
    return min(1.0, 2 * fsum(exp(each - tosses * log(2)) for each in ways))


def bootstrap_interval(counts: Sequence[tuple[int, int, int]]) -> Interval:
    """Return the 95 % interval of the difference in accuracy, given counts by paradigm as in `_Counts`.

    A resample draws as many items of each paradigm as it has. Each is +1, 0 or -1, so the numbers of these are drawn.
    """
    generator = np.random.Generator(np.random.PCG64(_SEED))
    total: Draws = np.zeros(RESAMPLES, dtype=np.int64)
    for n_items, first_only, second_only in counts:
        shares = [first_only / n_items, second_only / n_items]
        drawn: Draws = generator.multinomial(n_items, [*shares, max(0.0, 1.0 - sum(shares))], RESAMPLES)
        first: Draws = drawn[:, 0]
        second: Draws = drawn[:, 1]
        total += first
        total -= second
    n_all = sum(n_items for n_items, _, _ in counts)
    differences: NDArray[np.float64] = total / n_all
    ends: list[float] = np.quantile(differences, _ENDS).tolist()
    return Interval(low=ends[0], high=ends[1])


def seed_bands(runs: Mapping[BatteryRun, Sequence[GroupResult]], measure: Measure) -> tuple[SeedBand, ...]:
    """Describe the accuracies of runs that differ in their seeds only, wherever there are at least two."""
    series: dict[str, list[BatteryRun]] = {}
    for run in runs:
        series.setdefault(run.series or run.name, []).append(run)
    bands: list[SeedBand] = []
    for of_series in series.values():
        for place, group in enumerate(runs[of_series[0]]):
            found = [runs[run][place].by(measure) for run in of_series]
            known = [one.accuracy for one in found if one is not None and one.accuracy is not None]
            if len(known) > 1:
                bands.append(_band(group, tuple(run.name for run in of_series), known))
    return tuple(bands)


def language_rows(scores: Iterable[BatteryScores]) -> tuple[BatteryRow, ...]:
    """Return the accuracies of an experiment's runs by all measures, over the seeds of each model and language."""
    by_cell: dict[tuple[str, str, str], list[BatteryScores]] = {}
    for one in scores:
        by_cell.setdefault((one.model, one.language, one.battery_language), []).append(one)
    return tuple(row for of_seeds in by_cell.values() for row in _rows(of_seeds))


def _rows(of_seeds: Sequence[BatteryScores]) -> Iterator[BatteryRow]:
    first = of_seeds[0]
    for place, group in enumerate(first.groups):
        for measure in (one.measure for one in group.accuracies):
            found = [one.groups[place].by(measure) for one in of_seeds]
            known = [one for one in found if one is not None and one.accuracy is not None]
            shares = [one.accuracy for one in known if one.accuracy is not None]
            band = _band(group, (), shares) if len(shares) > 1 else None
            ends = band or (known[0] if known else None)
            yield BatteryRow(
                model=first.model,
                model_language=first.language,
                battery_language=first.battery_language,
                battery=group.battery,
                level=group.level,
                name=group.name,
                measure=measure,
                n_seeds=len(shares),
                n_items=group.n_items,
                accuracy=fmean(shares) if shares else None,
                deviation=None if band is None else band.deviation,
                low=None if ends is None else ends.low,
                high=None if ends is None else ends.high,
            )


def _band(group: GroupResult, run_ids: tuple[str, ...], shares: Sequence[float]) -> SeedBand:
    mean, half = fmean(shares), margin_of_mean(shares) or 0.0
    return SeedBand(
        battery=group.battery,
        level=group.level,
        name=group.name,
        run_ids=run_ids,
        mean=mean,
        deviation=stdev(shares),
        low=max(0.0, mean - half),
        high=min(1.0, mean + half),
    )
