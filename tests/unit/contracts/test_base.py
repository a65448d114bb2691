import pytest

from trainer.contracts.base import changed
from trainer.contracts.runs import EarlyStopping


def test_changed__gives_a_copy_with_the_other_values() -> None:
    before = EarlyStopping(enabled=True, patience=3)
    after = changed(before, patience=4)
    assert EarlyStopping(enabled=True, patience=4) == after
    assert 3 == before.patience


def test_changed__refuses_a_field_that_the_record_has_not() -> None:
    with pytest.raises(TypeError, match="EarlyStopping has no field patiense"):
        changed(EarlyStopping(), patiense=4)
