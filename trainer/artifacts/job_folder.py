"""Folders of jobs on disk: what runs, tokenizers, experiments and builds of corpora share; imports no torch."""

import os
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Generic, Literal, TypeAlias, TypeVar

import structlog

from trainer.artifacts.run_ids import Named, one_job_id
from trainer.contracts.base import FileRecord, JobRecord, RunState
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.job_status import JobStatus, SteppedStatus, StepProgress, UnreadableJob
from trainer.contracts.reports import Report
from trainer.contracts.runs import CorpusRef
from trainer.system.files import (
    DISK,
    BrokenFile,
    Disk,
    UnknownForm,
    file_records,
    find_record,
    read_record,
    read_regular,
    storage_errors,
    try_lock,
    whole_record,
    write_atomically,
)
from trainer.system.hardware import is_dead, process_name

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

REQUEST_FILE, REPORT_FILE = "request.json", "report.json"
JOB_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_MESSAGES: dict[RunState, str] = {
    "queued": "Waiting for a worker.",
    "completed": "Completed.",
    "cancelled": "Cancelled.",
}
_ENDING_SECONDS, _POLL_SECONDS = 10.0, 0.02

RecordT_co = TypeVar("RecordT_co", bound=JobRecord, covariant=True)


class JobFolder(Generic[RecordT_co]):
    """Folder of one job: request, lock, log, and in the end a result, an error or the mark of a cancellation.

    The result is written last, and counts if several of these exist. A subclass adds what only its kind has.
    """

    word: str
    """The noun for a job of the kind, from which messages, events of the log and the name of its id are made."""
    words: str | None = None
    """The plural of the noun, unless it only adds an s."""
    record_type: type[RecordT_co]
    result_name = "result.json"

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        self.path = path
        self.disk = disk
        self.job_id = path.name
        self.logs = path / "logs.jsonl"
        self.message_ledger = path / "dm.json"
        self.result = path / self.result_name
        self._request = path / REQUEST_FILE
        self._error = path / "error.json"
        self._cancel = path / "cancel"
        self._lock = path / "lock"
        self._process = path / "process"

    @property
    def log_id(self) -> dict[str, str]:
        """The id by its name in the log."""
        return {f"{self.word}_id": self.job_id}

    def exists(self) -> bool:
        return self._request.exists()

    def names(self) -> Named:
        """Return the names by which people find the job."""
        return Named(self.job_id)

    def record(self) -> RecordT_co:
        """Read `request.json`; raises BrokenFile if it is damaged."""
        return read_record(self._request, self.record_type)

    def created_at(self) -> datetime:
        """Return when the job was accepted; raises OSError or BrokenFile."""
        return self.record().created_at

    def has_completed(self) -> bool:
        return self.result.exists()

    def is_unfinished(self) -> bool:
        """Return True from the request to the result, the error or the request to cancel."""
        return self._request.exists() and not self._ends()

    def has_begun(self) -> bool:
        """Return True once a worker has started the job: it then writes a log."""
        return self.logs.exists()

    def may_begin(self) -> bool:
        """Return True for a job that is new, or that has failed or was cancelled."""
        return not self.is_unfinished() and not self.has_completed()

    def has_work(self) -> bool:
        """Return True if a worker has something to do: also one that was cancelled may have jobs of its own to end."""
        return self.is_unfinished() or (self.cancel_requested() and not self.result.exists())

    @property
    def is_paused(self) -> bool:
        """True if no worker is to take the job for now; only runs can be paused."""
        return False

    def state(self) -> RunState:
        """Return the state as the files tell it."""
        ends: tuple[tuple[Path, RunState], ...] = (
            (self.result, "completed"),
            (self._error, "failed"),
            (self._cancel, "cancelled"),
        )
        return next((state for file, state in ends if file.exists()), self.unfinished_state())

    def state_and_error(self) -> tuple[RunState, RunError | None]:
        """Return the state, and the error of a failed job; None in another state."""
        state = self.state()
        return state, find_record(self._error, RunError) if state == "failed" else None

    def unfinished_state(self) -> Literal["queued", "running"]:
        """Return the state of a job that has not ended: it runs while a process that is not known as dead does it."""
        try:
            name = read_regular(self._process).decode(errors="replace")
        except (FileNotFoundError, BrokenFile):
            return "queued"
        return "queued" if is_dead(name) else "running"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the job count as running in the block; the caller holds the lock."""
        try:
            write_atomically(self._process, process_name().encode(), self.disk)
        except (AppError, OSError) as error:  # the job has its own means against a disk that fails
            log.warning("process_unnamed", **self.log_id, error=type(error).__name__)
        try:
            yield
        finally:
            self.disk.remove(self._process)

    def lock(self) -> BinaryIO | None:
        """Take the lock for work on the job; closing the file releases it.

        Return None if another process has the lock, or if the job was deleted.
        """
        with suppress(FileNotFoundError):
            return try_lock(self._lock)
        return None

    def begin(self, record: JobRecord) -> None:
        """Write a request, and remove the end of an earlier attempt; the caller holds the lock.

        The job can be cancelled as soon as its earlier end is gone, so that nothing is removed after that.
        """
        ends = self._ends()
        write_atomically(self._request, record.model_dump_json(indent=1).encode(), self.disk)
        for file in (*self._of_attempt(), self.message_ledger, *ends):
            self.disk.remove(file)
        self.disk.sync(self.path)

    def replace_record(self, record: JobRecord) -> None:
        """Replace the request of a job by one with what its worker has chosen; the caller holds the lock."""
        seconds = self._request.stat().st_mtime
        write_atomically(self._request, record.model_dump_json(indent=1).encode(), self.disk)
        os.utime(self._request, (seconds, seconds))  # the time of its creation, by which lists are sorted

    def fail(self, error: AppError) -> None:
        """Write the error that the job ended with."""
        write_atomically(self._error, RunError.of(error).model_dump_json().encode(), self.disk)

    def failure(self) -> RunError | None:
        """Return the error of a failed job; None in another state."""
        return self.state_and_error()[1]

    def request_cancel(self) -> None:
        with storage_errors(f"the request to cancel the {self.word} could not be written"):
            self.disk.write(self._cancel, b"")
            self.disk.sync(self.path)

    def cancel_requested(self) -> bool:
        return self._cancel.exists()

    def needed_corpora(self) -> Iterable[CorpusRef]:
        """Return the corpora that the job reads, or that are needed to continue or to evaluate it."""
        return ()

    def check_readable(self) -> None:
        """Read the records that lists show; raises OSError and BrokenFile."""
        self.record()

    def has_wrong_hash(self) -> bool:
        """Return True if a stored hash says that a record was changed; most kinds have no hashes of their records."""
        return False

    def ended_at(self) -> float | None:
        """Return when the end was written, in seconds since 1970; None before the end."""
        return next((end.stat().st_mtime for end in self._ends()), None)

    def _ends(self) -> list[Path]:
        """Return the files that say how the job has ended, the one that counts first; none before the end."""
        return [file for file in (self.result, self._error, self._cancel) if file.exists()]

    def _of_attempt(self) -> tuple[Path, ...]:
        """Return the files that another attempt begins without."""
        return ()


class StatusJob(JobFolder[RecordT_co]):
    """Folder of a job of any kind but runs: its status is read from its files alone."""

    crash_code = ErrorCode.INTERNAL_ERROR
    """The error of a job whose child has crashed too often."""

    @abstractmethod
    def status(self) -> JobStatus:
        """Return the status and, after the end, the result or its files."""

    def seconds_since(self, accepted_at: datetime) -> float:
        """Return the seconds from a time to the end of the job, or to now."""
        return max(0.0, (self.ended_at() or time.time()) - accepted_at.timestamp())

    def listed(self) -> JobStatus:
        """Return the status for a list, without what takes long to read."""
        return self.status()

    def check_readable(self) -> None:
        self.listed()

    def result_files(self) -> tuple[FileRecord, ...]:
        """Return the files of a completed job with their hashes; raises CONFLICT before its end."""
        self.check_completed()
        return file_records(self.path, [self._request, self.result])

    def report(self) -> Report | None:
        """Return what the results say to people; None for a kind without a report, and before the end.

        That of a job of version 0.1.0, which had none as a record, is made of its results and stored beside them.
        """
        file = self.path / REPORT_FILE
        if file.exists() or not self.has_completed() or (report := self.report_of_results()) is None:
            return find_record(file, Report)
        with suppress(OSError, AppError):  # a disk that cannot be written
            write_atomically(file, report.model_dump_json().encode(), self.disk)
        return report

    def report_of_results(self) -> Report | None:
        """Return the report of a completed job, made of its results; None for a kind that always stores it."""
        return None

    def check_completed(self) -> None:
        if not self.has_completed():
            message = f"The {self.word} '{self.job_id}' has no results yet: it has not completed."
            raise AppError(ErrorCode.CONFLICT, message)

    def cancel(self) -> bool:
        """Mark the job as cancelled, which its worker notices, and end the jobs that it has started.

        Return False if a worker has the job, which then ends these. Raises CONFLICT for a job that has ended.
        """
        if not self.is_unfinished():
            raise AppError(ErrorCode.CONFLICT, f"The {self.word} '{self.job_id}' has already ended.")
        self.request_cancel()
        lock = self.lock()
        if lock is None:
            return False
        with lock:
            self.end_started_jobs()
        return True

    def end_started_jobs(self) -> None:
        """Cancel the jobs that this one has started; the caller holds its lock. Most kinds start none."""


class SteppedJob(StatusJob[RecordT_co]):
    """Folder of a job of many steps; another attempt continues with what an earlier one has stored."""

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        super().__init__(path, disk)
        self._progress = path / "progress.json"

    def has_begun(self) -> bool:
        """Return True once a worker has started the job: it then writes its progress, and its child a log."""
        return self._progress.exists() or super().has_begun()

    @abstractmethod
    def status(self, *, has_files: bool = True) -> SteppedStatus:
        """Return the status and, after the end, the files, whose hashes are read for it."""

    def listed(self) -> SteppedStatus:
        return self.status(has_files=False)

    def write_progress(self, progress: StepProgress) -> None:
        write_atomically(self._progress, progress.model_dump_json().encode(), self.disk)

    def progress(self, total: int) -> StepProgress:
        """Return how many of all steps are done."""
        found = whole_record(self._progress, StepProgress)  # a damaged file is written anew by the next step
        return found or StepProgress(done=0, total=total)

    def write_files(self, files: Mapping[str, str | bytes]) -> None:
        """Write files of the results by name."""
        for name, content in files.items():
            write_atomically(self.path / name, content.encode() if isinstance(content, str) else content, self.disk)

    def _of_attempt(self) -> tuple[Path, ...]:
        return (self._progress,)


AnyJob: TypeAlias = JobFolder[JobRecord]
AnyStatusJob: TypeAlias = StatusJob[JobRecord]
FolderT = TypeVar("FolderT", bound=AnyJob)
FolderT_co = TypeVar("FolderT_co", bound=AnyJob, covariant=True)


class JobStore(Generic[FolderT_co]):
    """All jobs of one kind below an artifacts root."""

    folder_name: str
    folder_type: type[FolderT_co]
    not_found = ErrorCode.DATA_NOT_FOUND

    def __init__(self, artifacts_root: Path, disk: Disk = DISK) -> None:
        self._folder = artifacts_root / self.folder_name
        self.disk = disk

    def directory(self, job_id: str) -> FolderT_co:
        return self.folder_type(self._folder / job_id, self.disk)

    def find(self, job_id: str) -> FolderT_co | None:
        """Return a job by id; None if it does not exist."""
        if not JOB_ID.fullmatch(job_id):
            return None
        job = self.directory(job_id)
        return job if job.exists() else None

    def get(self, job_id: str) -> FolderT_co:
        """Return a job by id; raises the error for one that does not exist."""
        job = self.find(job_id)
        if job is None:
            shown = f" '{job_id}'" if len(job_id) <= 64 and job_id.isprintable() else ""
            word = self.folder_type.word
            words = self.folder_type.words or f"{word}s"
            raise AppError(self.not_found, f"There is no {word}{shown}: check its id, or list the {words}.")
        return job

    def find_named(self, given: str, is_visible: Callable[[str], bool] = lambda _: True) -> FolderT_co:
        """Return the job that a name is meant for, as `one_job_id` does: a complete id, else one of the visible jobs.

        Raises the error for a name of none, and INVALID_INPUT for that of several.
        """
        job = self.find(given)
        if job is not None:
            return job
        word = self.folder_type.word
        words = self.folder_type.words or f"{word}s"
        named = [job.names() for job in self.all() if is_visible(job.job_id)]
        return self.directory(one_job_id(given, named, word, words, self.not_found))

    def ids(self) -> list[str]:
        """Return the ids of all jobs, in no order, without reading them."""
        found = (path.name for path in self._folder.glob("*"))
        return [name for name in found if self.find(name) is not None]

    def names(self) -> list[str]:
        """Return the ids of all jobs, the one that was started last first, without reading any."""
        requests = {path.parent.name: path.stat().st_mtime for path in self._folder.glob(f"*/{REQUEST_FILE}")}
        return sorted(requests, key=requests.__getitem__, reverse=True)

    def all(self) -> list[FolderT_co]:
        """Return all jobs, newest first; one with an unreadable request is logged and skipped."""
        return in_order(map(self.directory, self.ids()))[::-1]

    def unreadable(self) -> list[FolderT_co]:
        return [job for job in map(self.directory, self.ids()) if created_at(job) is None]

    def unfinished_ids(self) -> list[str]:
        """Return the ids of the jobs that have not ended, in no order, without reading them."""
        return [job_id for job_id in self.ids() if self.directory(job_id).is_unfinished()]

    def unfinished(self) -> list[FolderT_co]:
        """Return the jobs that have not ended, oldest first."""
        return in_order(map(self.directory, self.unfinished_ids()))

    def remove_old(self) -> list[str]:
        """Delete the jobs whose results have expired; return their ids. Those of most kinds stay."""
        return []

    def create_or_continue(
        self, job_id: str, record: JobRecord, is_outdated: Callable[[], bool] = lambda: False
    ) -> FolderT_co:
        """Create the folder of a job with its request, synced to disk, unless the job is unfinished or has completed.

        A failed or cancelled job begins again, once the process that worked on it has noticed its end, and so does a
        completed one that is outdated. Raises OSError, and SERVICE_UNAVAILABLE if that process takes long.
        """
        job = self.directory(job_id)

        def may_begin() -> bool:
            return job.may_begin() or (job.has_completed() and is_outdated())

        self.disk.make_folder(job.path)
        deadline = time.monotonic() + _ENDING_SECONDS
        while may_begin():
            lock = job.lock()
            if lock is not None:
                with lock:
                    if may_begin():  # unless another process was faster
                        job.begin(record)
                        self.disk.sync(self._folder)
                break  # not again: the job may have been cancelled meanwhile
            if time.monotonic() > deadline:
                message = f"The {job.word} '{job_id}' is just ending; try again in a minute."
                raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message)
            time.sleep(_POLL_SECONDS)
        return job


def in_order(jobs: Iterable[FolderT]) -> list[FolderT]:
    """Sort jobs, oldest first; one with an unreadable request is logged and skipped."""
    created = {job: at for job in jobs if (at := created_at(job)) is not None}
    return sorted(created, key=created.__getitem__)


@contextmanager
def skipping_unreadable(job: AnyJob) -> Iterator[None]:
    """Log a job whose files are damaged, or were deleted a moment ago, and leave the block."""
    try:
        yield
    except (FileNotFoundError, BrokenFile):
        log.error(f"{job.word}_unreadable", **job.log_id)


def unreadable(job: AnyJob) -> UnreadableJob | None:
    """Return why the records of a job cannot be read; None for a job that can be read, or that was deleted."""
    try:
        job.check_readable()
    except AppError as error:
        reason = error.message
    except OSError as error:
        if not job.exists():
            return None
        filename: object = error.filename
        reason = f"The file '{Path(str(filename)).name}' cannot be read ({error.strerror})."
    except UnknownForm as error:
        reason = f"A record of '{job.job_id}' is damaged: its hash has changed." if job.has_wrong_hash() else str(error)
    except BrokenFile as error:
        reason = str(error)
    else:
        return None
    return UnreadableJob(job_id=job.job_id, reason=reason)


def created_at(job: AnyJob) -> datetime | None:
    """Return when a job was accepted; None if its request cannot be read, which is logged."""
    try:
        return job.created_at()
    except (OSError, ValueError):
        log.error(f"{job.word}_unreadable", **job.log_id)
        return None


def status_message(state: RunState, error: RunError | None, running: str) -> str:
    """Return the sentence of a status: the error of a failed job, and `running` while a process does the job."""
    return _MESSAGES.get(state, running) if error is None else error.message


def with_manifest(folder: Path, files: Iterable[FileRecord]) -> tuple[FileRecord, ...]:
    """Return the files that a folder's `manifest.json` names and itself, by their paths."""
    by_path = {file.path: file for file in (*files, *file_records(folder, [folder / "manifest.json"]))}
    return tuple(by_path[path] for path in sorted(by_path))
