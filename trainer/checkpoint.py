"""Checkpoints that survive a crash at any instruction: whole and verified, or not there at all.

A checkpoint is written into `.tmp-step-N`, synced file by file, sealed by a manifest of sizes and SHA-256, and renamed
to `step-N`. Weights are safetensors; optimizer and generators are a torch file that is read, with pickled code refused,
only after its hash was found right.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from typing import Literal, NamedTuple, TypedDict
from zipfile import ZIP_STORED, ZipFile

import structlog
import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors.torch import save as save_safetensors
from torch import Tensor

from trainer.contracts.base import FileRecord, Frozen, Sha256
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.validation import parse_json
from trainer.device import RandomState
from trainer.early_stopping import ValidationHistory
from trainer.files import DISK, Disk, read_record, read_regular, storage_errors
from trainer.weights import most_file_bytes, parse_weights, weight_bytes

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_MANIFEST, _STATE, _WEIGHTS, _REST = "manifest.json", "state.json", "model.safetensors", "training.pt"
_KEPT = 2
_MOST_MANIFEST_BYTES = 1 << 20
_MOST_MOMENTS = 4
"""Times the weights: what an optimizer keeps of them, at most."""
_MOST_OTHER_BYTES = 64 << 20
_STEP = re.compile("0|[1-9][0-9]{0,17}")


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


class TrainingState(Frozen, extra="ignore"):
    """Where a training stands, besides its weights: with them, all that the next step depends on.

    A field that only an older version knew is no reason to refuse its checkpoint.
    """

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
    initial_loss_nats: float | None = None
    """Validation before the first step, of a warm start."""
    history: ValidationHistory = ValidationHistory()
    validation_loss_nats: float | None = None
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


class CheckpointStore:
    """The checkpoints of one run: the last two, and the best that they point to."""

    def __init__(self, folder: Path, disk: Disk = DISK) -> None:
        self._folder = folder
        self._disk = disk
        self._was_read_back = False

    def save(self, checkpoint: Checkpoint) -> None:
        """Make a checkpoint durable, then drop those that are not needed any more.

        A step that was saved stands, so that no moment is without it: saved while its validation was under way, it is
        validated again after a crash, with the same result. The first one is read back before it counts. Raises
        INSUFFICIENT_STORAGE where the disk is full, SERVICE_UNAVAILABLE where it fails, and CHECKPOINT_CORRUPT for a
        state that cannot be read back; the earlier checkpoints are whole then.
        """
        with storage_errors("no checkpoint could be saved; the earlier ones are there as they were"):
            if self._step_folder(checkpoint.state.step).exists():
                self._disk.sync(self._folder)  # a save that failed at its very end may have left it so far
                return
            self._write(checkpoint)
            self._prune()

    def recover(self, expected: Mapping[str, Tensor] | None = None) -> Recovery:
        """Return the newest checkpoint that is whole, with the best that it points to.

        Its weights must have the names, shapes and dtypes of `expected`, where that is given. What is not whole is
        renamed to `broken-...`: never used, never deleted without a word.
        """
        set_aside: list[str] = []
        with storage_errors("the checkpoints could not be put in order"):
            for leftover in self._folder.glob(".tmp-*"):
                self._disk.remove_folder(leftover)
            for step in reversed(self.steps()):
                try:
                    checkpoint = self._load(self._step_folder(step), expected)
                    best_step = checkpoint.state.history.best_step
                    if best_step is not None:
                        self._content(self._step_folder(best_step), expected)
                except AppError:
                    set_aside.append(self._set_aside(step))
                else:
                    return Recovery(checkpoint, tuple(set_aside))
        return Recovery(None, tuple(set_aside))

    def weights(self, step: int) -> dict[str, Tensor]:
        """Return the weights of a step; raises CHECKPOINT_CORRUPT where a byte is not as it was saved."""
        folder = self._step_folder(step)
        return _parsed(folder, self._content(folder), None)

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
        try:
            self._disk.make_folder(temporary)
            for name, data in content.items():
                self._disk.write(temporary / name, data)
            self._disk.write(temporary / _MANIFEST, _Manifest(files=files).model_dump_json().encode())
            self._disk.sync(temporary)
            self._read_back(temporary, checkpoint)
            self._disk.rename(temporary, self._step_folder(step))
            self._disk.sync(self._folder)
        except (AppError, OSError):
            with suppress(OSError):
                self._disk.remove_folder(temporary)
            raise

    def _read_back(self, folder: Path, checkpoint: Checkpoint) -> None:
        """Refuse a state that torch saves but does not load again, once: its types do not change later."""
        if not self._was_read_back:
            try:
                self._load(folder, checkpoint.weights)
            except AppError:
                message = (
                    "The state of the training cannot be read back from a checkpoint, so none was saved:"
                    " this is a fault of the program."
                )
                raise AppError(ErrorCode.CHECKPOINT_CORRUPT, message) from None
            self._was_read_back = True

    def _prune(self) -> None:
        steps = self.steps()
        kept = set(steps[-_KEPT:])
        for step in steps[-_KEPT:]:
            try:
                state = read_record(self._step_folder(step) / _STATE, TrainingState)
            except ValueError:
                return  # which one is the best is not known: recovery will set this one aside
            kept.add(step if state.history.best_step is None else state.history.best_step)
        for step in steps:
            if step not in kept:
                self._disk.remove_folder(self._step_folder(step))

    def _load(self, folder: Path, expected: Mapping[str, Tensor] | None) -> Checkpoint:
        content = self._content(folder, expected)
        state = parse_json(TrainingState, content[_STATE], ErrorCode.CHECKPOINT_CORRUPT)
        weights = _parsed(folder, content, expected)
        try:
            return Checkpoint(state, weights, _load_rest(content[_REST]))
        except Exception as error:
            # what torch raises for a file that was made to mislead it is not told anywhere
            log.warning("checkpoint that cannot be loaded", names=folder.name, error=type(error).__name__)
            raise _corrupt(folder) from None

    def _content(self, folder: Path, expected: Mapping[str, Tensor] | None = None) -> dict[str, bytes]:
        """Read the files of a checkpoint; raises CHECKPOINT_CORRUPT unless each is as the manifest says.

        Nothing is read that is larger than the manifest says, or than a model of the expected weights can need.
        """
        try:
            manifest = _Manifest.model_validate_json(read_regular(folder / _MANIFEST, _MOST_MANIFEST_BYTES))
            sizes = {record.path: record.bytes for record in manifest.files}
            if folder.is_symlink() or sizes.keys() != {_STATE, _WEIGHTS, _REST}:
                raise _corrupt(folder)
            if expected is not None and (
                sizes[_WEIGHTS] > most_file_bytes(expected)
                or sizes[_REST] > _MOST_MOMENTS * weight_bytes(expected) + _MOST_OTHER_BYTES
            ):
                raise _corrupt(folder)
            content = {name: read_regular(folder / name, size) for name, size in sizes.items()}
        except (OSError, ValueError):
            raise _corrupt(folder) from None
        if any(sha256(content[record.path]).hexdigest() != record.sha256 for record in manifest.files):
            raise _corrupt(folder)
        return content

    def steps(self) -> list[int]:
        """The steps that there are checkpoints of, whole or not."""
        names = [folder.name.removeprefix("step-") for folder in self._folder.glob("step-*")]
        return sorted(int(name) for name in names if _STEP.fullmatch(name))

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


_moments: TypeAdapter[dict[int, dict[str, Tensor | None]]] = TypeAdapter(
    dict[int, dict[str, Tensor | None]], config=ConfigDict(arbitrary_types_allowed=True)
)


def _load_rest(data: bytes) -> OptimizerAndGenerators:
    """Read the torch file; raises an error of one kind or another where it would grow in memory, or is none.

    An archive may hold what is small only while it is packed, and a tensor may show one number as a million.
    """
    with ZipFile(BytesIO(data)) as archive:
        unpacked = [(entry.compress_type, entry.file_size) for entry in archive.infolist()]
    if any(kind != ZIP_STORED for kind, _ in unpacked) or sum(size for _, size in unpacked) > len(data):
        raise ValueError("the archive is packed")
    rest: OptimizerAndGenerators = torch.load(BytesIO(data), weights_only=True)
    if rest.keys() != OptimizerAndGenerators.__annotations__.keys():
        raise ValueError("the archive holds something else")
    for moments in _moments.validate_python(rest["optimizer"]["state"]).values():
        for tensor in moments.values():
            if tensor is not None and tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
                raise ValueError("a tensor is larger than its numbers")
    return rest


def _parsed(folder: Path, content: dict[str, bytes], expected: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    try:
        return parse_weights(content[_WEIGHTS], expected)
    except ValueError:
        raise _corrupt(folder) from None


def _corrupt(folder: Path) -> AppError:
    step = folder.name.split("step-")[-1]
    return AppError(ErrorCode.CHECKPOINT_CORRUPT, f"The checkpoint of step {step} is not as it was saved.")
