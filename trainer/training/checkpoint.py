"""Checkpoints that survive a crash at any instruction: whole and verified, or not there at all.

A checkpoint is written into `.tmp-step-N`, synced file by file, sealed by a manifest of sizes and SHA-256, and renamed
to `step-N`. Weights are safetensors; optimizer and generators are a torch file that is read, with pickled code refused,
only after its hash was found right. Of a step that a schedule names, weights and state stay for good, in `scheduled`.
"""

from collections.abc import Callable, Mapping, Set
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
    KEPT,
    MANIFEST,
    REST,
    RESUMABLE,
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
from trainer.contracts.base import FileRecord
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.validation import parse_json
from trainer.models.weights import most_file_bytes, parse_weights, weight_bytes
from trainer.system.files import DISK, Disk, read_record, read_regular, storage_errors
from trainer.training.device import RandomState

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_KEPT = 2
_MOST_MOMENTS = 4
"""Times the weights: what an optimizer keeps of them, at most."""
_MOST_OTHER_BYTES = 64 << 20


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
    """The checkpoints of one run: the last two, the best that they point to, and all that its schedule names."""

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
            rest = BytesIO()
            torch.save(checkpoint.rest, rest)
            content = _kept(checkpoint.state, checkpoint.weights) | {REST: rest.getvalue()}
            self._write(self._folder, checkpoint.state.step, content, lambda at: self._read_back(at, checkpoint))
            self._prune()

    def keep(self, state: TrainingState, weights: Mapping[str, Tensor]) -> None:
        """Make the weights of a scheduled step durable, for good; one that was kept already stands.

        Raises INSUFFICIENT_STORAGE and SERVICE_UNAVAILABLE as `save` does.
        """
        scheduled = scheduled_folder(self._folder)
        with storage_errors("a scheduled checkpoint could not be kept; the earlier ones are there as they were"):
            if step_folder(scheduled, state.step).exists():
                self._disk.sync(scheduled)
            else:
                self._write(scheduled, state.step, _kept(state, weights))

    def recover(self, expected: Mapping[str, Tensor] | None = None) -> Recovery:
        """Return the newest checkpoint that is whole, with the best that it points to.

        Its weights must have the names, shapes and dtypes of `expected`, where that is given. What is not whole is
        renamed to `broken-...`: never used, never deleted without a word.
        """
        set_aside: list[str] = []
        with storage_errors("the checkpoints could not be put in order"):
            for leftover in (*self._folder.glob(".tmp-*"), *scheduled_folder(self._folder).glob(".tmp-*")):
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

    def kept_steps(self) -> list[int]:
        """The steps that are kept for good, whole or not."""
        return checkpoint_steps(scheduled_folder(self._folder))

    def kept_weights(self, step: int) -> dict[str, Tensor]:
        """Return the weights that are kept of a step; raises CHECKPOINT_CORRUPT where a byte is not as it was saved."""
        folder = step_folder(scheduled_folder(self._folder), step)
        return _parsed(folder, self._content(folder, names=KEPT), None)

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
                state = read_record(self._step_folder(step) / STATE, TrainingState)
            except ValueError:
                return  # which one is the best is not known: recovery will set this one aside
            kept.add(step if state.history.best_step is None else state.history.best_step)
        for step in steps:
            if step not in kept:
                self._disk.remove_folder(self._step_folder(step))

    def _load(self, folder: Path, expected: Mapping[str, Tensor] | None) -> Checkpoint:
        content = self._content(folder, expected)
        state = parse_json(TrainingState, content[STATE], ErrorCode.CHECKPOINT_CORRUPT)
        weights = _parsed(folder, content, expected)
        try:
            return Checkpoint(state, weights, _load_rest(content[REST]))
        except Exception as error:
            # what torch raises for a file that was made to mislead it is not told anywhere
            log.warning("checkpoint that cannot be loaded", names=folder.name, error=type(error).__name__)
            raise corrupt(folder) from None

    def _content(
        self, folder: Path, expected: Mapping[str, Tensor] | None = None, names: Set[str] = RESUMABLE
    ) -> dict[str, bytes]:
        """Read the files of a checkpoint; raises CHECKPOINT_CORRUPT unless each is as the manifest says.

        Nothing is read that is larger than the manifest says, or than a model of the expected weights can need.
        """
        files = sealed_files(folder, names)
        sizes = {file.path: file.bytes for file in files}
        if expected is not None and (
            sizes[WEIGHTS] > most_file_bytes(expected)
            or sizes[REST] > _MOST_MOMENTS * weight_bytes(expected) + _MOST_OTHER_BYTES
        ):
            raise corrupt(folder)
        try:
            content = {name: read_regular(folder / name, size) for name, size in sizes.items()}
        except (OSError, ValueError):
            raise corrupt(folder) from None
        if any(sha256(content[record.path]).hexdigest() != record.sha256 for record in files):
            raise corrupt(folder)
        return content

    def steps(self) -> list[int]:
        """The steps that there are checkpoints of, whole or not."""
        return checkpoint_steps(self._folder)

    def _step_folder(self, step: int) -> Path:
        return step_folder(self._folder, step)

    def _set_aside(self, step: int) -> str:
        name = f"broken-step-{step}-{token_hex(4)}"
        self._disk.rename(self._step_folder(step), self._folder / name)
        self._disk.sync(self._folder)
        return name


_moments: TypeAdapter[dict[int, dict[str, Tensor | None]]] = TypeAdapter(
    dict[int, dict[str, Tensor | None]], config=ConfigDict(arbitrary_types_allowed=True)
)


def _kept(state: TrainingState, weights: Mapping[str, Tensor]) -> dict[str, bytes]:
    return {STATE: state.model_dump_json().encode(), WEIGHTS: save_safetensors(dict(weights))}


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
        return parse_weights(content[WEIGHTS], expected)
    except ValueError:
        raise corrupt(folder) from None
