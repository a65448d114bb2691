"""Controls of batteries: the architecture of a run with random weights scores a sample of the items."""

from collections import Counter
from collections.abc import Mapping, Sequence

from trainer.batteries.outcomes import Outcomes, accuracy_of
from trainer.contracts.batteries import (
    MAX_CONTROL_ITEMS,
    BatteryInfo,
    BatteryItem,
    BatteryOptions,
    Controls,
    Counts,
    Measure,
    Variant,
)

ByPlace = dict[int, Outcomes]
"""Outcomes by the place of an item."""


def variants(options: BatteryOptions) -> tuple[Variant, ...]:
    """Return what a run scores, in this order."""
    return ("trained", "untrained") if options.has_controls and options.development is None else ("trained",)


def items_of(variant: Variant, items: Sequence[BatteryItem]) -> list[tuple[int, BatteryItem]]:
    """Return the items that a variant scores, with their places."""
    places = range(len(items)) if variant == "trained" else _sample(items)
    return [(place, items[place]) for place in places]


def _sample(items: Sequence[BatteryItem]) -> list[int]:
    """Return the places of choices, up to a number for each battery, spread evenly."""
    places: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        if not item.conditions:
            places.setdefault(item.battery, []).append(place)
    chosen: list[int] = []
    for of_battery in places.values():
        count = min(len(of_battery), MAX_CONTROL_ITEMS)
        chosen += [of_battery[n * len(of_battery) // count] for n in range(count)]
    return chosen


def controls_of(
    battery: BatteryInfo,
    items: Sequence[BatteryItem],
    options: BatteryOptions,
    outcomes: Mapping[Variant, ByPlace],
    counts: Counts | None = None,
) -> Controls | None:
    """Return the controls of a battery; None for one without choices."""
    measure = options.measure
    untrained = {
        place: of_item[measure]
        for place, of_item in outcomes["untrained"].items()
        if items[place].battery == battery.name
    }
    if not untrained:
        return None
    choices = Counter(len(items[place].sequences) for place in untrained)
    chance = sum(count / n_choices for n_choices, count in choices.items()) / len(untrained)
    by_untrained = accuracy_of(measure, [*untrained.values()])
    low, high = by_untrained.low, by_untrained.high
    return Controls(
        battery=battery.name,
        n_items=len(untrained),
        chance=chance,
        untrained=by_untrained,
        is_at_chance=None if low is None or high is None else low <= chance <= high,
        counts=counts,
    )


def counts_of(
    order: int, items: Sequence[BatteryItem], measure: Measure, unigram: ByPlace, ngram: ByPlace
) -> dict[str, Counts]:
    """Return the accuracies of counts by battery, given the outcomes of the items of the controls."""
    places: dict[str, list[int]] = {}
    for place in unigram:
        places.setdefault(items[place].battery, []).append(place)
    return {
        battery: Counts(
            order=order,
            unigram=accuracy_of(measure, [unigram[place][measure] for place in of_battery]),
            ngram=accuracy_of(measure, [ngram[place][measure] for place in of_battery]),
        )
        for battery, of_battery in places.items()
    }
