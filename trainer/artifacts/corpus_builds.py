"""Builds of corpora on disk, one folder each; workers run them."""

from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Literal

from pydantic import ValidationError

from trainer.artifacts.command_jobs import CommandDirectory
from trainer.artifacts.job_folder import JobStore
from trainer.config.settings import Settings
from trainer.contracts.base import Frozen, JobRecord, changed
from trainer.contracts.corpora import BuildProgress, BuildRequest, BuildStatus, CorpusManifest
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef
from trainer.data.corpora import CorpusStore
from trainer.system.files import DISK, Disk, find_record, read_record, write_atomically
from trainer.system.hardware import process_name


class BuildRecord(JobRecord):
    """`request.json`: a build that was started."""

    schema_version: Literal[1] = 1
    request: BuildRequest


class _Progress(Frozen):
    """`progress.json`."""

    languages: tuple[BuildProgress, ...] = ()


class BuildDirectory(CommandDirectory[BuildRecord]):
    """Folder of one build: its result is the manifest of the corpora."""

    word = "build"
    record_type = BuildRecord
    needs_network = True

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        super().__init__(path, disk)
        self.build_id = self.job_id
        self._progress = path / "progress.json"

    def start(self, settings: Settings) -> list[str]:
        """Return the words of the command; raises DATA_NOT_FOUND without the folder of local texts."""
        request = self.record().request
        corpora = CorpusStore(settings)
        source = (corpora.own / request.source).resolve() if request.source == "local" else request.source
        if isinstance(source, Path) and not source.is_dir():
            host = process_name().rpartition(":")[0]
            message = (
                f"The worker's machine '{host}' has no folder `corpus/local` below its APP__DATA_ROOT: put a text per"
                " language into it there, as `kk.txt`."
            )
            raise AppError(ErrorCode.DATA_NOT_FOUND, message)
        words = ["corpus", "build", "--source", str(source)]
        words += ["--langs", ",".join(request.languages), "--threshold", f"{request.threshold}"]
        words += [word for name in request.keep for word in ("--keep", name)]
        words += [] if request.characters is None else ["--characters", f"{request.characters}"]
        return [*words, "--out-dir", str(corpora.stored), "--log-format", "json"]

    def receive(self, line: bytes) -> None:
        with suppress(ValidationError):  # a warning of a library
            one = BuildProgress.model_validate_json(line)
            known = {before.language: before for before in self.status().progress} | {one.language: one}
            content = _Progress(languages=tuple(known.values())).model_dump_json().encode()
            write_atomically(self._progress, content, self.disk)

    def complete(self, output: bytes) -> None:
        manifest = CorpusManifest.model_validate_json(output)
        write_atomically(self.result, manifest.model_dump_json().encode(), self.disk)

    def status(self) -> BuildStatus:
        """Read the status; raises OSError or BrokenFile."""
        progress = find_record(self._progress, _Progress) or _Progress()
        manifest = read_record(self.result, CorpusManifest) if self.has_completed() else None
        record, (state, error) = self.record(), self.state_and_error()
        return BuildStatus(
            build_id=self.job_id,
            created_at=record.created_at,
            request=record.request,
            status=state,
            progress=progress.languages,
            manifest=manifest,
            error=error,
        )

    def listed(self) -> BuildStatus:
        return changed(self.status(), manifest=None)

    def corpora(self) -> list[CorpusRef]:
        """Return the corpora of a completed build; raises OSError or BrokenFile."""
        built = read_record(self.result, CorpusManifest).languages.values() if self.has_completed() else ()
        files = [one.file for one in built]
        return [CorpusRef(name=Path(file.path).stem, sha256=file.sha256, bytes=file.bytes) for file in files]


class BuildStore(JobStore[BuildDirectory]):
    """All builds of one artifacts root."""

    folder_name = "corpus_builds"
    folder_type = BuildDirectory

    def create(self, record: BuildRecord) -> BuildDirectory:
        """Create the folder of a new build; raises OSError."""
        return self.create_or_continue(f"build-{token_hex(4)}", record)
