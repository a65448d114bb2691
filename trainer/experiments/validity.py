"""Validity checks of an experiment: is the relation of the languages in the numbers, and only where it should be?"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import fsum
from typing import Literal, NamedTuple

from trainer.contracts.base import changed
from trainer.contracts.experiments import CheckName, Gap, TextKind, TreeJoin, Validity, ValidityCheck
from trainer.contracts.units import Unit, loss_number


def average_linkage(languages: Sequence[str], distances: Mapping[tuple[str, str], float]) -> tuple[TreeJoin, ...]:
    """Return the joins of the tree, from the closest to the last; at least two languages."""
    clusters: list[tuple[str, ...]] = [(language,) for language in languages]
    joins: list[TreeJoin] = []
    while len(clusters) > 1:
        possible = [_join(left, right, distances) for left, right in combinations(clusters, 2)]
        lowest = min(join.height for join in possible)
        join = next(join for join in possible if join.height == lowest)
        clusters = [cluster for cluster in clusters if cluster not in (join.left, join.right)]
        clusters.append(join.left + join.right)
        joins.append(join)
    return tuple(joins)


def _join(left: tuple[str, ...], right: tuple[str, ...], distances: Mapping[tuple[str, str], float]) -> TreeJoin:
    """Return the join of two clusters at the mean distance of their languages."""
    between = [distances[a, b] for a in left for b in right]
    return TreeJoin(left=left, right=right, height=fsum(between) / len(between))


def joins_first(tree: Sequence[TreeJoin], groups: Iterable[Iterable[str]]) -> bool:
    """Return True if the languages of each group join each other before any other language joins them."""
    clusters = {frozenset(join.left + join.right) for join in tree}
    return all(frozenset(group) in clusters for group in groups)


_GAP = (
    "The mean distance is {within} {unit} within branches and {across} across branches: a gap of {gap}, which should be"
    " above 0. The tree {joins} the languages of each branch first."
)
CHECK_SENTENCES: Mapping[CheckName, str] = {
    "passages": _GAP,
    "held_out": _GAP,
    "shuffled": "With shuffled characters the gap is {gap} {unit}; it should be below half of the {held_out} of the"
    " held-out text.",
    "control": "The smallest distance of a control is {nearest} {unit} ({control}); it should be above the mean"
    " distance across branches, {across}.",
}
JOINS = ("does not join", "joins")
"""For a tree that does not join, and one that joins, the languages of each branch first."""
Distances = Mapping[tuple[str, str], float]
"""Symmetric distances, for both orders of each pair of languages."""


class Family(NamedTuple):
    """The languages that the checks compare: branch by language, and the unrelated languages."""

    branches: Mapping[str, str]
    """Without the controls."""
    controls: Sequence[str]

    def groups(self) -> list[list[str]]:
        """Return the languages of each branch that has at least two."""
        members = {branch: [a for a, of in self.branches.items() if of == branch] for branch in self.branches.values()}
        return [languages for languages in members.values() if len(languages) > 1]


class Measured(NamedTuple):
    """The distances of a kind of text, and its tree."""

    distances: Distances
    tree: Sequence[TreeJoin]


def gap(distances: Distances, family: Family) -> Gap | None:
    """Return the mean distance within and across branches; None without pairs of both kinds."""
    within: list[float] = []
    across: list[float] = []
    for a, b in combinations(family.branches, 2):
        (within if family.branches[a] == family.branches[b] else across).append(distances[a, b])
    if not within or not across:
        return None
    mean_within, mean_across = sum(within) / len(within), sum(across) / len(across)
    return Gap(
        within=mean_within,
        across=mean_across,
        gap=mean_across - mean_within,
        control_distances={
            control: min(nats for (a, b), nats in distances.items() if a == control and b not in family.controls)
            for control in family.controls
        },
    )


def validity(measured: Mapping[TextKind, Measured], headline: TextKind, family: Family) -> Validity:
    """Return the checks for which there are texts and languages."""
    gaps = {kind: found for kind, (distances, _) in measured.items() if (found := gap(distances, family)) is not None}
    checks: list[ValidityCheck] = []
    kinds: tuple[Literal["passages", "held_out"], ...] = ("passages", "held_out")
    for kind in kinds:
        if kind in gaps:
            joins = joins_first(measured[kind].tree, family.groups())
            checks.append(_gap_check(kind, gaps[kind], joins_branches_first=joins))
    if "shuffled" in gaps and "held_out" in gaps:
        checks.append(_shuffled_check(gaps["shuffled"], gaps["held_out"]))
    if headline in gaps and family.controls:
        checks.append(_control_check(gaps[headline]))
    return Validity(passed=all(check.passed for check in checks) if checks else None, checks=tuple(checks))


def _gap_check(name: Literal["passages", "held_out"], found: Gap, *, joins_branches_first: bool) -> ValidityCheck:
    passed = found.gap > 0 and joins_branches_first
    return _worded(
        ValidityCheck(name=name, passed=passed, message="", gap=found, joins_branches_first=joins_branches_first)
    )


def _shuffled_check(shuffled: Gap, held_out: Gap) -> ValidityCheck:
    passed = shuffled.gap < held_out.gap / 2
    return _worded(ValidityCheck(name="shuffled", passed=passed, message="", gap=shuffled), held_out)


def _control_check(found: Gap) -> ValidityCheck:
    passed = min(found.control_distances.values()) > found.across
    return _worded(ValidityCheck(name="control", passed=passed, message="", gap=found))


def _worded(check: ValidityCheck, held_out: Gap | None = None) -> ValidityCheck:
    return changed(check, message=message_of(check, held_out, "nats"))


def message_of(check: ValidityCheck, held_out: Gap | None, unit: Unit) -> str:
    """Return the sentence of a check with its distances in a unit; `held_out` is the gap of the held-out text."""
    found = check.gap
    if found is None:
        return check.message
    distances = found.control_distances
    control = min(distances, key=distances.__getitem__, default="")
    numbers = {"within": found.within, "across": found.across, "gap": found.gap, "nearest": distances.get(control, 0.0)}
    return CHECK_SENTENCES[check.name].format(
        unit=unit,
        control=control,
        joins=JOINS[check.joins_branches_first is True],
        held_out="gap" if held_out is None else loss_number(held_out.gap, unit),
        **{name: loss_number(nats, unit) for name, nats in numbers.items()},
    )
