"""Checkpoint schedules: the steps after which a training stores its weights permanently."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from trainer.contracts.training_options import CheckpointRule, CheckpointThresholds


class TrainingSize(NamedTuple):
    """Sizes that are known before the first step of a training."""

    total_steps: int
    rows_per_step: int
    """Rows that all processes read in a step; fewer in the last step of an epoch."""
    rows: int
    """Rows, words and tokens of the training split, which an epoch reads once."""
    words: int
    tokens: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.rows // self.rows_per_step)

    @property
    def epochs(self) -> int:
        """The epochs that the steps begin, without early stopping."""
        return -(-self.total_steps // self.steps_per_epoch)

    def words_seen(self, rows_read: int) -> int:
        """Return the words read with some rows, counted over all epochs, if each row has as many; rounded down."""
        return self.words * rows_read // self.rows

    def tokens_seen(self, rows_read: int) -> int:
        """Return the tokens read with some rows, like `words_seen`."""
        return self.tokens * rows_read // self.rows

    def rows_read(self, step: int) -> int:
        """Return the rows read up to the end of a step, counted over all epochs."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * self.rows + steps * self.rows_per_step


def scheduled_steps(
    schedule: tuple[int, ...] | CheckpointThresholds | CheckpointRule | None, size: TrainingSize
) -> tuple[int, ...]:
    """Return the scheduled steps in ascending order, with the last step; empty without a schedule."""
    match schedule:
        case None:
            return ()
        case CheckpointRule():
            steps = _generated_steps(schedule, size.total_steps, size.steps_per_epoch)
        case CheckpointThresholds():
            steps = _first_steps(schedule, size)
        case _:
            steps = list(schedule)
    return (*(step for step in steps if step < size.total_steps), size.total_steps)


def _first_steps(schedule: CheckpointThresholds, size: TrainingSize) -> list[int]:
    """Return the first step that reaches each count; it is after the end for counts that the training never reaches."""

    def seen(step: int) -> int:
        if schedule.steps is not None:
            return step
        rows = size.rows_read(step)
        return size.tokens_seen(rows) if schedule.words is None else size.words_seen(rows)

    [counts] = (one for one in (schedule.steps, schedule.words, schedule.tokens) if one is not None)
    if isinstance(counts, str):
        counts = tuple(1 << power for power in range(seen(size.total_steps).bit_length()))
    return sorted({bisect_left(range(size.total_steps + 1), count, key=seen) for count in counts})


def _generated_steps(rule: CheckpointRule, total_steps: int, steps_per_epoch: int) -> list[int]:
    """Return even steps in the first epoch, then the steps of the spacing, or even ones where it has too few."""
    end = min(steps_per_epoch, total_steps)
    steps = _evenly(0, end, min(rule.first_epoch_checkpoints, end))
    while end < total_steps:
        begin, end = end, min(end + steps_per_epoch, total_steps)
        chosen: list[int] = []
        for step in _spaced(rule, begin, end, steps_per_epoch):
            if step - (chosen or steps)[-1] >= rule.min_checkpoint_interval:
                chosen.append(step)
        wanted = min(rule.min_checkpoints_per_epoch, (end - begin) // rule.min_checkpoint_interval)
        steps += chosen if len(chosen) >= wanted else _evenly(begin, end, wanted)
    return steps


def _evenly(begin: int, end: int, count: int) -> list[int]:
    return [begin - (begin - end) * i // count for i in range(1, count + 1)]


def _spaced(rule: CheckpointRule, begin: int, end: int, steps_per_epoch: int) -> Iterator[int]:
    """Yield the steps of the spacing after `begin`, up to `end`."""
    if rule.subsequent_epochs_spacing == "linear":
        interval = rule.linear_interval or -(-steps_per_epoch // rule.first_epoch_checkpoints)
        first = begin + interval - (begin - steps_per_epoch) % interval
        yield from range(first, end + 1, interval)
        return
    step = 1
    while step <= end:
        if step > begin:
            yield step
        step *= rule.log_base
