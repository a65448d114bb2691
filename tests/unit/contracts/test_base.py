"""Records with other values, and counts as people read them."""

import pytest

from trainer.contracts.base import changed
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
