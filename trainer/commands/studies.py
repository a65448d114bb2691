"""`mt study`: settings compared on validation, with one look at the test split."""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel
from rich.text import Text

from trainer.commands.arguments import Argument, Commands, Options, assign, repeatable
from trainer.commands.connection import Installation, accept, settings_for_any, with_services
from trainer.commands.corpus_names import installed_corpus, note_tables
from trainer.commands.jobs import JobView, add_jobs, show_results
from trainer.commands.terminal import Queued, Terminal, columns
from trainer.config.experiment_file import read_study
from trainer.config.train_request import CORPORA
from trainer.contracts.base import changed
from trainer.contracts.studies import StudyRequest, StudyResult, StudyStatus, Trial
from trainer.contracts.units import Unit, loss_number
from trainer.contracts.wording import counted, duration
from trainer.lab.calls import START_STUDY, STUDIES


class _RunOptions(Options):
    record: ClassVar[type[BaseModel] | None] = StudyRequest
    file = Argument[Path]("FILE", type=Path, help="file of the study (YAML)")
    set = repeatable("--set KEY=VALUE", "set a field of the file")


def add_to(commands: Commands) -> None:
    study = commands.group("study", "choose settings on validation, with one look at the test split")
    study.add("run", _RunOptions, _run, with_unit=True)
    add_jobs(study, _view(), with_unit=True)


def _run(options: _RunOptions, terminal: Terminal) -> int:
    typed = dict[str, object]()
    assign(StudyRequest, typed, options.set)
    return run_study(read_study(options.file, typed), options.file, terminal)


def run_study(request: StudyRequest, file: Path | None, terminal: Terminal) -> int:
    """Start a study on corpora of the installation or of this machine, follow it and show its results."""
    terminal.continues_when_repeated = True

    async def run(installation: Installation) -> int:
        train = dict(request.train)
        for field in CORPORA:
            name = train.get(field)
            if isinstance(name, str):
                train[field] = await installed_corpus(name, file, installation, terminal)
        note_tables(installation, terminal)
        return await _follow(changed(request, train=train), installation, terminal)

    return with_services(settings_for_any(), terminal, run)


async def _follow(request: StudyRequest, installation: Installation, terminal: Terminal) -> int:
    view = _view()
    starting = installation.call(START_STUDY, body=request)
    accepted = await accept(starting, lambda one: Queued(one.study_id, word="study"), terminal)
    if accepted.status == "completed":
        return await view.show_job(accepted.study_id, installation, terminal)
    terminal.note(f"study {accepted.study_id}: at most {counted(accepted.n_runs, 'run')}")
    for note in accepted.notes:
        terminal.note(note)
    return await view.follow(accepted.study_id, installation, terminal)


def _view() -> JobView[StudyStatus]:
    """Return the view of a study, which shows each training that has ended once."""
    shown: set[str] = set()

    async def note(_: str, status: StudyStatus, _installation: Installation, terminal: Terminal) -> None:
        for trial in status.trials:
            if trial.has_ended and trial.run_id not in shown:
                shown.add(trial.run_id)
                name = f"{_stage(trial)} {trial.name}, seed {trial.seed}"
                terminal.note(f"{len(shown)}/{status.n_runs}  {name}: {_end(trial, terminal.unit)}")

    return JobView("studies", STUDIES, _show, note)


def _stage(trial: Trial) -> str:
    return f"round {trial.round}" if trial.phase == "round" else trial.phase


def _end(trial: Trial, unit: Unit) -> str:
    """Return the loss of a training, or the reason why it has none."""
    if trial.val_loss is None:
        return trial.reason or "–"
    return f"validation {loss_number(trial.val_loss, unit)} {unit} per token"


async def _show(study_id: str, status: StudyStatus, installation: Installation, terminal: Terminal) -> None:
    """Show the report of a study that has completed, and the trainings of others."""
    if status.status != "completed":
        rows = [("stage", "setting", "seed", "state", "loss", "run")]
        for trial in status.trials:
            end = _end(trial, terminal.unit)
            rows.append((_stage(trial), trial.name, f"{trial.seed}", trial.status, end, trial.run_id))
        terminal.show(status, Text(f"{study_id}: {status.status}"), columns(rows), Text(status.message))
        return
    took = f"{counted(status.runs_done, 'run')} in {duration(status.elapsed_seconds or 0.0)}"
    await show_results("studies", study_id, StudyResult, took, installation, terminal)
