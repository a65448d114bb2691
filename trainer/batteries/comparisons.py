"""Compares the accuracies of runs on the same items, and describes those of runs that differ in their seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from math import exp, fsum, lgamma, log, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from trainer.batteries.outcomes import Z, wilson_interval
from trainer.contracts.base import changed
from trainer.contracts.batteries import (
    Accuracy,
    BatteryRow,
    BatteryScores,
    Comparison,
    GroupResult,
    Level,
    Measure,
    Outcome,
    SeedBand,
)
from trainer.contracts.intervals import Interval, holm, margin_of_mean
from trainer.contracts.runs import RunModel

_SIGNIFICANT = 0.05
_FEW_EQUAL = 3
_HALVINGS = 60

_DECIDED: tuple[Outcome, ...] = ("right", "wrong")
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
    """Compare each run with each later one, on all batteries and on the paradigms of those that have several.

    The p-values are adjusted for the number of all these comparisons (Holm 1979).
    """
    pairs = combinations(outcomes, 2)
    found = [each for first, second in pairs for each in _comparisons(paradigms, outcomes, first, second)]
    adjusted = holm([one.p for one in found])
    return tuple(changed(one, p_holm=p) for one, p in zip(found, adjusted, strict=True))


def _comparisons(paradigms: Sequence[Paradigm], outcomes: RunOutcomes, first: str, second: str) -> Iterator[Comparison]:
    by_battery: dict[str, dict[str, _Counts]] = {}
    for one in paradigms:
        counts = _counts(one, outcomes[first], outcomes[second])
        if counts.n_items:
            by_battery.setdefault(one.battery, {})[one.name] = counts
    runs = (first, second)
    for battery, by_name in by_battery.items():
        # the items of all paradigms are one sample: its variance is at least that of a sample of each paradigm
        yield _comparison(battery, "battery", "", runs, _total([*by_name.values()]))
        if len(by_name) > 1:
            yield from (_comparison(battery, "paradigm", name, runs, each) for name, each in by_name.items())


def _counts(paradigm: Paradigm, first: Sequence[Outcome | None], second: Sequence[Outcome | None]) -> _Counts:
    decided = [
        (first[place], second[place])
        for place in paradigm.places
        if first[place] in _DECIDED and second[place] in _DECIDED
    ]
    return _Counts(len(decided), decided.count(("right", "wrong")), decided.count(("wrong", "right")))


def _total(counts: Sequence[_Counts]) -> _Counts:
    return _Counts(*(sum(of_paradigm[place] for of_paradigm in counts) for place in range(len(_Counts._fields))))


def _comparison(battery: str, level: Level, name: str, runs: tuple[str, str], counts: _Counts) -> Comparison:
    n_items, first_only, second_only = counts
    interval = difference_interval(n_items, first_only, second_only)
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


def difference_interval(n_items: int, first_only: int, second_only: int) -> Interval:
    """Return the 95 % interval of the difference in accuracy on the same items, which is never of width zero.

    It is the score interval of Tango (1998). Where nearly no item has equal outcomes, that is too narrow, and both ends
    are half an item farther out. Where the exact test of McNemar has a p of 0.05 or more, the interval reaches 0, so
    that both decide alike.
    """
    n_different = first_only + second_only
    more = 0.5 / n_items if n_different > 0 and n_items - n_different <= _FEW_EQUAL else 0.0
    low = max(-1.0, -_tango_end(n_items, second_only, first_only) - more)
    high = min(1.0, _tango_end(n_items, first_only, second_only) + more)
    if mcnemar(first_only, second_only) < _SIGNIFICANT:
        return Interval(low=low, high=high)
    return Interval(low=min(0.0, low), high=max(0.0, high))


def _tango_end(n_items: int, first_only: int, second_only: int) -> float:
    """Return the upper end of Tango's interval: the largest difference whose score test does not refuse it.

    `share` is the likeliest share of items that only the second run gets right, given the difference.
    """
    excess = first_only - second_only
    accepted, refused = excess / n_items, 1.0
    for _ in range(_HALVINGS):
        middle = (accepted + refused) / 2
        linear = (2 * n_items - excess) * middle - first_only - second_only
        constant = second_only * middle * (1 - middle)
        share = (sqrt(max(0.0, linear**2 + 8 * n_items * constant)) - linear) / (4 * n_items)
        is_accepted = (n_items * middle - excess) ** 2 < Z**2 * n_items * (2 * share + middle * (1 - middle))
        accepted, refused = (middle, refused) if is_accepted else (accepted, middle)
    return refused


def seed_bands(runs: Mapping[RunModel, Sequence[GroupResult]], measure: Measure) -> tuple[SeedBand, ...]:
    """Describe the accuracies of runs that differ in their seeds only, wherever there are at least two."""
    series: dict[str, list[RunModel]] = {}
    for run in runs:
        series.setdefault(run.series or run.name, []).append(run)
    bands: list[SeedBand] = []
    for of_series in series.values():
        for place, group in enumerate(runs[of_series[0]]):
            found = [runs[run][place].by(measure) for run in of_series]
            known = [one for one in found if one is not None and one.accuracy is not None]
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
            band = _band(group, (), known) if len(known) > 1 else None
            alone = known[0] if known else None
            ends = band or alone
            yield BatteryRow(
                model=first.model,
                model_language=first.language,
                battery_language=first.battery_language,
                battery=group.battery,
                level=group.level,
                name=group.name,
                measure=measure,
                n_seeds=len(known),
                n_items=group.n_items,
                accuracy=band.mean if band is not None else None if alone is None else alone.accuracy,
                deviation=None if band is None else band.deviation,
                low=None if ends is None else ends.low,
                high=None if ends is None else ends.high,
            )


def _band(group: GroupResult, run_ids: tuple[str, ...], known: Sequence[Accuracy]) -> SeedBand:
    """Return the band of seeds with accuracies, at least two.

    More seeds do not make more items: the band is never narrower than the interval of one seed with their mean.
    """
    shares = [one.accuracy or 0.0 for one in known]
    mean, half = fmean(shares), margin_of_mean(shares) or 0.0
    of_items = wilson_interval(mean, min(one.n_right + one.n_wrong for one in known))
    return SeedBand(
        battery=group.battery,
        level=group.level,
        name=group.name,
        run_ids=run_ids,
        mean=mean,
        deviation=stdev(shares),
        low=max(0.0, min(of_items.low, mean - half)),
        high=min(1.0, max(of_items.high, mean + half)),
    )
