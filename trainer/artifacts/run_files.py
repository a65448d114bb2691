"""Files of a run on disk, each with its recorded hash."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from trainer.artifacts.checkpoint_files import (
    STATE,
    WEIGHTS,
    TrainingState,
    checkpoint_steps,
    scheduled_folder,
    sealed_files,
    step_folder,
)
from trainer.artifacts.checkpoints import checkpoint_folder, named_model
from trainer.artifacts.runs import RESTORED_FILE, RunDirectory, RunStore
from trainer.contracts.base import Frozen, Identifier, Sha256, run_of
from trainer.contracts.errors import AppError
from trainer.system.files import BrokenFile, read_record, read_regular

_MARKERS = {"lock", "cancel", RESTORED_FILE}
"""Empty files, which are no part of a result."""


class RunFile(Frozen):
    """A file of a run."""

    path: str
    bytes: int
    sha256: Sha256 | None
    """Recorded hash, which `mt verify` checks; None for a growing file or one without a recorded hash."""
    step: int | None
    """Step of a file of a checkpoint."""


class KeptCheckpoint(Frozen):
    """A checkpoint that the schedule of a run has stored permanently."""

    step: int
    epoch: int | None
    """Epoch of its last step, from 1; None if its state cannot be read."""
    words: int | None
    """Words and tokens of training text read before it; None as `epoch`."""
    tokens: int | None
    bytes: int
    sha256: Sha256 | None
    """Recorded hash of its weights."""


class RunFiles(Frozen):
    """All files of a run."""

    run_id: Identifier
    files: tuple[RunFile, ...]
    kept: tuple[KeptCheckpoint, ...] = ()
    """Checkpoints of `checkpoint_schedule`, whose files are among `files`."""
    disk_bytes: int
    """Size of these files together."""
    result_bytes: int | None
    """Size of the result of a completed run: `manifest.json` and the files that it names."""


def run_files(run: RunDirectory, step: int | None = None) -> RunFiles:
    """List all files of a run, or of its checkpoint of a step, with their recorded hashes, without hashing them."""
    hashes = dict(_hashes(run))
    folders = dict(_checkpoint_folders(run))
    found: list[RunFile] = []
    of_folder = defaultdict[Path, list[RunFile]](list)
    for path, size in sorted(_files(run.path if step is None else checkpoint_folder(run, step))):
        name = path.relative_to(run.path).as_posix()
        if name not in _MARKERS:
            found.append(RunFile(path=name, bytes=size, sha256=hashes.get(name), step=folders.get(path.parent)))
            of_folder[path.parent].append(found[-1])
    scheduled = scheduled_folder(run.checkpoints)
    kept = [(folder, of) for folder, of in folders.items() if folder.parent == scheduled and folder in of_folder]
    return RunFiles(
        run_id=run.run_id,
        files=tuple(found),
        kept=tuple(_kept(folder, of, of_folder[folder]) for folder, of in kept),
        disk_bytes=sum(file.bytes for file in found),
        result_bytes=_result_bytes(run) if step is None else None,
    )


def named_files(runs: RunStore, name: str) -> RunFiles:
    """List the files of a run, also before its end, or of one of its checkpoints, as RUN@1200.

    Raises RUN_NOT_FOUND, and for a checkpoint the errors of `named_model`.
    """
    run = runs.get(run_of(name))
    return run_files(run, None if name == run.run_id else named_model(runs, name).step)


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield the files in a folder and their sizes, without hidden and unfinished ones; a training may delete them."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            with suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.stat().st_size


def _checkpoint_folders(run: RunDirectory) -> Iterator[tuple[Path, int]]:
    """Yield the folders of all checkpoints with their steps."""
    for parent in (run.checkpoints, scheduled_folder(run.checkpoints)):
        yield from ((step_folder(parent, step), step) for step in checkpoint_steps(parent))


def _kept(folder: Path, step: int, files: Sequence[RunFile]) -> KeptCheckpoint:
    state: TrainingState | None = None
    with suppress(OSError, BrokenFile):
        state = read_record(folder / STATE, TrainingState)
    return KeptCheckpoint(
        step=step,
        epoch=None if state is None else state.epoch,
        words=None if state is None else state.seen.words,
        tokens=None if state is None else state.seen.tokens,
        bytes=sum(file.bytes for file in files),
        sha256=next((file.sha256 for file in files if file.path.endswith(f"/{WEIGHTS}")), None),
    )


def _result_bytes(run: RunDirectory) -> int | None:
    with suppress(AppError):
        return sum(file.bytes for file in run.result_files())
    return None


def _hashes(run: RunDirectory) -> Iterator[tuple[str, str]]:
    """Yield path and hash from the manifest, SHA256SUMS and the checkpoints; unreadable ones are skipped."""
    with suppress(BrokenFile):
        manifest = run.manifest()
        yield from () if manifest is None else ((file.path, file.sha256) for file in manifest.files)
    with suppress(OSError, BrokenFile):
        for line in read_regular(run.seal).decode(errors="replace").splitlines():
            sha256, _, name = line.partition("  ")
            yield name, sha256
    for folder, _ in _checkpoint_folders(run):
        with suppress(AppError):
            files = sealed_files(folder)
            yield from (((folder / file.path).relative_to(run.path).as_posix(), file.sha256) for file in files)
