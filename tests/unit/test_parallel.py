"""Work of several threads on a stream: results in order, few items in memory, errors where they belong."""

from collections.abc import Iterator

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from trainer.system.parallel import ordered_map


@for_all(st.lists(st.integers()))
def test_results__have_the_order_of_the_items(items: list[int]) -> None:
    assert list(ordered_map(str, items)) == list(map(str, items))


def test_items__are_read_a_few_ahead_of_the_results() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    for number, _ in enumerate(ordered_map(str, items())):
        assert len(taken) <= number + 4


def test_error__comes_in_place_of_its_result() -> None:
    results = ordered_map((1).__truediv__, [1, 2, 0, 4])

    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
