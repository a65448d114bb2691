"""The runs on disk, one directory each: the truth that everything else is rebuilt from."""

import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from time import monotonic, sleep, time
from typing import BinaryIO, NamedTuple

import structlog
from pydantic import BaseModel

from trainer.artifacts.checkpoint_files import TrainingState, checkpoint_steps, scheduled_folder, step_folder
from trainer.artifacts.event_log import EventLog, EventReader
from trainer.artifacts.run_status import RunFollower
from trainer.contracts.base import Timestamp, now
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode, RunError
from trainer.contracts.events import (
    CheckpointSaved,
    Event,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobQueued,
    stamp,
)
from trainer.contracts.inference import EvalMetrics
from trainer.contracts.runs import EvalSummary, FinalState, RunManifest, RunRecord, Timings
from trainer.system.files import (
    DISK,
    BrokenFile,
    Disk,
    copy_durably,
    file_records,
    read_record,
    read_regular,
    sha256_of,
    storage_errors,
    try_lock,
    write_atomically,
)

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

SEALED_FILES = ("request.json", "manifest.json", "events.jsonl")
_PAST = {"failed": "failed", "cancelled": "been cancelled"}
_LOCK_POLL_SECONDS = 0.05
_LOCK_SECONDS = 5.0
_BEING_MADE = ".new"
_LEFTOVER_SECONDS = 60.0  # what is younger may not have its lock yet
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class RunDirectory:
    """One run: what was asked, its lock, its event log, its end.

    `lock` guards all writing after the run was accepted (R2); whoever holds it is the run's one writer.
    """

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        self.path = path
        self.disk = disk
        self.run_id = path.name
        self.checkpoints = path / "checkpoints"
        self.tokenizer = path / "tokenizer"
        self.loss_curve = path / "loss_curve.jsonl"
        self.training_samples = path / "training_samples.jsonl"
        self.logs = path / "logs.jsonl"
        self.metrics = path / "eval" / "metrics.json"
        self.samples = path / "eval" / "samples.jsonl"
        self.message_ledger = path / "dm.json"
        self.seal = path / "SHA256SUMS"
        self._request, self._manifest, self._events = (path / name for name in SEALED_FILES)
        self._cancel = path / "cancel"

    def record(self) -> RunRecord:
        """What was asked; raises BrokenFile where that is not as it was written."""
        return read_record(self._request, RunRecord)

    def manifest(self) -> RunManifest | None:
        """What came of the run, or None while it has not ended; raises BrokenFile where it is not as it was written."""
        try:
            return read_record(self._manifest, RunManifest)
        except FileNotFoundError:
            return None

    def completed_manifest(self) -> RunManifest:
        """The manifest of a run that left a model; raises RUN_NOT_READY for any other, MODEL_LOAD_FAILED if broken."""
        try:
            manifest = self.manifest()
        except BrokenFile as error:
            raise AppError(ErrorCode.MODEL_LOAD_FAILED, str(error)) from None
        if manifest is None:
            raise AppError(ErrorCode.RUN_NOT_READY, f"The run '{self.run_id}' has not finished training yet.")
        if manifest.status != "completed":
            raise AppError(
                ErrorCode.RUN_NOT_READY,
                f"The run '{self.run_id}' has {_PAST[manifest.status]}: it left no model to ask.",
            )
        return manifest

    def evaluation(self) -> EvalMetrics:
        """The latest evaluation of a split or a text; raises EVAL_NOT_FOUND, and BrokenFile as `manifest` does."""
        try:
            return read_record(self.metrics, EvalMetrics)
        except FileNotFoundError:
            raise AppError(
                ErrorCode.EVAL_NOT_FOUND, f"The run '{self.run_id}' was not measured: a training does so when it ends."
            ) from None

    def write_manifest(self, manifest: RunManifest) -> None:
        write_atomically(self._manifest, _as_json(manifest), self.disk)

    def write_seal(self) -> None:
        """Keep the hashes of the files that the manifest does not name, its own too, as `sha256sum --check` reads them.

        What is sealed stays so: sealed again, a file that has changed since would pass for right.
        """
        if not self.seal.exists():
            lines = (f"{sha256_of(self.path / name)}  {name}\n" for name in SEALED_FILES)
            write_atomically(self.seal, "".join(lines).encode(), self.disk)

    def lock(self) -> BinaryIO | None:
        """Become the run's one writer; None where another process is. Closing the file gives the lock back."""
        return try_lock(self.path / "lock")

    def wait_for_lock(self, seconds: float) -> BinaryIO:
        """Become the run's one writer when the other one has ended; raises SERVICE_UNAVAILABLE after that time."""
        deadline = monotonic() + seconds
        while (lock := self.lock()) is None:
            if monotonic() > deadline:
                raise AppError(
                    ErrorCode.SERVICE_UNAVAILABLE,
                    f"The run '{self.run_id}' is being written by another process; try again in a minute.",
                )
            sleep(_LOCK_POLL_SECONDS)
        return lock

    def add_evaluation(self, summary: EvalSummary) -> None:
        """Put an evaluation into the manifest, with the files that it has renewed; the caller holds the lock.

        It takes the place of the earlier one of the same split and text. A seal that was broken stays so.
        """
        manifest = self.completed_manifest()
        others = (e for e in manifest.eval if (e.split, e.dataset) != (summary.split, summary.dataset))
        files = {file.path: file for file in (*manifest.files, *file_records(self.path, (self.metrics, self.samples)))}
        update: dict[str, object] = {"eval": (*others, summary), "files": tuple(files.values())}
        renewed = manifest.model_copy(update=update)
        if not self.seal.exists():
            self.write_manifest(renewed)
            return
        old, new = _seal_line(read_regular(self._manifest)), _seal_line(_as_json(renewed))
        lines = read_regular(self.seal).splitlines(keepends=True)
        request, *events = (line for line in lines if not line.endswith(b"  manifest.json\n"))
        if old in lines:  # whichever of the two a crash leaves is vouched for
            write_atomically(self.seal, b"".join((request, old, new, *events)), self.disk)
        self.write_manifest(renewed)
        if old in lines:
            write_atomically(self.seal, b"".join((request, new, *events)), self.disk)

    def request_cancel(self) -> None:
        """Leave the durable wish that the run end (R11)."""
        with storage_errors("the wish to end the run could not be noted"):
            self.disk.write(self._cancel, b"")
            self.disk.sync(self.path)

    def cancel_requested(self) -> bool:
        return self._cancel.exists()

    def event_log_bytes(self) -> int:
        return self._events.stat().st_size

    def open_log(self) -> EventLog:
        """Open the event log for writing, and clear away what earlier writers were killed over; needs the lock."""
        told = f".{self.message_ledger.name}."
        with storage_errors("what was left of an earlier attempt could not be cleared away"):
            for leftover in self.path.rglob(".*.tmp"):
                if not leftover.is_dir() and not leftover.name.startswith(told):
                    self.disk.remove(leftover)
        return EventLog(self._events, self.disk)

    def follow(self) -> RunFollower:
        return RunFollower(self.record(), EventReader(self._events))

    def reader(self) -> EventReader:
        return EventReader(self._events)


class Origin(NamedTuple):
    """A run that another one goes on with, and where its newest whole checkpoint stands."""

    run: RunDirectory
    state: TrainingState


class RunStore:
    """All runs under one artifacts root."""

    def __init__(self, artifacts_root: Path, disk: Disk = DISK) -> None:
        self._folder = artifacts_root / "models"
        self._disk = disk

    def create(self, record: RunRecord, origin: Origin | None = None) -> RunDirectory:
        """Make a run's directory durable with its request and first event (R1); raises OSError if it cannot.

        A run that goes on with another one gets copies of what that one's training needs. The directory has a name of
        its own until all of it is there: what a power cut leaves under that name is cleared away later.
        """
        path = self._folder / record.run_id
        made = self._folder / f".{record.run_id}{_BEING_MADE}"
        self._disk.make_folder(made, exist_ok=False)
        try:
            run = RunDirectory(made, self._disk)
            with run.wait_for_lock(_LOCK_SECONDS):
                if path.exists():
                    raise FileExistsError(path)
                with run.open_log() as log:
                    log.append(JobQueued(**stamp(record.run_id, record.user_id, "queued:0", record.created_at)))
                    if origin is not None:
                        self._copy(origin, run)
                        log.append(_checkpoint_taken_over(record, origin.state))
                write_atomically(made / "request.json", _as_json(record), self._disk)
                self._disk.rename(made, path)
                made = path
                self._disk.sync(self._folder)
        except (AppError, OSError):
            with suppress(OSError):
                self._disk.remove_folder(made)
            raise
        return RunDirectory(path, self._disk)

    def clear_leftovers(self) -> None:
        """Remove directories that a process was making when it was killed, or the power cut."""
        for path in self._folder.glob(f".*{_BEING_MADE}"):
            with suppress(OSError):  # its maker has finished it meanwhile, or the next call removes it
                if time() - path.stat().st_mtime > _LEFTOVER_SECONDS and (lock := try_lock(path / "lock")) is not None:
                    with lock:
                        self._disk.remove_folder(path)
                        log.warning("half-made run cleared away", run_id=path.name[1 : -len(_BEING_MADE)])

    def _copy(self, origin: Origin, run: RunDirectory) -> None:
        """Copy the newest whole checkpoint, the best that it points to, and what was kept and written up to it."""
        old, state = origin
        best = state.step if state.history.best_step is None else state.history.best_step
        for step in {state.step, best}:
            copy_durably(step_folder(old.checkpoints, step), step_folder(run.checkpoints, step), self._disk)
        self._disk.sync(run.checkpoints)
        old_kept, kept = scheduled_folder(old.checkpoints), scheduled_folder(run.checkpoints)
        for step in checkpoint_steps(old_kept):
            if step <= state.step:
                copy_durably(step_folder(old_kept, step), step_folder(kept, step), self._disk)
                self._disk.sync(kept)
        for path in (old.tokenizer, old.loss_curve, old.training_samples):
            if path.exists():
                copy_durably(path, run.path / path.name, self._disk)

    def get(self, run_id: str) -> RunDirectory:
        """Find a run by id; raises RUN_NOT_FOUND."""
        path = self._folder / run_id
        if not _RUN_ID.fullmatch(run_id) or not (path / "request.json").is_file():
            shown = f" '{run_id}'" if len(run_id) <= 64 and run_id.isprintable() else ""
            raise AppError(
                ErrorCode.RUN_NOT_FOUND,
                f"There is no run{shown}: give the id as it was told when the run was accepted.",
            )
        return RunDirectory(path, self._disk)

    def all(self) -> list[RunDirectory]:
        """Every accepted run, newest first; one whose request cannot be read is left out, and logged."""
        return in_order(self._found())[::-1]

    def latest_of_family(self, family: str, count: int) -> list[RunDirectory]:
        """The newest accepted runs of a family, by the day in their names: nothing of them is read."""
        found = sorted(self._folder.glob(f"{family}-[0-9]*/request.json"), reverse=True)
        return [RunDirectory(path.parent, self._disk) for path in found[:count]]

    def unreadable(self) -> list[RunDirectory]:
        """Runs whose request cannot be read: nothing can be done with them."""
        return [run for run in self._found() if _created_at(run) is None]

    def unfinished(self) -> list[RunDirectory]:
        """Runs that were accepted and whose end is not wholly written, oldest first."""
        return in_order(run for run in self._found() if not run.seal.exists())

    def finished(self) -> list[RunDirectory]:
        """The others, in no order: nothing of them is read."""
        return [run for run in self._found() if run.seal.exists()]

    def _found(self) -> list[RunDirectory]:
        return [RunDirectory(path.parent, self._disk) for path in self._folder.glob("[a-z0-9]*/request.json")]


def in_order(runs: Iterable[RunDirectory]) -> list[RunDirectory]:
    """Runs, oldest first; one whose request cannot be read is left out, and logged."""
    dated = [(created_at, run) for run in runs if (created_at := _created_at(run)) is not None]
    return [run for _, run in sorted(dated, key=itemgetter(0))]


def _created_at(run: RunDirectory) -> datetime | None:
    try:
        return run.record().created_at
    except (OSError, ValueError):
        log.error("run with a request that cannot be read", run_id=run.run_id)
        return None


def _as_json(record: BaseModel) -> bytes:
    return record.model_dump_json(indent=1).encode()


def _seal_line(manifest: bytes) -> bytes:
    return f"{sha256(manifest).hexdigest()}  manifest.json\n".encode()


def _checkpoint_taken_over(record: RunRecord, state: TrainingState) -> CheckpointSaved:
    stamped = stamp(record.run_id, record.user_id, f"checkpoint:{state.step}:{state.validation_loss_nats}")
    is_best = state.history.best_step == state.step
    return CheckpointSaved(**stamped, step=state.step, val_loss=state.validation_loss_nats, is_best=is_best)


def new_run_id(family: str, created_at: Timestamp) -> str:
    """A readable id that no other run has: family, day, six random hex digits."""
    return f"{family}-{created_at:%Y%m%d}-{secrets.token_hex(4)}"


def finish_run(run: RunDirectory, events: EventLog, manifest: RunManifest) -> None:
    """Write a run's end, once (R10); the caller holds its lock. An end that is there already stands."""
    end = run.manifest()
    if end is None:
        run.write_manifest(manifest)
        end = manifest
    events.append(_terminal_event(end, run.record().user_id))
    run.write_seal()


def complete_end(run: RunDirectory) -> None:
    """Write what a process left unwritten that died right after the manifest; does nothing where another one writes."""
    manifest = run.manifest()
    if manifest is None or run.seal.exists():
        return
    lock = run.lock()
    if lock is not None:
        with lock, run.open_log() as events:
            finish_run(run, events, manifest)


def cancel_idle_run(run: RunDirectory) -> bool:
    """Write the end of a cancelled run that no process trains; return False if one does, which will write the end."""
    lock = run.lock()
    if lock is None:
        return False
    with lock, run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))
    return True


def manifest_of(record: RunRecord, status: FinalState, *, error: RunError | None = None) -> RunManifest:
    """The manifest of a run that ended without a model."""
    return RunManifest(
        run_id=record.run_id,
        status=status,
        request=record.request,
        effective=record.effective,
        request_hash=record.request_hash,
        requested_paths=record.requested_paths,
        unused_settings=record.unused_settings,
        resumed_from_run_id=record.resumed_from_run_id,
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
