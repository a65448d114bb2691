"""Minimal pairs: the less surprising of two sentences, and how often it is the first one."""

from collections.abc import Iterable, Sequence
from math import sqrt
from typing import Literal, NamedTuple

from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.errors import AppError, ErrorCode

TIE_NATS = 1e-4
"""Sums that differ by less are a tie: scores are not more exact."""
_Z = 1.959963984540054  # of the normal distribution: 95 % are within so many standard deviations


class Pair(NamedTuple):
    """Two sentences, of which the first should be less surprising, and their group."""

    line: int
    first: str
    second: str
    group: str | None


class ScoredPair(Frozen):
    """A pair with the surprisals of its sentences."""

    line: int
    group: str | None
    first_nats: float
    second_nats: float
    less_surprising: Literal["first", "second", "tie"]


class PairAccuracy(Frozen):
    """The share of pairs whose first sentence is less surprising; a tie counts half."""

    group: str | None
    n_pairs: int
    n_ties: int
    accuracy: float
    low: float
    """The lower end of the 95 % interval of Wilson (1927)."""
    high: float


class PairReport(Frozen):
    """The pairs of a file, and their accuracy."""

    run_id: Identifier
    overall: PairAccuracy
    groups: tuple[PairAccuracy, ...]
    """In the order of the file; empty if no pair has a group."""
    pairs: tuple[ScoredPair, ...]


def read_pair(number: int, line: str) -> Pair | None:
    """Read a line of two or three columns between tabs. Returns None for a blank line; raises INVALID_INPUT."""
    if not line.strip():
        return None
    cells = [cell.strip() for cell in line.split("\t")]
    if len(cells) not in (2, 3) or not all(cells):
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"Line {number:,} is no pair: write two sentences separated by a tab, and optionally another tab and the"
            " name of a group.",
        )
    return Pair(number, cells[0], cells[1], cells[2] if len(cells) == 3 else None)


def scored_pair(pair: Pair, first_nats: float, second_nats: float) -> ScoredPair:
    difference = second_nats - first_nats
    return ScoredPair(
        line=pair.line,
        group=pair.group,
        first_nats=first_nats,
        second_nats=second_nats,
        less_surprising="tie" if abs(difference) < TIE_NATS else "first" if difference > 0 else "second",
    )


def pair_report(run_id: str, pairs: Sequence[ScoredPair]) -> PairReport:
    """Summarize pairs, at least one, in total and by group."""
    groups: dict[str, list[ScoredPair]] = {}
    for pair in pairs:
        if pair.group is not None:
            groups.setdefault(pair.group, []).append(pair)
    return PairReport(
        run_id=run_id,
        overall=_accuracy(None, pairs),
        groups=tuple(_accuracy(group, of_group) for group, of_group in groups.items()),
        pairs=tuple(pairs),
    )


def _accuracy(group: str | None, pairs: Iterable[ScoredPair]) -> PairAccuracy:
    chosen = [pair.less_surprising for pair in pairs]
    accuracy = (chosen.count("first") + chosen.count("tie") / 2) / len(chosen)
    low, high = wilson_interval(accuracy, len(chosen))
    return PairAccuracy(
        group=group, n_pairs=len(chosen), n_ties=chosen.count("tie"), accuracy=accuracy, low=low, high=high
    )


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share of `count` trials (Wilson 1927)."""
    z_squared = _Z * _Z / count
    middle = (share + z_squared / 2) / (1 + z_squared)
    half = _Z / (1 + z_squared) * sqrt(share * (1 - share) / count + z_squared / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)
