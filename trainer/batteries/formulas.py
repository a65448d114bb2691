"""Formulas of SyntaxGym's test suites (Hu et al. 2020): comparisons of sums of regions' surprisals.

In `[(5;%reduced%) > (5;%full%)] & [(6;%reduced%) - (6;%full%) > 0]`, `(5;%reduced%)` is region 5 of the condition
`reduced`; `(*;%reduced%)` is the complete sentence. Round and square brackets mean the same. As in SyntaxGym, `+` binds
before `-`, so that `a-b+c` is a - (b + c); then come comparisons, `&` and `|`. `=` holds for values that differ by at
most 0.001 plus a hundred thousandth of the second one.
"""

import re
from collections.abc import Callable, Mapping
from math import fsum, isclose
from typing import NamedTuple, TypeVar

from trainer.contracts.errors import AppError, ErrorCode

Values = Mapping[str, Mapping[int, float]]
"""The values of the regions by their numbers, by condition."""

_RELATIVE, _ABSOLUTE = 1e-5, 1e-3
_MAX_CHARACTERS = 10_000
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
    holds: Callable[[Values], bool]


class _Number(NamedTuple):
    value: Callable[[Values], float]


class _Claim(NamedTuple):
    holds: Callable[[Values], bool]


_Part = _Number | _Claim
_PartT = TypeVar("_PartT", _Number, _Claim)
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda one, other: one < other,
    ">": lambda one, other: one > other,
    "=": lambda one, other: isclose(one, other, rel_tol=0, abs_tol=_ABSOLUTE + _RELATIVE * abs(other)),
}


def read_formula(text: str) -> Formula:
    """Read a formula; raises INVALID_INPUT for a text that is none."""
    if len(text) > _MAX_CHARACTERS:
        raise AppError(ErrorCode.INVALID_INPUT, f"A formula has at most {_MAX_CHARACTERS:,} characters.")
    try:
        reader = _Reader(text)
        part = reader.claims()
        if reader.next is not None or isinstance(part, _Number):
            raise reader.refusal("a comparison is expected")
    except RecursionError:
        raise AppError(ErrorCode.INVALID_INPUT, "A formula has too many brackets within each other.") from None
    return Formula(text, tuple(reader.references), tuple(reader.comparisons), part.holds)


class _Reader:
    """Reads a formula from left to right, the loosest operators first."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = self._start = 0
        self._match: re.Match[str] | None = None
        self.references: list[Reference] = []
        self.comparisons: list[Comparison] = []
        self._advance()

    @property
    def next(self) -> str | None:
        """The next token; None at the end."""
        return None if self._match is None else self._match.group().strip()

    def refusal(self, problem: str) -> AppError:
        where = f"at character {self._start + 1:,} {problem}"
        return AppError(ErrorCode.INVALID_INPUT, f"The formula '{self._text[:200]}' cannot be read: {where}.")

    def claims(self) -> _Part:
        return self._joined("|", self._claims_of_all, self._claim, _any)

    def _claims_of_all(self) -> _Part:
        return self._joined("&", self._comparison, self._claim, _all)

    def _joined(
        self,
        sign: str,
        read: Callable[[], _Part],
        check: Callable[[_Part], _PartT],
        join: Callable[[list[_PartT]], _Part],
    ) -> _Part:
        """Read one part, or parts of one type between such signs."""
        first = read()
        if self.next != sign:
            return first
        parts = [check(first)]
        while self.next == sign:
            self._advance()
            parts.append(check(read()))
        return join(parts)

    def _comparison(self) -> _Part:
        start = self._start
        first = self._difference()
        compare = _COMPARISONS.get(self.next or "")
        if compare is None:
            return first
        one = self._number(first)
        self._advance()
        other = self._number(self._difference())
        text = self._text[start : self._start].strip()
        self.comparisons.append(Comparison(text, lambda values: one.value(values) - other.value(values)))
        return _Claim(lambda values: compare(one.value(values), other.value(values)))

    def _difference(self) -> _Part:
        return self._joined("-", self._sum, self._number, _difference)

    def _sum(self) -> _Part:
        return self._joined("+", self._operand, self._number, _sum)

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


def _value(regions: Mapping[int, float], number: int | None) -> float:
    return fsum(regions.values()) if number is None else regions[number]


def _any(claims: list[_Claim]) -> _Claim:
    return _Claim(lambda values: any(claim.holds(values) for claim in claims))


def _all(claims: list[_Claim]) -> _Claim:
    return _Claim(lambda values: all(claim.holds(values) for claim in claims))


def _difference(terms: list[_Number]) -> _Number:
    return _Number(lambda values: terms[0].value(values) - fsum(term.value(values) for term in terms[1:]))


def _sum(terms: list[_Number]) -> _Number:
    return _Number(lambda values: fsum(term.value(values) for term in terms))
