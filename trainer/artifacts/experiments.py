"""Experiments on disk, one directory each; imports no torch and no numpy."""

import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import structlog

from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.base import FileRecord, RunState, changed, now
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.experiments import (
    Cell,
    CellKey,
    CellRun,
    CellRuns,
    Encoding,
    ExperimentRecord,
    ExperimentRequest,
    ExperimentStatus,
    ExperimentText,
    ExperimentTexts,
    Validity,
)
from trainer.system.files import (
    DISK,
    BrokenFile,
    Disk,
    file_records,
    read_record,
    read_regular,
    storage_errors,
    try_lock,
    write_atomically,
)

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}-[0-9a-f]{8}")
_ENDING_SECONDS, _POLL_SECONDS = 10.0, 0.02
_MAX_TEXT_BYTES = 1 << 40
FEATURE_TABLE = 1
"""Version of the feature table of assimilation: stored losses of another version are not used."""


class ExperimentDirectory:
    """Directory of one experiment: request, texts, runs, and in the end the report or an error.

    `result.json` is written last. `error.json` marks a failed experiment, `cancel` a cancelled one; the result counts
    if several exist.
    """

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        self.path = path
        self.disk = disk
        self.experiment_id = path.name
        self.logs = path / "logs.jsonl"
        self.message_ledger = path / "dm.json"
        self.result = path / "result.json"
        self._request = path / "request.json"
        self._texts = path / "texts.json"
        self._runs = path / "runs.json"
        self._error = path / "error.json"
        self._cancel = path / "cancel"
        self._lock = path / "lock"

    def exists(self) -> bool:
        return self._request.exists()

    def has_completed(self) -> bool:
        return self.result.exists()

    def is_unfinished(self) -> bool:
        """Return True until the experiment has completed, failed or been cancelled."""
        return self.exists() and not any(end.exists() for end in (self.result, self._error, self._cancel))

    def record(self) -> ExperimentRecord:
        """Read `request.json`; raises BrokenFile if it is damaged."""
        return read_record(self._request, ExperimentRecord)

    def lock(self) -> BinaryIO | None:
        """Take the lock for running the experiment, or return None if another process runs it."""
        return try_lock(self._lock)

    def begin(self, record: ExperimentRecord) -> None:
        """Write a request, and remove the end of an earlier attempt with its runs; the caller holds the lock.

        Runs that have completed are found again by their request.
        """
        write_atomically(self._request, record.model_dump_json(indent=1).encode(), self.disk)
        for file in (self._runs, self._error, self._cancel, self.message_ledger):
            self.disk.remove(file)
        self.disk.sync(self.path)

    def fail(self, error: AppError) -> None:
        """Write the error that the experiment ended with."""
        write_atomically(self._error, RunError.of(error).model_dump_json().encode(), self.disk)

    def request_cancel(self) -> None:
        with storage_errors("the request to cancel the experiment could not be written"):
            self.disk.write(self._cancel, b"")
            self.disk.sync(self.path)

    def cancel_requested(self) -> bool:
        return self._cancel.exists() and not self.result.exists()

    def texts(self) -> ExperimentTexts | None:
        """Read `texts.json`; None until the texts have been prepared, and if it is damaged: they are prepared again."""
        try:
            return read_record(self._texts, ExperimentTexts)
        except (FileNotFoundError, BrokenFile):
            return None

    def write_text(self, text_id: str, content: bytes) -> None:
        self.disk.make_folder(self.path / "texts")
        write_atomically(self._text_path(text_id), content, self.disk)

    def write_texts(self, texts: ExperimentTexts) -> None:
        """Write `texts.json`, after all texts."""
        write_atomically(self._texts, texts.model_dump_json(indent=1).encode(), self.disk)

    def sections(self, text: ExperimentText) -> list[str]:
        """Return the sections of a text."""
        return read_regular(self._text_path(text.text_id), _MAX_TEXT_BYTES).decode().split("\n")

    def runs(self) -> dict[CellKey, CellRun]:
        """Read the runs that have been accepted so far; none if the file is damaged, as they are found by request."""
        try:
            stored = read_record(self._runs, CellRuns)
        except (FileNotFoundError, BrokenFile):
            return {}
        return {run.key: run for run in stored.runs}

    def write_runs(self, runs: Iterable[CellRun]) -> None:
        write_atomically(self._runs, CellRuns(runs=tuple(runs)).model_dump_json(indent=1).encode(), self.disk)

    def is_scored(self, run_path: Path, texts: ExperimentTexts) -> bool:
        """Return True if a run has scored all texts."""
        encodings = encodings_of(self.record().request)
        return all(
            losses_path(run_path, text.sha256, encoding).exists() for text in texts.texts for encoding in encodings
        )

    def status(self, runs: RunStore, *, has_files: bool = True) -> ExperimentStatus:
        """Return the status with all cells and, after the end, the files of the report, which are read for it."""
        record = self.record()
        cells = tuple(self._cells(record.request, runs))
        status, error = self._state(), self._failure()
        done = sum(cell.status == "completed" for cell in cells)
        validity = self._validity() if status == "completed" else None
        ended_at = self._ended_at() or now()
        return ExperimentStatus(
            experiment_id=self.experiment_id,
            name=record.request.name,
            status=status,
            message=self._message(status, cells, done, error),
            cells=cells,
            cells_done=done,
            created_at=record.created_at,
            elapsed_seconds=max(0.0, (ended_at - record.created_at).total_seconds()),
            error=error if status == "failed" else None,
            is_valid=None if validity is None else validity.passed,
            files=self.completed_files() if has_files and status == "completed" else (),
        )

    def completed_files(self) -> tuple[FileRecord, ...]:
        """Return the files of the report with their hashes; raises CONFLICT before the end of the experiment."""
        if not self.has_completed():
            message = f"The experiment '{self.experiment_id}' has no report yet: it has not completed."
            raise AppError(ErrorCode.CONFLICT, message)
        return file_records(self.path, self.report_files())

    def report_files(self) -> list[Path]:
        """Return the files of the report, tables in folders included."""
        own = {self._request, self._texts, self._runs, self._error, self._cancel, self._lock, self.logs}
        own.add(self.message_ledger)
        found = (path for path in self.path.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path for path in found if path not in own and path.parent != self.path / "texts")

    def _state(self) -> RunState:
        if self.result.exists():
            return "completed"
        if self._error.exists():
            return "failed"
        if self._cancel.exists():
            return "cancelled"
        return "running" if self.logs.exists() else "queued"

    def _message(self, status: RunState, cells: tuple[Cell, ...], done: int, error: RunError | None) -> str:
        if status == "failed" and error is not None:
            return error.message
        if status != "running":
            return {"queued": "Waiting for a worker.", "completed": "Completed."}.get(status, "Cancelled.")
        if done == len(cells):
            return "Computing tables and figures."
        return f"{done} of {len(cells)} cells done."

    def _cells(self, request: ExperimentRequest, runs: RunStore) -> Iterator[Cell]:
        """Yield the training and the scores of each model, language and seed."""
        known, texts = self.runs(), self.texts()
        for key in cell_keys(request):
            run_id = known[key].run_id if key in known else None
            trained: RunState = "queued"
            scored: RunState = "queued"
            if self.result.exists():
                trained = scored = "completed"
            elif run_id is not None:
                try:
                    run = runs.get(run_id)
                except AppError:  # it was deleted
                    run_id = None
                else:
                    trained = _run_state(run)
                    if trained == "completed" and texts is not None:
                        scored = "completed" if self.is_scored(run.path, texts) else "running"
            train = Cell(
                kind="train", model=key.model, language=key.language, seed=key.seed, status=trained, run_id=run_id
            )
            yield train
            yield changed(train, kind="score", status=scored)

    def _failure(self) -> RunError | None:
        try:
            return read_record(self._error, RunError)
        except FileNotFoundError:
            return None

    def _validity(self) -> Validity:
        return read_record(self.path / "validity.json", Validity)

    def _ended_at(self) -> datetime | None:
        ends = (end for end in (self.result, self._error, self._cancel) if end.exists())
        return next((datetime.fromtimestamp(end.stat().st_mtime, UTC) for end in ends), None)

    def _text_path(self, text_id: str) -> Path:
        return self.path / "texts" / f"{text_id}.txt"


class ExperimentStore:
    """All experiments of one artifacts root."""

    def __init__(self, artifacts_root: Path, disk: Disk = DISK) -> None:
        self._folder = artifacts_root / "experiments"
        self.disk = disk

    def create(self, record: ExperimentRecord) -> ExperimentDirectory:
        """Create the directory of an experiment with its request, synced to disk, unless it runs or has completed.

        A failed or cancelled experiment begins again, when the process that ran it has noticed its end. Raises OSError.
        """
        path = self._folder / record.experiment_id
        self.disk.make_folder(path)
        experiment = ExperimentDirectory(path, self.disk)
        deadline = time.monotonic() + _ENDING_SECONDS
        while not experiment.is_unfinished() and not experiment.has_completed():
            lock = experiment.lock()
            if lock is not None:
                with lock:
                    experiment.begin(record)
                    self.disk.sync(self._folder)
            elif time.monotonic() > deadline:
                message = f"The experiment '{record.experiment_id}' is just ending; try again in a minute."
                raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message)
            else:
                time.sleep(_POLL_SECONDS)
        return experiment

    def find(self, experiment_id: str) -> ExperimentDirectory | None:
        """Return an experiment by id; None if it does not exist."""
        experiment = ExperimentDirectory(self._folder / experiment_id, self.disk)
        return experiment if _ID.fullmatch(experiment_id) and experiment.exists() else None

    def get(self, experiment_id: str) -> ExperimentDirectory:
        """Return an experiment by id; raises DATA_NOT_FOUND."""
        experiment = self.find(experiment_id)
        if experiment is not None:
            return experiment
        shown = f" '{experiment_id}'" if len(experiment_id) <= 64 and experiment_id.isprintable() else ""
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"There is no experiment{shown}: check its id, or list them.")

    def names(self) -> list[str]:
        """Return the ids of all experiments, the one that was started last first, without reading any."""
        requests = {path.parent.name: path.stat().st_mtime for path in self._folder.glob("*-*/request.json")}
        return sorted(requests, key=requests.__getitem__, reverse=True)

    def all(self) -> list[ExperimentDirectory]:
        """Return all experiments, newest first; one with an unreadable request is logged and skipped."""
        found = (ExperimentDirectory(path, self.disk) for path in self._folder.glob("*-*"))
        created = {e: created_at for e in found if e.exists() and (created_at := _created_at(e)) is not None}
        return sorted(created, key=created.__getitem__, reverse=True)

    def using(self, run_id: str) -> ExperimentDirectory | None:
        """Return an experiment that has a run as one of its cells, if there is one."""
        experiments = (experiment for experiment in self.all())
        return next((one for one in experiments if any(cell.run_id == run_id for cell in one.runs().values())), None)

    def unfinished(self) -> list[ExperimentDirectory]:
        """Return the experiments that have not ended, oldest first."""
        return [experiment for experiment in self.all()[::-1] if experiment.is_unfinished()]


def delete_run(run: RunDirectory, runs: RunStore, experiments: ExperimentStore) -> None:
    """Delete an ended run with its files; raises CONFLICT if an experiment or another run needs it."""
    experiment = experiments.using(run.run_id)
    if experiment is not None:
        message = f"The experiment '{experiment.experiment_id}' needs the run '{run.run_id}', so it stays."
        raise AppError(ErrorCode.CONFLICT, message)
    runs.delete(run)


def cell_keys(request: ExperimentRequest) -> list[CellKey]:
    """Return the models of an experiment with their languages and seeds, in the order of training."""
    return [
        CellKey(model, language, seed)
        for model in request.models
        for seed in request.seeds
        for language in request.trained_languages
    ]


def encodings_of(request: ExperimentRequest) -> tuple[Encoding, ...]:
    """Return the encodings of the texts that the modes of an experiment need."""
    return ("raw", "assimilated") if "assimilate" in request.modes else ("raw",)


def shared_tokenizer_label(request: ExperimentRequest, model: str) -> str:
    """Return the label of the tokenizer that a model's languages share."""
    return f"{request.name} {model}"[:64]


def losses_path(run: Path, text_sha256: str, encoding: Encoding) -> Path:
    """Return the file of a text's losses in a run's folder; experiments with equal texts share it."""
    version = f"-{FEATURE_TABLE}" if encoding == "assimilated" else ""
    return run / "sections" / f"{text_sha256[:16]}.{encoding}{version}.f64"


def without_details(status: ExperimentStatus) -> ExperimentStatus:
    """Return the status without cells and files, as lists of experiments show it."""
    return changed(status, cells=(), files=())


def _run_state(run: RunDirectory) -> RunState:
    """Return the state of a run without reading its events; a run that has started has a log."""
    manifest = run.manifest()
    if manifest is not None:
        return manifest.status
    return "running" if run.logs.exists() else "queued"


def _created_at(experiment: ExperimentDirectory) -> datetime | None:
    try:
        return experiment.record().created_at
    except (OSError, ValueError):
        log.error("experiment_unreadable", experiment_id=experiment.experiment_id)
        return None
