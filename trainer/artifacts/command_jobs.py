"""Jobs that a worker does by a command of `mt`, because they need torch: exports and verifications of runs."""

import shutil
from abc import abstractmethod
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar
from zipfile import ZIP_DEFLATED, ZipFile

from trainer.artifacts.export_links import export_link
from trainer.artifacts.job_folder import JobStore, RecordT_co, StatusJob
from trainer.artifacts.outcome import without_paths
from trainer.config.settings import Settings
from trainer.contracts.base import FileRecord, Identifier, JobRecord, ModelName, changed
from trainer.contracts.exports import ExportedFile, ExportRequest, ExportStatus
from trainer.contracts.verification import Verification, VerificationStatus
from trainer.system.files import DISK, Disk, file_records, folder_time, read_record, write_atomically

KEPT_SECONDS = 24 * 3600
"""Time for which a result is stored."""


class CommandDirectory(StatusJob[RecordT_co]):
    """Folder of a job that is one command of `mt`."""

    result_codes = frozenset({0})
    """Exit codes of a command that has a result."""
    needs_network = False

    @abstractmethod
    def start(self, settings: Settings) -> list[str]:
        """Remove what an interrupted attempt has left, and return the words of the command."""

    def receive(self, line: bytes) -> None:
        """Store the progress that a line of the command's error output reports; most commands report none."""

    @abstractmethod
    def complete(self, output: bytes) -> None:
        """Write the result of the command from its output; raises ValidationError for another output."""


AnyCommand: TypeAlias = CommandDirectory[JobRecord]
CommandT = TypeVar("CommandT", bound=AnyCommand)


class ShortLivedStore(JobStore[CommandT]):
    """Jobs whose results are stored for a day."""

    def create(self, job_id: str, record: JobRecord) -> CommandT:
        """Create the folder of a job; return the earlier job of this id, if there is one."""
        return self.find(job_id) or self.create_or_continue(job_id, record)

    def remove_old(self) -> list[str]:
        """Delete the jobs that ended more than a day ago; return their ids."""
        removed: list[str] = []
        with suppress(FileNotFoundError):
            folders = [*self._folder.glob("[a-z0-9]*")]
            latest = folder_time(self._folder) - KEPT_SECONDS
            for folder in folders:
                is_old = folder.stat().st_mtime < latest
                if is_old and not self.directory(folder.name).is_unfinished():
                    shutil.rmtree(folder, ignore_errors=True)  # the next call removes what is left
                    removed.append(folder.name)
        return removed


class ExportRecord(JobRecord):
    """`request.json`: an export that was accepted."""

    schema_version: Literal[1] = 1
    model: ModelName
    """The run, or its checkpoint as RUN@1200."""
    request: ExportRequest


class ExportDirectory(CommandDirectory[ExportRecord]):
    """Folder of one export, with its file; its result describes the file."""

    word = "export"
    record_type = ExportRecord

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        super().__init__(path, disk)
        self._scratch = path / ".files"

    def start(self, settings: Settings) -> list[str]:
        record = self.record()
        to, licence = record.request.format, record.request.license
        self.disk.remove_folder(self._scratch)
        self.disk.make_folder(self._scratch)
        words = ["export", record.model, "--format", to, "--out", str(self._target())]
        return words if licence is None else [*words, "--license", licence]

    def complete(self, output: bytes) -> None:
        written = self._target()
        if written.is_dir():
            written = _zip(written)
        file = self.path / written.name
        self.disk.rename(written, file)
        self.disk.remove_folder(self._scratch)
        [record] = file_records(self.path, [file])
        write_atomically(self.result, record.model_dump_json().encode(), self.disk)

    def status(self) -> ExportStatus:
        """Return the status, of a completed export with the link to its file."""
        record, (state, error), file = self.record(), self.state_and_error(), None
        if state == "completed":
            written, expires_at = self.file(), int(self.result.stat().st_mtime) + KEPT_SECONDS
            file = ExportedFile(
                name=written.path,
                bytes=written.bytes,
                sha256=written.sha256,
                url=export_link(self.path / written.path, "", expires_at),
                expires_at=datetime.fromtimestamp(expires_at, UTC),
            )
        return ExportStatus(
            export_id=self.job_id,
            run_id=record.model,
            format=record.request.format,
            license=record.request.license,
            status=state,
            created_at=record.created_at,
            file=file,
            error=error,
        )

    def result_files(self) -> tuple[FileRecord, ...]:
        self.check_completed()
        return (self.file(),)

    def file(self) -> FileRecord:
        """Return the description of the file of a completed export."""
        return FileRecord.model_validate_json(self.result.read_bytes())

    def _target(self) -> Path:
        record = self.record()
        to = record.request.format
        return self._scratch / (f"{record.model}.tar" if to == "archive" else f"{record.model}-{to}")


class ExportStore(ShortLivedStore[ExportDirectory]):
    """All exports of one artifacts root."""

    folder_name = "exports"
    folder_type = ExportDirectory


class VerificationRecord(JobRecord):
    """`request.json`: a verification that was accepted."""

    schema_version: Literal[1] = 1
    run_id: Identifier


class VerificationDirectory(CommandDirectory[VerificationRecord]):
    """Folder of one verification; its result is what was found."""

    word = "verification"
    record_type = VerificationRecord
    result_codes = frozenset({0, 1})

    def start(self, settings: Settings) -> list[str]:
        return ["verify", self.record().run_id]

    def complete(self, output: bytes) -> None:
        found = Verification.model_validate_json(output)
        checks = tuple(changed(check, message=without_paths(check.message)) for check in found.checks)
        write_atomically(self.result, changed(found, checks=checks).model_dump_json().encode(), self.disk)

    def status(self) -> VerificationStatus:
        record, (state, error) = self.record(), self.state_and_error()
        return VerificationStatus(
            verification_id=self.job_id,
            run_id=record.run_id,
            status=state,
            created_at=record.created_at,
            verification=read_record(self.result, Verification) if state == "completed" else None,
            error=error,
        )


class VerificationStore(ShortLivedStore[VerificationDirectory]):
    """All verifications of one artifacts root."""

    folder_name = "verifications"
    folder_type = VerificationDirectory


def _zip(folder: Path) -> Path:
    """Pack a folder into a file beside it."""
    packed = folder.with_name(f"{folder.name}.zip")
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")
    return packed
