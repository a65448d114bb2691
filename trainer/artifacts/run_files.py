"""The files of a run as they are on disk, each with the hash that vouches for it."""

from collections.abc import Iterator
from contextlib import suppress

from trainer.artifacts.checkpoint_files import checkpoint_steps, sealed_files, step_folder
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import Frozen, Identifier, Sha256
from trainer.contracts.errors import AppError
from trainer.system.files import BrokenFile, read_regular

_SIGNS = {"lock", "cancel"}
"""Files without content, which only processes need."""


class RunFile(Frozen):
    """A file by its path in the run's folder."""

    path: str
    bytes: int
    sha256: Sha256 | None
    """As it was written, which `mt verify` checks; None of a file that grows, or that nothing vouches for."""
    step: int | None
    """Of a checkpoint: how many steps it was saved after."""


class RunFiles(Frozen):
    """All files of a run."""

    run_id: Identifier
    files: tuple[RunFile, ...]


def run_files(run: RunDirectory) -> RunFiles:
    """List every file that is there; nothing is read but what vouches for the others."""
    hashes = dict(_hashes(run))
    steps = {step_folder(run.checkpoints, step): step for step in checkpoint_steps(run.checkpoints)}
    found: list[RunFile] = []
    for path in sorted(run.path.rglob("*")):
        name = path.relative_to(run.path).as_posix()
        if path.is_file() and not path.name.startswith(".") and name not in _SIGNS:
            size = path.stat().st_size
            found.append(RunFile(path=name, bytes=size, sha256=hashes.get(name), step=steps.get(path.parent)))
    return RunFiles(run_id=run.run_id, files=tuple(found))


def _hashes(run: RunDirectory) -> Iterator[tuple[str, str]]:
    """What the manifest, the seal and the checkpoints' own manifests say; one that cannot be read says nothing."""
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
