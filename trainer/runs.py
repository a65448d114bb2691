"""The runs on disk, one directory each: the truth that everything else is rebuilt from."""

import os
import re
import secrets
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from trainer.contracts.base import RunState, Timestamp, now
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode, RunError
from trainer.contracts.events import (
    CheckpointSaved,
    Event,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobProgress,
    JobQueued,
    JobStarted,
    MetricsCompleted,
    MetricsConfig,
    MetricsProgress,
    event_adapter,
    stamp,
)
from trainer.contracts.runs import FinalState, RunManifest, RunRecord, RunStatus, Timings
from trainer.files import sync_folder, try_lock, write_atomically

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

    def open_log(self) -> "EventLog":
        return EventLog(self._events)

    def follow(self) -> "RunFollower":
        return RunFollower(self.record(), EventReader(self._events))

    def reader(self) -> "EventReader":
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


def finish_run(run: RunDirectory, events: "EventLog", manifest: RunManifest) -> None:
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


class EventLog:
    """The writer of a run's event log: each event once, whole or not at all, on disk before it is told (R6)."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # a writer died in mid-line: nobody was told of this event
            self._file.truncate(whole)
        events = _parse_lines(data[:whole])
        self._known = {event.event_id for event in events}
        self._seq = events[-1].seq if events else 0

    def append(self, event: Event) -> None:
        """Write an event with the next sequence number, unless one with its id is there already."""
        if event.event_id in self._known:
            return
        place: dict[str, object] = {"seq": self._seq + 1}
        numbered = event.model_copy(update=place)
        self._file.write(numbered.model_dump_json().encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._seq += 1
        self._known.add(event.event_id)

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class EventReader:
    """A reader of a run's event log that remembers how far it has come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read_new(self) -> list[Event]:
        """The whole events that were added since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return _parse_lines(whole)


def _parse_lines(data: bytes) -> list[Event]:
    return [event_adapter.validate_json(line) for line in data.splitlines()]


class RunFollower:
    """How a run stands, kept up to date from its event log."""

    def __init__(self, record: RunRecord, reader: EventReader) -> None:
        self.record = record
        self.train_losses: list[tuple[int, float]] = []
        """(step, mean loss in nats per token), oldest first."""
        self.val_losses: list[tuple[int, float]] = []
        self._reader = reader
        self._status = RunStatus(
            run_id=record.run_id,
            status="queued",
            reachable=True,
            last_heartbeat_ts=None,
            message="Waiting for a worker.",
            progress=0.0,
            epoch=0,
            total_epochs=record.effective.num_epochs,
            step=0,
            total_steps=None,
            train_loss=None,
            val_loss=None,
            best_val_loss=None,
            test_loss=None,
            test_perplexity=None,
            bits_per_char=None,
            tokens_per_second=None,
            chars_per_second=None,
            eta_seconds=None,
            last_checkpoint_step=None,
            queue_position=None,
            device=None,
            precision=None,
            error=None,
            created_at=record.created_at,
            started_at=None,
            finished_at=None,
            user_id=record.user_id,
            model_family=record.effective.model_family,
            model_size=record.effective.model_size,
            tokenizer_id=None,
            attempt=0,
            label=record.effective.label,
        )

    def refresh(self) -> RunStatus:
        """Read what has happened since the last call and return how the run stands now."""
        for event in self._reader.read_new():
            self._status = self._status.model_copy(update=self._changes(event))
        return self._status

    @property
    def ended(self) -> bool:
        return self._status.status in ("completed", "failed", "cancelled")

    def _changes(self, event: Event) -> dict[str, object]:
        changes: dict[str, object] = {"last_heartbeat_ts": event.ts.timestamp()}
        match event:
            case JobStarted():
                started = self._status.started_at or event.ts
                changes |= {"status": "running", "message": "Started.", "attempt": event.attempt, "started_at": started}
            case JobProgress():
                changes |= {"message": event.message, "progress": event.progress}
            case MetricsConfig():
                changes |= {
                    "total_epochs": event.total_epochs,
                    "total_steps": event.total_steps,
                    "device": event.device,
                    "precision": event.precision,
                    "tokenizer_id": event.tokenizer_id,
                    "message": "Training.",
                }
            case MetricsProgress():
                changes |= self._training_changes(event)
            case CheckpointSaved():
                changes |= {"last_checkpoint_step": event.step}
            case MetricsCompleted():
                changes |= {
                    "test_loss": event.test_loss,
                    "test_perplexity": event.test_perplexity,
                    "bits_per_char": event.bits_per_char,
                }
            case JobCompleted():
                changes |= _ended("completed", "Completed.", event.ts) | {"progress": 100.0}
            case JobFailed():
                error = RunError(code=event.code, error_class=event.error_class, message=event.message)
                changes |= _ended("failed", event.message, event.ts) | {"error": error}
            case JobCancelled():
                changes |= _ended("cancelled", "Cancelled.", event.ts)
            case _:
                pass
        return changes

    def _training_changes(self, event: MetricsProgress) -> dict[str, object]:
        self.train_losses.append((event.step, event.train_loss))
        if event.val_loss is not None:
            self.val_losses.append((event.step, event.val_loss))
        return {
            "message": "Training.",
            "progress": event.progress,
            "epoch": event.epoch,
            "total_epochs": event.total_epochs,
            "step": event.step,
            "total_steps": event.total_steps,
            "train_loss": event.train_loss,
            "val_loss": self._status.val_loss if event.val_loss is None else event.val_loss,
            "best_val_loss": self._status.best_val_loss if event.best_val_loss is None else event.best_val_loss,
            "tokens_per_second": event.tokens_per_second,
            "chars_per_second": event.chars_per_second,
            "eta_seconds": event.eta_seconds,
        }


def _ended(state: RunState, message: str, at: Timestamp) -> dict[str, object]:
    return {"status": state, "message": message, "eta_seconds": None, "finished_at": at}
