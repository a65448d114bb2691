"""Early stopping: tables of losses and the step at which training stops."""

import pytest

from trainer.artifacts.checkpoint_files import ValidationHistory
from trainer.contracts.training_options import EarlyStopping


def history_of(losses: list[float], rule: EarlyStopping) -> ValidationHistory:
    history = ValidationHistory()
    for step, loss in enumerate(losses, start=1):
        history = history.after(loss, loss / 10, step=step, epoch=step, rule=rule)
    return history


@pytest.mark.parametrize(
    ("losses", "min_delta", "stops"),
    [
        *(([3.0], 0.0, False), ([3.0, 2.0, 1.0], 0.0, False), ([3.0, 3.0], 0.0, False), ([3.0, 3.0, 3.0], 0.0, True)),
        *(([1.0, 2.0, 3.0], 0.0, True), ([1.0, 2.0, 0.9, 2.0], 0.0, False), ([1.0, 2.0, 0.9, 2.0, 2.0], 0.0, True)),
        *(([3.0, 2.9, 2.8], 0.5, True), ([3.0, 2.75, 2.25], 0.5, False), ([3.0, 2.5, 2.5], 0.5, True)),
    ],
)
def test_early_stopping__after_two_losses_without_a_fall(losses: list[float], min_delta: float, stops: bool) -> None:
    rule = EarlyStopping(enabled=True, patience=2, min_delta=min_delta)
    assert history_of(losses, rule).stops(rule) == stops
    off = EarlyStopping(patience=1)
    assert not history_of(losses * 9, off).stops(off)


def test_best__is_the_first_of_the_lowest_losses_for_any_min_delta() -> None:
    history = history_of([3.0, 2.9, 2.8, 2.8, 2.85], EarlyStopping(enabled=True, patience=2, min_delta=0.5))
    assert (history.best_loss_nats, history.best_step, history.best_epoch) == (2.8, 3, 3)
    assert history.best_margin_nats == 2.8 / 10
