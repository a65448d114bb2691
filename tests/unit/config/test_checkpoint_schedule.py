"""Checkpoint schedules: which steps a list, a rule and counts of text name."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from trainer.config.checkpoint_schedule import TrainingSize, scheduled_steps
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.training_options import CheckpointRule, CheckpointThresholds

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
    assert (
        list(scheduled_steps(schedule, TrainingSize(total, rows_per_step=4, rows=4 * epoch, words=1, tokens=1)))
        == expected
    )


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
    steps = scheduled_steps(rule, TrainingSize(total, rows_per_step=1, rows=epoch, words=1, tokens=1))
    assert list(steps) == sorted(set(steps)) and steps[0] > 0 and steps[-1] == total
    first = [step for step in steps if step <= epoch]
    assert len(first) == min(rule.first_epoch_checkpoints, epoch, total)
    later = [step for step in steps if first[-1] <= step < total]
    assert all(b - a >= rule.min_checkpoint_interval for a, b in pairwise(later))
    for begin in range(epoch, total - epoch + 1, epoch):
        inside = sum(begin < step <= begin + epoch for step in steps)
        assert inside >= min(rule.min_checkpoints_per_epoch, epoch // rule.min_checkpoint_interval)


WRITTEN: dict[str, int] = {
    **{"0": 0, "7": 7, "500k": 500_000, "500K": 500_000, "1M": 10**6, "1.5M": 1_500_000, "2B": 2 * 10**9},
    **{"0.001k": 1, "1.234567m": 1_234_567, "0.000000001b": 1, "999999.999999999B": 999_999_999_999_999},
}


@pytest.mark.parametrize("unit", ["steps", "words", "tokens"])
def test_counts__are_numbers_however_they_are_written(unit: str) -> None:
    for text, number in WRITTEN.items():
        assert parse(CheckpointThresholds, {unit: [text]}) == parse(CheckpointThresholds, {unit: [number]}), text


_sizes = st.builds(
    TrainingSize,
    total_steps=st.integers(1, 60),
    rows_per_step=st.integers(1, 9),
    rows=st.integers(1, 50),
    words=st.integers(0, 400),
    tokens=st.integers(1, 900),
)
_unit: st.SearchStrategy[str] = st.sampled_from(["steps", "words", "tokens"])
_log2: st.SearchStrategy[list[int] | str] = st.just("log2")
_counts = _log2 | st.sets(st.integers(0, 3000), min_size=1, max_size=9).map(sorted)


def seen_by_walking(size: TrainingSize, unit: str) -> list[Fraction]:
    """What was seen after each step from 0 on: the complete epochs, and the share of the rows of the last one."""
    in_epoch = {"steps": 0, "words": size.words, "tokens": size.tokens}[unit]
    seen, epochs, rows = [Fraction(0)], 0, 0
    for step in range(1, size.total_steps + 1):
        rows = min(size.rows, rows + size.rows_per_step)
        seen.append(Fraction(step) if unit == "steps" else in_epoch * (epochs + Fraction(rows, size.rows)))
        if rows == size.rows:
            epochs, rows = epochs + 1, 0
    return seen


@for_all(st.tuples(_sizes, _unit, _counts))
def test_count__is_kept_at_the_first_step_that_reaches_it(case: tuple[TrainingSize, str, list[int] | str]) -> None:
    size, unit, counts = case
    seen = seen_by_walking(size, unit)
    wanted = [1 << n for n in range(16)] if isinstance(counts, str) else counts
    first = [next((step for step, read in enumerate(seen) if read >= count), size.total_steps) for count in wanted]
    steps = scheduled_steps(parse(CheckpointThresholds, {unit: counts}), size)
    assert list(steps) == sorted({*first, size.total_steps})
