"""Results of batteries on disk, one folder each: the items, the scores of each run, and in the end the summary."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from trainer.artifacts.job_folder import REPORT_FILE, JobStore, SteppedJob, status_message
from trainer.contracts.base import FileRecord, changed
from trainer.contracts.batteries import (
    BatteryInfo,
    BatteryItem,
    BatteryManifest,
    BatteryRecord,
    BatteryStatus,
    BatterySummary,
    ItemScores,
    Variant,
)
from trainer.contracts.development import Development, WordTexts
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.reports import Report
from trainer.contracts.runs import RunModel
from trainer.system.files import (
    DISK,
    BrokenFile,
    Disk,
    file_records,
    find_record,
    open_regular,
    read_record,
    read_records,
    storage_errors,
    write_atomically,
)

RecordT = TypeVar("RecordT", bound=BaseModel)
ITEMS_FILE, SCORES_FOLDER, MANIFEST_FILE = "items.jsonl", "scores", "manifest.json"


class BatteryDirectory(SteppedJob[BatteryRecord]):
    """Folder of one job; another attempt continues with the scores of an earlier one."""

    word = "battery"
    words: str | None = "batteries"
    record_type = BatteryRecord

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        super().__init__(path, disk)
        self.battery_id = self.job_id
        self.items_file = path / ITEMS_FILE
        self._development = path / "development.json"
        self._word_texts = path / "lines.json"

    def items(self) -> list[BatteryItem]:
        """Read the items; raises BrokenFile."""
        return read_records(self.items_file, BatteryItem)

    def scores(self, model: str, variant: Variant) -> list[ItemScores]:
        """Read the scores of a model, an empty list before the first one; raises BrokenFile."""
        if not self._scores_file(model, variant).exists():
            return []
        return read_records(self._scores_file(model, variant), ItemScores)

    def count_scores(self, model: str, variant: Variant) -> int:
        """Return the number of items that a model has scored, and cut off a line that was not completely written."""
        path = self._scores_file(model, variant)
        if not path.exists():
            return 0
        with open_regular(path, "r+b") as file:
            data = file.readall()
            end = data.rfind(b"\n") + 1
            if end < len(data):
                self.disk.cut(file, end)
        return data.count(b"\n")

    def add_scores(self, model: str, variant: Variant, scores: Sequence[ItemScores]) -> None:
        """Add the scores of items; they are durable when this returns.

        Raises INSUFFICIENT_STORAGE or SERVICE_UNAVAILABLE if the disk fails.
        """
        path = self._scores_file(model, variant)
        data = b"".join(one.model_dump_json().encode() + b"\n" for one in scores)
        with storage_errors("the scores could not be written"):
            self.disk.make_folder(path.parent)
            is_new = not path.exists()
            with open_regular(path, "ab") as file:
                self.disk.write_at(file, path.stat().st_size, data)
            if is_new:
                self.disk.sync(path.parent)

    def extend(self, runs: Sequence[RunModel]) -> None:
        """Replace the models of the request: later looks at the checkpoints of a run find more."""
        record = changed(self.record(), runs=tuple(runs))
        write_atomically(self._request, record.model_dump_json(indent=1).encode(), self.disk)

    def add_fetched(self, batteries: Sequence[BatteryInfo], items: Iterable[BatteryItem]) -> None:
        """Replace the batteries of the request and their items by all of them, also those that were to be fetched."""
        content = items_content(items)
        write_atomically(self.items_file, content, self.disk)
        fields: dict[str, object] = {"batteries": tuple(batteries), "items_sha256": sha256(content).hexdigest()}
        self.replace_record(changed(self.record(), **fields, to_fetch=()))

    def word_texts(self) -> WordTexts | None:
        """Read the words to measure, with their lines; None before they are chosen."""
        return find_record(self._word_texts, WordTexts)

    def is_outdated(self, record: BatteryRecord) -> bool:
        """Return True if an equal request has models that the one of this job has not."""
        return not {run.name for run in record.runs} <= {run.name for run in self.record().runs}

    def write_word_texts(self, texts: WordTexts) -> None:
        write_atomically(self._word_texts, texts.model_dump_json().encode(), self.disk)

    def measured(self, model: str, record: type[RecordT]) -> RecordT | None:
        """Read what was measured at a checkpoint: the loss (EvalMetrics), or the words; None before that."""
        return find_record(self._measured_file(model, record), record)

    def add_measured(self, model: str, found: BaseModel) -> None:
        """Store what was measured at a checkpoint."""
        path = self._measured_file(model, type(found))
        with storage_errors("the measured values could not be written"):
            self.disk.make_folder(path.parent)
            write_atomically(path, found.model_dump_json().encode(), self.disk)

    def development(self) -> Development | None:
        """Return the development of a run over its checkpoints; None for a job that scores runs as they are.

        Raises CONFLICT before the end of the job.
        """
        self.check_completed()
        return find_record(self._development, Development)

    def write_result(
        self,
        summary: BatterySummary,
        files: Mapping[str, str | bytes],
        program_version: str,
        development: Development | None = None,
    ) -> None:
        """Write the tables of a report by name, the manifest with the hashes of all files, then the summary."""
        if development is not None:
            write_atomically(self._development, development.model_dump_json().encode(), self.disk)
        self.write_files(files)
        record, scores = self.record(), self.path.glob(f"{SCORES_FOLDER}/*.json*")
        data_files = (path for path in (self.items_file, self._request, self._development) if path.exists())
        manifest = BatteryManifest(
            battery_id=self.battery_id,
            program_version=program_version,
            runs=record.runs,
            batteries=record.batteries,
            options=record.options,
            files=file_records(self.path, [*data_files, *scores, *(self.path / name for name in files)]),
        )
        write_atomically(self.path / MANIFEST_FILE, manifest.model_dump_json(indent=1).encode(), self.disk)
        write_atomically(self.result, summary.model_dump_json().encode(), self.disk)

    def summary(self) -> BatterySummary:
        """Return the results; raises CONFLICT before the end of the job."""
        self.check_completed()
        return read_record(self.result, BatterySummary)

    def result_files(self) -> tuple[FileRecord, ...]:
        """Return the files with their hashes; raises CONFLICT before the end of the job."""
        self.check_completed()
        listed = read_record(self.path / MANIFEST_FILE, BatteryManifest).files
        with suppress(BrokenFile):  # its files are listed all the same
            self.report()
        files, report = [self.path / MANIFEST_FILE, self.result], self.path / REPORT_FILE
        if report.exists() and all(file.path != REPORT_FILE for file in listed):
            files.append(report)
        return (*listed, *file_records(self.path, files))

    def report_of_results(self) -> Report:
        from trainer.reports.battery_report import battery_report
        from trainer.reports.development_report import development_report

        development, summary = self.development(), self.summary()
        return battery_report(summary) if development is None else development_report(development, summary)

    def status(self, *, has_files: bool = True) -> BatteryStatus:
        record, (status, error) = self.record(), self.state_and_error()
        progress = self.progress(len(record.runs) * sum(one.n_items for one in record.batteries))
        running = f"{progress.done:,} of {progress.total:,} items scored."
        if progress.done == progress.total and progress.total:
            running = "Computing the results."
        if record.to_fetch:
            running = fetching(record.to_fetch)
        return BatteryStatus(
            battery_id=self.battery_id,
            status=status,
            message=status_message(status, error, running),
            runs=tuple(run.name for run in record.runs),
            batteries=(*(battery.name for battery in record.batteries), *record.to_fetch),
            development_of=record.development_of,
            done=progress.total if status == "completed" else progress.done,
            total=progress.total,
            created_at=record.created_at,
            elapsed_seconds=self.seconds_since(record.created_at),
            error=error,
            files=self.result_files() if has_files and status == "completed" else (),
        )

    def _measured_file(self, model: str, record: type[BaseModel]) -> Path:
        return self.path / SCORES_FOLDER / f"{model}.{'loss' if record is EvalMetrics else 'words'}.json"

    def _scores_file(self, model: str, variant: Variant) -> Path:
        return self.path / SCORES_FOLDER / f"{model}.{variant}.jsonl"


class BatteryStore(JobStore[BatteryDirectory]):
    """All results of batteries of one artifacts root."""

    folder_name = "batteries"
    folder_type = BatteryDirectory

    def create(self, record: BatteryRecord, items: Iterable[BatteryItem]) -> BatteryDirectory:
        """Create the folder of a job with its items, as `create_or_continue` does.

        A completed development is outdated once its run has kept more checkpoints.
        """
        job = self.directory(record.battery_id)
        store_items(job.items_file, items, self.disk)
        return self.create_or_continue(record.battery_id, record, lambda: job.is_outdated(record))


def fetching(names: Iterable[str]) -> str:
    """Return the message of a job that fetches batteries."""
    return f"Fetching {', '.join(names)}."


def store_items(file: Path, items: Iterable[BatteryItem], disk: Disk) -> None:
    """Write `items.jsonl` durably, unless it is there."""
    if not file.exists():
        disk.make_folder(file.parent)
        write_atomically(file, items_content(items), disk)


def items_content(items: Iterable[BatteryItem]) -> bytes:
    """Return `items.jsonl`."""
    return b"".join(item.model_dump_json(exclude_defaults=True).encode() + b"\n" for item in items)
