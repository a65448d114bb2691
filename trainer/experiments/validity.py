"""Validity checks of an experiment: is the relation of the languages in the numbers, and only where it should be?"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import fsum
from typing import Literal, NamedTuple

from trainer.contracts.base import changed
from trainer.contracts.experiments import Gap, TextKind, Validity, ValidityCheck
from trainer.contracts.reports import TreeJoin
from trainer.reports.experiment_report import check_note
from trainer.reports.report_text import ENGLISH


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
            found, joins = gaps[kind], joins_first(measured[kind].tree, family.groups())
            passed = found.gap > 0 and joins
            checks.append(ValidityCheck(name=kind, passed=passed, message="", gap=found, joins_branches_first=joins))
    if "shuffled" in gaps and "held_out" in gaps:
        passed = gaps["shuffled"].gap < gaps["held_out"].gap / 2
        checks.append(ValidityCheck(name="shuffled", passed=passed, message="", gap=gaps["shuffled"]))
    if headline in gaps and family.controls:
        passed = min(gaps[headline].control_distances.values()) > gaps[headline].across
        checks.append(ValidityCheck(name="control", passed=passed, message="", gap=gaps[headline]))
    worded = [changed(check, message=ENGLISH.note(check_note(check, checks))) for check in checks]
    return Validity(passed=all(check.passed for check in checks) if checks else None, checks=tuple(worded))
