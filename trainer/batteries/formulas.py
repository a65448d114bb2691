"""Formulas of SyntaxGym's test suites (Hu et al. 2020): comparisons of sums of regions' surprisals.

In `[(5;%reduced%) > (5;%full%)] & [(6;%reduced%) - (6;%full%) > 0]`, `(5;%reduced%)` is region 5 of the condition
`reduced`; `(*;%reduced%)` is the complete sentence. Round and square brackets mean the same. As in the grammar of
SyntaxGym (syntaxgym-core since June 2020), `+` and `-` are one level, then come comparisons, then `&` and `|` as one
level, and each level is read from the left: `a-b+c` is (a - b) + c, and `x | y & z` is (x | y) & z.

`=` holds for values that differ by at most 0.001 plus a hundred thousandth of the second one. `<` and `>` of values
that differ by less than TIE_NATS are undecided, and so is each formula whose truth depends on one (Kleene's logic of
three values).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from math import fsum, isclose
from random import Random
from typing import NamedTuple, TypeVar

from trainer.contracts.batteries import TIE_NATS
from trainer.contracts.errors import AppError, ErrorCode

Values = Mapping[str, Mapping[int, float]]
"""The values of the regions by their numbers, by condition."""

Truth = bool | None
"""None: undecided."""

_RELATIVE, _ABSOLUTE = 1e-5, 1e-3
_MAX_CHARACTERS = 10_000
_DRAWS, _MEAN_NATS = 10_000, 5.0
_TOKEN = re.compile(
    r"\s*(?:\(\s*(?P<region>\*|\d+)\s*;\s*%(?P<condition>[^%]+)%\s*\)|(?P<number>\d+(?:\.\d*)?)|(?P<sign>[][()+\-<>=&|]))\s*"
)
_CLOSING = {"(": ")", "[": "]"}


class Reference(NamedTuple):
    """A region of a condition; None: all regions."""

    region: int | None
    condition: str


class Comparison(NamedTuple):
    """A comparison of two sums, and the first less the second."""

    text: str
    difference: Callable[[Values], float]


class Formula(NamedTuple):
    """A formula that has been read."""

    text: str
    references: tuple[Reference, ...]
    comparisons: tuple[Comparison, ...]
    truth: Callable[[Values], Truth]


class Chances(NamedTuple):
    """The shares of random draws for which formulas hold."""

    of_all: float
    """The share for which all formulas hold."""
    least: float
    """The same, where `=` is true of equal values only, which are never drawn."""
    of_each: tuple[float, ...]


class _Number(NamedTuple):
    value: Callable[[Values], float]


class _Claim(NamedTuple):
    truth: Callable[[Values], Truth]


_Part = _Number | _Claim
_PartT = TypeVar("_PartT", _Number, _Claim)
_Join = Callable[[list[_PartT], list[str]], _PartT]
"""Joins parts by the signs between them."""
_Comparing = Callable[[float, float], Truth]
_COMPARISONS: dict[str, _Comparing] = {
    "<": lambda one, other: _is_less(one, other),
    ">": lambda one, other: _is_less(other, one),
    "=": lambda one, other: isclose(one, other, rel_tol=0, abs_tol=_ABSOLUTE + _RELATIVE * abs(other)),
}


def read_formula(text: str) -> Formula:
    """Read a formula; raises INVALID_INPUT for a text that is none."""
    if len(text) > _MAX_CHARACTERS:
        raise AppError(ErrorCode.INVALID_INPUT, f"A formula has at most {_MAX_CHARACTERS:,} characters.")
    try:
        return _Reader(text, _COMPARISONS).formula()
    except RecursionError:
        raise AppError(ErrorCode.INVALID_INPUT, "A formula has too many brackets within each other.") from None


def chances_of(formulas: Sequence[Formula], regions: Mapping[str, Sequence[int]]) -> Chances:
    """Return how often formulas hold for regions (by condition) whose surprisals are independent and alike.

    They are drawn from an exponential distribution with a mean of 5 nats, 10,000 times and always alike. `=` holds for
    all of them, as for a model that does not see the difference: values that are drawn by chance are never equal.
    """
    blind = [_Reader(formula.text, _COMPARISONS | {"=": _is_any}).formula() for formula in formulas]
    random = Random(0)  # noqa: S311  no secret depends on it
    truths: list[list[Truth]] = []
    n_least = 0
    for _ in range(_DRAWS):
        values = {
            condition: {number: random.expovariate(1 / _MEAN_NATS) for number in of_condition}
            for condition, of_condition in regions.items()
        }
        truths.append([formula.truth(values) for formula in blind])
        n_least += all(formula.truth(values) for formula in formulas)
    n_all = sum(all(of_draw) for of_draw in truths)
    n_each = [sum(of_draw[place] is True for of_draw in truths) for place in range(len(formulas))]
    return Chances(n_all / _DRAWS, n_least / _DRAWS, tuple(count / _DRAWS for count in n_each))


class _Reader:
    """Reads a formula from left to right, the loosest operators first."""

    def __init__(self, text: str, comparisons: Mapping[str, _Comparing]) -> None:
        self._text = text
        self._comparing = comparisons
        self._place = self._start = 0
        self._match: re.Match[str] | None = None
        self.references: list[Reference] = []
        self.comparisons: list[Comparison] = []
        self._advance()

    def formula(self) -> Formula:
        part = self.claims()
        if self.next is not None or isinstance(part, _Number):
            raise self.refusal("a comparison is expected")
        return Formula(self._text, tuple(self.references), tuple(self.comparisons), part.truth)

    @property
    def next(self) -> str | None:
        """The next token; None at the end."""
        return None if self._match is None else self._match.group().strip()

    def refusal(self, problem: str) -> AppError:
        where = f"at character {self._start + 1:,} {problem}"
        return AppError(ErrorCode.INVALID_INPUT, f"The formula '{self._text[:200]}' cannot be read: {where}.")

    def claims(self) -> _Part:
        return self._joined("&|", self._comparison, self._claim, _claims)

    def _joined(
        self, signs: str, read: Callable[[], _Part], check: Callable[[_Part], _PartT], join: _Join[_PartT]
    ) -> _Part:
        """Read one part, or parts of one type between such signs."""
        first = read()
        parts: list[_PartT] = []
        between: list[str] = []
        while self.next is not None and self.next in signs:
            parts = parts or [check(first)]
            between.append(self.next)
            self._advance()
            parts.append(check(read()))
        return join(parts, between) if parts else first

    def _comparison(self) -> _Part:
        start = self._start
        first = self._sum()
        compare = self._comparing.get(self.next or "")
        if compare is None:
            return first
        one = self._number(first)
        self._advance()
        other = self._number(self._sum())
        text = self._text[start : self._start].strip()
        self.comparisons.append(Comparison(text, lambda values: one.value(values) - other.value(values)))
        return _Claim(lambda values: compare(one.value(values), other.value(values)))

    def _sum(self) -> _Part:
        return self._joined("+-", self._operand, self._number, _sum)

    def _operand(self) -> _Part:
        if self._match is None:
            raise self.refusal("a region is missing")
        fields: dict[str, str | None] = self._match.groupdict()
        sign, number, region = fields["sign"], fields["number"], fields["region"]
        if sign is not None and sign in _CLOSING:
            self._advance()
            inner = self.claims()
            if self.next != _CLOSING[sign]:
                raise self.refusal(f"'{_CLOSING[sign]}' is expected")
            self._advance()
            return inner
        if sign is not None:
            raise self.refusal("a region such as (1;%name%) is expected")
        self._advance()
        if number is not None:
            value = float(number)
            return _Number(lambda _: value)
        reference = Reference(None if region in (None, "*") else int(region), fields["condition"] or "")
        self.references.append(reference)
        return _Number(lambda values: _value(values[reference.condition], reference.region))

    def _number(self, part: _Part) -> _Number:
        if isinstance(part, _Number):
            return part
        raise self.refusal("a number is expected, not a comparison")

    def _claim(self, part: _Part) -> _Claim:
        if isinstance(part, _Claim):
            return part
        raise self.refusal("a comparison is expected, not a number")

    def _advance(self) -> None:
        self._start = self._place
        self._match = _TOKEN.match(self._text, self._place)
        if self._match is not None:
            self._place = self._match.end()
        elif self._text[self._place :].strip():
            raise self.refusal("there is something that is no part of a formula")


def _is_any(one: float, other: float) -> Truth:
    """Return what `=` is for a model that does not see the difference."""
    return True


def _value(regions: Mapping[int, float], number: int | None) -> float:
    return fsum(regions.values()) if number is None else regions[number]


def _is_less(one: float, other: float) -> Truth:
    return None if abs(one - other) < TIE_NATS else one < other


def _claims(claims: list[_Claim], signs: list[str]) -> _Claim:
    def truth(values: Values) -> Truth:
        found = claims[0].truth(values)
        for sign, claim in zip(signs, claims[1:], strict=True):
            both = (found, claim.truth(values))
            decisive = sign == "|"
            found = decisive if decisive in both else None if None in both else not decisive
        return found

    return _Claim(truth)


def _sum(terms: list[_Number], signs: list[str]) -> _Number:
    factors = [1, *(1 if sign == "+" else -1 for sign in signs)]
    return _Number(
        lambda values: fsum(factor * term.value(values) for factor, term in zip(factors, terms, strict=True))
    )
