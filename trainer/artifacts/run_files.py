"""Files of a run on disk, each with its recorded hash."""

from collections.abc import Iterator
from contextlib import suppress

from trainer.artifacts.checkpoint_files import checkpoint_steps, sealed_files, step_folder
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import Frozen, Identifier, Sha256
from trainer.contracts.errors import AppError
from trainer.system.files import BrokenFile, read_regular

_MARKERS = {"lock", "cancel"}
"""Empty files for communication between processes."""


class RunFile(Frozen):
    """A file of a run."""

    path: str
    bytes: int
    sha256: Sha256 | None
    """Recorded hash, which `mt verify` checks; None for a growing file or one without a recorded hash."""
    step: int | None
    """Step of a file of a checkpoint."""


class RunFiles(Frozen):
    """All files of a run."""

    run_id: Identifier
    files: tuple[RunFile, ...]
    disk_bytes: int
    """Size of these files together."""
    result_bytes: int | None
    """Size of the result of a completed run: `manifest.json` and the files that it names."""


def run_files(run: RunDirectory) -> RunFiles:
    """List all files of a run with their recorded hashes, without hashing them."""
    hashes = dict(_hashes(run))
    steps = {step_folder(run.checkpoints, step): step for step in checkpoint_steps(run.checkpoints)}
    found: list[RunFile] = []
    for path in sorted(run.path.rglob("*")):
        name = path.relative_to(run.path).as_posix()
        if path.is_file() and not path.name.startswith(".") and name not in _MARKERS:
            size = path.stat().st_size
            found.append(RunFile(path=name, bytes=size, sha256=hashes.get(name), step=steps.get(path.parent)))
    disk_bytes = sum(file.bytes for file in found)
    return RunFiles(run_id=run.run_id, files=tuple(found), disk_bytes=disk_bytes, result_bytes=_result_bytes(run))


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
    for step in checkpoint_steps(run.checkpoints):
        folder = step_folder(run.checkpoints, step)
        with suppress(AppError):
            yield from (((folder / f.path).relative_to(run.path).as_posix(), f.sha256) for f in sealed_files(folder))
