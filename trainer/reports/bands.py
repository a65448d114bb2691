"""The band of the loss curves of several runs: mean and range over the steps that all of them have come to."""

from bisect import bisect_left
from collections.abc import Sequence
from operator import itemgetter
from statistics import fmean
from typing import NamedTuple

from trainer.reports.score_table import Curve


class Band(NamedTuple):
    """Curves over the same steps."""

    mean: Curve
    low: Curve
    high: Curve


def band_of(curves: Sequence[Curve]) -> Band:
    """Return mean, minimum and maximum of curves at the steps of any of them, as far as all of them reach.

    Between two steps, a curve is a straight line. The band is empty if the curves share no range of steps.
    """
    known = [curve for curve in curves if curve]
    begin = max((curve[0][0] for curve in known), default=0)
    end = min((curve[-1][0] for curve in known), default=-1)
    steps = sorted({step for curve in known for step, _ in curve if begin <= step <= end})
    values = {step: [_loss_at(curve, step) for curve in known] for step in steps}
    return Band(
        mean=[(step, fmean(losses)) for step, losses in values.items()],
        low=[(step, min(losses)) for step, losses in values.items()],
        high=[(step, max(losses)) for step, losses in values.items()],
    )


def _loss_at(curve: Curve, step: int) -> float:
    """Return the loss at a step that is not outside of the curve."""
    place = bisect_left(curve, step, key=itemgetter(0))
    after, loss = curve[place]
    if after == step:
        return loss
    before, earlier = curve[place - 1]
    return earlier + (loss - earlier) * (step - before) / (after - before)
