"""Minimal pairs: how they are read, compared and counted, with the interval of the accuracy."""

import pytest

from trainer.contracts.errors import AppError, ErrorCode
from trainer.reports.minimal_pairs import Pair, ScoredPair, pair_report, read_pair, scored_pair, wilson_interval

PAIR = Pair(1, "a", "b", None)


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [  # Newcombe (1998), table I, method 3
        (81 / 263, 263, 0.2553, 0.3662),
        (15 / 148, 148, 0.0624, 0.1605),
        (0.0, 20, 0.0, 0.1611),
        (1 / 29, 29, 0.0061, 0.1718),
    ],
)
def test_interval__is_that_of_the_published_examples(share: float, count: int, low: float, high: float) -> None:
    assert wilson_interval(share, count) == pytest.approx((low, high), abs=5e-5)


def test_report__counts_a_tie_as_half_and_keeps_the_order_of_groups() -> None:
    found = [scored_pair(PAIR, 10.0, second).less_surprising for second in (10.0, 10.00009, 10.0002, 9.9998)]
    assert found == ["tie", "tie", "first", "second"], "scores are not more exact"

    def pair(group: str | None, second: float) -> ScoredPair:
        return scored_pair(PAIR._replace(group=group), 1.0, second)

    report = pair_report("run", [pair("z", 2.0), pair("a", 1.0), pair("z", 0.5), pair(None, 3.0)])
    assert (report.overall.accuracy, report.overall.n_ties, report.overall.n_pairs) == (0.625, 1, 4)
    assert [(found.group, found.accuracy) for found in report.groups] == [("z", 0.5), ("a", 0.5)]


@pytest.mark.parametrize(
    ("line", "pair"),
    [("a b\t c\r", Pair(7, "a b", "c", None)), ("a\tb\tgroup one", Pair(7, "a", "b", "group one")), (" \t ", None)],
)
def test_pair__is_read_of_two_columns_or_three(line: str, pair: Pair | None) -> None:
    assert read_pair(7, line) == pair


@pytest.mark.parametrize("line", ["a b", "a\tb\tc\td", "a\t", "\tb", "a\tb\t"])
def test_line_that_is_no_pair__is_named(line: str) -> None:
    with pytest.raises(AppError, match=r"^Line 1,007 is no pair") as caught:
        read_pair(1007, line)
    assert caught.value.code is ErrorCode.INVALID_INPUT
