"""After any interruption, or a fault within a step, a training resumes bit for bit from its complete state."""

import errno
import math
import random
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree
from typing import Literal, NamedTuple

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.support.markers import slow_except, slow_repeats
from tests.support.resumed import EVERYTHING, assert_continued, kept_rows, run_in, saved_last, saved_state
from tests.support.tiny_models import Run
from tests.support.torch_calls import TorchCalls
from tests.support.trainings import Told, after, digest, observed, timeless
from trainer.artifacts.checkpoint_files import TrainingState
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import Progress
from trainer.contracts.models import RnnConfig
from trainer.models.base import LanguageModel
from trainer.models.recurrent import RecurrentModel
from trainer.models.steps import ModelState
from trainer.tokenizers.base import vocabulary_of
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.device import seed_everything
from trainer.training.loop import StopReason, TrainingCallbacks
from trainer.training.progress import CurveRow

KINDS: list[tuple[str, int, int, dict[str, object]]] = [
    ("between", 43, 0, {"holdout_fraction": 0.2, "ema_decay": 0.9}),
    ("validating", 44, 1, {"ema_decay": 0.9}),
    ("ending", 47, 1, {"max_steps": 48}),
    ("testing", 20, 0, {"max_steps": 20, "learning_rate": 1.0, "warmup_ratio": 0.9, "holdout_fraction": 0.05}),
]
"""After which step, and how many times of asking later, a training is told to pause; and of what training."""


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("char_lstm", {}),
        pytest.param("gru", {}, marks=pytest.mark.slow),
        pytest.param("gru", {"optimizer": {"name": "muon"}, "ema_decay": 0.9}, marks=pytest.mark.slow),
    ],
)
def test_resume__after_thirty_interruptions_continues_bit_for_bit(
    tmp_path: Path, family: str, more: dict[str, object]
) -> None:
    values = EVERYTHING | {"model_family": family, "tokenizer": {"method": "char"}, "num_epochs": 6} | more
    values["early_stopping"] = {"enabled": False}
    whole, run = observed(run_in(tmp_path / "whole", values)), run_in(tmp_path / "parts", values)
    moments = random.Random(20261120)
    rows: list[CurveRow] = []
    for _ in range(30):
        torch.manual_seed(moments.randrange(1 << 30))
        told = observed(run, should_stop=after(moments.randint(0, 4), "pause"), resume=True)
        assert told.result.stopped == "pause"
        rows = kept_rows(run, [*rows, *told.rows])
    assert_continued(whole, rows, observed(run, resume=True))


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


def test_moments__are_of_their_kinds(moments: list[Moment]) -> None:
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
OF_OTHER_RUNS = {"initial_loss_nats", "plan"}  # warm starts, and trainings that have minutes: tested with them
OF_OTHER_RUNS |= {"curve.diverged_rows"}  # trainings that diverge
OF_OTHER_RUNS |= {"schema_version"}  # checkpoints of earlier versions
FOR_READERS = {"tokens_per_step", "rows_per_step", "max_seq_len"}  # each attempt writes them anew
FOR_READERS |= {item for item in STATE_ITEMS if item.startswith("seen.")}


@pytest.mark.parametrize(
    "item",
    slow_repeats(
        sorted({*STATE_ITEMS, "weights", "optimizer", "random", "raw_weights"} - OF_OTHER_RUNS - FOR_READERS),
        lambda item: item.partition(".")[0],
    ),
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
    if item == "raw_weights":
        raw = {name: weights[name] for name in rest["raw_weights"]}
        return Checkpoint(state, weights, {**rest, "raw_weights": raw})
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
    folder = run.folder / "again"
    folder.mkdir()
    best = checkpoint.state.history.best_step
    if best is not None and best != checkpoint.state.step:
        copytree(run.folder / "checkpoints" / f"step-{best}", folder / f"step-{best}")
    try:
        result, model, rows, progress, saved = observed(run, resume=checkpoint, store=CheckpointStore(folder))
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


VALUES: dict[str, object] = EVERYTHING | {"num_epochs": 2, "early_stopping": {"enabled": False}, "ema_decay": 0.9}
RARELY_SAVED: dict[str, object] = VALUES | {"checkpoint_every_steps": 10**6, "log_every_steps": 10**6, "num_epochs": 50}
Fault = Literal["bug", "memory", "nan loss", "far off", "nan weights"]


class Faulty(RecurrentModel):
    """An architecture with a bug, or with too much appetite, that shows in a step after some others."""

    def __init__(self, run: Run, step: int, fault: Fault = "bug", *, in_validation: bool = False) -> None:
        seed_everything(run.effective.seed)
        assert isinstance(run.effective.model, RnnConfig)
        super().__init__(run.effective.model, vocabulary_of(run.tokenizer), "causal_lm")
        self._calls_left = 2 * step if not in_validation else step
        self._fault = fault
        self._in_validation = in_validation

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Two batches make a step: the second one fails, when the first has left its traces."""
        return self._fail(super().forward(ids, lengths))

    def forward_with_state(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        logits, after = super().forward_with_state(ids, state)
        return self._fail(logits), after

    def _fail(self, logits: Tensor) -> Tensor:
        if self.training == self._in_validation:
            return logits
        self._calls_left -= 1
        if self._calls_left == 0:
            if self._fault == "memory":
                return torch.empty(1 << 60)
            raise LookupError("the bug")
        if self._calls_left <= 2:
            match self._fault:
                case "nan loss":
                    return logits * math.nan
                case "far off":
                    return logits * 1e4
                case "nan weights":
                    return logits + torch.sqrt(torch.abs(self.head_bias.sum() * 0))  # its slope is infinite at 0
                case _:
                    pass
        return logits


def failed(run: Run, model: LanguageModel, error: type[Exception] = LookupError) -> list[CurveRow]:
    """Train until it fails; return the rows of the loss curve that a resumed training keeps."""
    rows: list[CurveRow] = []
    with pytest.raises(error) as caught:
        run.train(model, callbacks=TrainingCallbacks(on_row=rows.append))
    assert not isinstance(caught.value, AppError) or caught.value.code is ErrorCode.OUT_OF_MEMORY
    return kept_rows(run, rows)


@pytest.fixture(name="whole", scope="module")
def whole_fixture(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return observed(run_in(tmp_path_factory.mktemp("whole") / "run", VALUES))


@pytest.fixture(name="run")
def run_fixture(tmp_path: Path) -> Run:
    return run_in(tmp_path / "run", VALUES)


@pytest.fixture(name="rare")
def rare_fixture(tmp_path: Path) -> Run:
    """A run that saves nothing on its way, and checks its loss only for rows of the curve, so seldom."""
    return run_in(tmp_path / "rare", RARELY_SAVED)


@pytest.mark.parametrize(
    ("step", "fault"),
    [*((step, "bug") for step in (2, 6)), (7, "memory")]
    + [pytest.param(step, "bug", marks=pytest.mark.slow) for step in (3, 5, 7, 18)],
)
def test_fault_in_a_step__leaves_the_state_before_it_to_continue_from(
    run: Run, whole: Told, step: int, fault: Fault
) -> None:
    """Just after a row of the loss curve, a checkpoint, a validation and an epoch (of 17 steps) too."""
    rows = failed(run, Faulty(run, step, fault), LookupError if fault == "bug" else AppError)
    state = saved_state(run)
    assert state is not None and state.step == state.processed_step == step - 1
    torch.manual_seed(99)
    assert_continued(whole, rows, observed(run, resume=True))


@pytest.mark.parametrize("call", slow_except([1, 2, 4], 2))
def test_fault_in_a_validation__leaves_its_step_to_be_validated_anew(run: Run, whole: Told, call: int) -> None:
    rows = failed(run, Faulty(run, call, in_validation=True))
    state = saved_state(run)
    assert state is not None and state.processed_step < state.step
    assert_continued(whole, rows, observed(run, resume=True))


def test_fault_before_any_step__leaves_nothing_to_continue_from(run: Run, rare: Run) -> None:
    failed(run, Faulty(run, 1))
    assert saved_state(run) is None
    (rare.folder / "checkpoints").touch()  # where nothing can be saved, the fault itself is reported
    with pytest.raises(LookupError, match="the bug"):
        rare.train(Faulty(rare, 3))


@pytest.mark.parametrize("fault", ["nan loss", "far off", "nan weights"])
def test_fault_after_the_numbers_went_wrong__saves_nothing(rare: Run, fault: Fault) -> None:
    failed(rare, Faulty(rare, 4, fault))
    assert saved_state(rare) is None


def test_fault_while_the_weights_move__leaves_the_older_checkpoint(run: Run, whole: Told) -> None:
    updates = iter(range(1, 100))

    def fail(function: str, _: tuple[object, ...]) -> None:
        if function == "_fused_adamw_" and next(updates) == 14:  # a step moves two groups of weights
            raise LookupError("the optimizer's bug")

    with TorchCalls(fail):
        rows = failed(run, run.fresh_model())
    state = saved_state(run)
    assert state is not None and state.step == 5, "validated every 5 steps, and the best so far"
    assert_continued(whole, rows, observed(run, resume=True))


def test_disk_that_fails__is_not_written_to_once_more(rare: Run) -> None:
    asked = iter(range(1, 100))

    def should_stop() -> StopReason | None:
        if next(asked) > 5:  # the validation after the fifth step asks, too
            raise OSError(errno.EIO, "Input/output error")
        return None

    with pytest.raises(OSError, match="Input/output"):
        rare.train(rare.fresh_model(), callbacks=TrainingCallbacks(should_stop=should_stop))
    assert saved_state(rare) is None
