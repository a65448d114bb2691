"""Trainings that have `minutes`: their steps end with their time, and the schedule of the rate with their steps."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.resumed import EVERYTHING, assert_continued, run_in
from tests.support.tiny_models import Run
from tests.support.trainings import Told, after, digest, losses, observed, timeless
from trainer.artifacts.checkpoint_files import StepPlan
from trainer.contracts.base import changed
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.time_plan import TAIL_SECONDS, StepClock, TimedWork

WORK = TimedWork(most_steps=10_000, steps_between_pauses=50, validation_steps=6.0, test_share=1.0)


class Story(NamedTuple):
    """A training on a machine whose clock is made up: its plan after each step, and the seconds that all of it took."""

    plans: list[StepPlan]
    seconds: float

    @property
    def positions(self) -> list[float]:
        """The positions in the schedule at which the steps were taken."""
        plans = [StepPlan(seconds=0, total_steps=WORK.most_steps, schedule_steps=WORK.most_steps), *self.plans]
        return [plan.position(step) for step, plan in enumerate(plans)]


def story(step_seconds: Callable[[float], float], work: TimedWork = WORK, pause: float = 0.4) -> Story:
    """Train for two minutes; a step takes `step_seconds` of the seconds before it, and a validation `pause`."""
    clock = StepClock(work, 0.0)
    plan, elapsed, plans = clock.first_plan(120.0), 0.0, list[StepPlan]()
    while len(plans) < plan.total_steps:
        seconds = step_seconds(elapsed)
        elapsed += seconds
        plan = clock.corrected(plan, len(plans) + 1, seconds, elapsed)
        plans.append(plan)
        if len(plans) % work.steps_between_pauses == 0 or len(plans) == plan.total_steps:
            clock.mark_pause()
            elapsed += pause
    return Story(plans, elapsed + pause * work.test_share + TAIL_SECONDS)


MACHINES: dict[str, tuple[Callable[[float], float], float]] = {
    "steady": (lambda elapsed: 0.03, 0.4),
    "with steps of seconds": (lambda elapsed: 1.5, 0.4),
    "slow at first": (lambda elapsed: 2.0 if elapsed < 4 else 0.02, 0.4),
    "busy from the middle on": (lambda elapsed: 0.03 if elapsed < 60 else 0.08, 0.4),
    "busy near the end": (lambda elapsed: 0.03 if elapsed < 100 else 0.09, 0.4),
    "busy until the middle": (lambda elapsed: 0.08 if elapsed < 60 else 0.03, 0.4),
    "busy now and then": (lambda elapsed: 0.03 if int(elapsed) % 7 else 0.09, 0.4),
    "with slow validations": (lambda elapsed: 0.03, 5.0),
}


@pytest.mark.parametrize("name", MACHINES)
def test_training__ends_with_its_time_and_its_schedule_on_a_machine(name: str) -> None:
    step_seconds, pause = MACHINES[name]
    told = story(step_seconds, pause=pause)
    assert told.seconds == pytest.approx(120, abs=6)
    positions = told.positions
    assert all(before < now for before, now in pairwise(positions))
    assert positions[0] == 0 and positions[-1] == WORK.most_steps
    assert positions[-2] > 0.99 * WORK.most_steps or len(positions) < 100, "the last step is at the end of the schedule"


def test_training__ends_before_its_time_after_all_of_its_epochs() -> None:
    told = story(lambda elapsed: 0.001)
    assert len(told.plans) == WORK.most_steps and told.seconds < 120
    assert told.positions == list(range(WORK.most_steps + 1))


def test_training__without_validations_leaves_time_for_the_last() -> None:
    """Until one is measured, a token of it counts as half of one of a step: here, 600 tenths of a second."""
    work = WORK._replace(steps_between_pauses=100_000, validation_steps=600.0)
    assert story(lambda elapsed: 0.05, work, pause=15.0).seconds == pytest.approx(120, abs=4)


def timed(folder: Path, minutes: float) -> Run:
    values = EVERYTHING | {"early_stopping": {"enabled": False}}
    run = run_in(folder, values)
    return run._replace(effective=changed(run.effective, minutes=minutes))


@pytest.fixture(name="whole", scope="module")
def whole_fixture(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return observed(timed(tmp_path_factory.mktemp("whole") / "run", minutes=1000.0))


@pytest.mark.slow
def test_enough_time__gives_the_same_bits_as_no_limit(tmp_path: Path, whole: Told) -> None:
    run = timed(tmp_path / "run", 1.0)
    without = observed(run._replace(effective=changed(run.effective, minutes=None)))
    assert without.result.state.plan is None
    assert timeless(without.rows) == timeless(whole.rows)
    assert digest(without.model) == digest(whole.model)


@pytest.mark.slow
def test_resume__of_a_training_with_minutes_continues_bit_for_bit(tmp_path: Path, whole: Told) -> None:
    run = timed(tmp_path / "run", minutes=1000.0)
    first = observed(run, should_stop=after(17, "pause"))
    assert first.result.stopped == "pause"
    rows = first.rows[: first.result.state.curve.rows]
    assert_continued(whole, rows, observed(run, resume=True))


def test_resume__continues_with_the_plan_of_its_checkpoint(tmp_path: Path) -> None:
    """The rate falls from its place in the schedule to the end of it in the five steps that were left."""
    run = timed(tmp_path / "run", minutes=1000.0)
    observed(run, should_stop=after(7, "pause"))
    checkpoint = CheckpointStore(run.folder / "checkpoints").recover().checkpoint
    assert checkpoint is not None and checkpoint.state.plan is not None
    plan = checkpoint.state.plan.corrected(7, 12)
    state = changed(checkpoint.state, plan=changed(plan, seconds=1e9))
    told = observed(run, resume=Checkpoint(state, checkpoint.weights, checkpoint.optimizer_state))
    end = told.result.state
    assert (end.step, end.is_last_step, end.plan) == (12, True, state.plan)
    assert (told.progress[-1].total_steps, told.progress[-1].progress) == (12, 100)
    left = [plan.position(step) for step in range(7, 13)]
    assert left == pytest.approx([7 + (plan.schedule_steps - 7) * k / 5 for k in range(6)])
    rates = [row.lr for row in told.rows if row.step > 8]  # after the warm-up
    warmup = math.ceil(0.2 * plan.schedule_steps)
    done = [(position - warmup) / (plan.schedule_steps - warmup) for position in left[:-1]]
    cosine = [0.001 + 0.049 * (1 + math.cos(math.pi * share)) / 2 for share in done]
    assert [rates[0], rates[-1]] == pytest.approx([cosine[2], cosine[-1]])


def test_no_time_at_all__ends_after_few_steps_with_a_validation_and_a_test(tmp_path: Path) -> None:
    """Each step halves the steps that are left."""
    told = observed(timed(tmp_path / "run", minutes=1e-6))
    state = told.result.state
    assert state.step < 10 and state.is_last_step and told.progress[-1].total_steps == state.step
    assert told.rows[-1].val_loss is not None and told.result.test is not None and losses(told.rows)
