"""Formulas of test suites, against a brute-force evaluation and the rules of SyntaxGym."""

import re
from random import Random

import pytest

from trainer.batteries.formulas import Reference, read_formula
from trainer.contracts.errors import AppError

VALUES = {"a": {1: 1.0, 2: 2.0}, "b-x": {1: 4.0, 2: 8.5}}


@pytest.mark.parametrize(
    ("formula", "holds"),
    [
        ("(1;%a%)<(2;%a%)", True),
        ("[(1;%a%) > (2;%a%)]", False),
        ("(*;%b-x%) = 12.5", True),
        ("(1;%a%) = 1.001", True),
        ("(1;%a%) = 1.0011", False),
        ("[(1;%a%) = 1] & [(2;%a%) = 3]", False),
        ("(1;%a%) = 1 & (2;%a%) = 3 | (1;%b-x%) = 4", True),
        ("(1;%b-x%) = 4 | (2;%a%) = 3 & (1;%a%) = 3", True),
        ("(2;%b-x%)-(1;%b-x%)+(2;%a%) = 2.5", True),  # a-b+c is a-(b+c)
        ("(2;%b-x%)-(1;%b-x%)-(2;%a%) = 2.5", True),
        ("[(2;%b-x%)-(1;%b-x%)]+( 2 ; %a% )>6.4", True),
        ("1 + 2 + 3 = 6.", True),
    ],
)
def test_formula__follows_the_rules_of_syntax_gym(formula: str, holds: bool) -> None:
    assert read_formula(formula).holds(VALUES) is holds


def test_formula__has_the_truth_of_a_brute_force_evaluation() -> None:
    random = Random(3)
    truths = set[bool]()
    for _ in range(300):
        values = {name: {region: random.uniform(-3, 3) for region in (1, 2, 3)} for name in "ab"}

        def number(depth: int, values: dict[str, dict[int, float]] = values) -> tuple[str, float]:
            if depth == 0:
                name, region = random.choice("ab"), random.choice((1, 2, 3))
                return f"({region};%{name}%)", values[name][region]
            (one, first), (other, second) = number(depth - 1), number(depth - 1)
            if random.random() < 0.5:
                return f"[{one} + {other}]", first + second
            return f"({one}-{other})", first - second

        def claim(depth: int) -> tuple[str, bool]:
            if depth == 0:
                (one, first), (other, second) = number(2), number(1)
                return (
                    (f"[{one} < {other}]", first < second)
                    if random.random() < 0.5
                    else (f"[{one}>{other}]", first > second)
                )
            (one, left), (other, right) = claim(depth - 1), claim(depth - 1)
            return (
                (f"[{one}&{other}]", left and right) if random.random() < 0.5 else (f"({one} | {other})", left or right)
            )

        text, truth = claim(2)
        assert read_formula(text).holds(values) is truth, text
        truths.add(truth)
    assert truths == {True, False}


def test_references__are_all_regions_that_a_formula_names() -> None:
    formula = read_formula("[(1;%a%) + (*;%b-x%)] > (2;%a%)")
    assert formula.references == (Reference(1, "a"), Reference(None, "b-x"), Reference(2, "a"))


def test_comparisons__have_the_differences_of_their_sides() -> None:
    formula = read_formula("[(1;%a%) - (2;%a%) < (1;%b-x%)] & ( (2;%b-x%) + 1 = 9.5 )")
    found = [(one.text, one.difference(VALUES)) for one in formula.comparisons]
    assert found == [("(1;%a%) - (2;%a%) < (1;%b-x%)", -5.0), ("(2;%b-x%) + 1 = 9.5", 0.0)]


@pytest.mark.parametrize(
    ("formula", "problem"),
    [
        ("", "a region is missing"),
        ("(1;%a%)", "a comparison is expected"),
        ("(1;%a%) <", "at character 10 a region is missing"),
        ("(1;%a%) < (2;%a%) (", "a comparison is expected"),
        ("[(1;%a%) < (2;%a%)", "']' is expected"),
        ("[(1;%a%) < (2;%a%)) & 1 < 2", "']' is expected"),
        ("(1;%a%) < > 2", "a region such as (1;%name%) is expected"),
        ("(1;%a) < 2", "something that is no part of a formula"),
        ("[1 < 2] + 3 > 2", "a number is expected"),
        ("3 + [1 < 2] > 2", "a number is expected"),
        ("3 - [1 < 2] > 2", "a number is expected"),
        ("[1 < 2] < 3", "a number is expected"),
        ("1 < [1 < 2]", "a number is expected"),
        ("1 & 1 < 2", "a comparison is expected"),
        ("1 < 2 | 3", "a comparison is expected"),
        ("(" * 5000 + "1 < 2" + ")" * 5000, "10,000 characters"),
        ("(" * 4000 + "1 < 2" + ")" * 4000, "too many brackets"),
    ],
)
def test_text_that_is_no_formula__is_refused_with_its_place(formula: str, problem: str) -> None:
    with pytest.raises(AppError, match=re.escape(problem)):
        read_formula(formula)
