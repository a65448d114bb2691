"""Outcomes of items, and the interval of the accuracy."""

import pytest

from trainer.batteries.formulas import read_formula
from trainer.batteries.outcomes import accuracy_of, outcomes_of, values_of, wilson_interval
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryItem
from trainer.contracts.sequences import SequenceParts, SequenceScore


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [  # Newcombe (1998), table I, method 3
        (81 / 263, 263, 0.2553, 0.3662),
        (15 / 148, 148, 0.0624, 0.1605),
        (0.0, 20, 0.0, 0.1611),
        (1 / 29, 29, 0.0061, 0.1718),
    ],
)
def test_interval__equals_the_published_examples(share: float, count: int, low: float, high: float) -> None:
    interval = wilson_interval(share, count)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 49, 1000, 67_000])
def test_interval__has_its_share_in_it(count: int) -> None:
    for n_right in {0, 1, count // 3, count // 2, count - 1, count}:
        interval = wilson_interval(n_right / count, count)
        assert 0 <= interval.low <= n_right / count <= interval.high <= 1
        assert interval.low < interval.high


def scores(nats: float, tokens: int = 1, chars: int = 1, size: int = 1) -> SequenceScore:
    return SequenceScore(
        nats=nats, part_nats=(nats,), n_tokens=tokens, n_chars=chars, n_bytes=size, unk_count=0, is_cut=False
    )


def choices(count: int) -> BatteryItem:
    parts = tuple(SequenceParts(parts=(f"text {n}",)) for n in range(count))
    return BatteryItem(battery="b", name="b:1", paradigm="p", sequences=parts)


def test_outcome__is_of_the_surprisal_by_each_measure() -> None:
    found = outcomes_of(choices(2), [scores(6.0, 2, 8, 6), scores(5.0, 1, 4, 5)])
    assert found == {"sum": "wrong", "token": "right", "char": "right", "byte": "tie"}
    near = [outcomes_of(choices(2), [scores(10.0), scores(second)])["sum"] for second in (10.00009, 10.0002, 9.9998)]
    assert near == ["tie", "right", "wrong"], "scores are not more exact"
    long = outcomes_of(choices(2), [scores(231.0824, 53, 53, 53), scores(239.8069, 55, 55, 55)])
    assert long["char"] == "right", "0.00008 nats per character are 0.004 nats"
    no_tokens = outcomes_of(choices(2), [scores(0.0, tokens=0), scores(1.0)])
    assert no_tokens.get("token") == "right"


def test_line_end__counts_in_a_measure_of_its_own() -> None:
    short, long = changed(scores(5.0), end_nats=4.0), changed(scores(6.0), end_nats=0.5)
    assert outcomes_of(choices(2), [long, short]) == {
        **dict.fromkeys(("sum", "token", "char", "byte"), "wrong"),
        "end": "right",
    }
    assert outcomes_of(choices(2), [long, changed(long, nats=2.5, end_nats=4.0)])["end"] == "tie"
    assert "end" not in outcomes_of(choices(2), [short, scores(6.0)])


@pytest.mark.parametrize(("others", "outcome"), [((2.0, 3.0), "right"), ((3.0, 0.5), "wrong"), ((1.0, 9.0), "tie")])
def test_first_of_several_choices__is_right_if_it_is_the_least_surprising(
    others: tuple[float, float], outcome: str
) -> None:
    assert outcomes_of(choices(3), [scores(1.0), *map(scores, others)])["sum"] == outcome


def test_item_of_conditions__is_right_if_all_formulas_hold() -> None:
    item = BatteryItem(
        battery="b",
        name="b:1",
        paradigm="p",
        sequences=(SequenceParts(parts=("a", " b")), SequenceParts(parts=("a", " c"))),
        conditions=("good", "bad"),
        regions=((1, 3), (1, 3)),
    )
    pair = [changed_parts(1.0, 2.0), changed_parts(1.0, 4.0)]
    assert values_of(item, pair) == {"good": {1: 1.0, 3: 2.0}, "bad": {1: 1.0, 3: 4.0}}
    true, false = read_formula("(3;%good%) < (3;%bad%)"), read_formula("(*;%good%) > (*;%bad%)")
    undecided = read_formula("(1;%good%) < (1;%bad%)")
    assert outcomes_of(item, pair, [true, true]) == {"sum": "right"}
    assert outcomes_of(item, pair, [true, false]) == {"sum": "wrong"}
    assert outcomes_of(item, pair, [true, undecided]) == {"sum": "tie"}
    assert outcomes_of(item, pair, [undecided, false]) == {"sum": "wrong"}
    assert outcomes_of(item, pair) == {}
    inside = [changed_parts(1.0, None), changed_parts(1.0, 4.0)]
    assert values_of(item, inside)["good"] == {1: 1.0, 3: 0.0}


def changed_parts(*nats: float | None) -> SequenceScore:
    return SequenceScore(
        nats=sum(one or 0.0 for one in nats),
        part_nats=nats,
        n_tokens=2,
        n_chars=3,
        n_bytes=3,
        unk_count=0,
        is_cut=False,
    )


def test_accuracy__leaves_ties_out() -> None:
    found = accuracy_of("sum", ["right", "tie", "wrong", "right", "right"])
    interval = wilson_interval(0.75, 4)
    assert (found.n_right, found.n_wrong, found.n_ties, found.accuracy) == (3, 1, 1, 0.75)
    assert (found.low, found.high) == (interval.low, interval.high)
    only_ties = accuracy_of("char", ["tie", "tie"])
    assert (only_ties.accuracy, only_ties.low, only_ties.high, only_ties.n_ties) == (None, None, None, 2)
