"""The verdict of a measured figure, and limits that are measured again."""

import pytest

from benchmarks.rows import Row
from benchmarks.turns import Turns


@pytest.mark.parametrize(
    ("value", "limit", "verdict"),
    [(1.2, 1.3, "ok"), (0.9, 1.3, "MISSED"), (0.9, 0.95, "LIMIT"), (0.9, None, "MISSED"), (0.9, 0.5, "MISSED")],
)
def test_verdict__excuses_a_miss_only_by_a_limit_that_is_one(value: float, limit: float | None, verdict: str) -> None:
    row = Row(case="case", value=value, unit="x", goal=1.0, limit=limit, limited_by="its own products")
    assert row.verdict == verdict
    assert row.exceeds_limit == (limit == 0.5)


def test_turns__keep_the_faster_of_two_measurements() -> None:
    again = Turns({"products": [4.0, 5.0, 6.0], "ours": [1.0, 1.0, 1.0]}, 0.2)
    turns = Turns({"products": [1.0, 2.0, 3.0], "ours": [2.0, 2.0, 2.0], "HF": [1.0, 1.0, 1.0]}, 0.1).with_faster(again)
    assert turns.figures == {"products": [4.0, 5.0, 6.0], "ours": [2.0, 2.0, 2.0], "HF": [1.0, 1.0, 1.0]}
    assert turns.foreign_share == 0.2
