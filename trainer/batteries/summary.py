"""The results of batteries from the items and their scores; the same scores give the same numbers."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import permutations
from statistics import fmean
from types import MappingProxyType

from trainer.batteries.controls import ByPlace, Part, controls_of, part_of
from trainer.batteries.formulas import Chances, Formula, Truth, Values, chances_of, read_formula
from trainer.batteries.outcomes import accuracy_of, outcomes_of, values_of
from trainer.contracts.base import changed
from trainer.contracts.batteries import (
    LEVELS,
    MEASURES,
    BatteryInfo,
    BatteryItem,
    BatteryOptions,
    Counts,
    Effect,
    FormulaResult,
    GroupResult,
    ItemScores,
    LeakedItems,
    Level,
    Measure,
    Outcome,
    RunResult,
    Variant,
)
from trainer.contracts.intervals import margin_of_mean
from trainer.contracts.runs import RunModel
from trainer.contracts.sequences import SequenceScore

Scores = Mapping[int, Sequence[SequenceScore]]
"""The scores of items by their places."""
_OUTCOMES: Mapping[Truth, Outcome] = {True: "right", False: "wrong", None: "tie"}


class Items:
    """The items of batteries with the formulas of their paradigms."""

    def __init__(self, batteries: Sequence[BatteryInfo], items: Sequence[BatteryItem]) -> None:
        self.batteries = batteries
        self.all = items
        self.formulas: dict[tuple[str, str], list[Formula]] = {
            (battery.name, paradigm): [read_formula(formula) for formula in suite.formulas]
            for battery in batteries
            for paradigm, suite in battery.suites.items()
        }
        self.groups: dict[tuple[str, Level, str], list[int]] = {}
        """Places of items by battery, level and name, in the order of the batteries and levels."""
        for battery in batteries:
            self._add_groups(battery.name)

    def _add_groups(self, battery: str) -> None:
        places = [place for place, item in enumerate(self.all) if item.battery == battery]
        for level in LEVELS:
            for place in places:
                name = self._name(place, level)
                if name or level == "battery":
                    self.groups.setdefault((battery, level, name), []).append(place)

    def _name(self, place: int, level: Level) -> str:
        """Return the name of an item's group; empty for the whole battery, and where the item is in no group."""
        item = self.all[place]
        return {"field": item.field, "phenomenon": item.phenomenon, "paradigm": item.paradigm}.get(level, "")

    @cached_property
    def chances(self) -> Mapping[Part, Chances]:
        """The chances of the suites that have formulas."""
        found: dict[Part, Chances] = {}
        for part, formulas in self.formulas.items():
            if formulas:
                first = self.all[self.groups[part[0], "paradigm", part[1]][0]]
                found[part] = chances_of(formulas, dict(zip(first.conditions, first.regions, strict=True)))
        return found

    def chance(self, place: int) -> float | None:
        """Return the accuracy of guessing for an item; None for one of a suite without formulas."""
        item = self.all[place]
        if not item.conditions:
            return 1 / len(item.sequences)
        chances = self.chances.get(part_of(item))
        return None if chances is None else chances.of_all

    def outcomes(self, scores: Scores) -> ByPlace:
        """Return the outcomes of the items that have scores."""
        items = {place: self.all[place] for place in scores}
        return {
            place: outcomes_of(item, scores[place], self.formulas.get((item.battery, item.paradigm), ()))
            for place, item in items.items()
        }


def run_result(
    items: Items,
    run: RunModel,
    options: BatteryOptions,
    scores: Mapping[Variant, Sequence[ItemScores]],
    leaks: Sequence[LeakedItems] = (),
    counts: Mapping[Part, Counts] = MappingProxyType({}),
) -> tuple[RunResult, ByPlace]:
    """Return the results of a run with the outcomes of its items; the scores are those of all variants.

    `counts` are the accuracies of n-grams by parts of batteries.
    """
    by_place: dict[Variant, Scores] = {
        variant: {one.item: one.scores for one in of_variant} for variant, of_variant in scores.items()
    }
    outcomes = {variant: items.outcomes(of_variant) for variant, of_variant in by_place.items()}
    trained = by_place["trained"]
    untrained = outcomes.get("untrained", {})
    result = RunResult(
        run=run,
        groups=tuple(_groups(items, trained, outcomes["trained"])),
        formulas=tuple(_formulas(items, trained)),
        effects=tuple(_effects(items, trained)),
        controls=tuple(controls_of(items.all, options.measure, untrained, items.chances, counts)),
        leaks=tuple(leaks),
    )
    return result, outcomes["trained"]


def _groups(items: Items, scores: Scores, outcomes: ByPlace) -> Iterator[GroupResult]:
    found = {key: _group(key, items, places, scores, outcomes) for key, places in items.groups.items()}
    for key, group in found.items():
        if group.level == "paradigm":
            yield group
        else:
            names = {items.all[place].paradigm for place in items.groups[key]}
            paradigms = [found[group.battery, "paradigm", name] for name in names]
            yield changed(group, mean_over_paradigms=_means(paradigms))


def _group(
    key: tuple[str, Level, str], items: Items, places: Sequence[int], scores: Scores, outcomes: ByPlace
) -> GroupResult:
    battery, level, name = key
    chosen = [[outcomes[place].get(measure) for place in places] for measure in MEASURES]
    return GroupResult(
        battery=battery,
        level=level,
        name=name,
        n_items=len(places),
        n_identical=sum(_has_equal_choices(items.all[place]) for place in places),
        n_duplicates=len(places) - len({_sequences(items.all[place]) for place in places}),
        n_prefix=sum(_has_prefix(items.all[place]) for place in places),
        n_unknown=sum(any(score.unk_count for score in scores[place]) for place in places),
        n_cut=sum(any(score.is_cut for score in scores[place]) for place in places),
        n_inside=sum(any(None in score.part_nats for score in scores[place]) for place in places),
        accuracies=tuple(
            accuracy_of(measure, [one for one in column if one is not None])
            for measure, column in zip(MEASURES, chosen, strict=True)
            if column.count(None) < len(column)
        ),
    )


def _has_equal_choices(item: BatteryItem) -> bool:
    return not item.conditions and len(set(item.sequences)) < len(item.sequences)


def _sequences(item: BatteryItem) -> tuple[object, ...]:
    """Return what two items have in common of which one is a duplicate."""
    return item.sequences, item.conditions, item.regions


def _has_prefix(item: BatteryItem) -> bool:
    """Return True if a sequence of choices begins another one after the same context."""
    pairs = permutations(item.sequences, 2)
    return not item.conditions and any(
        one.text != other.text and one.context == other.context and other.text.startswith(one.text)
        for one, other in pairs
    )


def _means(paradigms: Sequence[GroupResult]) -> Mapping[Measure, float]:
    shares: dict[Measure, list[float]] = {}
    for paradigm in paradigms:
        for one in paradigm.accuracies:
            if one.accuracy is not None:
                shares.setdefault(one.measure, []).append(one.accuracy)
    return {measure: fmean(of_measure) for measure, of_measure in shares.items()}


def _suites(items: Items, scores: Scores) -> Iterator[tuple[str, str, Sequence[Formula], list[Values]]]:
    """Yield battery, paradigm, formulas and the surprisals of the items of each suite."""
    for (battery, paradigm), formulas in items.formulas.items():
        places = items.groups[battery, "paradigm", paradigm]
        yield battery, paradigm, formulas, [values_of(items.all[place], scores[place]) for place in places]


def _formulas(items: Items, scores: Scores) -> Iterator[FormulaResult]:
    for battery, paradigm, formulas, values in _suites(items, scores):
        for number, formula in enumerate(formulas):
            truths = [formula.truth(of_item) for of_item in values]
            found = accuracy_of("sum", [_OUTCOMES[truth] for truth in truths])
            yield FormulaResult(
                battery=battery,
                paradigm=paradigm,
                formula=formula.text,
                n_items=len(values),
                n_right=found.n_right,
                n_undecided=found.n_ties,
                accuracy=found.accuracy,
                low=found.low,
                high=found.high,
                chance=items.chances[battery, paradigm].of_each[number],
            )


def _effects(items: Items, scores: Scores) -> Iterator[Effect]:
    """Yield the means of the regions by condition, and of the differences that the formulas compare."""
    for battery, paradigm, formulas, values in _suites(items, scores):
        columns: dict[tuple[str, int], list[float]] = {}
        for of_item in values:
            for condition, of_regions in of_item.items():
                for region, nats in of_regions.items():
                    columns.setdefault((condition, region), []).append(nats)
        for (condition, region), column in columns.items():
            yield changed(_effect(battery, paradigm, condition, column), region=region)
        for comparison in (one for formula in formulas for one in formula.comparisons):
            differences = [comparison.difference(of_item) for of_item in values]
            yield _effect(battery, paradigm, comparison.text, differences)


def _effect(battery: str, paradigm: str, what: str, values: Sequence[float]) -> Effect:
    mean, half = fmean(values), margin_of_mean(values)
    effect = Effect(battery=battery, paradigm=paradigm, what=what, n_items=len(values), nats=mean)
    return effect if half is None else changed(effect, low=mean - half, high=mean + half)
