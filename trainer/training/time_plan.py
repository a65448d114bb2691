"""Steps of a training that has `minutes`: its clock measures them and corrects their number while it runs."""

from typing import NamedTuple

from trainer.artifacts.checkpoint_files import StepPlan

_MIN_MEASURED_STEPS, _MIN_SHARE = 5, 0.05
"""Steps, or share of the time, after which the first correction is made."""
_CORRECTION_SHARE, _HORIZON_SHARE = 0.01, 0.1
"""Shares of the time: between two corrections, and of the past by which the coming steps are judged."""
_FIRST_STEPS = 2
"""Steps that take longer than others: they start threads and allocate memory."""
_EVALUATION_COST = 0.5
"""Time to evaluate a token, in times to train on one; until the first validation is measured."""
_MIN_SECONDS = 1e-9
TAIL_SECONDS = 3.0
"""Time after the last evaluation: samples and files (measured)."""


class TimedWork(NamedTuple):
    """The work of a training in its steps, validations and test, as known before the first step."""

    most_steps: int
    """Steps of all its epochs."""
    steps_between_pauses: int
    """Steps from one validation or checkpoint to the next."""
    validation_steps: float
    """Tokens of the validation split, in training steps."""
    test_share: float
    """Tokens of the test split, as a share of those of the validation split."""


class StepClock:
    """Measures the steps of one attempt, and the pauses between them for validations and checkpoints."""

    def __init__(self, work: TimedWork, elapsed: float) -> None:
        """Start after `elapsed` seconds of training in earlier attempts."""
        self._work = work
        self._last = self._corrected_at = elapsed
        self._measured = 0
        self._step_seconds = 0.0
        self._pause_seconds: float | None = None
        self._is_after_pause = False

    def first_plan(self, seconds: float) -> StepPlan:
        """Return the plan of a new training: all its epochs, until a correction."""
        most = self._work.most_steps
        return StepPlan(seconds=seconds, total_steps=most, schedule_steps=most)

    def mark_pause(self) -> None:
        """Tell the clock that the training validates or saves before its next step."""
        self._is_after_pause = True

    def corrected(self, plan: StepPlan, step: int, seconds: float, elapsed: float) -> StepPlan:
        """Measure a step, and return the plan with as many more steps as the time gives.

        The step has taken `seconds` and ended `elapsed` seconds after the start. A correction takes away at most half
        of the steps that were left, so that the learning rate falls to its minimum also if the machine slows down.
        """
        self._measure(plan, seconds, elapsed)
        is_early = self._measured < _MIN_MEASURED_STEPS and elapsed < _MIN_SHARE * plan.seconds
        is_recent = elapsed - self._corrected_at < _CORRECTION_SHARE * plan.seconds
        if is_early or is_recent or step >= plan.total_steps:
            return plan
        self._corrected_at = elapsed
        work, pause = self._work, self._pause_seconds
        if pause is None:
            pause = work.validation_steps * self._step_seconds * _EVALUATION_COST
        left_seconds = plan.seconds - elapsed - pause * (1 + work.test_share) - TAIL_SECONDS
        left = int(left_seconds / (self._step_seconds + pause / work.steps_between_pauses))
        left = max(left, (plan.total_steps - step) // 2, 1)
        return plan.corrected(step, min(step + left, work.most_steps))

    def _measure(self, plan: StepPlan, seconds: float, elapsed: float) -> None:
        since_last, self._last = elapsed - self._last, elapsed
        self._measured += 1
        if self._is_after_pause:
            pause = max(0.0, since_last - seconds)
            before = self._pause_seconds
            self._pause_seconds = pause if before is None else (before + pause) / 2
            self._is_after_pause = False
        else:
            seconds = since_last
        seconds = max(seconds, _MIN_SECONDS)
        horizon = max(_HORIZON_SHARE * plan.seconds, seconds)
        newest = max(1 / max(1, self._measured - _FIRST_STEPS), seconds / horizon)
        self._step_seconds += (seconds - self._step_seconds) * newest
