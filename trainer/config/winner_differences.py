"""Differences of a study's winner from the other finalists, as careful as its choice asks for.

The winner is the best of its finalists on the lines and seeds that judge it, so each pair of finalists might have been
compared. The p of a difference is adjusted for all pairs (Holm 1979): by chance alone, one of several equal settings is
then clearly better than any other in at most 5 % of the studies.

Few seeds say little of the variance over seeds: it is the larger one of that of the pair, and of that of all pairs
together, which has the degrees of freedom of an analysis of variance of finalists by seeds.
"""

import math
from collections.abc import Collection, Mapping
from itertools import combinations
from statistics import fmean

from trainer.contracts.intervals import LineLosses, LossDifference, StandardError, holm, loss_difference, together
from trainer.contracts.studies import SMALLEST_DIFFERENCE, WinnerDifference


def winner_differences(
    losses: Mapping[int, Mapping[int, LineLosses]], winner: int, *, per_char: bool
) -> dict[int, WinnerDifference]:
    """Return the mean loss of the winner minus that of each other finalist, by number.

    `losses` has the validation losses of each finalist by seed. In nats per token, or bits per character.
    """
    pairs = {
        (first, second): loss_difference(losses[first], losses[second], per_char=per_char)
        for first, second in combinations(losses, 2)
    }
    pooled = _pooled([*pairs.values()], len(losses))
    known = {pair: error for pair, one in pairs.items() if (error := _error(one, pooled)) is not None}
    p_values = [
        1.0 if abs(pairs[pair].value) < SMALLEST_DIFFERENCE else error.p(pairs[pair].value)
        for pair, error in known.items()
    ]
    adjusted = dict(zip(known, holm(p_values), strict=True))
    found: dict[int, WinnerDifference] = {}
    for (first, second), one in pairs.items():
        if winner in (first, second):
            value = one.value if first == winner else -one.value
            error = known.get((first, second))
            half = None if error is None else error.margin
            found[second if first == winner else first] = WinnerDifference(
                value=value,
                low=None if half is None else value - half,
                high=None if half is None else value + half,
                p=adjusted.get((first, second)),
            )
    return found


def _pooled(pairs: Collection[LossDifference], n_finalists: int) -> StandardError | None:
    """Return the standard error over seeds of all pairs together; None if some pairs have other seeds than others."""
    errors = [one.seeds.error for one in pairs if one.seeds is not None and one.seeds.method == "paired"]
    degrees = {one.degrees for one in errors}
    if len(errors) < len(pairs) or len(degrees) != 1:
        return None
    return StandardError(math.sqrt(fmean(one.value**2 for one in errors)), (n_finalists - 1) * degrees.pop())


def _error(one: LossDifference, pooled: StandardError | None) -> StandardError | None:
    """Return the error of a difference; None with one seed or too few lines, and where nothing varies."""
    if one.error is None or one.lines is None or one.seeds is None:
        return None
    return together(one.lines, max(one.seeds.error, pooled or one.seeds.error))
