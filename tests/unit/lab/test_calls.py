"""The records of operations, and the functions that do them."""

from typing import get_args

import pytest

from trainer.contracts.operations import OPERATIONS
from trainer.http.routes import _OWN
from trainer.lab.calls import CALLS
from trainer.lab.lab import work_of


@pytest.mark.parametrize("name", sorted(CALLS))
def test_call__has_the_records_of_its_work_function(name: str) -> None:
    call = CALLS[name]
    annotations: dict[str, object] = work_of(call.operation).__annotations__
    inputs: tuple[object, ...] = get_args(annotations["asked"])
    expected = *inputs, annotations["return"] or type(None)
    given = call.path, call.query, call.body, call.answer
    is_shared = ":" in call.operation.work  # by inference kinds, whose records are of its classes
    assert all(two in one.mro() if is_shared else two is one for one, two in zip(given, expected, strict=True))


def test_operations__over_http_are_done_by_the_lab_or_by_a_handler_of_their_own() -> None:
    assert {*CALLS, *_OWN} == {one.name for one in OPERATIONS if one.route}
    assert CALLS.keys() & _OWN.keys() == {"get_curve"}  # which HTTP writes as it is read
