"""Outcomes of items: the least surprising of several sequences is the first, or all formulas hold."""

from collections.abc import Mapping, Sequence
from math import sqrt

from trainer.batteries.formulas import Formula, Values
from trainer.contracts.base import changed
from trainer.contracts.batteries import MEASURES, TIE_NATS, Accuracy, BatteryItem, Measure, Outcome
from trainer.contracts.intervals import Interval
from trainer.contracts.sequences import SequenceScore

Z = 1.959963984540054  # of the normal distribution: 95 % are within so many standard deviations

Outcomes = Mapping[Measure, Outcome]


def outcomes_of(item: BatteryItem, scores: Sequence[SequenceScore], formulas: Sequence[Formula] = ()) -> Outcomes:
    """Return the outcome of an item by each measure.

    Formulas compare sums, so an item of conditions has one outcome, and without formulas none. It is a tie if a formula
    is undecided and none is false. An item with two equal sequences is a tie, as is one that needs a figure per token
    where the tokenizer has none.
    """
    if item.conditions:
        if not formulas:
            return {}
        values = values_of(item, scores)
        truths = [formula.truth(values) for formula in formulas]
        return {"sum": "wrong" if False in truths else "tie" if None in truths else "right"}
    has_ends = all(score.end_nats is not None for score in scores)
    return {measure: _outcome(scores, measure) for measure in MEASURES if measure != "end" or has_ends}


def values_of(item: BatteryItem, scores: Sequence[SequenceScore]) -> Values:
    """Return the surprisals of the regions by condition and number."""
    named = zip(item.conditions, item.regions, scores, strict=True)
    return {
        condition: {region: nats or 0.0 for region, nats in zip(regions, score.part_nats, strict=True)}
        for condition, regions, score in named
    }


def _outcome(scores: Sequence[SequenceScore], measure: Measure) -> Outcome:
    divisors = [_divisor(score, measure) for score in scores]
    nats = [score.nats + (score.end_nats or 0.0 if measure == "end" else 0.0) for score in scores]
    first, *others = (one / divisor for one, divisor in zip(nats, divisors, strict=True))
    margin = (min(others) - first) * max(divisors)
    if abs(margin) < TIE_NATS:
        return "tie"
    return "right" if margin > 0 else "wrong"


def _divisor(score: SequenceScore, measure: Measure) -> int:
    counts: Mapping[Measure, int] = {"token": score.n_tokens, "char": score.n_chars, "byte": score.n_bytes}
    return counts.get(measure) or 1


def accuracy_of(measure: Measure, outcomes: Sequence[Outcome]) -> Accuracy:
    """Return the share of right outcomes among those that are no tie."""
    right, wrong = outcomes.count("right"), outcomes.count("wrong")
    accuracy = Accuracy(measure=measure, n_right=right, n_wrong=wrong, n_ties=outcomes.count("tie"))
    if not right + wrong:
        return accuracy
    share = right / (right + wrong)
    interval = wilson_interval(share, right + wrong)
    return changed(accuracy, accuracy=share, low=interval.low, high=interval.high)


def wilson_interval(share: float, count: int) -> Interval:
    """Return the 95 % confidence interval of a share of `count` trials (Wilson 1927), which the share is in."""
    z_squared = Z * Z / count
    middle = (share + z_squared / 2) / (1 + z_squared)
    half = Z / (1 + z_squared) * sqrt(share * (1 - share) / count + z_squared / (4 * count))
    # rounding puts an end beyond a share of 0 or 1
    return Interval(low=min(share, max(0.0, middle - half)), high=max(share, min(1.0, middle + half)))
