"""Runs with checkpoints on disk, as cleanups find them, made without torch."""

import os
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from tests.support.runs import record
from tests.support.unsynced_disk import UnsyncedDisk
from trainer.artifacts.checkpoint_files import (
    MANIFEST,
    OPTIMIZER_STATE,
    STATE,
    WEIGHTS,
    CheckpointManifest,
    TrainingState,
    ValidationHistory,
    scheduled_folder,
    step_folder,
)
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.config.settings import AppSettings, CleanupSettings, Settings
from trainer.contracts.base import FileRecord, changed
from trainer.contracts.runs import FinalState
from trainer.system.files import file_records

DAY_SECONDS = 86_400
NOT_KEPT = {"lock", "cleanup.lock"}


def settings_of(folder: Path, **app: object) -> Settings:
    """Settings of a folder whose cleanups remove files of runs that ended more than a day ago."""
    root = AppSettings(data_root=folder / "data", artifacts_root=folder / "artifacts")
    cleanup = CleanupSettings(grace_period_seconds=DAY_SECONDS)
    update: dict[str, object] = {"cleanup": cleanup, **app}
    return Settings(app=root.model_copy(update=update))


def add_run(
    folder: Path,
    run_id: str,
    end: FinalState | None = "completed",
    *,
    days: float = 2.0,
    steps: tuple[int, ...] = (1, 2, 3),
    best_step: int | None = None,
    **effective: object,
) -> RunDirectory:
    """A run with checkpoints and one scheduled checkpoint that ended some days ago, or has not ended."""
    accepted = record(run_id)
    accepted = changed(accepted, effective=accepted.effective.model_copy(update=effective))
    run = RunStore(folder / "artifacts", UnsyncedDisk()).create(accepted)
    for step in steps:
        add_checkpoint(step_folder(run.checkpoints, step), step, best_step)
    scheduled = step_folder(scheduled_folder(run.checkpoints), 1)
    add_checkpoint(scheduled, 1, None, names=(STATE, WEIGHTS))
    if end is not None:
        manifest = manifest_of(accepted, end)
        if end == "completed":
            (run.path / WEIGHTS).write_bytes(run_id.encode() * 50)
            files = file_records(run.path, [run.path / WEIGHTS, *scheduled.iterdir()])
            manifest = changed(manifest, files=files)
        with run.open_log() as events:
            finish_run(run, events, manifest)
        make_old(run.seal, days)
    return run


def add_checkpoint(
    folder: Path, step: int, best_step: int | None, names: tuple[str, ...] = (STATE, WEIGHTS, OPTIMIZER_STATE)
) -> None:
    state = TrainingState(request_hash="0" * 64, step=step, history=ValidationHistory(best_step=best_step))
    content = {name: state.model_dump_json().encode() if name == STATE else f"{name}{step}".encode() for name in names}
    folder.mkdir(parents=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    files = tuple(
        FileRecord(path=name, bytes=len(data), sha256=sha256(data).hexdigest()) for name, data in content.items()
    )
    (folder / MANIFEST).write_bytes(CheckpointManifest(files=files).model_dump_json().encode())


def make_old(path: Path, days: float) -> None:
    moment = time.time() - days * DAY_SECONDS
    os.utime(path, (moment, moment))


def contents(folder: Path) -> Mapping[str, bytes]:
    """The files below a folder by their names, without locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_KEPT)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
