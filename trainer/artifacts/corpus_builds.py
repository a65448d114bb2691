"""Builds of corpora on disk, one folder each; the bot's process runs them."""

from pathlib import Path
from secrets import token_hex
from typing import Annotated, Literal

from pydantic import Field

from trainer.artifacts.job_folder import JobFolder, JobStore
from trainer.contracts.base import Frozen, JobRecord
from trainer.contracts.corpora import BuildFilter, BuildProgress, CorpusManifest
from trainer.contracts.errors import AppError, RunError
from trainer.system.files import DISK, Disk, read_record, write_atomically

SourceName = Literal["oscar", "culturax", "local"]


class BuildRequest(Frozen):
    """A build as requested in Discord."""

    source: SourceName
    languages: Annotated[tuple[str, ...], Field(min_length=1)]
    characters: Annotated[int, Field(ge=1)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.9
    keep: tuple[BuildFilter, ...] = ()
    """Filters that the build leaves out."""


class BuildRecord(JobRecord):
    """`request.json`: a build that was started."""

    schema_version: Literal[1] = 1
    request: BuildRequest


class BuildStatus(Frozen):
    """A build, its progress by language, and in the end its manifest or an error."""

    request: BuildRequest
    progress: tuple[BuildProgress, ...] = ()
    manifest: CorpusManifest | None = None
    error: RunError | None = None

    @property
    def has_ended(self) -> bool:
        return self.manifest is not None or self.error is not None


class _Progress(Frozen):
    """`progress.json`."""

    languages: tuple[BuildProgress, ...] = ()


class BuildDirectory(JobFolder[BuildRecord]):
    """Folder of one build: its result is the manifest of the corpora."""

    word = "build"
    record_type = BuildRecord

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        super().__init__(path, disk)
        self.build_id = self.job_id
        self._progress = path / "progress.json"

    def status(self) -> BuildStatus:
        """Read the status; raises OSError or BrokenFile."""
        progress = read_record(self._progress, _Progress) if self._progress.exists() else _Progress()
        manifest = read_record(self.result, CorpusManifest) if self.has_completed() else None
        return BuildStatus(
            request=self.record().request, progress=progress.languages, manifest=manifest, error=self.failure()
        )

    def save(self, status: BuildStatus) -> None:
        """Write the progress of a build, or its end."""
        if status.manifest is not None:
            write_atomically(self.result, status.manifest.model_dump_json().encode(), self.disk)
        elif status.error is not None:
            self.fail(AppError(status.error.code, status.error.message))
        else:
            content = _Progress(languages=status.progress).model_dump_json().encode()
            write_atomically(self._progress, content, self.disk)

    def remove(self) -> None:
        self.disk.remove_folder(self.path)


class BuildStore(JobStore[BuildDirectory]):
    """All builds of one artifacts root."""

    folder_name = "corpus_builds"
    folder_type = BuildDirectory

    def create(self, record: BuildRecord) -> BuildDirectory:
        """Create the folder of a new build; raises OSError."""
        return self.create_or_continue(f"build-{token_hex(4)}", record)
