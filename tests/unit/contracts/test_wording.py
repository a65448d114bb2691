"""Counts as people read them."""

import pytest

from trainer.contracts.wording import counted


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs"), (2000, "2,000 epochs")]
)
def test_count__has_its_noun_in_the_right_number(number: int, shown: str) -> None:
    assert counted(number, "epoch") == shown
