"""Archives of finished runs: their record, and how a run is restored from one; every byte has a checked hash.

The file is a tar without compression, which weights would not profit from, and is equal for equal runs. Its first
member, `archive.json`, names the others with their sizes and hashes. The last ones are the model card and the citation,
which describe the archive and are not restored.
"""

import re
import secrets
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Literal

from trainer.artifacts.runs import SEALED_FILES, RunDirectory, RunStore
from trainer.config.validation import parse_json, unreadable
from trainer.contracts.base import FileRecord, Frozen, Identifier
from trainer.contracts.errors import AppError, ErrorCode
from trainer.system.files import DISK, BrokenFile, Disk, changed_files, open_regular, storage_errors

ARCHIVE_FILE = "archive.json"
CITATION_FILE = "CITATION.cff"
PASSPORT_FILES = ("README.md", CITATION_FILE)
"""The model card and the citation."""
_MAX_RECORD_BYTES = 16 << 20
PORTABLE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}){0,3}")


class ArchiveRecord(Frozen):
    """`archive.json`: the other members of the archive."""

    schema_version: Literal[1] = 1
    format: Literal["archive"] = "archive"
    run_id: Identifier
    files: tuple[FileRecord, ...]


def restore_archive(
    file: Path, artifacts_root: Path, disk: Disk = DISK, check: Callable[[RunDirectory], None] = lambda run: None
) -> RunDirectory:
    """Restore a run from an archive, atomically. Nothing in the archive is executed.

    Raises DATA_NOT_FOUND if there is no such file, INVALID_INPUT if it is no archive or was changed, and CONFLICT if
    the run exists already, and the errors of `check` for the restored files.
    """
    with staging_folder(artifacts_root, disk) as staging, _opened(file) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                members = _members(tar)
                record = _record(tar, members, file.stat().st_size)
                if (artifacts_root / "models" / record.run_id).exists():
                    raise _there_already(record.run_id)
                run = RunDirectory(staging / record.run_id, disk)
                disk.make_folder(run.path)
                _unpack(tar, members, record, run)
                for path in (run.path / name for name in PASSPORT_FILES):
                    if path.is_file():
                        disk.remove(path)
        except (tarfile.TarError, ValueError, EOFError, RecursionError) as error:
            raise _refused("it is incomplete or was changed") from error
        check(run)
        if run.completed_manifest().run_id != record.run_id:
            raise _refused("its run has another id")
        if portable_files(run) != {path for path in run.path.rglob("*") if path.is_file()}:
            raise _refused("it contains files that do not belong to a run")
        return add_run(run, artifacts_root)


def portable_files(run: RunDirectory) -> set[Path]:
    """Return the files of a completed run: those in its manifest and its seal, checkpoints and annotations."""
    sealed = {run.path / name for name in SEALED_FILES}
    sealed |= {path for path in (run.seal, run.annotations_file) if path.exists()}
    of_run = {run.path / record.path for record in run.completed_manifest().files}
    return sealed | of_run | {path for path in run.checkpoints.rglob("*") if path.is_file()}


@contextmanager
def staging_folder(artifacts_root: Path, disk: Disk = DISK) -> Iterator[Path]:
    """Yield the path of a folder on the disk of the runs, and remove it at the end."""
    staging = artifacts_root / f".import-{secrets.token_hex(4)}"
    with storage_errors("the run could not be restored"):
        try:
            yield staging
        finally:
            with suppress(OSError):
                disk.remove_folder(staging)


def add_run(run: RunDirectory, artifacts_root: Path) -> RunDirectory:
    """Move a complete run from a staging folder to the runs, atomically; raises CONFLICT if it exists already."""
    disk, target = run.disk, artifacts_root / "models" / run.run_id
    disk.make_folder(target.parent)
    run.mark_restored()
    try:
        disk.rename(run.path, target)
    except OSError:
        if target.exists():
            raise _there_already(run.run_id) from None
        raise
    disk.sync(target.parent)
    return RunStore(artifacts_root, disk).get(run.run_id)


def _opened(file: Path) -> FileIO:
    try:
        return open_regular(file)
    except FileNotFoundError as error:
        raise AppError(ErrorCode.DATA_NOT_FOUND, unreadable(file, error)) from None
    except BrokenFile:
        raise AppError(ErrorCode.INVALID_INPUT, f"'{file}' is no regular file.") from None


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members. Each must be a plain file: no link, device, folder or sparse file."""
    for member in tar:
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise _refused("it contains a link or another special file")
        yield member


def _record(tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo], size: int) -> ArchiveRecord:
    first = next(members, None)
    if first is None or first.name != ARCHIVE_FILE or first.size > _MAX_RECORD_BYTES:
        raise AppError(ErrorCode.INVALID_INPUT, "Not a recognized export format.")
    with tarfile.ExFileObject(tar, first) as content:  # unlike `extractfile`, it follows no link
        record = parse_json(ArchiveRecord, content.read())
    names = [described.path for described in record.files]
    folders = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    if len({*names, *folders}) < len(names) + len(folders) or not all(PORTABLE_NAME.fullmatch(name) for name in names):
        raise _refused("it names a file twice, or one outside its run")
    if sum(described.bytes for described in record.files) > size:
        raise _refused("it is smaller than its record says")
    return record


def _unpack(tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo], record: ArchiveRecord, run: RunDirectory) -> None:
    """Write the members that the record names, then check their hashes."""
    awaited = {described.path: described for described in record.files}
    for member in members:
        described = awaited.pop(member.name, None)
        if described is None or described.bytes != member.size:
            raise _refused("it contains a file that its record does not name")
        path = run.path / member.name
        run.disk.make_folder(path.parent)
        with tarfile.ExFileObject(tar, member) as content:
            run.disk.write(path, content)
    if awaited:
        raise _refused("it is incomplete: files of its record are missing")
    if changed_files(run.path, record.files):
        raise _refused("it is incomplete or was changed")
    for folder in {path.parent for path in run.path.rglob("*")}:
        run.disk.sync(folder)


def _there_already(run_id: str) -> AppError:
    return AppError(ErrorCode.CONFLICT, f"The run '{run_id}' already exists.")


def _refused(why: str) -> AppError:
    return AppError(ErrorCode.INVALID_INPUT, f"The archive is refused: {why}.")
