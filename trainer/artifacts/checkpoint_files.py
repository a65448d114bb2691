"""Files of a checkpoint, the manifest with their hashes, and the state of its training; imports no torch."""

import re
from pathlib import Path
from typing import Literal

from trainer.contracts.base import FileRecord, Frozen, Sha256, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.training_options import EarlyStopping
from trainer.system.files import changed_files, read_record, read_regular

MANIFEST, STATE, WEIGHTS, OPTIMIZER_STATE = "manifest.json", "state.json", "model.safetensors", "optimizer.pt"
_MAX_MANIFEST_BYTES = 1 << 20
_SCHEDULED = "scheduled"
_STEP = re.compile("0|[1-9][0-9]{0,17}")


class ValidationHistory(Frozen):
    """Best validation loss so far, and evaluations since the loss last fell by `min_delta`."""

    best_loss_nats: float | None = None
    best_margin_nats: float | None = None
    """Half the width of the 95 % interval of the best loss over the validation lines; None with too few lines."""
    best_step: int | None = None
    best_epoch: int | None = None
    reference_loss_nats: float | None = None
    """Last loss that fell by more than `min_delta`; the next loss is compared with it."""
    evaluations_without_fall: int = 0

    def after(
        self, loss_nats: float, margin_nats: float | None, *, step: int, epoch: int, rule: EarlyStopping
    ) -> "ValidationHistory":
        """Return the history with one more evaluation."""
        changes: dict[str, object] = {"evaluations_without_fall": self.evaluations_without_fall + 1}
        if self.reference_loss_nats is None or loss_nats < self.reference_loss_nats - rule.min_delta:
            changes = {"evaluations_without_fall": 0, "reference_loss_nats": loss_nats}
        if self.best_loss_nats is None or loss_nats < self.best_loss_nats:
            changes |= {"best_loss_nats": loss_nats, "best_margin_nats": margin_nats}
            changes |= {"best_step": step, "best_epoch": epoch}
        return self.model_copy(update=changes)

    def stops(self, rule: EarlyStopping) -> bool:
        return rule.enabled and self.evaluations_without_fall >= rule.patience


class CurveState(Frozen):
    """State of the loss curve: its rows, its last point and the area under it."""

    rows: int = 0
    step: int = 0
    loss_nats: float | None = None
    area: float | None = None
    """None until there are two rows with a training loss."""
    diverged_rows: int = 0
    """The last rows whose loss is far above guessing, without another one between them."""


class EpochSummary(Frozen):
    """A complete epoch: mean training loss per predicted token, and duration."""

    train_loss_nats: float
    seconds: float


class TextSeen(Frozen):
    """Words and tokens of the training text read since the start, over all epochs, and those of the last step.

    A schedule keeps a checkpoint for the threshold W if words - words_in_step < W <= words.
    """

    words: int = 0
    tokens: int = 0
    words_in_step: int = 0
    tokens_in_step: int = 0


class StepPlan(Frozen):
    """The steps of a training that has `minutes`, as its clock has corrected them so far."""

    seconds: float
    """Time for its steps, validations and checkpoints, and for its last evaluation."""
    total_steps: int
    schedule_steps: int
    """Steps of the whole schedule of the learning rate, which is passed through faster with fewer `total_steps`."""
    from_step: int = 0
    from_position: float = 0.0
    """The last correction: its step, and the position in the schedule."""

    def position(self, step: float) -> float:
        """Return the position of a step in the schedule; that of `total_steps` is `schedule_steps`."""
        left = (self.schedule_steps - self.from_position) / (self.total_steps - self.from_step)
        return self.schedule_steps - (self.total_steps - step) * left

    def corrected(self, step: int, total_steps: int) -> "StepPlan":
        """Return the plan with another total from a step on, which must be below both totals."""
        if total_steps == self.total_steps:
            return self
        return changed(self, from_step=step, from_position=self.position(step), total_steps=total_steps)


class TrainingState(Frozen):
    """State of a training besides its weights; the next step depends on nothing else."""

    schema_version: Literal[3] = 3
    request_hash: Sha256
    step: int = 0
    processed_step: int = 0
    """Last step whose evaluation and loss-curve row were written."""
    position: int = 0
    """Rows of the current epoch that have been trained on; a multiple of complete optimizer steps."""
    epochs: tuple[EpochSummary, ...] = ()
    """Complete epochs."""
    epoch_loss_nats: float = 0.0
    epoch_tokens: int = 0
    row_loss_nats: float = 0.0
    row_tokens: int = 0
    """Loss and tokens since the last row of the loss curve."""
    tokens_seen: int = 0
    """Predicted tokens."""
    seen: TextSeen = TextSeen()
    """Text read, whether or not its tokens were predicted."""
    tokens_per_step: int = 0
    """Tokens of the last step."""
    rows_per_step: int = 0
    """Rows of a whole step: the batch size times the gradient accumulation."""
    max_seq_len: int = 0
    """Length of a row in tokens."""
    gradient_norm: float = 0.0
    curve: CurveState = CurveState()
    initial_loss_nats: float | None = None
    """Validation loss before the first step of a warm start."""
    history: ValidationHistory = ValidationHistory()
    validation_loss_nats: float | None = None
    is_last_step: bool = False
    """True after the last step: all steps are done, or the time limit is reached."""
    elapsed_seconds: float = 0.0
    epoch_start_seconds: float = 0.0
    train_seconds: float = 0.0
    """Time spent in optimizer steps, without validation and saving."""
    plan: StepPlan | None = None
    """None in trainings without `minutes`."""

    @property
    def epoch(self) -> int:
        """The epoch of the last step, from 1; 0 before the first step."""
        return len(self.epochs) + (self.position > 0)


RESUMABLE_FILES = frozenset({STATE, WEIGHTS, OPTIMIZER_STATE})
SCHEDULED_FILES = frozenset({STATE, WEIGHTS})
"""Files of a checkpoint to resume from, and of a checkpoint that a schedule stores permanently."""


class CheckpointManifest(Frozen):
    """Hashes of the files of a checkpoint, written last."""

    format_version: Literal[1] = 1
    files: tuple[FileRecord, ...]


def checkpoint_steps(checkpoints: Path) -> list[int]:
    """Return the steps of all checkpoints in a folder, complete or not, in ascending order."""
    names = [folder.name.removeprefix("step-") for folder in checkpoints.glob("step-*")]
    return sorted(int(name) for name in names if _STEP.fullmatch(name))


def step_folder(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step-{step}"


def scheduled_folder(checkpoints: Path) -> Path:
    """Return the folder of the checkpoints that a schedule stores permanently."""
    return checkpoints / _SCHEDULED


def newest_whole(checkpoints: Path) -> TrainingState | None:
    """Return the state of the newest checkpoint that is intact, with the best checkpoint that it refers to."""
    for step in reversed(checkpoint_steps(checkpoints)):
        try:
            state = _state_of_whole(step_folder(checkpoints, step))
            if state.history.best_step is not None:
                _state_of_whole(step_folder(checkpoints, state.history.best_step))
        except (AppError, OSError, ValueError):
            continue
        return state
    return None


def sealed_files(folder: Path) -> tuple[FileRecord, ...]:
    """Return the files of a checkpoint by its manifest, without reading them; raises CHECKPOINT_CORRUPT."""
    names = SCHEDULED_FILES if folder.parent.name == _SCHEDULED else RESUMABLE_FILES
    try:
        files = CheckpointManifest.model_validate_json(read_regular(folder / MANIFEST, _MAX_MANIFEST_BYTES)).files
    except (OSError, ValueError):
        raise corrupt(folder) from None
    if folder.is_symlink() or {file.path for file in files} != names:
        raise corrupt(folder)
    return files


def check_checkpoint(folder: Path) -> None:
    """Raise CHECKPOINT_CORRUPT unless the files of a checkpoint have the hashes of its manifest."""
    if changed_files(folder, sealed_files(folder)):
        raise corrupt(folder)


def _state_of_whole(folder: Path) -> TrainingState:
    check_checkpoint(folder)
    return read_record(folder / STATE, TrainingState)


def corrupt(folder: Path) -> AppError:
    step = folder.name.split("step-")[-1]
    return AppError(ErrorCode.CHECKPOINT_CORRUPT, f"The checkpoint of step {step} is damaged.")
