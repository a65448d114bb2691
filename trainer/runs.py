"""The runs on disk, one directory each: the truth that everything else is rebuilt from."""

import re
import secrets
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from trainer.contracts.base import Timestamp, now
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode, RunError
from trainer.contracts.events import (
    Event,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobQueued,
    stamp,
)
from trainer.contracts.runs import FinalState, RunManifest, RunRecord, Timings
from trainer.event_log import EventLog, EventReader
from trainer.files import sync_folder, try_lock, write_atomically
from trainer.run_follower import RunFollower

_PAST = {"failed": "failed", "cancelled": "been cancelled"}
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class RunDirectory:
    """One run: what was asked, its lock, its event log, its end.

    `lock` guards all writing after the run was accepted (R2); whoever holds it is the run's one writer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = path.name
        self.checkpoints = path / "checkpoints"
        self.tokenizer = path / "tokenizer"
        self.loss_curve = path / "loss_curve.jsonl"
        self.logs = path / "logs.jsonl"
        self.metrics = path / "eval" / "metrics.json"
        self.samples = path / "eval" / "samples.jsonl"
        self.message_ledger = path / "dm.json"
        self._request = path / "request.json"
        self._manifest = path / "manifest.json"
        self._events = path / "events.jsonl"
        self._cancel = path / "cancel"

    def record(self) -> RunRecord:
        return RunRecord.model_validate_json(self._request.read_bytes())

    def manifest(self) -> RunManifest | None:
        """What came of the run, or None while it has not ended."""
        try:
            data = self._manifest.read_bytes()
        except FileNotFoundError:
            return None
        return RunManifest.model_validate_json(data)

    def completed_manifest(self) -> RunManifest:
        """The manifest of a run that left a model; raises RUN_NOT_READY for any other."""
        manifest = self.manifest()
        if manifest is None:
            raise AppError(ErrorCode.RUN_NOT_READY, f"The run '{self.run_id}' has not finished training yet.")
        if manifest.status != "completed":
            raise AppError(
                ErrorCode.RUN_NOT_READY,
                f"The run '{self.run_id}' has {_PAST[manifest.status]}: it left no model to ask.",
            )
        return manifest

    def write_manifest(self, manifest: RunManifest) -> None:
        write_atomically(self._manifest, manifest.model_dump_json(indent=1).encode())

    def lock(self) -> BinaryIO | None:
        """Become the run's one writer; None where another process is. Closing the file gives the lock back."""
        return try_lock(self.path / "lock")

    def request_cancel(self) -> None:
        """Leave the durable wish that the run end (R11)."""
        self._cancel.touch()
        sync_folder(self.path)

    def cancel_requested(self) -> bool:
        return self._cancel.exists()

    def event_log_bytes(self) -> int:
        return self._events.stat().st_size

    def open_log(self) -> EventLog:
        return EventLog(self._events)

    def follow(self) -> RunFollower:
        return RunFollower(self.record(), EventReader(self._events))

    def reader(self) -> EventReader:
        return EventReader(self._events)


class RunStore:
    """All runs under one artifacts root."""

    def __init__(self, artifacts_root: Path) -> None:
        self._folder = artifacts_root / "models"

    def create(self, record: RunRecord) -> RunDirectory:
        """Make a run's directory durable with its request and first event (R1); raises OSError if it cannot."""
        path = self._folder / record.run_id
        path.mkdir(parents=True)
        run = RunDirectory(path)
        queued = JobQueued(**stamp(record.run_id, record.user_id, "queued:0", record.created_at))
        with run.open_log() as log:
            log.append(queued)
        write_atomically(path / "request.json", record.model_dump_json(indent=1).encode())
        sync_folder(self._folder)
        return run

    def get(self, run_id: str) -> RunDirectory:
        """Find a run by id; raises RUN_NOT_FOUND."""
        path = self._folder / run_id
        if not _RUN_ID.fullmatch(run_id) or not (path / "request.json").is_file():
            shown = f" '{run_id}'" if len(run_id) <= 64 and run_id.isprintable() else ""
            raise AppError(
                ErrorCode.RUN_NOT_FOUND,
                f"There is no run{shown}: give the id as it was told when the run was accepted.",
            )
        return RunDirectory(path)

    def all(self) -> list[RunDirectory]:
        """Every accepted run, newest first."""
        found = [RunDirectory(path.parent) for path in self._folder.glob("*/request.json")]
        return sorted(found, key=_created_at, reverse=True)

    def unfinished(self) -> list[RunDirectory]:
        """Runs that were accepted and have not ended, oldest first."""
        return [run for run in reversed(self.all()) if run.manifest() is None]


def _created_at(run: RunDirectory) -> datetime:
    return run.record().created_at


def new_run_id(family: str, created_at: Timestamp) -> str:
    """A readable id that no other run has: family, day, six random hex digits."""
    return f"{family}-{created_at:%Y%m%d}-{secrets.token_hex(3)}"


def finish_run(run: RunDirectory, events: EventLog, manifest: RunManifest) -> None:
    """Write a run's end, once (R10); the caller holds its lock. An end that is there already stands."""
    end = run.manifest()
    if end is None:
        run.write_manifest(manifest)
        end = manifest
    events.append(_terminal_event(end, run.record().user_id))


def manifest_of(record: RunRecord, status: FinalState, *, error: RunError | None = None) -> RunManifest:
    """The manifest of a run that ended without a model."""
    return RunManifest(
        run_id=record.run_id,
        status=status,
        request=record.request,
        effective=record.effective,
        request_hash=record.request_hash,
        requested_paths=record.requested_paths,
        timings=Timings(created=record.created_at, finished=now()),
        seed=record.effective.seed,
        error=error,
    )


def _terminal_event(manifest: RunManifest, user_id: int | None) -> Event:
    ended = stamp(manifest.run_id, user_id, f"{manifest.status}:{manifest.steps}", manifest.timings.finished)
    if manifest.status == "completed":
        return JobCompleted(**ended, result_id=manifest.run_id, result_bytes=sum(file.bytes for file in manifest.files))
    if manifest.error is None:
        return JobCancelled(**ended)
    return JobFailed(
        **ended,
        error_kind="user" if manifest.error.error_class is ErrorClass.USER_INPUT else "system",
        code=manifest.error.code,
        error_class=manifest.error.error_class,
        message=manifest.error.message,
    )
