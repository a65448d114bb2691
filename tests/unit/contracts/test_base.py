"""Records with other values, and counts as people read them."""

import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from pydantic.config import JsonDict

from trainer.contracts.base import changed, describe_fields
from trainer.contracts.runs import TrainRequest
from trainer.contracts.training_options import EarlyStopping
from trainer.contracts.wording import counted


def test_changed__is_a_copy_with_other_values_of_known_fields() -> None:
    before = EarlyStopping(enabled=True, patience=3)
    assert changed(before, patience=4) == EarlyStopping(enabled=True, patience=4)
    assert before.patience == 3
    with pytest.raises(TypeError, match="EarlyStopping has no field patiense"):
        changed(EarlyStopping(), patiense=4)


def test_count__has_its_noun_in_the_right_number() -> None:
    shown = [counted(number, "epoch") for number in (0, 1, 2, 2000)]
    assert shown == ["0 epochs", "1 epoch", "2 epochs", "2,000 epochs"]


@contextmanager
def yielding_collector() -> Iterator[None]:
    """Let Python look for garbage often, and let other threads run each time."""

    def give_way(_phase: str, _info: dict[str, int]) -> None:
        time.sleep(0)

    threshold = gc.get_threshold()
    gc.callbacks.append(give_way)
    gc.set_threshold(20)
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(give_way)


def described() -> JsonDict:
    schema: JsonDict = {"properties": {name: {} for name in TrainRequest.model_fields}}
    describe_fields(schema, TrainRequest)
    return schema


def test_docstrings_of_fields__are_read_by_two_threads_at_once() -> None:
    expected = described()
    with yielding_collector(), ThreadPoolExecutor(2) as pool:
        read = [pool.submit(described) for _ in range(4)]
    assert [one.result() for one in read] == [expected] * 4
