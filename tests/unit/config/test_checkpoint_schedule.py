"""Checkpoint schedules: which steps a list and a rule name."""

from itertools import pairwise

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from trainer.config.presets import scheduled_steps
from trainer.contracts.base import changed
from trainer.contracts.training_options import CheckpointRule

NOTHING: list[int] = []
EPOCH: list[int] = list(range(50, 1001, 50))
LINEAR = CheckpointRule(subsequent_epochs_spacing="linear", linear_interval=300)
BY_HAND: list[tuple[CheckpointRule | tuple[int, ...] | None, int, int, list[int]]] = [
    (None, 10, 4, NOTHING),
    # a list is taken as far as the training goes, with its last step
    ((0, 3, 8, 90), 10, 4, [0, 3, 8, 10]),
    ((10,), 10, 4, [10]),
    ((11,), 10, 4, [10]),
    # 20 in the first epoch; of the powers of 2 there is one in the second, which is too few: 5 evenly
    (CheckpointRule(), 2000, 1000, [*EPOCH, 1200, 1400, 1600, 1800, 2000]),
    # none but the powers, where no number of them is asked for
    (CheckpointRule(min_checkpoints_per_epoch=0), 5000, 1000, [*EPOCH, 2048, 4096, 5000]),
    # 1024 and 2048 come too soon after others
    (CheckpointRule(first_epoch_checkpoints=1, min_checkpoints_per_epoch=1), 3000, 1000, [1000, 2000, 3000]),
    (CheckpointRule(first_epoch_checkpoints=3, min_checkpoints_per_epoch=0, log_base=10), 20, 10, [4, 7, 10, 20]),
    # an epoch of 250 steps has room for two that are 100 apart
    (CheckpointRule(first_epoch_checkpoints=2), 600, 250, [125, 250, 375, 500, 600]),
    (changed(LINEAR, first_epoch_checkpoints=1), 2500, 1000, [*range(1000, 2000, 200), *range(2000, 2501, 100)]),
    (changed(LINEAR, min_checkpoints_per_epoch=3), 2500, 1000, [*EPOCH, 1300, 1600, 1900, 2167, 2334, 2500]),
    # without an interval as in the first epoch: 50, of which every second is 100 apart
    (CheckpointRule(subsequent_epochs_spacing="linear"), 1250, 1000, [*EPOCH, 1100, 1200, 1250]),
    # an epoch of fewer steps than checkpoints, and a training of less than an epoch
    (CheckpointRule(), 8, 4, [1, 2, 3, 4, 8]),
    (CheckpointRule(first_epoch_checkpoints=2), 7, 100, [4, 7]),
]


@pytest.mark.parametrize(("schedule", "total", "epoch", "expected"), BY_HAND)
def test_schedule__names_the_steps_that_were_counted_by_hand(
    schedule: CheckpointRule | tuple[int, ...] | None, total: int, epoch: int, expected: list[int]
) -> None:
    assert list(scheduled_steps(schedule, total_steps=total, steps_per_epoch=epoch)) == expected


_spacing: st.SearchStrategy[str] = st.sampled_from(["log", "linear"])
_interval: st.SearchStrategy[int | None] = st.none() | st.integers(1, 300)
rules: st.SearchStrategy[CheckpointRule] = st.builds(
    CheckpointRule,
    first_epoch_checkpoints=st.integers(1, 40),
    subsequent_epochs_spacing=_spacing,
    log_base=st.integers(2, 5),
    linear_interval=_interval,
    min_checkpoint_interval=st.integers(1, 200),
    min_checkpoints_per_epoch=st.integers(0, 9),
)


@for_all(st.tuples(rules, st.integers(1, 3000), st.integers(1, 900)))
def test_any_rule__is_sorted_keeps_its_word_and_ends_with_the_last_step(case: tuple[CheckpointRule, int, int]) -> None:
    rule, total, epoch = case
    steps = scheduled_steps(rule, total_steps=total, steps_per_epoch=epoch)
    assert list(steps) == sorted(set(steps)) and steps[0] > 0 and steps[-1] == total
    first = [step for step in steps if step <= epoch]
    assert len(first) == min(rule.first_epoch_checkpoints, epoch, total)
    later = [step for step in steps if first[-1] <= step < total]
    assert all(b - a >= rule.min_checkpoint_interval for a, b in pairwise(later))
    for begin in range(epoch, total - epoch + 1, epoch):
        inside = sum(begin < step <= begin + epoch for step in steps)
        assert inside >= min(rule.min_checkpoints_per_epoch, epoch // rule.min_checkpoint_interval)
