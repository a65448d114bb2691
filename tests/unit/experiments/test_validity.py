"""The average-linkage tree by hand and against scipy, and the validity battery on distances by hand."""

from itertools import combinations, product
from math import log, sqrt

import pytest
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage

from tests.support.properties import for_all
from trainer.contracts.experiments import Gap, TextKind, ValidityCheck
from trainer.contracts.reports import TreeJoin
from trainer.experiments.validity import Family, Measured, average_linkage, gap, joins_first, validity
from trainer.reports.experiment_report import check_note
from trainer.reports.report_text import Reader

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
"""Their square roots keep means of different pairs apart."""


def both_orders(pairs: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return pairs | {(b, a): nats for (a, b), nats in pairs.items()}


def test_tree__joins_as_by_hand() -> None:
    distances = both_orders({("a", "b"): 2, ("a", "c"): 6, ("a", "d"): 10, ("b", "c"): 8, ("b", "d"): 9, ("c", "d"): 4})
    tree = average_linkage(["a", "b", "c", "d"], distances)
    assert tree == (
        TreeJoin(left=("a",), right=("b",), height=2.0),
        TreeJoin(left=("c",), right=("d",), height=4.0),
        TreeJoin(left=("a", "b"), right=("c", "d"), height=(6 + 10 + 8 + 9) / 4),
    )
    assert joins_first(tree, [["a", "b"], ["d", "c"]])
    assert not joins_first(tree, [["a", "b"], ["b", "c"]])


@for_all(st.lists(st.integers(min_value=-1000, max_value=1000), min_size=10, max_size=10, unique=True))
def test_tree__equals_scipy(nats: list[int]) -> None:
    triples = zip(combinations("abcde", 2), nats, PRIMES, strict=True)
    condensed = {pair: 1100 + number + sqrt(prime) for pair, number, prime in triples}
    clusters = [{language} for language in "abcde"]
    joined: list[list[float]] = linkage([*condensed.values()], method="average").tolist()
    tree = average_linkage(list("abcde"), both_orders(condensed))
    for join, (left, right, height, _) in zip(tree, joined, strict=True):
        assert (set(join.left), set(join.right)) == (clusters[int(left)], clusters[int(right)])
        assert join.height == pytest.approx(height, abs=1e-9)
        clusters.append(clusters[int(left)] | clusters[int(right)])


LANGUAGES = ["az", "tr", "kk", "ky", "fi", "xx"]
FAMILY = Family({"az": "oghuz", "tr": "oghuz", "kk": "kipchak", "ky": "kipchak"}, ["fi"])


def measured(within: float, across: float, control: float) -> Measured:
    """Distances of two branches, a control, and a language without a branch in the far."""
    branch_of = FAMILY.branches.get
    distances: dict[tuple[str, str], float] = {}
    for a, b in product(LANGUAGES, LANGUAGES):
        near = within if branch_of(a) == branch_of(b) else across
        distances[a, b] = 0.0 if a == b else 9.0 if "xx" in (a, b) else control if "fi" in (a, b) else near
    return Measured(distances, average_linkage(LANGUAGES, distances))


def test_gap__is_the_difference_of_means_without_controls() -> None:
    distances = {**measured(0.5, 1.0, 2.0).distances, ("az", "tr"): 0.25, ("kk", "tr"): 1.5, ("tr", "kk"): 1.5}
    distances["fi", "ky"] = 1.75
    assert gap(distances, FAMILY) == Gap(
        within=(0.25 + 0.5) / 2, across=(1.0 + 1.0 + 1.5 + 1.0) / 4, gap=0.75, control_distances={"fi": 1.75}
    )


def test_gap__needs_pairs_within_and_across() -> None:
    branches: list[dict[str, str]] = [{}, {"az": "oghuz"}, {"az": "oghuz", "tr": "oghuz"}]
    for of_languages in [*branches, {"az": "oghuz", "kk": "kipchak"}]:
        family = Family(of_languages, ["fi"])
        assert gap(measured(1, 2, 3).distances, family) is None
        assert validity({"held_out": measured(1, 2, 3)}, "held_out", family).passed is None


def checks(measured_by_kind: dict[TextKind, Measured], headline: TextKind) -> dict[str, ValidityCheck]:
    found = validity(measured_by_kind, headline, FAMILY)
    assert found.passed == all(check.passed for check in found.checks)
    return {check.name: check for check in found.checks}


def test_validity__passes_where_the_family_is_in_the_numbers() -> None:
    kinds: dict[TextKind, Measured] = {"passages": measured(0.4, 0.9, 1.2), "shuffled": measured(0.5, 0.7, 0.1)}
    kinds["held_out"] = measured(0.5, 1.0, 0.2)  # controls count on the headline kind only
    found = checks(kinds, "passages")
    assert list(found) == ["passages", "held_out", "shuffled", "control"]
    assert [check.passed for check in found.values()] == [True, False, True, True]
    assert [check.joins_branches_first for check in found.values()] == [True, False, None, None]
    assert found["passages"].message == (
        "The mean distance is 0.400 nats within branches and 0.900 across branches: a gap of 0.500, which should be"
        " above 0. The tree joins the languages of each branch first."
    )
    assert found["shuffled"].message == (
        "With shuffled characters the gap is 0.200 nats; it should be below half of the 0.500 of the held-out text."
    )
    assert found["control"].message == (
        "The smallest distance of a control is 1.200 nats (fi);"
        " it should be above the mean distance across branches, 0.900."
    )
    reader, all_checks = Reader("bits"), [*found.values()]
    in_bits = {name: reader.note(check_note(check, all_checks)) for name, check in found.items()}
    shuffled, bound, nearest = (f"{nats / log(2):.3f}" for nats in (0.2, 0.5, 1.2))
    assert f"gap is {shuffled} bits; it should be below half of the {bound} of" in in_bits["shuffled"]
    assert f"of a control is {nearest} bits (fi)" in in_bits["control"] and "0.577 bits within" in in_bits["passages"]
    assert not any("nats" in message for message in in_bits.values())


def test_validity__fails_where_it_is_not() -> None:
    found = checks({"held_out": measured(1.0, 0.9, 0.8), "shuffled": measured(0.5, 0.6, 0.7)}, "held_out")
    assert {name: check.passed for name, check in found.items()} == dict.fromkeys(found, False)
    assert list(found) == ["held_out", "shuffled", "control"]
    assert "does not join" in found["held_out"].message


def test_validity__of_a_positive_gap_needs_the_tree_and_no_controls() -> None:
    distances = {**measured(0.5, 1.0, 2.0).distances, ("az", "kk"): 0.1, ("kk", "az"): 0.1}
    tree = average_linkage(LANGUAGES, distances)
    [passages, _] = validity({"passages": Measured(distances, tree)}, "passages", FAMILY).checks
    assert tree[0] == TreeJoin(left=("az",), right=("kk",), height=0.1)
    assert passages.gap.gap > 0 and not passages.passed
    without_controls = validity({"shuffled": measured(1, 2, 3)}, "shuffled", Family(FAMILY.branches, []))
    assert (without_controls.passed, without_controls.checks) == (None, ())
