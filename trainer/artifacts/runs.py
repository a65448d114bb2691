"""Runs on disk, one directory each; Redis is rebuilt from them."""

import fcntl
import os
from bisect import insort
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from time import monotonic, sleep, time_ns
from typing import BinaryIO, NamedTuple, TypeVar

import structlog
from pydantic import BaseModel

from trainer.artifacts.checkpoint_files import TrainingState, checkpoint_steps, scheduled_folder, step_folder
from trainer.artifacts.curves import RunCurves
from trainer.artifacts.event_log import EventLog, EventReader
from trainer.artifacts.job_folder import JOB_ID, REQUEST_FILE, JobFolder, JobStore, created_at, with_manifest
from trainer.artifacts.run_ids import Named, check_label
from trainer.artifacts.run_status import RunFollower
from trainer.artifacts.tokenizer_files import read_manifest
from trainer.contracts.base import FileRecord, RunState, changed, now
from trainer.contracts.baselines import Baselines
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode, RunError
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.events import (
    CheckpointSaved,
    Event,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobPaused,
    JobQueued,
    stamp,
)
from trainer.contracts.looks import LookCount
from trainer.contracts.runs import (
    FINAL_STATES,
    AnnotationChange,
    Annotations,
    CorpusRef,
    EffectiveRequest,
    EvalSummary,
    FinalState,
    RunManifest,
    RunRecord,
    Timings,
    check_completed,
    quoted_run,
)
from trainer.contracts.seeds import group_id_of, is_group
from trainer.system.files import (
    DISK,
    BrokenFile,
    Disk,
    UnknownForm,
    changed_ns,
    copy_durably,
    file_records,
    find_record,
    folder_time,
    open_regular,
    read_record,
    read_regular,
    sha256_of,
    storage_errors,
    take_lock,
    try_lock,
    use_folder,
    whole_record,
    write_atomically,
)

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)
NamedRecord = TypeVar("NamedRecord", RunRecord, RunManifest)

OPEN_GROUP_FILE = "open_group"
"""A mark in the folder of a group's first run while the others are being written."""
RESTORED_FILE = "restored"
"""A mark in the folder of a run that was trained elsewhere: it came from an archive, a server or the hub."""
ANNOTATIONS_FILE = "annotations.json"
SEALED_FILES = _, _MANIFEST, _ = (REQUEST_FILE, "manifest.json", "events.jsonl")
_SEAL = "SHA256SUMS"
_LOCK_POLL_SECONDS = 0.05
LOCK_SECONDS = 5.0
"""Time to wait for the lock of a run that no process trains."""
_END_SECONDS = 30.0
_TEMPORARY_SUFFIX = ".new"
_LEFTOVER_SECONDS = 60.0  # what is younger may not have its lock yet
_CLOCK_SECONDS, _COARSE_SECONDS = 0.02, 2.0
"""Steps of a file's time: of a kernel's clock, and of a disk that keeps whole seconds."""
_PAUSED = "paused"
"""A mark that the queue of the artifacts root is paused, so that the pause outlasts a wipe of Redis."""
_ANNOTATED = "annotated"
"""A mark whose time is that of the last change of a run's annotations."""


class RunDirectory(JobFolder[RunRecord]):
    """Folder of one run: beside the files of each job event log, checkpoints, manifest and seal.

    After a run was accepted, only the process that holds its lock writes to it. The bot writes its two ledgers, and
    whoever may change label, note and tags the annotations. Request and manifest are read with the label given last.
    """

    word = "run"
    record_type = RunRecord
    result_name = _MANIFEST

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        super().__init__(path, disk)
        self.run_id = self.job_id
        self.checkpoints = path / "checkpoints"
        self.tokenizer = path / "tokenizer"
        self.weights = path / "model.safetensors"
        self.loss_curve = path / "loss_curve.jsonl"
        self.training_samples = path / "training_samples.jsonl"
        self.metrics = path / "eval" / "metrics.json"
        self.samples = path / "eval" / "samples.jsonl"
        self.webhook_ledger = path / "webhooks.json"
        self.seal = path / _SEAL
        self.annotations_file = path / ANNOTATIONS_FILE
        self._events = path / "events.jsonl"
        self._pause = path / "pause"
        self._group = path / OPEN_GROUP_FILE
        self._restored = path / RESTORED_FILE

    def is_deleted(self) -> bool:
        """Return True if request and events are gone; a process that still trains may write the folder again."""
        return not self.exists() and not self._events.exists()

    def is_unfinished(self) -> bool:
        """Return True until the end is completely written."""
        return not self.seal.exists()

    def record(self) -> RunRecord:
        return self._with_label(super().record())

    def manifest(self) -> RunManifest | None:
        """Read the manifest; None while the run has not ended. Raises BrokenFile if it is damaged."""
        is_there = os.path.lexists(self.result)  # faster than an exception
        manifest = find_record(self.result, RunManifest) if is_there else None
        return None if manifest is None else self._with_label(manifest)

    def _with_label(self, record: NamedRecord) -> NamedRecord:
        label = self.annotations().label
        return record if label is None else changed(record, effective=changed(record.effective, label=label))

    def check_readable(self) -> None:
        self.manifest()
        self.follow().refresh()

    def has_wrong_hash(self) -> bool:
        """Return True if request, manifest or events differ from their hashes in SHA256SUMS."""
        if not self.seal.exists():
            return False
        sums = read_regular(self.seal).splitlines()
        return any(f"{sha256_of(self.path / name)}  {name}".encode() not in sums for name in SEALED_FILES)

    @property
    def quoted(self) -> str:
        """The run in a message: what a person has called it, with the id behind it."""
        with suppress(AppError, BrokenFile):
            return quoted_run(self.run_id, self.record().effective.label)
        return quoted_run(self.run_id, None)

    def annotations(self) -> Annotations:
        """Read what people have added; nothing for a missing or damaged file."""
        is_there = os.path.lexists(self.annotations_file)  # as in `manifest`
        return (whole_record(self.annotations_file, Annotations) if is_there else None) or Annotations()

    def completed_manifest(self) -> RunManifest:
        """Return the manifest of a completed run.

        Raises RUN_NOT_READY, MODEL_LOAD_FAILED for a damaged one, and UnknownForm.
        """
        try:
            manifest = self.manifest()
        except UnknownForm:
            raise
        except BrokenFile as error:
            raise AppError(ErrorCode.MODEL_LOAD_FAILED, str(error)) from None
        if manifest is None:
            raise AppError(ErrorCode.RUN_NOT_READY, f"The run {self.quoted} has not finished training yet.")
        check_completed(manifest)
        return manifest

    def needed_corpora(self) -> tuple[CorpusRef, ...]:
        return self.record().effective.corpora

    def tokenizer_ids(self) -> Iterator[str]:
        """Yield the tokenizer that the run was given, and the one that it has trained or copied."""
        given = self.record().effective.tokenizer_id
        if given is not None:
            yield given
        with suppress(AppError):  # it has none yet
            yield read_manifest(self.tokenizer).tokenizer_id

    def result_files(self) -> tuple[FileRecord, ...]:
        """Return the files of the result: `manifest.json` and those that it names; raises as `completed_manifest`."""
        return with_manifest(self.path, self.completed_manifest().files)

    def evaluation(self) -> EvalMetrics:
        """Read the latest evaluation; raises EVAL_NOT_FOUND, or BrokenFile if it is damaged."""
        try:
            return read_record(self.metrics, EvalMetrics)
        except FileNotFoundError:
            raise AppError(
                ErrorCode.EVAL_NOT_FOUND, f"The run {self.quoted} has no evaluation yet: training ends with one."
            ) from None

    def write_manifest(self, manifest: RunManifest) -> None:
        write_atomically(self.result, _as_json(manifest), self.disk)

    def write_seal(self) -> None:
        """Write SHA256SUMS with the hashes of manifest, request and events, in the format of `sha256sum --check`.

        An existing SHA256SUMS is not rewritten, because it would then accept a damaged file.
        """
        if not self.seal.exists():
            lines = (f"{sha256_of(self.path / name)}  {name}\n" for name in SEALED_FILES)
            write_atomically(self.seal, "".join(lines).encode(), self.disk)

    def wait_for_lock(self, seconds: float) -> BinaryIO:
        """Wait for the run's lock and take it; raises SERVICE_UNAVAILABLE after `seconds`."""
        deadline = monotonic() + seconds
        while (lock := self.lock()) is None:
            if monotonic() > deadline:
                raise in_use(self.run_id)
            sleep(_LOCK_POLL_SECONDS)
        return lock

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep cleanups away from the files of the run while a block reads them."""
        descriptor = use_folder(self.path)
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def ended_manifest(self) -> RunManifest:
        """Return the manifest of an ended run; raises RUN_NOT_READY for another one."""
        self.wait_for_end()
        manifest = self.manifest()
        if manifest is None or not self.seal.exists():
            raise AppError(ErrorCode.RUN_NOT_READY, f"The run {self.quoted} has not ended: cancel it first.")
        return manifest

    def mark_restored(self) -> None:
        """Mark a run of another machine, before it is among the runs of this one."""
        self.disk.write(self._restored, b"")
        self.disk.sync(self.path)

    def is_restored(self) -> bool:
        """Return True for a run that was trained elsewhere, whose training text may not be on this machine."""
        return self._restored.exists()

    def wait_for_end(self) -> None:
        """Wait while a process writes the last event and SHA256SUMS after the manifest of an ended run.

        Raises SERVICE_UNAVAILABLE if that takes long.
        """
        if self.result.exists() and not self.seal.exists() and self._lock.exists():
            self.wait_for_lock(_END_SECONDS).close()

    def ended_at(self) -> float | None:
        """Return when the end or the last evaluation was written, in seconds since 1970; None before the end."""
        try:
            return self.seal.stat().st_mtime
        except FileNotFoundError:
            return None

    def add_evaluation(
        self, summary: EvalSummary, baselines: Baselines | None = None, looks: LookCount | None = None
    ) -> None:
        """Add an evaluation and the hashes of its files to the manifest; the caller holds the lock.

        It replaces the earlier evaluation of the same split and corpus. That of a test split which the run has not
        read at its end gives the run its test loss, its baseline, and the looks at the split.
        """
        manifest = self.completed_manifest()
        others = (e for e in manifest.eval if (e.split, e.dataset) != (summary.split, summary.dataset))
        files = {file.path: file for file in (*manifest.files, *file_records(self.path, (self.metrics, self.samples)))}
        manifest = changed(manifest, eval=(*others, summary), files=tuple(files.values()))
        is_unlocked = summary.dataset is None and manifest.is_unread(summary.split)
        if is_unlocked:
            test, bits = summary.loss, summary.bits_per_char
            metrics = changed(manifest.metrics, test=test, test_perplexity=summary.perplexity, bits_per_char=bits)
            known = manifest.baselines | (baselines or {})
            manifest = changed(manifest, metrics=metrics, baselines=known, test_looks=looks)
        self.replace_manifest(manifest)
        if is_unlocked:
            RunStore(self.path.parent.parent).mark_annotated()

    def replace_manifest(self, renewed: RunManifest) -> None:
        """Replace the manifest of an ended run and its hash in SHA256SUMS; the caller holds the lock.

        A wrong hash in SHA256SUMS stays wrong.
        """
        if not self.seal.exists():
            self.write_manifest(renewed)
            return
        old, new = (
            f"{sha256(content).hexdigest()}  manifest.json\n".encode()
            for content in (read_regular(self.result), _as_json(renewed))
        )
        lines = read_regular(self.seal).splitlines(keepends=True)
        request, *events = (line for line in lines if not line.endswith(b"  manifest.json\n"))
        if old in lines:  # valid for both manifests, whichever a crash leaves
            write_atomically(self.seal, b"".join((request, old, new, *events)), self.disk)
        self.write_manifest(renewed)
        if old in lines:
            write_atomically(self.seal, b"".join((request, new, *events)), self.disk)

    def has_open_group(self) -> bool:
        """Return True while runs of this one's group are to be written."""
        return self._group.exists()

    def close_group(self) -> None:
        """Remove the mark that runs of this one's group are to be written; raises OSError."""
        self.disk.remove(self._group)
        self.disk.sync(self.path)

    def request_pause(self) -> None:
        """Let no process train the run from now on; a process that trains it pauses it."""
        with storage_errors("the request to pause the run could not be written"):
            if not self._pause.exists():
                self.disk.write(self._pause, b"")
                self.disk.sync(self.path)

    def pause_requested(self) -> bool:
        """Return True if a run that has not ended and is not being cancelled is to be paused, or is paused."""
        return self._pause.exists() and not self.result.exists() and not self._cancel.exists()

    @property
    def is_paused(self) -> bool:
        """True once the event log says that the run is paused."""
        return self.pause_requested() and self._pause.stat().st_size > 0

    def has_begun(self) -> bool:
        return self.follow().refresh().status != "queued"

    def write_pause(self, events: EventLog) -> None:
        """Log that the run is paused; the caller holds its lock."""
        if not self.is_paused:
            self._log_again(events, JobPaused, "paused-by-user")
            write_atomically(self._pause, b"paused\n", self.disk)

    def end_pause(self, events: EventLog) -> None:
        """Let processes train the run again; the caller holds its lock."""
        with storage_errors("the pause of the run could not be ended"):
            self.disk.remove(self._pause)
            self.disk.sync(self.path)
        self._log_again(events, JobQueued, "queued")

    def _log_again(self, events: EventLog, kind: type[JobPaused] | type[JobQueued], name: str) -> None:
        earlier = sum(isinstance(event, kind) for event in self.reader().read_new(has_progress=False))
        events.append(kind(**stamp(self.run_id, self.record().user_id, f"{name}:{earlier}")))

    def event_log_bytes(self) -> int:
        return self._events.stat().st_size

    def open_log(self) -> EventLog:
        """Open the event log for writing and remove temporary files of killed writers; needs the lock."""
        others = (self.message_ledger, self.webhook_ledger, self.annotations_file)
        of_others = tuple(f".{file.name}." for file in others)
        with storage_errors("temporary files of an earlier attempt could not be removed"):
            for leftover in self.path.rglob(".*.tmp"):
                if not leftover.is_dir() and not leftover.name.startswith(of_others):
                    self.disk.remove(leftover)
        return EventLog(self._events, self.disk)

    def follow(self) -> RunFollower:
        record = self.record()
        return RunFollower(record, self.reader(), self.annotations(), self._unlocked(record))

    def _unlocked(self, record: RunRecord) -> RunManifest | None:
        """Return the manifest of a run whose locked test split was read after its end; None for another run."""
        manifest = None if record.effective.test == "open" else self.manifest()
        return None if manifest is None or manifest.metrics.test is None else manifest

    def curves(self) -> RunCurves:
        """Return the curves of the run; they are empty until their `read_new` is called."""
        return RunCurves(self.reader(), self.loss_curve)

    def reader(self) -> EventReader:
        return EventReader(self._events)


class _GroupName(BaseModel):
    group_id: str


class _Label(BaseModel):
    label: str | None = None


class _Names(BaseModel):
    """The names of a run in its stored request; the complete record takes ten times as long to read."""

    created_at: datetime
    effective: _Label
    group: _GroupName | None = None
    resumed_from_run_id: str | None = None
    experiment_id: str | None = None
    study_id: str | None = None


class Origin(NamedTuple):
    """A run to resume, and the state of its newest intact checkpoint."""

    run: RunDirectory
    state: TrainingState


class RunStore(JobStore[RunDirectory]):
    """All runs of one artifacts root."""

    folder_name = "models"
    folder_type = RunDirectory
    not_found = ErrorCode.RUN_NOT_FOUND

    def create(self, record: RunRecord, origin: Origin | None = None) -> RunDirectory:
        """Create the directory of a run with its request and first event, synced to disk; raises OSError.

        A resumed run gets copies of the checkpoints and files of its origin. The directory has a temporary name until
        it is complete; `clear_leftovers` removes it after a power cut.
        """
        path = self._folder / record.run_id
        temporary = self._folder / f".{record.run_id}{_TEMPORARY_SUFFIX}"
        self.disk.make_folder(temporary, exist_ok=False)
        try:
            run = RunDirectory(temporary, self.disk)
            with run.wait_for_lock(LOCK_SECONDS):
                if path.exists():
                    raise FileExistsError(path)
                with run.open_log() as log:
                    log.append(JobQueued(**stamp(record.run_id, record.user_id, "queued:0", record.created_at)))
                    if origin is not None:
                        self._copy(origin, run)
                        state, loss = origin.state, origin.state.validation_loss_nats
                        stamped = stamp(record.run_id, record.user_id, f"checkpoint:{state.step}:{loss}")
                        is_best = state.history.best_step == state.step
                        log.append(CheckpointSaved(**stamped, step=state.step, val_loss=loss, is_best=is_best))
                if record.group is not None and record.run_id == record.group.first_id:
                    self.disk.write(temporary / OPEN_GROUP_FILE, b"")
                request, seconds = temporary / REQUEST_FILE, record.created_at.timestamp()
                write_atomically(request, _as_json(record), self.disk)
                os.utime(request, (seconds, seconds))  # by which `newest` orders the runs
                self.disk.rename(temporary, path)
                temporary = path
                self.disk.sync(self._folder)
        except (AppError, OSError):
            with suppress(OSError):
                self.disk.remove_folder(temporary)
            raise
        return RunDirectory(path, self.disk)

    def ancestors(self, effective: EffectiveRequest) -> Iterator[tuple[str, EffectiveRequest | None]]:
        """Yield the runs that a training starts from, directly or not, with their requests; None for a deleted run."""
        while effective.parent_run_id is not None:
            run = self.find(effective.parent_run_id)
            yield effective.parent_run_id, None if run is None else run.record().effective
            if run is None:
                return
            effective = run.record().effective

    def clear_leftovers(self) -> None:
        """Remove incomplete directories of processes that were killed."""
        for path in self._folder.glob(f".*{_TEMPORARY_SUFFIX}"):
            with suppress(OSError):  # it was completed meanwhile, or the next call removes it
                age_seconds = folder_time(self._folder) - path.stat().st_mtime
                if age_seconds > _LEFTOVER_SECONDS and (lock := try_lock(path / "lock")) is not None:
                    lock.close()  # NFS keeps files that are open
                    self.disk.remove_folder(path)
                    log.warning("incomplete_run_removed", run_id=path.name[1 : -len(_TEMPORARY_SUFFIX)])

    def _copy(self, origin: Origin, run: RunDirectory) -> None:
        """Copy the newest intact checkpoint, the best one, the scheduled ones up to it, and the files of the run."""
        old, state = origin
        best = state.step if state.history.best_step is None else state.history.best_step
        for step in {state.step, best}:
            copy_durably(step_folder(old.checkpoints, step), step_folder(run.checkpoints, step), self.disk)
        self.disk.sync(run.checkpoints)
        source, target = scheduled_folder(old.checkpoints), scheduled_folder(run.checkpoints)
        for step in checkpoint_steps(source):
            if step <= state.step:
                copy_durably(step_folder(source, step), step_folder(target, step), self.disk)
                self.disk.sync(target)
        for path in (old.tokenizer, old.loss_curve, old.training_samples):
            if path.exists():
                copy_durably(path, run.path / path.name, self.disk)

    def get(self, job_id: str) -> RunDirectory:
        """Return a run by id; raises RUN_NOT_FOUND, for a group with the ids of its runs."""
        run = self.find(job_id)
        if run is None and (named := sorted(run_id for run_id in self.ids() if group_id_of(run_id) == job_id)):
            raise AppError(self.not_found, is_group(job_id, named))
        return run or super().get(job_id)

    def is_marked_paused(self) -> bool:
        """Return True while no worker is to start a run of this artifacts root."""
        return self._folder.with_name(_PAUSED).exists()

    def mark_paused(self, *, is_paused: bool) -> None:
        """Set or remove the mark that the queue is paused; raises OSError."""
        mark = self._folder.with_name(_PAUSED)
        if is_paused:
            self.disk.make_folder(mark.parent)
            write_atomically(mark, b"", self.disk)
        elif mark.exists():
            self.disk.remove(mark)

    def annotate(self, run: RunDirectory, change: AnnotationChange) -> None:
        """Change label, note and tags of a run, one process after the other.

        Raises INVALID_INPUT for a label that no run may have, and of a run that shares that of its group;
        INSUFFICIENT_STORAGE and SERVICE_UNAVAILABLE.
        """
        record = run.record()
        if change.label == record.effective.label:
            change = changed(change, label=None)
        check_label(change.label)
        if change.label is not None and record.group is not None:
            message = f"The run {run.quoted} is one of a group, whose runs share a name: change its note or tags."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        given: dict[str, object] = change.model_dump(exclude_none=True)
        with storage_errors("the note is not saved"), open_regular(self._folder.with_name(_ANNOTATED), "ab") as mark:
            take_lock(mark.fileno(), fcntl.LOCK_EX)
            write_atomically(run.annotations_file, _as_json(changed(run.annotations(), **given)), self.disk)
            self.mark_annotated()

    def mark_annotated(self) -> None:
        """Let readers of `annotated_ns` notice that annotations of a run have changed."""
        mark, moment_ns = self._folder.with_name(_ANNOTATED), time_ns()
        mark.touch()
        os.utime(mark, ns=(moment_ns, moment_ns))  # finer than the time of the kernel's clock

    def annotated_ns(self) -> int | None:
        """Return when annotations have last changed, in ns since 1970; None if there were never any."""
        return changed_ns(self._folder.with_name(_ANNOTATED))

    def latest_of_family(self, family: str, count: int) -> list[RunDirectory]:
        """Return the newest runs of a family, by the day in their names, without reading them."""
        found = sorted(self._folder.glob(f"{family}-[0-9]*/request.json"), reverse=True)
        return [RunDirectory(path.parent, self.disk) for path in found[:count]]

    def newest(
        self, state: RunState | None = None, skipped: list[RunDirectory] | None = None
    ) -> Iterator[RunDirectory]:
        """Yield the runs in the order of `all`, reading only the requests of runs that can be next.

        The file of a request has the time of its creation, or a later one if it was copied. With a `state`, runs whose
        files rule it out are left out. Those whose requests cannot be read are added to `skipped`.
        """
        read: list[tuple[datetime, RunDirectory]] = []
        for latest, run_id in sorted(self._found(), reverse=True):
            while read and read[-1][0].timestamp() > latest:
                yield read.pop()[1]
            if self._may_be(run_id, state):
                run = self.directory(run_id)
                if (at := created_at(run)) is not None:
                    insort(read, (at, run), key=itemgetter(0))
                elif skipped is not None:
                    skipped.append(run)
        yield from (run for _, run in reversed(read))

    def ids(self) -> list[str]:
        """Return the ids of all runs, in no order, without reading them."""
        return [run_id for _, run_id in self._found()]

    def named(self) -> list[Named]:
        """Return the names of all runs, from new to old; runs whose requests cannot be read come last, by their ids."""
        read: list[tuple[datetime, Named]] = []
        unreadable: list[Named] = []
        for run_id in self.ids():
            run = self.directory(run_id)
            try:
                names = read_record(run.path / REQUEST_FILE, _Names)
            except (OSError, ValueError):
                unreadable.append(Named(run_id))
                continue
            group_id = None if names.group is None else names.group.group_id
            is_part = names.experiment_id is not None or names.study_id is not None
            label = run.annotations().label or names.effective.label
            one = Named(run_id, label, group_id, names.resumed_from_run_id, is_part)
            read.append((names.created_at, one))
        return [*(one for _, one in sorted(read, reverse=True)), *unreadable]

    def ids_by_end(self) -> tuple[list[str], list[str]]:
        """Return the ids of the runs whose end is not completely written, and of the others, without reading them."""
        unfinished: list[str] = []
        finished: list[str] = []
        for run_id in self.ids():
            (finished if self._has(run_id, _SEAL) else unfinished).append(run_id)
        return unfinished, finished

    def unfinished_ids(self) -> list[str]:
        return self.ids_by_end()[0]

    def finished(self, since: float = 0.0) -> list[RunDirectory]:
        """Return the runs whose end is completely written, since a time, in no order, without reading them."""
        ended = map(self.directory, self.ids_by_end()[1])
        return [run for run in ended if (end := run.ended_at()) is not None and end >= since]

    def _found(self) -> list[tuple[float, str]]:
        """Return the runs with the latest time at which they can have been created, in seconds since 1970."""
        found: list[tuple[float, str]] = []
        try:
            folder = os.open(self._folder, os.O_RDONLY)  # paths below it are found faster
        except FileNotFoundError:
            return found
        try:
            for name in filter(JOB_ID.fullmatch, os.listdir(folder)):
                try:
                    seconds = os.stat(f"{name}/{REQUEST_FILE}", dir_fd=folder).st_mtime
                except OSError:  # not a run, or just deleted
                    continue
                found.append((seconds + (_COARSE_SECONDS if seconds.is_integer() else _CLOCK_SECONDS), name))
        finally:
            os.close(folder)
        return found

    def _may_be(self, run_id: str, state: RunState | None) -> bool:
        """Return False if the files of a run rule out a state."""
        if state is None:
            return True
        return self._has(run_id, _MANIFEST) if state in FINAL_STATES else not self._has(run_id, _SEAL)

    def _has(self, run_id: str, name: str) -> bool:
        return os.path.exists(f"{self._folder}/{run_id}/{name}")


def in_use(run_id: str) -> AppError:
    message = f"The run '{run_id}' is being written by another process; try again in a minute."
    return AppError(ErrorCode.SERVICE_UNAVAILABLE, message)


def _as_json(record: BaseModel) -> bytes:
    return record.model_dump_json(indent=1).encode()


def finish_run(run: RunDirectory, events: EventLog, manifest: RunManifest) -> None:
    """Write the end of a run once; the caller holds its lock. An existing manifest is not replaced.

    Raises TakenOver if another process writes the run.
    """
    events.check_only_writer()
    end = run.manifest()
    if end is None:
        timings = changed(manifest.timings, finished=events.time_of(manifest.timings.finished))
        run.write_manifest(end := changed(manifest, timings=timings))
    events.append(_terminal_event(run, end))
    run.write_seal()


def complete_end(run: RunDirectory) -> None:
    """Complete the end of a run whose process died after the manifest; does nothing while another process writes."""
    manifest = run.manifest()
    if manifest is not None and not run.seal.exists():
        _finish_idle_run(run, manifest)


def cancel_idle_run(run: RunDirectory) -> bool:
    """Write the end of a cancelled run that no process trains; return False if one does, which will write the end."""
    return _finish_idle_run(run, manifest_of(run.record(), "cancelled"))


def pause_idle_run(run: RunDirectory) -> bool:
    """Write that an unfinished run is paused; return False if a process trains it, which will write it."""
    lock = run.lock()
    if lock is None:
        return False
    with lock, run.open_log() as events:
        if run.pause_requested():
            run.write_pause(events)
    return True


def unpause_run(run: RunDirectory) -> None:
    """Let a paused run wait for a worker again; raises SERVICE_UNAVAILABLE while a process still pauses it."""
    with run.wait_for_lock(LOCK_SECONDS), run.open_log() as events:
        if run.pause_requested():
            run.end_pause(events)


def _finish_idle_run(run: RunDirectory, manifest: RunManifest) -> bool:
    lock = run.lock()
    if lock is None:
        return False
    with lock, run.open_log() as events:
        finish_run(run, events, manifest)
    return True


def manifest_of(record: RunRecord, status: FinalState, *, error: RunError | None = None) -> RunManifest:
    """Return the manifest of a run that ended without a model."""
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
        sampling_version=2,
        error=error,
    )


def _terminal_event(run: RunDirectory, manifest: RunManifest) -> Event:
    name = f"{manifest.status}:{manifest.steps}"
    ended = stamp(manifest.run_id, run.record().user_id, name, manifest.timings.finished)
    if manifest.status == "completed":
        size = sum(file.bytes for file in run.result_files())
        return JobCompleted(**ended, result_id=manifest.run_id, result_bytes=size)
    if manifest.error is None:
        return JobCancelled(**ended)
    return JobFailed(
        **ended,
        error_kind="user" if manifest.error.error_class is ErrorClass.USER_INPUT else "system",
        code=manifest.error.code,
        error_class=manifest.error.error_class,
        message=manifest.error.message,
    )
