"""Minimal pairs: how they are compared and counted, with the interval of the accuracy."""

import pytest

from trainer.contracts.sequences import SequenceScore
from trainer.reports.minimal_pairs import Pair, ScoredPair, pair_report, scored_pair, wilson_interval

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


def scores(nats: float, tokens: int = 1, chars: int = 1, size: int = 1, *, unknown: int = 0) -> SequenceScore:
    return SequenceScore(
        nats=nats,
        part_nats=(nats,),
        n_tokens=tokens,
        n_chars=chars,
        n_bytes=size,
        unk_count=unknown,
        is_cut=chars > 9,
    )


def test_choice__is_of_the_surprisal_by_each_measure() -> None:
    chosen = scored_pair(PAIR, scores(6.0, 2, 8, 6), scores(5.0, 1, 4, 5)).choices
    assert chosen == {"sum": "second", "token": "first", "char": "first", "byte": "tie"}
    near = [scored_pair(PAIR, scores(10.0), scores(second)).choices["sum"] for second in (10.00009, 10.0002, 9.9998)]
    assert near == ["tie", "first", "second"], "scores are not more exact"


def test_report__leaves_ties_out_and_keeps_the_order_of_groups() -> None:
    def pair(group: str | None, second: float, **others: int) -> ScoredPair:
        return scored_pair(PAIR._replace(group=group), scores(1.0), scores(second, **others))

    tie = scored_pair(PAIR._replace(group="b", second=PAIR.first), scores(1.0), scores(1.0, chars=10))
    pairs = [pair("z", 2.0), pair("a", 3.0), pair("z", 0.5), pair("z", 1.0), tie, pair(None, 4.0, unknown=1)]
    report = pair_report("run", pairs)
    [overall, *groups] = (report.overall, *report.groups)
    assert (overall.n_pairs, overall.n_identical, overall.n_unknown, overall.n_cut) == (6, 1, 1, 1)
    by_sum = overall.accuracies[0]
    assert (by_sum.n_right, by_sum.n_wrong, by_sum.n_ties, by_sum.accuracy) == (3, 1, 2, 0.75)
    assert (by_sum.low, by_sum.high) == wilson_interval(0.75, 4)
    assert [(group.group, group.accuracies[0].accuracy) for group in groups] == [("z", 0.5), ("a", 1.0), ("b", None)]
    assert report.mean_over_groups == 0.75
    assert pair_report("run", pairs[-1:]).mean_over_groups is None
