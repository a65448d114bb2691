"""Minimal pairs: the less surprising of two sentences, and how often it is the first one."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Literal, NamedTuple, get_args

from trainer.contracts.base import Frozen, Identifier, changed
from trainer.contracts.sequences import SequenceScore

TIE_NATS = 1e-4
"""Figures that differ by less are a tie: scores are not more exact."""
_Z = 1.959963984540054  # of the normal distribution: 95 % are within so many standard deviations

Measure = Literal["sum", "token", "char", "byte"]
"""The divisor of a sentence's surprisal: 1, or its number of tokens, characters or bytes."""
MEASURES: tuple[Measure, ...] = get_args(Measure)
Choice = Literal["first", "second", "tie"]


class Pair(NamedTuple):
    """Two sentences, of which the first should be less surprising, and their group."""

    line: int
    first: str
    second: str
    group: str | None
    context: str = ""
    """Text before both sentences, which is given and not scored."""


class ScoredPair(Frozen):
    """A pair with the scores of its sentences; by each measure, the sentence with fewer nats is the choice."""

    line: int
    group: str | None
    first: SequenceScore
    second: SequenceScore
    choices: Mapping[Measure, Choice]
    is_identical: bool


class Accuracy(Frozen):
    """The share of pairs whose first sentence is less surprising, of those that are no tie."""

    measure: Measure
    n_right: int
    n_wrong: int
    n_ties: int
    accuracy: float | None = None
    """None if all pairs are ties, as are the limits of the interval."""
    low: float | None = None
    """The lower end of the 95 % interval of Wilson (1927)."""
    high: float | None = None


class PairGroup(Frozen):
    """The pairs of a group, and their accuracy by every measure."""

    group: str | None
    n_pairs: int
    n_identical: int
    """Pairs of two equal sentences, which are always a tie."""
    n_unknown: int
    """Pairs with an unknown token in a sentence."""
    n_cut: int
    """Pairs with a sentence that is longer than the model's context."""
    accuracies: tuple[Accuracy, ...]


class PairReport(Frozen):
    """The pairs of a file, and their accuracy."""

    run_id: Identifier
    overall: PairGroup
    groups: tuple[PairGroup, ...]
    """In the order of the file; empty if no pair has a group."""
    mean_over_groups: float | None = None
    """The mean of the groups' accuracies by sum, as BLiMP's authors report it; None without groups."""
    pairs: tuple[ScoredPair, ...]


def scored_pair(pair: Pair, first: SequenceScore, second: SequenceScore) -> ScoredPair:
    """Compare the scores of two sentences, each of at least one token."""
    return ScoredPair(
        line=pair.line,
        group=pair.group,
        first=first,
        second=second,
        choices={measure: _choice(_figure(first, measure), _figure(second, measure)) for measure in MEASURES},
        is_identical=pair.first == pair.second,
    )


def _figure(score: SequenceScore, measure: Measure) -> float:
    units = {"sum": 1, "token": score.n_tokens, "char": score.n_chars, "byte": score.n_bytes}
    return score.nats / units[measure]


def _choice(first: float, second: float) -> Choice:
    if abs(second - first) < TIE_NATS:
        return "tie"
    return "first" if first < second else "second"


def pair_report(run_id: str, pairs: Sequence[ScoredPair]) -> PairReport:
    """Summarize pairs, at least one, in total and by group."""
    by_group: dict[str, list[ScoredPair]] = {}
    for pair in pairs:
        if pair.group is not None:
            by_group.setdefault(pair.group, []).append(pair)
    groups = tuple(_group(group, of_group) for group, of_group in by_group.items())
    sums = [one.accuracy for group in groups for one in group.accuracies[:1] if one.accuracy is not None]
    return PairReport(
        run_id=run_id,
        overall=_group(None, pairs),
        groups=groups,
        mean_over_groups=sum(sums) / len(sums) if sums else None,
        pairs=tuple(pairs),
    )


def _group(group: str | None, pairs: Sequence[ScoredPair]) -> PairGroup:
    return PairGroup(
        group=group,
        n_pairs=len(pairs),
        n_identical=sum(pair.is_identical for pair in pairs),
        n_unknown=sum(pair.first.unk_count + pair.second.unk_count > 0 for pair in pairs),
        n_cut=sum(pair.first.is_cut or pair.second.is_cut for pair in pairs),
        accuracies=tuple(_accuracy(measure, pairs) for measure in MEASURES),
    )


def _accuracy(measure: Measure, pairs: Sequence[ScoredPair]) -> Accuracy:
    choices = [pair.choices[measure] for pair in pairs]
    right, wrong = choices.count("first"), choices.count("second")
    accuracy = Accuracy(measure=measure, n_right=right, n_wrong=wrong, n_ties=choices.count("tie"))
    if not right + wrong:
        return accuracy
    share = right / (right + wrong)
    low, high = wilson_interval(share, right + wrong)
    return changed(accuracy, accuracy=share, low=low, high=high)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share of `count` trials (Wilson 1927)."""
    z_squared = _Z * _Z / count
    middle = (share + z_squared / 2) / (1 + z_squared)
    half = _Z / (1 + z_squared) * sqrt(share * (1 - share) / count + z_squared / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)
