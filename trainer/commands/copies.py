"""Exports of the files of a job to a folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from trainer.artifacts.job_folder import AnyJob
from trainer.commands.terminal import Terminal
from trainer.config.validation import safe_name
from trainer.contracts.base import FileRecord
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.wording import counted


def export_files(job: AnyJob, files: Sequence[FileRecord], folder: Path, terminal: Terminal) -> int:
    """Copy files of a job to a new or empty folder and say so; raises CONFLICT for another folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        shown = safe_name(folder.name)
        raise AppError(ErrorCode.CONFLICT, f"'{shown}' exists and is not an empty folder: give another name.")
    names = [file.path for file in files]
    for name in names:
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(job.path / name, copy)
    exported: dict[str, object] = {**job.log_id, "files": names}
    terminal.show(exported, Text(f"{job.job_id} is in {folder} ({counted(len(names), 'file')})."))
    return 0
