"""Plan of a search: its variants, its rounds by successive halving, and the request of a trial.

Half of the variants of a round go on to the next one, which trains them anew for twice as many steps; the last two are
trained for half of the steps of the training (Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943).
"""

import math
from typing import NamedTuple

from trainer.config.validation import parse, set_path
from trainer.contracts.base import changed
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.search import Search, Variant
from trainer.contracts.training_options import EarlyStopping

_RATE_FACTOR = 3.0
"""Variants have rates from a third of the usual one to three times as much."""
_DROPOUT_RANGE, _MAX_DROPOUT = 0.2, 0.7
_STRIDES = {1: (0.6180339887498949,), 2: (0.7548776662466927, 0.5698402909980532)}
"""Multiples of these lie evenly on a line or in a square, however many are taken (Roberts 2018, the R sequences)."""
_LAST_SHARE = 0.5
_NOT_OF_TRIALS: dict[str, object] = {
    "search": None,
    "searched": (),
    "early_stopping": EarlyStopping(),
    "checkpoint_schedule": None,
    "sample_every_steps": None,
}


class Round(NamedTuple):
    """A round of a search: its number from 1, how many variants it trains, and their share of a training's steps."""

    number: int
    variants: int
    share: float

    def steps(self, total_steps: int) -> int:
        """Return the steps of each trial."""
        return max(1, round(self.share * total_steps))


def rounds(variants: int) -> list[Round]:
    """Return the rounds of a search in which half of the variants go on, until two are left."""
    counts = [variants]
    while counts[-1] > 2:
        counts.append(math.ceil(counts[-1] / 2))
    last = len(counts)
    return [Round(number, count, _LAST_SHARE / (1 << last - number)) for number, count in enumerate(counts, 1)]


def search_share(effective: EffectiveRequest) -> float:
    """Return the steps of a request's search as a share of those of its training."""
    if effective.search is None:
        return 0.0
    return sum(each.variants * each.share for each in rounds(effective.search))


def variants(effective: EffectiveRequest) -> list[Variant]:
    """Return the variants of a request that has a search; the first one has the values of the request."""
    rate, dropout = effective.learning_rate, _dropout(effective)
    low, high = max(0.0, (dropout or 0.0) - _DROPOUT_RANGE), min(_MAX_DROPOUT, (dropout or 0.0) + _DROPOUT_RANGE)
    varies_rate = "learning_rate" in effective.searched
    strides = _STRIDES[varies_rate + (dropout is not None)]
    found = [Variant(number=1, learning_rate=rate, dropout=dropout)]
    for number in range(2, (effective.search or 1) + 1):
        point = [(0.5 + stride * (number - 1)) % 1 for stride in strides]
        tried = min(1.0, rate * math.pow(_RATE_FACTOR, 2 * point[0] - 1))
        found.append(
            Variant(
                number=number,
                learning_rate=float(f"{tried:.3g}") if varies_rate else rate,
                dropout=None if dropout is None else round(low + point[-1] * (high - low), 3),
            )
        )
    return found


def _dropout(effective: EffectiveRequest) -> float | None:
    """Return the dropout that a search varies; None if it varies none."""
    values: dict[str, float] = effective.model.model_dump(include=set(effective.model.dropouts))
    found = [value for name, value in values.items() if f"model.{name}" in effective.searched]
    return found[0] if found else None


def of_variant(effective: EffectiveRequest, variant: Variant) -> EffectiveRequest:
    """Return the request with the values of a variant."""
    values: dict[str, object] = effective.model_dump()
    for field in effective.searched:
        set_path(values, field, variant.learning_rate if field == "learning_rate" else variant.dropout)
    return parse(EffectiveRequest, values)


def trial_request(effective: EffectiveRequest, variant: Variant, steps: int) -> EffectiveRequest:
    """Return the request of a trial: a variant that trains for some steps, with the schedule of its rate in them."""
    return changed(of_variant(effective, variant), max_steps=steps, **_NOT_OF_TRIALS)


def chosen_request(effective: EffectiveRequest, search: Search) -> EffectiveRequest:
    """Return the request with the values that an ended search has chosen."""
    best = search.best
    return effective if best is None else of_variant(effective, best)


def left_in(each: Round, plan: list[Variant], search: Search) -> list[Variant]:
    """Return the variants that a round trains: all of the plan in the first, then the best of the round before."""
    if each.number == 1:
        return plan
    kept = {trial.number for trial in search.ranked(each.number - 1)[: each.variants]}
    return [variant for variant in plan if variant.number in kept]
