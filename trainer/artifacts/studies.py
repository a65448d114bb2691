"""Studies on disk, one folder each: the request, and in the end the result and the report.

The runs of a study have ids that its own id, the setting and the seed give, so their folders say how far it has come.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.artifacts.attempts import was_never_trained
from trainer.artifacts.job_folder import REPORT_FILE, JobStore, StatusJob, status_message
from trainer.artifacts.runs import RunDirectory, RunStore, cancel_idle_run
from trainer.config.studies import Trials, full_runs, planned, seed_of, variant_of
from trainer.contracts.base import FileRecord, changed
from trainer.contracts.runs import CorpusRef, RunManifest
from trainer.contracts.studies import StudyRecord, StudyResult, StudyStatus, Trial, TrialKey, equal_settings
from trainer.contracts.wording import counted
from trainer.system.files import DISK, Disk, file_records, read_record, write_atomically

_PAGE = "report.html"


class StudyDirectory(StatusJob[StudyRecord]):
    """Folder of one study."""

    word = "study"
    words: str | None = "studies"
    record_type = StudyRecord

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        super().__init__(path, disk)
        self.study_id = self.job_id
        self._run_store = RunStore(path.parent.parent, disk)
        self._ended: dict[TrialKey, Trial] = {}
        """The trials of this attempt that have ended, which are not read again."""

    def has_begun(self) -> bool:
        """Return True once a worker has started a training."""
        return bool(self.trials())

    def trials(self) -> Trials:
        """Read the trainings that were started, in the order of the plan."""
        record, found = self.record(), dict[TrialKey, Trial]()
        while new := self._started(record, [key for key in planned(record, found) if key not in found]):
            found |= new
        self._ended = {key: trial for key, trial in found.items() if trial.has_ended}
        return found

    def run(self, key: TrialKey, record: StudyRecord) -> RunDirectory | None:
        """Return the run of a training: that of this attempt, or one of an earlier attempt that has not failed."""
        for attempt in range(record.attempt, 0, -1):
            run = self._last_try(key.tries(record, attempt))
            if run is not None:
                end = run.manifest()
                if attempt == record.attempt or end is None or end.status == "completed":
                    return run
        return None

    def _last_try(self, run_ids: Sequence[str]) -> RunDirectory | None:
        """Return the run of an attempt; None before the next run is started."""
        run: RunDirectory | None = None
        for run_id in run_ids:
            run = self._run_store.find(run_id)
            if run is None or not was_never_trained(run):
                break
        return run

    def _started(self, record: StudyRecord, keys: list[TrialKey]) -> dict[TrialKey, Trial]:
        found = dict[TrialKey, Trial]()
        for key in keys:
            trial = self._ended.get(key)
            if trial is None and (run := self.run(key, record)) is not None:
                trial = _trial(record, key, run)
            if trial is not None:
                found[key] = trial
        return found

    def status(self) -> StudyStatus:
        """Return the status with all trainings."""
        record, result = self.record(), self.found_result()
        (status, error), total = self.state_and_error(), full_runs(record)
        trials = [*self.trials().values()] if result is None else result.trials
        done = sum(trial.has_ended for trial in trials)
        return StudyStatus(
            study_id=self.study_id,
            name=record.request.name,
            status=status,
            message=status_message(status, error, f"{done} of {counted(total, 'run')} done."),
            runs_done=done,
            n_runs=total if result is None else done,
            winner=None if result is None else result.winner.name,
            test_loss=None if result is None or result.test is None else result.test.test_loss.value,
            created_at=record.created_at,
            elapsed_seconds=self.seconds_since(record.created_at),
            notes=tuple(
                f"{name} is equal to {first}: trained once." for name, first in equal_settings(record.variants)
            ),
            error=error,
            trials=tuple(trials),
        )

    def listed(self) -> StudyStatus:
        return changed(self.status(), trials=())

    def found_result(self) -> StudyResult | None:
        """Read the result; None before the end."""
        return read_record(self.result, StudyResult) if self.has_completed() else None

    def write_result(self, result: StudyResult, files: Mapping[str, str]) -> None:
        """Write the files of the report by name, then the result."""
        for name, content in files.items():
            write_atomically(self.path / name, content.encode(), self.disk)
        write_atomically(self.result, result.model_dump_json(indent=1).encode(), self.disk)

    def result_files(self) -> tuple[FileRecord, ...]:
        self.check_completed()
        return file_records(self.path, [self._request, self.path / _PAGE, self.path / REPORT_FILE, self.result])

    def needed_corpora(self) -> tuple[CorpusRef, ...]:
        found = {text.sha256: text for one in self.record().variants for text in one.effective.corpora}
        return tuple(found.values())

    def end_started_jobs(self) -> None:
        for run in self.unfinished_runs():
            run.request_cancel()
            cancel_idle_run(run)

    def unfinished_runs(self) -> list[RunDirectory]:
        """Return the runs of the study that have not ended."""
        record = self.record()
        runs = [self.run(key, record) for key, trial in self.trials().items() if not trial.has_ended]
        return [run for run in runs if run is not None]


class StudyStore(JobStore[StudyDirectory]):
    """All studies of one artifacts root."""

    folder_name = "studies"
    folder_type = StudyDirectory

    def create(self, record: StudyRecord) -> StudyDirectory:
        """Create the folder of a study, as `create_or_continue` does; one that begins again is another attempt."""
        earlier = self.find(record.study_id)
        if earlier is not None and earlier.may_begin():
            record = changed(record, attempt=earlier.record().attempt + 1)
        return self.create_or_continue(record.study_id, record)


def _trial(record: StudyRecord, key: TrialKey, run: RunDirectory) -> Trial:
    """Return a training with the state of its run, and with its losses once this has ended."""
    end = run.manifest()
    trial = Trial(
        phase=key.phase,
        round=key.round,
        variant=key.variant,
        name=variant_of(record, key).name,
        seed=seed_of(record, key),
        run_id=run.run_id,
        status=("paused" if run.is_paused else run.unfinished_state()) if end is None else end.status,
    )
    if end is None:
        return trial
    trial = changed(trial, **_end_of(end))
    if not was_never_trained(run):
        return trial
    return changed(trial, is_measured=False, reason=f"Not measured, because no training began. {trial.reason}")


def _end_of(end: RunManifest) -> dict[str, object]:
    if end.status != "completed":
        return {"reason": "It was cancelled." if end.error is None else end.error.message}
    measured = end.evaluation("validation")
    return {
        "train_seconds": end.timings.train_seconds,
        "val_loss": None if measured is None else measured.loss,
        "val_bits_per_char": None if measured is None else measured.bits_per_char,
        "unknown_char_share": None if measured is None else measured.unknown_char_share,
    }
