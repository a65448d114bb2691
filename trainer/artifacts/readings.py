"""Analyses of reading times on disk, one folder each: the table, the scores of each model, and the results."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryFile

from trainer.artifacts.job_folder import JobStore, SteppedJob, status_message
from trainer.contracts.base import FileRecord
from trainer.contracts.readings import (
    ModelFit,
    ReadingRecord,
    ReadingResult,
    ReadingStatus,
    UnitScores,
)
from trainer.system.files import (
    DISK,
    Disk,
    file_records,
    find_record,
    read_record,
    storage_errors,
    write_atomically,
)

TIMES_FILE, SCORES_FOLDER, FITS_FOLDER = "times.csv", "scores", "fits"


class ReadingDirectory(SteppedJob[ReadingRecord]):
    """Folder of one job; another attempt continues with the scores of an earlier one."""

    word = "reading"
    record_type = ReadingRecord

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        super().__init__(path, disk)
        self.reading_id = self.job_id
        self.times = path / TIMES_FILE

    def has_scores(self, model: str) -> bool:
        """Return True once the scores of the units by a model are stored."""
        return self._scores_file(model).exists()

    def scores(self, model: str) -> UnitScores:
        """Read the scores of the units by a model; raises OSError or BrokenFile."""
        return read_record(self._scores_file(model), UnitScores)

    def add_scores(self, model: str, scores: UnitScores) -> None:
        """Store the scores of the units by a model; raises INSUFFICIENT_STORAGE or SERVICE_UNAVAILABLE."""
        path = self._scores_file(model)
        with storage_errors("the scores could not be written"):
            self.disk.make_folder(path.parent)
            write_atomically(path, scores.model_dump_json().encode(), self.disk)

    def fit(self, name: str) -> ModelFit | None:
        """Read a measure explained by a model; None before it is known."""
        return find_record(self._fit_file(name), ModelFit)

    def add_fit(self, name: str, fit: ModelFit) -> None:
        """Store a measure explained by a model; raises INSUFFICIENT_STORAGE or SERVICE_UNAVAILABLE."""
        path = self._fit_file(name)
        with storage_errors("the fits could not be written"):
            self.disk.make_folder(path.parent)
            write_atomically(path, fit.model_dump_json().encode(), self.disk)

    def add_table(self, name: str, parts: Iterable[str]) -> None:
        """Write a file of the results from its parts; raises INSUFFICIENT_STORAGE or SERVICE_UNAVAILABLE."""
        with storage_errors("the tables could not be written"), TemporaryFile(dir=self.path) as file:
            file.writelines(part.encode() for part in parts)
            file.seek(0)
            write_atomically(self.path / name, file, self.disk)

    def write_result(self, result: ReadingResult, files: Mapping[str, str | bytes]) -> None:
        """Write the files of the results by name, then the results."""
        self.write_files(files)
        write_atomically(self.result, result.model_dump_json().encode(), self.disk)

    def result_files(self) -> tuple[FileRecord, ...]:
        """Return the files with their hashes; raises CONFLICT before the end of the job."""
        self.check_completed()
        names = ("*.csv", "*.png", "*.html", "*.R", f"{SCORES_FOLDER}/*.json")
        found = [path for name in names for path in self.path.glob(name)]
        return file_records(self.path, [self._request, self.result, self.path / "report.json", *found])

    def status(self, *, has_files: bool = True) -> ReadingStatus:
        record, (status, error) = self.record(), self.state_and_error()
        n_models, progress = len(record.runs), self.progress(record.n_steps)
        running = f"{progress.done} of {n_models} models have scored the texts."
        if progress.done >= n_models:
            running = f"{progress.done - n_models} of {progress.total - n_models} models have explained the times."
        return ReadingStatus(
            reading_id=self.reading_id,
            name=record.data.name,
            status=status,
            message=status_message(status, error, running),
            runs=tuple(run.name for run in record.runs),
            done=progress.total if status == "completed" else progress.done,
            total=progress.total,
            created_at=record.created_at,
            elapsed_seconds=self.seconds_since(record.created_at),
            error=error,
            files=self.result_files() if has_files and status == "completed" else (),
        )

    def _fit_file(self, name: str) -> Path:
        return self.path / FITS_FOLDER / f"{name}.json"

    def _scores_file(self, model: str) -> Path:
        return self.path / SCORES_FOLDER / f"{model}.json"


class ReadingStore(JobStore[ReadingDirectory]):
    """All analyses of reading times of one artifacts root."""

    folder_name = "readings"
    folder_type = ReadingDirectory

    def create(self, record: ReadingRecord, times: bytes) -> ReadingDirectory:
        """Create the folder of a job with its table, as `create_or_continue` does."""
        job = self.directory(record.reading_id)
        self.disk.make_folder(job.path)
        write_atomically(job.times, times, self.disk)
        return self.create_or_continue(record.reading_id, record)
