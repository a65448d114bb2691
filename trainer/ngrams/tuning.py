"""Discounts that predict a text best.

The probability of a target is linear in the discounts of each order, so its loss is convex in them. Newton steps go
through the orders in turn, from the highest on.
"""

from collections.abc import Sequence

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


def _minimum(targets: Targets, given: Sequence[Discounts]) -> tuple[Discounts, ...]:
    """Return discounts with about the lowest loss of targets, found from the given ones."""
    discounts = list(given)
    loss_nats = _loss(targets, discounts)
    for _ in range(_MAX_ROUNDS):
        *lower, probabilities = targets.probabilities(discounts)
        weights: Floats = np.ones(len(probabilities))
        for order in range(len(discounts) - 1, -1, -1):
            _, slopes = targets.orders[order].linear(lower[order])
            slopes *= weights[:, np.newaxis]
            found = list(discounts[order])
            for kind, most in enumerate(_MOST):
                slopes_of_kind: Floats = slopes[:, kind]
                moved = _step(found[kind], most, probabilities, slopes_of_kind)
                probabilities = probabilities + (moved - found[kind]) * slopes_of_kind
                found[kind] = moved
            discounts[order] = found[0], found[1], found[2]
            weights = weights * targets.orders[order].sums.lower_shares(discounts[order])
        gain_nats = loss_nats - _sum_nats(probabilities)
        loss_nats -= gain_nats
        if gain_nats < _MIN_GAIN_NATS * len(probabilities):
            break
    return tuple(discounts)


def _step(discount: float, most: float, probabilities: Floats, slopes: Floats) -> float:
    """Return a discount after a Newton step, the longest of some that lowers the loss; or the discount itself.

    The slopes (T,) are those of the probabilities (T,) over the discount.
    """
    at_least: Floats = np.maximum(probabilities, MIN_PROBABILITY)
    relative: Floats = slopes / at_least
    squares: Floats = np.square(relative)
    curvature = float(np.sum(squares))
    if not curvature:
        return discount
    loss_nats, step = _sum_nats(probabilities), float(np.sum(relative)) / curvature
    for share in _STEP_SHARES:
        moved = round(min(max(discount + share * step, _LEAST), most), _DIGITS)
        changed: Floats = probabilities + (moved - discount) * slopes
        if _sum_nats(changed) < loss_nats:
            return moved
    return discount


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
