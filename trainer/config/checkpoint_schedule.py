"""Steps of a checkpoint schedule for a training of known length."""

from collections.abc import Iterator

from trainer.contracts.runs import CheckpointRule


def scheduled_steps(
    schedule: tuple[int, ...] | CheckpointRule | None, *, total_steps: int, steps_per_epoch: int
) -> tuple[int, ...]:
    """Return the scheduled steps in ascending order, with the last step; empty without a schedule."""
    if schedule is None:
        return ()
    steps = _generated(schedule, total_steps, steps_per_epoch) if isinstance(schedule, CheckpointRule) else schedule
    return (*(step for step in steps if step < total_steps), total_steps)


def _generated(rule: CheckpointRule, total_steps: int, steps_per_epoch: int) -> list[int]:
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
