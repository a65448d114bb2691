"""Exports of the files of a job to a folder."""

from pathlib import Path

from rich.text import Text

from trainer.commands.connection import Installation, settings_for_any, with_installation
from trainer.commands.terminal import Terminal
from trainer.config.validation import safe_name
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.http_answers import JobKindName
from trainer.contracts.wording import counted
from trainer.lab.here import Here


def export_job(kind: JobKindName, job_id: str, folder: Path, terminal: Terminal) -> int:
    """Copy the files of a job to a new or empty folder and say so; raises CONFLICT for another folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        shown = safe_name(folder.name)
        raise AppError(ErrorCode.CONFLICT, f"'{shown}' exists and is not an empty folder: give another name.")
    files = with_installation(settings_for_any(), lambda installation: installation.download(kind, job_id, folder))
    name = "experiment_id" if kind == "experiments" else "battery_id"
    exported: dict[str, object] = {name: job_id, "files": [file.path for file in files]}
    terminal.show(exported, Text(f"{job_id} is in {folder} ({counted(len(files), 'file')})."))
    return 0


def report_places(name: str, installation: Installation, kind: JobKindName, job_id: str, export: str) -> str:
    """Return a line that says where the page of a report is, unless it is on a server, and how to copy its files."""
    where = f"{export} FOLDER"
    if not isinstance(installation, Here):
        return where
    return f"{name}: {installation.folder(kind, job_id) / 'report.html'}   ·   {where}"
