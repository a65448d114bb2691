"""Completed experiments, batteries and developments in an artifacts folder, with the results of other test support."""

from contextlib import nullcontext
from pathlib import Path

from tests.support.batteries import battery_record, pairs
from tests.support.battery_results import SEVERAL
from tests.support.cross_language import cell_run, plan
from tests.support.development_results import DEVELOPMENT, NO_ITEMS, STEPS, WORDS
from tests.support.experiment_results import (
    BRANCHES,
    EXPERIMENT,
    LANGUAGES,
    SEEDS,
    TRAINED,
    section_scores,
    with_batteries,
)
from trainer.artifacts.batteries import BatteryDirectory, BatteryStore
from trainer.artifacts.experiments import ExperimentDirectory, ExperimentStore, cell_keys
from trainer.artifacts.job_folder import AnyJob
from trainer.contracts.base import changed, now
from trainer.contracts.batteries import BatteryOptions, BatterySummary, DevelopmentOptions
from trainer.contracts.experiments import ExperimentRecord
from trainer.contracts.runs import RunModel
from trainer.experiments.report import write_report
from trainer.reports.battery_report import battery_report
from trainer.reports.battery_tables import report_files
from trainer.reports.development_charts import words_picture
from trainer.reports.development_report import development_report
from trainer.reports.development_tables import report_files as development_files
from trainer.reports.report_figures import pictures_of
from trainer.system.hardware import process_name

VERSION = "1.0.0"


def begin(job: AnyJob) -> None:
    """Let a job count as one that this process does."""
    (job.path / "process").write_text(process_name(), encoding="utf-8")


def is_free(job: AnyJob) -> bool:
    """Return whether no process works on a job."""
    with job.lock() or nullcontext() as lock:
        return lock is not None


def waiting_experiment(artifacts: Path, experiment_id: str = EXPERIMENT) -> ExperimentDirectory:
    """An experiment of seven languages, two models and two seeds that no worker has taken."""
    languages = {code: {"branch": BRANCHES.get(code), "is_control": code == "fi"} for code in LANGUAGES}
    request = plan(
        name="turkic", languages=languages, models={name: {"train": {}} for name in TRAINED}, seeds=list(SEEDS)
    )
    record = ExperimentRecord(
        experiment_id=experiment_id, user_id=None, created_at=now(), request=request, request_hash="0" * 64, corpora={}
    )
    experiment = ExperimentStore(artifacts).create(record)
    experiment.write_runs(cell_run(key, f"{key.model}-{key.language}-{key.seed}") for key in cell_keys(request))
    return experiment


def finished_experiment(artifacts: Path) -> ExperimentDirectory:
    """The same with the report of a completed one."""
    experiment = waiting_experiment(artifacts)
    write_report(experiment.path, with_batteries(), section_scores())
    return experiment


def waiting_battery(artifacts: Path, battery_id: str, *runs: str) -> BatteryDirectory:
    """A battery that no worker has taken."""
    return BatteryStore(artifacts).create(*battery_record(battery_id, *runs))


def finish_battery(battery: BatteryDirectory) -> BatterySummary:
    """Write the results of two runs."""
    report = battery_report(SEVERAL)
    files = report_files(SEVERAL, report, pairs().items, {}, pictures_of(report))
    battery.write_result(SEVERAL, files, VERSION)
    return SEVERAL


def finished_development(artifacts: Path, battery_id: str, run_id: str) -> BatteryDirectory:
    """The development of a run over seven checkpoints."""
    record, items = battery_record(battery_id, run_id)
    record = changed(
        record,
        options=BatteryOptions(development=DevelopmentOptions(has_words=True)),
        development_of=run_id,
        runs=tuple(RunModel(run_id=run_id, seed=1, checkpoint=step) for step in STEPS),
    )
    battery = BatteryStore(artifacts).create(record, items)
    development = changed(DEVELOPMENT, run_id=run_id)
    report = development_report(development, NO_ITEMS)
    files = development_files(development, report, WORDS, {**pictures_of(report), **words_picture(development, WORDS)})
    battery.write_result(NO_ITEMS, files, VERSION, development)
    return battery
