"""Destination of an export: a new path, which appears when the export is complete."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from trainer.contracts.errors import AppError, ErrorCode
from trainer.system.files import DISK, storage_errors, written_aside

RECORD_FILE = "export.json"
"""The record of an exported folder."""


@contextmanager
def appearing_at(target: Path) -> Iterator[Path]:
    """Yield a temporary path; what has been written there gets the target's name at the end."""
    with storage_errors(f"`{target.name}` could not be written"):
        DISK.make_folder(target.parent)
        with written_aside(target) as temporary:
            yield temporary
            earlier = temporary.with_suffix(".old")
            if target.is_dir():  # an earlier export, or empty
                DISK.rename(target, earlier)
        with suppress(OSError):
            DISK.remove_folder(earlier)


def check_free(target: Path, *, is_earlier: bool, for_folder: bool = True) -> None:
    """Raise CONFLICT if the target exists; an earlier export may be replaced, and an empty folder by a folder."""
    is_empty = for_folder and target.is_dir() and not target.is_symlink() and not any(target.iterdir())
    if target.is_symlink() or (target.exists() and not (is_empty or is_earlier)):
        message = f"'{target}' already exists: give `--out` another name. `--force` replaces an earlier export only."
        raise AppError(ErrorCode.CONFLICT, message)


def unpack(file: Path, folder: Path) -> None:
    """Write the one folder of a ZIP file to a new folder."""
    with TemporaryDirectory(dir=folder.parent) as staging, ZipFile(file) as packed:
        packed.extractall(staging)
        [unpacked] = Path(staging).iterdir()
        DISK.rename(unpacked, folder)
