"""Formulas of test suites, against another evaluation by the grammar of SyntaxGym."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from math import exp
from random import Random

import pytest

from trainer.batteries.formulas import Reference, Values, chances_of, read_formula
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
        ("(1;%b-x%) = 4 | (2;%a%) = 3 & (1;%a%) = 3", False),  # x | y & z is (x | y) & z
        ("(2;%a%) = 3 & (1;%a%) = 3 | (1;%b-x%) = 4", True),
        ("(2;%b-x%)-(1;%b-x%)+(2;%a%) = 6.5", True),  # a-b+c is (a-b)+c
        ("(2;%b-x%)-[(1;%b-x%)+(2;%a%)] = 2.5", True),
        ("(2;%b-x%)-(1;%b-x%)-(2;%a%) = 2.5", True),
        ("[(2;%b-x%)-(1;%b-x%)]+( 2 ; %a% )>6.4", True),
        ("1 + 2 + 3 = 6.", True),
    ],
)
def test_formula__follows_the_rules_of_syntax_gym(formula: str, holds: bool) -> None:
    assert read_formula(formula).truth(VALUES) is holds


@pytest.mark.parametrize(
    ("formula", "truth"),
    [
        ("(1;%a%) < 1.00009", None),
        ("(1;%a%) > 1.00009", None),
        ("(1;%a%) < 1.0002", True),
        ("(1;%a%) > 1.0002", False),
        ("(2;%a%) - (1;%a%) > 1", None),
        ("(1;%a%) = 1.0005", True),  # which has a tolerance of its own
        ("(1;%a%) < 1 & (2;%a%) < 1", False),
        ("(1;%a%) < 1 & (2;%a%) > 1", None),
        ("(1;%a%) < 1 | (2;%a%) > 1", True),
        ("(1;%a%) < 1 | (2;%a%) < 1", None),
        ("(2;%a%) < 1 & (1;%a%) < 1 | (2;%a%) > 1", True),
    ],
)
def test_formula__is_undecided_where_it_depends_on_equal_values(formula: str, truth: bool | None) -> None:
    assert read_formula(formula).truth(VALUES) is truth


def random_formula(random: Random, depth: int) -> str:
    """Return a formula whose brackets, signs, spaces and lengths are random."""

    def chained(part: Callable[[], str], signs: str, most: int) -> str:
        text = part()
        for _ in range(random.randrange(most)):
            text += random.choice(("", " ")) + random.choice(signs) + random.choice(("", " ")) + part()
        return text

    def in_brackets(text: str) -> str:
        return random.choice(("({})", "[{}]", "[ {} ]")).format(text)

    def number(depth: int) -> str:
        if depth and random.random() < 0.3:
            return in_brackets(chained(lambda: number(depth - 1), "+-", 4))
        region = f"({random.choice('12*')};%{random.choice(('a', 'b-x'))}%)"
        return region if random.random() < 0.9 else random.choice(("0", "1", "2.5"))

    def claim() -> str:
        if depth and random.random() < 0.3:
            return in_brackets(random_formula(random, depth - 1))
        return chained(lambda: number(2), "+-", 4) + random.choice("<>=") + chained(lambda: number(2), "+-", 4)

    return chained(claim, "&|", 5)


def value(tokens: Sequence[str], values: Values) -> float:
    """Return the number that tokens stand for: they are split at the last sign outside of brackets."""
    place = last_sign(tokens, "+-")
    if place is not None:
        one, other = value(tokens[:place], values), value(tokens[place + 1 :], values)
        return one + other if tokens[place] == "+" else one - other
    if len(tokens) > 1:
        return value(tokens[1:-1], values)
    region, _, condition = tokens[0].strip("()%").partition(";%")
    if not condition:
        return float(region)
    regions = values[condition]
    return sum(regions.values()) if region == "*" else regions[int(region)]


def truths(tokens: Sequence[str], values: Values) -> tuple[bool, bool]:
    """Return whether a formula holds if undecided comparisons do not hold, and if they hold."""
    place = last_sign(tokens, "&|")
    if place is not None:
        (one, other), (left, right) = truths(tokens[:place], values), truths(tokens[place + 1 :], values)
        return (one and left, other and right) if tokens[place] == "&" else (one or left, other or right)
    place = last_sign(tokens, "<>=")
    if place is None:
        return truths(tokens[1:-1], values)
    first, second = value(tokens[:place], values), value(tokens[place + 1 :], values)
    if tokens[place] == "=":
        is_close = abs(first - second) <= 1e-3 + 1e-5 * abs(second)
        return is_close, is_close
    holds = first < second if tokens[place] == "<" else first > second
    is_undecided = abs(first - second) < 1e-4
    return holds and not is_undecided, holds or is_undecided


def last_sign(tokens: Sequence[str], signs: str) -> int | None:
    depth, found = 0, None
    for place, token in enumerate(tokens):
        depth += (token in ("(", "[")) - (token in (")", "]"))
        if depth == 0 and token in signs:
            found = place
    return found


@pytest.mark.slow
def test_formulas__have_the_truth_of_another_evaluation_by_the_grammar() -> None:
    random, counts = Random(3), Counter[bool | None]()
    for _ in range(3_000):
        values = {
            name: {region: random.randrange(1, 4) + random.choice((0, 3.1e-5, 4.3e-4)) for region in (1, 2)}
            for name in ("a", "b-x")
        }
        text = random_formula(random, 2)
        tokens: list[str] = re.findall(r"\(.;%[^%]*%\)|[\d.]+|[^ ]", text)
        certain, possible = truths(tokens, values)
        expected = certain if certain == possible else None
        assert read_formula(text).truth(values) is expected, text
        counts[expected] += 1
    assert min(counts.values()) > 30 and len(counts) == 3


@pytest.mark.parametrize(
    ("formulas", "of_all", "of_each"),
    [
        (["(1;%a%) < (1;%b%)"], 1 / 2, [1 / 2]),
        (["(1;%a%) < (1;%b%)", "(2;%a%) > (2;%b%)"], 1 / 4, [1 / 2, 1 / 2]),
        (["[(1;%a%) < (1;%b%)] & [(1;%a%) < (2;%b%)]"], 1 / 3, [1 / 3]),
        (["[(1;%a%)<(1;%b%)] & [(2;%a%)<(2;%b%)] & [(1;%a%)<(2;%b%)]"], 5 / 24, [5 / 24]),
        (["(1;%a%) - (2;%a%) < (1;%b%) - (2;%b%)"], 1 / 2, [1 / 2]),
        (["(*;%a%) < (*;%b%)", "(*;%a%) > (*;%b%)"], 0, [1 / 2, 1 / 2]),
        (["(1;%a%) > 5"], exp(-1), [exp(-1)]),
        (["(1;%a%) > 0 - 1"], 1, [1]),
        (["(1;%a%) = (1;%b%)", "(2;%a%) < (2;%b%)"], 1 / 2, [1, 1 / 2]),  # a blind model has equal surprisals
        (["[(1;%a%) = (1;%b%)] | [(2;%a%) < (2;%b%)]"], 1, [1]),
    ],
)
def test_chances__are_those_of_random_surprisals(formulas: list[str], of_all: float, of_each: list[float]) -> None:
    chances = chances_of([read_formula(formula) for formula in formulas], {"a": (1, 2), "b": (1, 2)})
    assert chances.of_all == pytest.approx(of_all, abs=0.015)
    assert [*chances.of_each] == pytest.approx(of_each, abs=0.015)
    has_equals = any(" = " in formula for formula in formulas)
    assert chances.least == (
        pytest.approx(0 if len(formulas) > 1 else 1 / 2, abs=0.015) if has_equals else chances.of_all
    )


def test_long_formulas__are_read_and_evaluated() -> None:
    assert read_formula("1" + "-1+1" * 2000 + " = 1").truth({}) is True
    assert read_formula("&".join(["1<2"] * 2000)).truth({}) is True


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
