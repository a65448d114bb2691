"""A fault within a step loses nothing: the state before it is saved and resumes bit for bit."""

import errno
import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from tests.support.markers import slow_except
from tests.support.resumed import EVERYTHING, assert_continued, run_in
from tests.support.tiny_models import Run
from tests.support.torch_calls import TorchCalls
from tests.support.trainings import Told, observed
from trainer.artifacts.checkpoint_files import TrainingState
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import RnnConfig
from trainer.models.base import LanguageModel, ModelState
from trainer.models.recurrent import RecurrentModel
from trainer.tokenizers.base import vocabulary_of
from trainer.training.checkpoint import CheckpointStore
from trainer.training.device import seed_everything
from trainer.training.loop import StopReason, TrainingCallbacks
from trainer.training.progress import CurveRow

VALUES: dict[str, object] = EVERYTHING | {"num_epochs": 2, "early_stopping": {"enabled": False}}
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
    state = saved_state(run)
    return rows if state is None else rows[: state.curve.rows]


def saved_state(run: Run) -> TrainingState | None:
    checkpoint = CheckpointStore(run.folder / "checkpoints").recover().checkpoint
    return None if checkpoint is None else checkpoint.state


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
