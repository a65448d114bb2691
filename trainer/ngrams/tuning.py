"""Discounts that predict a text best.

The probability of a target is linear in the discounts of each order, so its loss is convex in them. Newton steps go
through the orders in turn, from the highest on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trainer.ngrams.kneser_ney import MIN_PROBABILITY, ContextSums, Discounts, Floats, TargetCounts, Targets

_LEAST = 0.01
"""Least discount, with which each context leaves something for tokens that did not follow it."""
_MOST = (1.0, 2.0, 3.0)
"""Largest discounts, with which no count falls below 0."""
_MAX_ROUNDS = 20
_MIN_GAIN_NATS = 1e-5
"""Gain per target of the last round."""
_DIGITS = 6
"""Decimal digits of a discount: later ones depend on the machine."""
_STEP_SHARES = (1.0, 0.5, 0.25, 0.125)


def tuned_discounts(targets: Targets, given: tuple[Discounts, ...]) -> tuple[Discounts, ...]:
    """Return the discounts with the lowest loss of targets, or the given ones where these are the better choice.

    Tuned discounts are better if they win on text that they do not know: those of each half of the targets have, on the
    other half, a lower loss than the given ones.
    """
    middle = len(targets.uniform) // 2
    first, second = _cut(targets, 0, middle), _cut(targets, middle, len(targets.uniform))
    loss_nats = _loss(first, _minimum(second, given)) + _loss(second, _minimum(first, given))
    return _minimum(targets, given) if loss_nats < _loss(targets, given) else given


class _Point(NamedTuple):
    """A discount, with the probabilities of the targets (T,) and their loss."""

    discount: float
    probabilities: Floats
    loss_nats: float


def _minimum(targets: Targets, given: Sequence[Discounts]) -> tuple[Discounts, ...]:
    """Return discounts with about the lowest loss of targets, found from the given ones."""
    discounts = list(given)
    for _ in range(_MAX_ROUNDS):
        *lower, probabilities = targets.probabilities(discounts)
        loss_nats = before = _sum_nats(probabilities)
        weights: Floats = np.ones(len(probabilities))
        for order in range(len(discounts) - 1, -1, -1):
            _, slopes = targets.orders[order].linear(lower[order])
            slopes *= weights[:, np.newaxis]
            found: list[float] = []
            for kind, most in enumerate(_MOST):
                start = _Point(discounts[order][kind], probabilities, loss_nats)
                discount, probabilities, loss_nats = _step(start, slopes[:, kind].copy(), most)
                found.append(discount)
            discounts[order] = found[0], found[1], found[2]
            weights *= targets.orders[order].sums.lower_shares(discounts[order])
        if before - loss_nats < _MIN_GAIN_NATS * len(probabilities):
            break
    return tuple(discounts)


def _step(start: _Point, slopes: Floats, most: float) -> _Point:
    """Return the point after a Newton step, the longest of some that lowers the loss; or the start.

    The slopes (T,) are those of the probabilities over the discount.
    """
    relative: Floats = slopes / np.maximum(start.probabilities, MIN_PROBABILITY)
    squares: Floats = np.square(relative)
    curvature = float(np.sum(squares))
    if not curvature:
        return start
    step = float(np.sum(relative)) / curvature
    for share in _STEP_SHARES:
        discount = round(min(max(start.discount + share * step, _LEAST), most), _DIGITS)
        probabilities: Floats = start.probabilities + (discount - start.discount) * slopes
        loss_nats = _sum_nats(probabilities)
        if loss_nats < start.loss_nats:
            return _Point(discount, probabilities, loss_nats)
    return start


def _loss(targets: Targets, discounts: Sequence[Discounts]) -> float:
    return _sum_nats(targets.probabilities(discounts)[-1])


def _sum_nats(probabilities: Floats) -> float:
    logarithms: Floats = np.log(np.maximum(probabilities, MIN_PROBABILITY))
    return -float(np.sum(logarithms))


def _cut(targets: Targets, begin: int, end: int) -> Targets:
    orders: list[TargetCounts] = []
    for counts, (totals, kinds) in targets.orders:
        orders.append(TargetCounts(counts[begin:end], ContextSums(totals[begin:end], kinds[begin:end])))
    return Targets(targets.uniform[begin:end], tuple(orders))
