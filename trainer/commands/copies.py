"""Copies of the files of a job."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from trainer.config.validation import safe_name
from trainer.contracts.errors import AppError, ErrorCode


def copy_files(source: Path, names: Sequence[str], folder: Path) -> None:
    """Copy files to a new or empty folder; raises CONFLICT for another one."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        shown = safe_name(folder.name)
        raise AppError(ErrorCode.CONFLICT, f"'{shown}' exists and is not an empty folder: give another name.")
    for name in names:
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, copy)
