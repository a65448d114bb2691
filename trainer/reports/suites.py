"""Results of a test suite: surprisals of regions, and how often each prediction holds."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from trainer.contracts.base import Frozen, Identifier
from trainer.reports.formulas import Formula
from trainer.reports.minimal_pairs import wilson_interval


class ItemResult(Frozen):
    """The surprisals of an item in nats, by condition and number of the region, and which predictions hold."""

    item: int
    nats: Mapping[str, Mapping[int, float]]
    holds: tuple[bool, ...]


class PredictionResult(Frozen):
    """The share of items for which a complete formula holds."""

    formula: str
    n_items: int
    n_right: int
    accuracy: float
    low: float
    """The lower end of the 95 % interval of Wilson (1927)."""
    high: float


class SuiteReport(Frozen):
    """The results of a run on a test suite."""

    run_id: Identifier
    name: str
    regions: Mapping[int, str]
    """Names of the regions by number."""
    predictions: tuple[PredictionResult, ...]
    mean_nats: Mapping[str, Mapping[int, float]]
    """The mean over the items, by condition and number of the region."""
    items: tuple[ItemResult, ...]


def suite_report(
    run_id: str,
    name: str,
    regions: Mapping[int, str],
    formulas: Sequence[Formula],
    nats: Mapping[int, Mapping[str, Mapping[int, float]]],
) -> SuiteReport:
    """Evaluate formulas on the surprisals of items, at least one: by item, condition and number of the region."""
    items = tuple(
        ItemResult(item=item, nats=of_item, holds=tuple(formula.holds(of_item) for formula in formulas))
        for item, of_item in nats.items()
    )
    predictions: list[PredictionResult] = []
    for index, formula in enumerate(formulas):
        n_right = sum(item.holds[index] for item in items)
        share = n_right / len(items)
        low, high = wilson_interval(share, len(items))
        result = PredictionResult(
            formula=formula.text, n_items=len(items), n_right=n_right, accuracy=share, low=low, high=high
        )
        predictions.append(result)
    values: dict[str, dict[int, list[float]]] = {}
    for item in items:
        for condition, of_regions in item.nats.items():
            for region, of_region in of_regions.items():
                values.setdefault(condition, {}).setdefault(region, []).append(of_region)
    means = {name: {region: fmean(found) for region, found in of.items()} for name, of in values.items()}
    return SuiteReport(
        run_id=run_id, name=name, regions=regions, predictions=tuple(predictions), mean_nats=means, items=items
    )
