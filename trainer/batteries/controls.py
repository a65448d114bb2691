"""Controls of batteries: a sample of the items, scored by untrained weights and by counts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from trainer.batteries.formulas import Chances
from trainer.batteries.outcomes import Outcomes, accuracy_of
from trainer.contracts.batteries import (
    MAX_CONTROL_ITEMS,
    Accuracy,
    BatteryItem,
    BatteryOptions,
    Controls,
    Counts,
    Measure,
    Variant,
)

ByPlace = dict[int, Outcomes]
"""Outcomes by the place of an item."""
Part = tuple[str, str]
"""A battery and a suite of it; an empty name for the choices of the battery."""


def part_of(item: BatteryItem) -> Part:
    """Return the part of a battery whose controls an item is in."""
    return item.battery, item.paradigm if item.conditions else ""


def variants(options: BatteryOptions) -> tuple[Variant, ...]:
    """Return what a run scores, in this order."""
    return ("trained", "untrained") if options.has_controls and options.development is None else ("trained",)


def items_of(variant: Variant, items: Sequence[BatteryItem]) -> list[tuple[int, BatteryItem]]:
    """Return the items that a variant scores, with their places."""
    places = range(len(items)) if variant == "trained" else _sample(items)
    return [(place, items[place]) for place in places]


def _sample(items: Sequence[BatteryItem]) -> list[int]:
    """Return the places of choices, and of items of suites, each up to a number for a battery, spread evenly."""
    places: dict[tuple[str, bool], list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault((item.battery, bool(item.conditions)), []).append(place)
    chosen: list[int] = []
    for of_battery in places.values():
        count = min(len(of_battery), MAX_CONTROL_ITEMS)
        chosen += [of_battery[n * len(of_battery) // count] for n in range(count)]
    return chosen


def controls_of(
    items: Sequence[BatteryItem],
    measure: Measure,
    untrained: ByPlace,
    chances: Mapping[Part, Chances],
    counts: Mapping[Part, Counts],
) -> Iterator[Controls]:
    """Yield the controls of the choices and of each suite of the batteries.

    `untrained` are the outcomes by the untrained architecture, `chances` those of the suites with formulas.
    """
    for part, places in _parts(items, untrained).items():
        by_untrained = _accuracy(part, measure, untrained, places)
        if by_untrained is not None:
            battery, suite = part
            low, high = by_untrained.low, by_untrained.high
            if suite:
                chance, least = chances[part].of_all, chances[part].least
            else:
                chance = least = fmean(1 / len(items[place].sequences) for place in places)
            yield Controls(
                battery=battery,
                suite=suite,
                n_items=len(places),
                chance=chance,
                untrained=by_untrained,
                is_at_chance=None if low is None or high is None else low <= chance and least <= high,
                counts=counts.get(part),
            )


def _parts(items: Sequence[BatteryItem], places: Iterable[int]) -> dict[Part, list[int]]:
    parts: dict[Part, list[int]] = {}
    for place in places:
        parts.setdefault(part_of(items[place]), []).append(place)
    return parts


def _accuracy(part: Part, measure: Measure, outcomes: ByPlace, places: Sequence[int]) -> Accuracy | None:
    """Return the accuracy of a part by a measure; that of suites is by the sum, and None without formulas."""
    of_part: Measure = "sum" if part[1] else measure
    known = [outcomes[place][of_part] for place in places if of_part in outcomes[place]]
    return accuracy_of(of_part, known) if known else None


def counts_of(
    order: int, items: Sequence[BatteryItem], measure: Measure, unigram: ByPlace, ngram: ByPlace
) -> dict[Part, Counts]:
    """Return the accuracies of counts by parts of batteries, given the outcomes of the items of the controls."""
    found: dict[Part, Counts] = {}
    for part, places in _parts(items, unigram).items():
        of_unigram, of_ngram = (_accuracy(part, measure, outcomes, places) for outcomes in (unigram, ngram))
        if of_unigram is not None and of_ngram is not None:
            found[part] = Counts(order=order, unigram=of_unigram, ngram=of_ngram)
    return found
