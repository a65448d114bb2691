"""Checkpoints that survive a crash at any instruction: whole and verified, or not there at all.

A checkpoint is written into `.tmp-step-N`, synced file by file, sealed by a manifest of sizes and SHA-256, and renamed
to `step-N`. Weights are safetensors; optimizer and generators are a torch file that is read, with pickled code refused,
only after its hash was found right.
"""

import errno
import os
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from secrets import token_hex
from shutil import rmtree
from typing import Literal, NamedTuple, TypedDict

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from trainer.contracts.base import FileRecord, Frozen, Sha256
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.validation import parse_json
from trainer.device import RandomState
from trainer.early_stopping import ValidationHistory
from trainer.files import sync_folder

_MANIFEST, _STATE, _WEIGHTS, _REST = "manifest.json", "state.json", "model.safetensors", "training.pt"
_KEPT = 2


class CurveState(Frozen):
    """How far the loss curve is: its rows, its last point, the area under it up to there."""

    rows: int = 0
    step: int = 0
    loss_nats: float | None = None
    area: float = 0.0


class EpochSummary(Frozen):
    """A complete epoch: its mean loss per predicted token while the weights moved, and its duration."""

    train_loss_nats: float
    seconds: float


class TrainingState(Frozen):
    """Where a training stands, besides its weights: with them, all that the next step depends on."""

    request_hash: Sha256
    step: int = 0
    settled_step: int = 0
    """The last step after which all was done that was due: evaluation, row of the loss curve."""
    position: int = 0
    """Rows of the current epoch's order that are used up; always whole optimizer steps."""
    epochs: tuple[EpochSummary, ...] = ()
    """The epochs that are complete."""
    epoch_loss_nats: float = 0.0
    epoch_tokens: int = 0
    row_loss_nats: float = 0.0
    row_tokens: int = 0
    """Sum and count since the last row of the loss curve."""
    tokens_seen: int = 0
    gradient_norm: float = 0.0
    curve: CurveState = CurveState()
    history: ValidationHistory = ValidationHistory()
    validation_loss_nats: float | None = None
    validated_step: int | None = None
    ending: bool = False
    """No step comes after this one: all are done, or the time is up."""
    elapsed_seconds: float = 0.0
    epoch_start_seconds: float = 0.0
    train_seconds: float = 0.0
    """Time spent in steps, without validation and saving."""


class OptimizerAndGenerators(TypedDict):
    optimizer: dict[str, object]
    scaler: dict[str, object]
    random: RandomState


class Checkpoint(NamedTuple):
    """A training as it was after some step."""

    state: TrainingState
    weights: dict[str, Tensor]
    rest: OptimizerAndGenerators


class Recovery(NamedTuple):
    """The newest checkpoint that verified, and the names under which broken ones were set aside."""

    checkpoint: Checkpoint | None
    set_aside: tuple[str, ...]


class Disk:
    """The doorway to the disk: each call is done when it returns, except for names, which `sync` makes durable."""

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def sync(self, folder: Path) -> None:
        sync_folder(folder)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def remove_folder(self, folder: Path) -> None:
        rmtree(folder)


class CheckpointStore:
    """The checkpoints of one run: the last two, and the best that they point to."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._folder = folder
        self._disk = disk or Disk()

    def save(self, checkpoint: Checkpoint) -> None:
        """Make a checkpoint durable, then drop those that are not needed any more.

        A step that was saved stands, so that no moment is without it: saved while its validation was under way, it is
        validated again after a crash, with the same result. Raises INSUFFICIENT_STORAGE where the disk is full; the
        earlier checkpoints are whole then.
        """
        if self._step_folder(checkpoint.state.step).exists():
            return
        try:
            self._write(checkpoint)
            self._prune()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                message = "The disk is full, so no checkpoint could be saved: free some space and resume the run."
                raise AppError(ErrorCode.INSUFFICIENT_STORAGE, message) from error
            raise

    def recover(self) -> Recovery:
        """Return the newest checkpoint that is whole, with the best that it points to.

        What is not whole is renamed to `broken-...`: never used, never deleted without a word.
        """
        for leftover in self._folder.glob(".tmp-*"):
            self._disk.remove_folder(leftover)
        set_aside: list[str] = []
        for step in reversed(self._steps()):
            try:
                checkpoint = self._load(step)
                best_step = checkpoint.state.history.best_step
                if best_step is not None:
                    self._content(best_step)
            except AppError:
                set_aside.append(self._set_aside(step))
            else:
                return Recovery(checkpoint, tuple(set_aside))
        return Recovery(None, tuple(set_aside))

    def weights(self, step: int) -> dict[str, Tensor]:
        """Return the weights of a step; raises CHECKPOINT_CORRUPT where a byte is not as it was saved."""
        return load_safetensors(self._content(step)[_WEIGHTS])

    def _write(self, checkpoint: Checkpoint) -> None:
        step = checkpoint.state.step
        temporary = self._folder / f".tmp-step-{step}"
        rest = BytesIO()
        torch.save(checkpoint.rest, rest)
        content = {
            _STATE: checkpoint.state.model_dump_json().encode(),
            _WEIGHTS: save_safetensors(checkpoint.weights),
            _REST: rest.getvalue(),
        }
        files = tuple(
            FileRecord(path=name, bytes=len(data), sha256=sha256(data).hexdigest()) for name, data in content.items()
        )
        self._disk.make_folder(temporary)
        for name, data in content.items():
            self._disk.write(temporary / name, data)
        self._disk.write(temporary / _MANIFEST, _Manifest(files=files).model_dump_json().encode())
        self._disk.sync(temporary)
        self._disk.rename(temporary, self._step_folder(step))
        self._disk.sync(self._folder)

    def _prune(self) -> None:
        steps = self._steps()
        kept = set(steps[-_KEPT:])
        for step in steps[-_KEPT:]:
            state = TrainingState.model_validate_json((self._step_folder(step) / _STATE).read_bytes())
            kept.add(state.history.best_step or step)
        for step in steps:
            if step not in kept:
                self._disk.remove_folder(self._step_folder(step))

    def _load(self, step: int) -> Checkpoint:
        content = self._content(step)
        state = parse_json(TrainingState, content[_STATE], ErrorCode.CHECKPOINT_CORRUPT)
        try:
            rest: OptimizerAndGenerators = torch.load(BytesIO(content[_REST]), weights_only=True)
        except UnpicklingError:
            raise _corrupt(step) from None
        return Checkpoint(state, load_safetensors(content[_WEIGHTS]), rest)

    def _content(self, step: int) -> dict[str, bytes]:
        """Read the files of a checkpoint; raises CHECKPOINT_CORRUPT unless each is as the manifest says."""
        folder = self._step_folder(step)
        try:
            manifest = parse_json(_Manifest, (folder / _MANIFEST).read_bytes(), ErrorCode.CHECKPOINT_CORRUPT)
            content = {record.path: (folder / record.path).read_bytes() for record in manifest.files}
        except (OSError, ValueError):
            raise _corrupt(step) from None
        for record in manifest.files:
            data = content[record.path]
            if (len(data), sha256(data).hexdigest()) != (record.bytes, record.sha256):
                raise _corrupt(step)
        if set(content) != {_STATE, _WEIGHTS, _REST}:
            raise _corrupt(step)
        return content

    def _steps(self) -> list[int]:
        names = [folder.name.removeprefix("step-") for folder in self._folder.glob("step-*")]
        return sorted(int(name) for name in names if name.isdecimal())

    def _step_folder(self, step: int) -> Path:
        return self._folder / f"step-{step}"

    def _set_aside(self, step: int) -> str:
        name = f"broken-step-{step}-{token_hex(4)}"
        self._disk.rename(self._step_folder(step), self._folder / name)
        self._disk.sync(self._folder)
        return name


class _Manifest(Frozen):
    """The seal of a checkpoint, written last."""

    format_version: Literal[1] = 1
    files: tuple[FileRecord, ...]


def _corrupt(step: int) -> AppError:
    return AppError(ErrorCode.CHECKPOINT_CORRUPT, f"The checkpoint of step {step} is not as it was saved.")
