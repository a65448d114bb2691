"""Checkpoints that survive a crash at any instruction: complete and verified, or absent.

A checkpoint is written to `.tmp-step-N`, synced file by file, sealed by a manifest of sizes and SHA-256 hashes, and
renamed to `step-N`. Weights are safetensors; the state of the optimizer and the random generators is a torch file.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple, TypedDict
from zipfile import ZIP_STORED, ZipFile

import structlog
import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors.torch import save as save_safetensors
from torch import Tensor

from trainer.artifacts.checkpoint_files import (
    MANIFEST,
    OPTIMIZER_STATE,
    STATE,
    WEIGHTS,
    CheckpointManifest,
    TrainingState,
    checkpoint_steps,
    corrupt,
    scheduled_folder,
    sealed_files,
    step_folder,
)
from trainer.config.validation import parse_json
from trainer.contracts.base import FileRecord
from trainer.contracts.errors import AppError, ErrorCode
from trainer.models.weights import max_file_bytes, parse_weights, weight_bytes
from trainer.system.files import DISK, Disk, read_record, read_regular, storage_errors
from trainer.training.device import RandomState
from trainer.training.update_rules import moments_adapter

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_weights_adapter: TypeAdapter[dict[str, Tensor]] = TypeAdapter(
    dict[str, Tensor], config=ConfigDict(arbitrary_types_allowed=True)
)
_NEWEST_CHECKPOINTS = 2
_MAX_OPTIMIZER_RATIO = 4
"""Maximum size of the optimizer state, as a multiple of the weights."""
_MAX_OTHER_BYTES = 64 << 20


class OptimizerState(TypedDict):
    """State of the optimizer, the loss scale and the random generators."""

    optimizer: dict[str, object]
    scaler: dict[str, object]
    random: RandomState
    raw_weights: dict[str, Tensor]
    """Trainable weights by name, if those of the checkpoint are their moving average; else empty."""


class Checkpoint(NamedTuple):
    """Complete state of a training after a step."""

    state: TrainingState
    weights: dict[str, Tensor]
    optimizer_state: OptimizerState


class Recovery(NamedTuple):
    """The newest valid checkpoint, if any, and the folder names of quarantined ones."""

    checkpoint: Checkpoint | None
    quarantined: tuple[str, ...]


class CheckpointStore:
    """The checkpoints of one run: the newest two, the best ones that they refer to, and the scheduled ones."""

    def __init__(self, folder: Path, disk: Disk = DISK) -> None:
        self._folder = folder
        self._disk = disk
        self._was_read_back = False

    def save(self, checkpoint: Checkpoint) -> None:
        """Make a checkpoint durable, then delete checkpoints that are no longer needed.

        An existing checkpoint of the step is not replaced. If it was saved during a validation, a resumed training
        repeats that validation with the same result. The first checkpoint is read back before it is accepted.

        Raises INSUFFICIENT_STORAGE if the disk is full, SERVICE_UNAVAILABLE if it fails, and CHECKPOINT_CORRUPT if the
        state cannot be read back. Earlier checkpoints stay valid.
        """
        with storage_errors("the checkpoint was not saved; earlier checkpoints are unchanged"):
            if step_folder(self._folder, checkpoint.state.step).exists():
                self._disk.sync(self._folder)  # an earlier save may have failed after the rename
                return
            optimizer_state = BytesIO()
            torch.save(checkpoint.optimizer_state, optimizer_state)
            content = _weights_and_state(checkpoint.state, checkpoint.weights)
            content[OPTIMIZER_STATE] = optimizer_state.getvalue()
            self._write(self._folder, checkpoint.state.step, content, lambda at: self._read_back(at, checkpoint))
            self._prune()

    def save_scheduled(self, state: TrainingState, weights: Mapping[str, Tensor]) -> None:
        """Make the weights of a scheduled step durable, never to be deleted or replaced. Raises as `save` does."""
        scheduled = scheduled_folder(self._folder)
        with storage_errors("the scheduled checkpoint was not saved; earlier checkpoints are unchanged"):
            if step_folder(scheduled, state.step).exists():
                self._disk.sync(scheduled)
            else:
                self._write(scheduled, state.step, _weights_and_state(state, weights))

    def recover(self, expected: Mapping[str, Tensor] | None = None) -> Recovery:
        """Return the newest valid checkpoint whose best checkpoint is valid too.

        If `expected` is given, the weights must have its names, shapes and dtypes. Invalid checkpoints are quarantined:
        renamed to `broken-...` and never used; a cleanup after the end of the run removes them.
        """
        quarantined: list[str] = []
        with storage_errors("the checkpoints could not be recovered"):
            for leftover in (*self._folder.glob(".tmp-*"), *scheduled_folder(self._folder).glob(".tmp-*")):
                self._disk.remove_folder(leftover)
            for step in reversed(self.steps()):
                try:
                    checkpoint = self._load(step_folder(self._folder, step), expected)
                    best_step = checkpoint.state.history.best_step
                    if best_step is not None:
                        self._content(step_folder(self._folder, best_step), expected)
                except AppError:
                    quarantined.append(self._quarantine(step))
                else:
                    return Recovery(checkpoint, tuple(quarantined))
        return Recovery(None, tuple(quarantined))

    def weights(self, step: int) -> dict[str, Tensor]:
        """Return the weights of a step. Raises CHECKPOINT_CORRUPT if a byte differs from what was saved."""
        folder = step_folder(self._folder, step)
        return _parse_weights(folder, self._content(folder), None)

    def scheduled_steps(self) -> list[int]:
        """Return the scheduled steps that have a folder, valid or not, in ascending order."""
        return checkpoint_steps(scheduled_folder(self._folder))

    def scheduled_weights(self, step: int) -> dict[str, Tensor]:
        """Return the weights of a scheduled step. Raises CHECKPOINT_CORRUPT if a byte differs from what was saved."""
        folder = step_folder(scheduled_folder(self._folder), step)
        return _parse_weights(folder, self._content(folder), None)

    def _write(
        self, parent: Path, step: int, content: Mapping[str, bytes], check: Callable[[Path], None] = lambda _: None
    ) -> None:
        temporary = parent / f".tmp-step-{step}"
        files = tuple(
            FileRecord(path=name, bytes=len(data), sha256=sha256(data).hexdigest()) for name, data in content.items()
        )
        try:
            self._disk.make_folder(temporary)
            for name, data in content.items():
                self._disk.write(temporary / name, data)
            self._disk.write(temporary / MANIFEST, CheckpointManifest(files=files).model_dump_json().encode())
            self._disk.sync(temporary)
            check(temporary)
            self._disk.rename(temporary, step_folder(parent, step))
            self._disk.sync(parent)
        except (AppError, OSError):
            with suppress(OSError):
                self._disk.remove_folder(temporary)
            raise

    def _read_back(self, folder: Path, checkpoint: Checkpoint) -> None:
        """Check once that torch can load the state it saved: the types in the state do not change later."""
        if not self._was_read_back:
            try:
                self._load(folder, checkpoint.weights)
            except AppError:
                message = (
                    "Internal error: the training state cannot be read back from its checkpoint. It was not saved."
                )
                raise AppError(ErrorCode.CHECKPOINT_CORRUPT, message) from None
            self._was_read_back = True

    def _prune(self) -> None:
        steps = self.steps()
        needed = set(steps[-_NEWEST_CHECKPOINTS:])
        for step in steps[-_NEWEST_CHECKPOINTS:]:
            try:
                state = read_record(step_folder(self._folder, step) / STATE, TrainingState)
            except ValueError:
                return  # the best step is unknown: the next recovery will quarantine this checkpoint
            needed.add(step if state.history.best_step is None else state.history.best_step)
        for step in steps:
            if step not in needed:
                self._disk.remove_folder(step_folder(self._folder, step))

    def _load(self, folder: Path, expected: Mapping[str, Tensor] | None) -> Checkpoint:
        content = self._content(folder, expected)
        state = parse_json(TrainingState, content[STATE], ErrorCode.CHECKPOINT_CORRUPT)
        weights = _parse_weights(folder, content, expected)
        try:
            return Checkpoint(state, weights, _load_optimizer_state(content[OPTIMIZER_STATE]))
        except Exception as error:  # noqa: BLE001  (torch does not document what it raises for a malicious file)
            log.warning("checkpoint_unreadable", names=folder.name, error=type(error).__name__)
            raise corrupt(folder) from None

    def _content(self, folder: Path, expected: Mapping[str, Tensor] | None = None) -> dict[str, bytes]:
        """Read the files of a checkpoint. Raises CHECKPOINT_CORRUPT unless each one matches the manifest.

        Files larger than the manifest says, or than the expected weights allow, are not read.
        """
        files = sealed_files(folder)
        sizes = {file.path: file.bytes for file in files}
        limits = {STATE: _MAX_OTHER_BYTES}
        if expected is not None:
            limits[WEIGHTS] = max_file_bytes(expected)
            limits[OPTIMIZER_STATE] = _MAX_OPTIMIZER_RATIO * weight_bytes(expected) + _MAX_OTHER_BYTES
        if any(sizes[name] > limit for name, limit in limits.items()):
            raise corrupt(folder)
        try:
            content = {name: read_regular(folder / name, size) for name, size in sizes.items()}
        except (OSError, ValueError):
            raise corrupt(folder) from None
        found = {name: (len(data), sha256(data).hexdigest()) for name, data in content.items()}
        if any(found[file.path] != (file.bytes, file.sha256) for file in files):
            raise corrupt(folder)
        return content

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint folder, valid or not, in ascending order."""
        return checkpoint_steps(self._folder)

    def _quarantine(self, step: int) -> str:
        name = f"broken-step-{step}-{token_hex(4)}"
        self._disk.rename(step_folder(self._folder, step), self._folder / name)
        self._disk.sync(self._folder)
        return name


def _weights_and_state(state: TrainingState, weights: Mapping[str, Tensor]) -> dict[str, bytes]:
    return {STATE: state.model_dump_json().encode(), WEIGHTS: save_safetensors(dict(weights))}


def _load_optimizer_state(data: bytes) -> OptimizerState:
    """Load the torch file. Raises an exception if it is invalid, or would need more memory than its size.

    A compressed archive could expand in memory, and a tensor could repeat one stored number a million times.
    """
    with ZipFile(BytesIO(data)) as archive:
        unpacked = [(entry.compress_type, entry.file_size) for entry in archive.infolist()]
    if any(kind != ZIP_STORED for kind, _ in unpacked) or sum(size for _, size in unpacked) > len(data):
        raise ValueError("the archive is compressed")
    state: OptimizerState = torch.load(BytesIO(data), weights_only=True)
    state.setdefault("raw_weights", {})  # checkpoints of earlier versions have none
    if state.keys() != OptimizerState.__annotations__.keys():
        raise ValueError("the archive is not an optimizer state")
    moments = moments_adapter.validate_python(state["optimizer"]["state"])
    groups = [*moments.values(), _weights_adapter.validate_python(state["raw_weights"])]
    for tensor in (tensor for group in groups for tensor in group.values()):
        if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            raise ValueError("a tensor is larger than its storage")
    return state


def _parse_weights(folder: Path, content: dict[str, bytes], expected: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    try:
        return parse_weights(content[WEIGHTS], expected)
    except ValueError:
        raise corrupt(folder) from None
