"""Experiments on disk, one directory each; imports no torch and no numpy."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from trainer.artifacts.batteries import (
    ITEMS_FILE,
    BatteryDirectory,
    BatteryStore,
    fetching,
    items_content,
    store_items,
)
from trainer.artifacts.job_folder import JobStore, StatusJob, status_message
from trainer.artifacts.runs import RunDirectory, RunStore, cancel_idle_run
from trainer.contracts.base import FileRecord, RunState, changed
from trainer.contracts.batteries import BatteryInfo, BatteryItem
from trainer.contracts.errors import AppError
from trainer.contracts.experiments import (
    Cell,
    CellBattery,
    CellKey,
    CellKind,
    CellRun,
    CellRuns,
    Encoding,
    ExperimentRecord,
    ExperimentRequest,
    ExperimentResult,
    ExperimentStatus,
    ExperimentText,
    ExperimentTexts,
    LanguageCode,
    Validity,
)
from trainer.contracts.reports import Report
from trainer.contracts.runs import CorpusRef
from trainer.contracts.seeds import RunGroup
from trainer.system.files import (
    DISK,
    BrokenFile,
    Disk,
    file_records,
    read_record,
    read_records,
    read_regular,
    whole_record,
    write_atomically,
)

_MAX_TEXT_BYTES = 1 << 40
_MAX_ID = 64
FEATURE_TABLE = 1
"""Version of the feature table of assimilation: stored losses of another version are not used."""


class ExperimentDirectory(StatusJob[ExperimentRecord]):
    """Folder of one experiment: beside the files of each job items, texts, runs, and in the end the report.

    An attempt begins without the runs of an earlier one; those that have completed are found again by their request.
    """

    word = "experiment"
    record_type = ExperimentRecord

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        super().__init__(path, disk)
        self.experiment_id = self.job_id
        self.items_file = path / ITEMS_FILE
        self._texts = path / "texts.json"
        self._runs = path / "runs.json"
        artifacts_root = path.parent.parent
        self._run_store, self._battery_store = RunStore(artifacts_root, disk), BatteryStore(artifacts_root, disk)

    def texts(self) -> ExperimentTexts | None:
        """Read `texts.json`; None until the texts have been prepared, and if it is damaged: they are prepared again."""
        return whole_record(self._texts, ExperimentTexts)

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
        return {run.key: run for run in self._accepted().runs}

    def batteries(self) -> dict[tuple[str, int], CellBattery]:
        """Read the jobs that score batteries, by model and seed, as `runs` reads runs."""
        return {(job.model, job.seed): job for job in self._accepted().batteries if job.language is None}

    def developments(self) -> dict[CellKey, CellBattery]:
        """Read the jobs that measure the checkpoints of runs, as `runs` reads runs."""
        jobs = self._accepted().batteries
        return {CellKey(job.model, job.language, job.seed): job for job in jobs if job.language is not None}

    def write_runs(self, runs: Iterable[CellRun], batteries: Iterable[CellBattery] = ()) -> None:
        content = CellRuns(runs=tuple(runs), batteries=tuple(batteries))
        write_atomically(self._runs, content.model_dump_json(indent=1).encode(), self.disk)

    def items(self) -> list[BatteryItem]:
        """Read the items of all batteries; raises BrokenFile."""
        return read_records(self.items_file, BatteryItem)

    def add_fetched(
        self, batteries: Mapping[LanguageCode, tuple[BatteryInfo, ...]], items: Iterable[BatteryItem]
    ) -> None:
        """Replace the batteries of the request and their items by all of them, also those that were to be fetched."""
        write_atomically(self.items_file, items_content(items), self.disk)
        fields: dict[str, object] = {"batteries": dict(batteries), "to_fetch": {}}
        self.replace_record(changed(self.record(), **fields))

    def own_batteries(self) -> list[BatteryDirectory]:
        """Return the unfinished jobs that the experiment has started to score batteries or checkpoints."""
        started = [cell.battery_id for cell in self._accepted().batteries if not cell.is_reused]
        found = [self._battery_store.directory(battery_id) for battery_id in started]
        return [battery for battery in found if battery.is_unfinished()]

    def is_scored(self, run_path: Path, texts: ExperimentTexts) -> bool:
        """Return True if a run has scored all texts."""
        encodings = encodings_of(self.record().request)
        return all(
            losses_path(run_path, text.sha256, encoding).exists() for text in texts.texts for encoding in encodings
        )

    def status(self, *, has_files: bool = True) -> ExperimentStatus:
        """Return the status with all cells and, after the end, the files of the report, which are read for it."""
        record = self.record()
        cells = tuple(self._cells(record))
        (status, error), done = self.state_and_error(), sum(cell.status == "completed" for cell in cells)
        validity = read_record(self.path / "validity.json", Validity) if status == "completed" else None
        running = f"{done} of {len(cells)} cells done." if done < len(cells) else "Computing tables and figures."
        if record.to_fetch:
            running = fetching(sorted({name for names in record.to_fetch.values() for name in names}))
        return ExperimentStatus(
            experiment_id=self.experiment_id,
            name=record.request.name,
            status=status,
            message=status_message(status, error, running),
            cells=cells,
            cells_done=done,
            n_cells=len(cells),
            created_at=record.created_at,
            elapsed_seconds=self.seconds_since(record.created_at),
            error=error,
            is_valid=None if validity is None else validity.passed,
            files=self.result_files() if has_files and status == "completed" else (),
        )

    def result_files(self) -> tuple[FileRecord, ...]:
        """Return the files of the report with their hashes; raises CONFLICT before the end of the experiment."""
        self.check_completed()
        with suppress(BrokenFile):  # its files are listed all the same
            self.report()
        return file_records(self.path, self.report_files())

    def report_of_results(self) -> Report:
        from trainer.reports.experiment_report import experiment_report

        return experiment_report(read_record(self.result, ExperimentResult))

    def listed(self) -> ExperimentStatus:
        return changed(self.status(has_files=False), cells=())

    def battery_ids(self) -> set[str]:
        """Return the jobs that score batteries or measure the checkpoints of runs, as `runs` reads runs."""
        return {job.battery_id for job in self._accepted().batteries}

    def needed_corpora(self) -> tuple[CorpusRef, ...]:
        return self.record().all_corpora

    def end_started_jobs(self) -> None:
        runs = self._run_store
        for cell in self.runs().values():
            run = runs.find(cell.run_id)
            if run is not None and not cell.is_reused and run.manifest() is None:
                run.request_cancel()
                cancel_idle_run(run)
        for battery in self.own_batteries():
            battery.request_cancel()

    def report_files(self) -> list[Path]:
        """Return the files of the report, tables in folders included."""
        own = {self._request, self._texts, self._runs, self._error, self._cancel, self._lock, self._process}
        own |= {self.logs, self.message_ledger, self.items_file}
        found = (path for path in self.path.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path for path in found if path not in own and path.parent != self.path / "texts")

    def _accepted(self) -> CellRuns:
        return whole_record(self._runs, CellRuns) or CellRuns()

    def _cells(self, record: ExperimentRecord) -> Iterator[Cell]:
        """Yield the training and the scores of each model, language and seed."""
        runs, known, texts, batteries = self._run_store, self.runs(), self.texts(), self.batteries()
        has_completed, unfinished = self.has_completed(), self.unfinished_state()
        for key in cell_keys(record.request):
            run_id = known[key].run_id if key in known else None
            states: dict[CellKind, RunState] = {"train": "queued", "score": "queued"}
            if has_completed:
                states = {"train": "completed", "score": "completed"}
            elif run_id is not None:
                try:
                    run = runs.get(run_id)
                except AppError:  # it was deleted
                    run_id = None
                else:
                    states["train"] = _run_state(run)
                    if states["train"] == "completed" and texts is not None:
                        states["score"] = "completed" if self.is_scored(run.path, texts) else unfinished
            if record.batteries or record.to_fetch:
                job = batteries.get((key.model, key.seed))
                states["battery"] = "completed" if has_completed else "queued"
                if job is not None and not has_completed:
                    states["battery"] = self._battery_store.directory(job.battery_id).state()
            for kind, state in states.items():
                yield Cell(
                    kind=kind, model=key.model, language=key.language, seed=key.seed, status=state, run_id=run_id
                )

    def _of_attempt(self) -> tuple[Path, ...]:
        return (self._runs,)

    def _text_path(self, text_id: str) -> Path:
        return self.path / "texts" / f"{text_id}.txt"


class ExperimentStore(JobStore[ExperimentDirectory]):
    """All experiments of one artifacts root."""

    folder_name = "experiments"
    folder_type = ExperimentDirectory

    def create(self, record: ExperimentRecord, items: Iterable[BatteryItem] = ()) -> ExperimentDirectory:
        """Create the folder of an experiment with the items of its batteries, as `create_or_continue` does."""
        if record.batteries or record.to_fetch:
            store_items(self.directory(record.experiment_id).items_file, items, self.disk)
        return self.create_or_continue(record.experiment_id, record)

    def tokenizer_users(self) -> Callable[[str, str | None], list[str]]:
        """Return a function that gives the experiments whose request needs a tokenizer, by its id or its label.

        The label is that of a tokenizer that the languages of a model share.
        """
        requests = [(one.experiment_id, one.record().request) for one in self.all()]
        texts = [
            (name, request.model_dump_json(), {shared_tokenizer_label(request, model) for model in request.models})
            for name, request in requests
        ]
        return lambda tokenizer_id, label: [
            name for name, text, labels in texts if tokenizer_id in text or label in labels
        ]


def cell_keys(request: ExperimentRequest) -> list[CellKey]:
    """Return the models of an experiment with their languages and seeds, in the order of training."""
    return [
        CellKey(model, language, seed)
        for model in request.models
        for seed in request.seeds
        for language in request.trained_languages
    ]


def seed_group(record: ExperimentRecord, key: CellKey) -> RunGroup | None:
    """Return the group of the runs of a model and language over the seeds; None in an experiment with one seed."""
    name = f"{record.experiment_id}-{key.model}-{key.language}"
    if len(name) > _MAX_ID:
        name = f"{name[: _MAX_ID - 9]}-{sha256(name.encode()).hexdigest()[:8]}"
    seeds = record.request.seeds
    return RunGroup(group_id=name, seeds=seeds) if len(seeds) > 1 else None


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


def _run_state(run: RunDirectory) -> RunState:
    """Return the state of a run without reading its events."""
    manifest = run.manifest()
    if manifest is not None:
        return manifest.status
    return "paused" if run.is_paused else run.unfinished_state()
