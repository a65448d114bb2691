"""A checkpoint holds the complete training state: after any interruption a training resumes bit for bit."""

import random
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree
from typing import NamedTuple

import pytest
import torch
from pydantic import ValidationError

from tests.support.markers import slow_except
from tests.support.resumed import EVERYTHING, assert_continued, run_in, saved_last
from tests.support.tiny_models import Run
from tests.support.trainings import after, digest, observed, timeless
from trainer.artifacts.checkpoint_files import TrainingState
from trainer.config.validation import parse
from trainer.contracts.errors import AppError
from trainer.contracts.events import Progress
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.loop import SavedCheckpoint, StopReason, TrainingCallbacks
from trainer.training.progress import CurveRow

KINDS: list[tuple[str, int, int, dict[str, object]]] = [
    ("between", 43, 0, {"holdout_fraction": 0.2}),
    ("validating", 44, 1, {}),
    ("ending", 47, 1, {"max_steps": 48}),
    ("testing", 20, 0, {"max_steps": 20, "learning_rate": 1.0, "warmup_ratio": 0.9}),
]
"""After which step, and how many times of asking later, a training is told to pause; and of what training."""


@pytest.mark.parametrize("family", slow_except(["char_lstm", "gru"], "char_lstm"))
def test_resume__after_thirty_interruptions_continues_bit_for_bit(tmp_path: Path, family: str) -> None:
    values = EVERYTHING | {"model_family": family, "tokenizer": {"method": "char"}, "num_epochs": 6}
    values["early_stopping"] = {"enabled": False}
    whole, run = observed(run_in(tmp_path / "whole", values)), run_in(tmp_path / "parts", values)
    moments = random.Random(20261120)
    rows: list[CurveRow] = []
    for _ in range(30):
        torch.manual_seed(moments.randrange(1 << 30))
        told = observed(run, should_stop=after(moments.randint(0, 4), "pause"), resume=True)
        assert told.result.stopped == "pause"
        rows = [*rows, *told.rows][: saved_rows(run)]
    assert_continued(whole, rows, observed(run, resume=True))


def saved_rows(run: Run) -> int:
    """The number of the curve's rows that a resumed training keeps."""
    checkpoint = CheckpointStore(run.folder / "checkpoints").recover().checkpoint
    return 0 if checkpoint is None else checkpoint.state.curve.rows


class Moment(NamedTuple):
    """A checkpoint of some kind, and what comes of going on from it."""

    run: Run
    outcome: object

    @property
    def checkpoint(self) -> Checkpoint:
        """Read anew each time: a training that goes on from it changes its tensors."""
        return saved_last(self.run)


@pytest.fixture(name="moments", scope="module")
def moments_fixture(tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    """Checkpoints between two steps, within a validation, within the last one, and within the test of the best."""
    moments: list[Moment] = []
    folder = tmp_path_factory.mktemp("resume")
    for name, step, calls, more in KINDS:
        run = run_in(folder / name, EVERYTHING | more)
        pause = Pause(step, calls)
        run.train(run.fresh_model(), callbacks=TrainingCallbacks(on_step=pause.saw, should_stop=pause.should_stop))
        moments.append(Moment(run, outcome(run, saved_last(run))))
    return moments


def test_moments__are_of_the_kinds_that_they_are_meant_to_be(moments: list[Moment]) -> None:
    between, validating, ending, testing = (moment.checkpoint.state for moment in moments)
    assert between.processed_step == between.step and between.position > 0 and between.row_tokens > 0
    assert validating.processed_step < validating.step and validating.epochs
    assert ending.is_last_step and ending.processed_step < ending.step
    assert testing.step == 20 and (testing.history.best_step or 20) < 20
    for moment in moments:
        assert outcome(moment.run, moment.checkpoint) == moment.outcome, "a whole checkpoint gives no other outcome"


class Pause:
    """A wish to stop, from some time of asking on after a step was told."""

    def __init__(self, step: int, calls: int) -> None:
        self._step = step
        self._calls = calls
        self._told = 0

    def saw(self, read: Callable[[], Progress]) -> None:
        self._told = read().step

    def should_stop(self) -> StopReason | None:
        if self._told < self._step:
            return None
        self._calls -= 1
        return "pause" if self._calls < 0 else None


UNTOUCHED: dict[str, object] = TrainingState(request_hash="0" * 64).model_dump(mode="json")
STATE_ITEMS = [
    f"{name}.{inner}" if inner else name
    for name, value in UNTOUCHED.items()
    for inner in (value if isinstance(value, dict) else ("",))
]
OF_WARM_STARTS = {"initial_loss_nats"}  # tested with them
FOR_READERS = {"tokens_per_step", "rows_per_step", "max_seq_len"}  # each attempt writes them anew


@pytest.mark.parametrize(
    "item", sorted({*STATE_ITEMS, "weights", "optimizer", "random"} - OF_WARM_STARTS - FOR_READERS)
)
def test_checkpoint__leaving_any_one_item_out_is_noticed(moments: list[Moment], item: str) -> None:
    """On the CPU; the scaler's state matters with fp16 on CUDA only."""
    assert any(outcome(moment.run, without(moment, item)) != moment.outcome for moment in moments)


def without(moment: Moment, item: str) -> Checkpoint:
    """The checkpoint with one item as it is in a training that has not begun."""
    state, weights, rest = moment.checkpoint
    fresh = moment.run.fresh_model()
    if item == "weights":
        initial: dict[str, torch.Tensor] = fresh.state_dict()
        return Checkpoint(state, initial, rest)
    if item == "optimizer":
        groups: object = rest["optimizer"]["param_groups"]
        return Checkpoint(state, weights, {**rest, "optimizer": {"state": {}, "param_groups": groups}})
    if item == "random":
        torch.manual_seed(77)
        return Checkpoint(state, weights, {**rest, "random": {"cpu": torch.get_rng_state(), "cuda": []}})
    name, _, inner = item.partition(".")
    return Checkpoint(reset(state, name, inner), weights, rest)


def reset(state: TrainingState, name: str, inner: str) -> TrainingState:
    """The state with one field, or a field inside it, as it is before anything has happened."""
    values: dict[str, object] = state.model_dump(mode="json")
    current, untouched = values[name], UNTOUCHED[name]
    if isinstance(current, dict) and isinstance(untouched, dict):
        untouched = {**current, inner: untouched[inner]}
    return parse(TrainingState, values | {name: untouched})


def outcome(run: Run, checkpoint: Checkpoint) -> object:
    """All that a resumed training tells and leaves, without its times, but with whether they went on."""
    rows: list[CurveRow] = []
    progress: list[Progress] = []
    saved: list[SavedCheckpoint] = []
    torch.manual_seed(5)
    model = run.fresh_model()
    folder = run.folder / "again"
    folder.mkdir()
    store = CheckpointStore(folder)
    best = checkpoint.state.history.best_step
    if best is not None and best != checkpoint.state.step:
        copytree(run.folder / "checkpoints" / f"step-{best}", folder / f"step-{best}")
    try:
        result = run.train(
            model,
            store=store,
            resume=checkpoint,
            callbacks=TrainingCallbacks(rows.append, lambda make: progress.append(make()), saved.append),
        )
    except (AppError, ValidationError) as error:
        return str(error)
    finally:
        rmtree(folder)
    end, begin = result.state, checkpoint.state
    clock = (
        end.elapsed_seconds >= begin.elapsed_seconds > 0,
        end.train_seconds >= begin.train_seconds > 0,
        sum(epoch.seconds for epoch in end.epochs) <= end.elapsed_seconds,
    )
    without_time: dict[str, object] = {"tokens_per_second": 0.0, "chars_per_second": 0.0, "eta_seconds": 0.0}
    history, curve = end.history, end.curve
    return (
        timeless(rows),
        [p.model_copy(update=without_time) for p in progress],
        saved,
        (result.test, result.early_stopped, digest(model), clock),
        [epoch.train_loss_nats for epoch in end.epochs],
        (end.step, end.validation_loss_nats, history.best_loss_nats, history.best_epoch, curve.area, curve.rows),
    )
