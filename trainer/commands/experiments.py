"""`mt experiment`: a cross-language experiment as one job."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel
from rich.text import Text

from trainer.commands.arguments import Argument, Commands, Options, assign, option, repeatable
from trainer.commands.connection import (
    Installation,
    accept,
    completed_manifest,
    settings_for_any,
    with_services,
)
from trainer.commands.corpus_names import installed_corpus, note_tables, offered
from trainer.commands.jobs import JobView, add_jobs, show_results
from trainer.commands.terminal import Queued, Terminal, columns, loss_figures
from trainer.config.experiment_file import plan_path, read_plan
from trainer.config.settings import Settings
from trainer.config.validation import parse_json, safe_name, unreadable
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryRow
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import (
    Cell,
    ExperimentRequest,
    ExperimentResult,
    ExperimentStatus,
    MatrixRow,
    SectionsFile,
    Tables,
)
from trainer.contracts.installation import recipes
from trainer.contracts.units import Unit, loss_number
from trainer.contracts.wording import counted, duration
from trainer.lab.calls import EXPERIMENTS, START_EXPERIMENT
from trainer.system.hardware import physical_cores


class RecomputedTables(Tables):
    """The output of `mt experiment recompute --json`."""

    batteries: tuple[BatteryRow, ...]
    """The rows of `batteries.csv`."""


class _RunOptions(Options):
    record: ClassVar[type[BaseModel] | None] = ExperimentRequest
    plan = Argument[str]("PLAN", help=f"plan of the experiment (YAML), or a recipe: {', '.join(recipes())}")
    corpora = option("--corpora FOLDER", Path, "folder with a text file per language, named by its code")
    set = repeatable("--set KEY=VALUE", "set a field of the plan")


class _RecomputeOptions(Options):
    file = Argument[Path]("FILE", type=Path, help="section scores: the sections.json of an experiment")


def add_to(commands: Commands) -> None:
    experiment = commands.group("experiment", "run cross-language experiments and show their results")
    experiment.add("run", _RunOptions, _run, with_unit=True)
    add_jobs(experiment, _view(), with_unit=True)
    experiment.add("recompute", _RecomputeOptions, _recompute, with_unit=True)


def _run(options: _RunOptions, terminal: Terminal) -> int:
    path, typed, view = plan_path(options.plan), dict[str, object](), _view()
    assign(ExperimentRequest, typed, options.set)
    plan = read_plan(path, typed)
    terminal.continues_when_repeated = True

    async def run(installation: Installation) -> int:
        named = partial(installed_corpus, yaml_file=path, installation=installation, terminal=terminal)
        offer = partial(offered, installation=installation, terminal=terminal)
        request = await _with_local_files(plan, options.corpora, named, offer)
        note_tables(installation, terminal)
        starting = installation.call(START_EXPERIMENT, body=request)
        try:
            accepted = await accept(starting, lambda one: Queued(one.experiment_id, word="experiment"), terminal)
        except AppError as error:
            if error.code is not ErrorCode.DATA_NOT_FOUND or options.corpora is not None:
                raise
            message = f"{error.message} `--corpora FOLDER` takes the texts of a folder."
            raise AppError(error.code, message) from None
        if accepted.status == "completed":
            return await view.show_job(accepted.experiment_id, installation, terminal)
        terminal.note(f"experiment {accepted.experiment_id}\n{_trainings(request)}")
        return await view.follow(accepted.experiment_id, installation, terminal)

    return with_services(with_slots(settings_for_any(), plan), terminal, run)


async def _with_local_files(
    request: ExperimentRequest,
    folder: Path | None,
    named: Callable[[str], Awaitable[str]],
    offer: Callable[[Path], Awaitable[str]],
) -> ExperimentRequest:
    """Return the request with the names under which the installation has the files of this machine."""
    languages = dict(request.languages)
    for code, options in request.languages.items():
        if folder is not None:
            languages[code] = changed(options, corpus=await offer(_corpus_file(folder, code)))
        elif options.corpus is not None:
            languages[code] = changed(options, corpus=await named(options.corpus))
    texts, base, ratings = request.texts, request.corpora, request.ratings
    if texts.passages is not None:
        texts = changed(texts, passages=await named(texts.passages))
    return changed(
        request,
        languages=languages,
        texts=texts,
        corpora=None if base is None or folder is not None else await named(base),
        ratings=None if ratings is None else await named(ratings),
    )


def _corpus_file(folder: Path, language: str) -> Path:
    """Return the text of a language in a folder: `kk.txt`, or `oscar_kk_ipa.txt` as `mt corpus build` names it."""
    found = [folder / f"{language}.txt", *sorted(folder.glob(f"*_{language}_ipa.txt"))]
    found = [path for path in found if path.is_file()]
    if len(found) == 1:
        return found[0]
    shown = safe_name(folder.name)
    several = f"'{shown}' has several texts for '{language}': {', '.join(safe_name(path.name) for path in found)}."
    none = f"'{shown}' has no text for '{language}': put it there as '{language}.txt'."
    raise AppError(ErrorCode.DATA_NOT_FOUND, several if found else none)


def with_slots(settings: Settings, request: ExperimentRequest) -> Settings:
    """Let a worker of this command use a core per training, where each training takes some of the cores only.

    Two trainings of one thread take less time than one after the other with two threads. Scores of more threads than
    there are free cores would wait for each other: on two busy cores they took twice the time.
    """
    given = settings.queue.model_fields_set
    cores = physical_cores()
    threads = [model.train.get("threads") for model in request.models.values()]
    most = max(number if isinstance(number, int) and number > 0 else cores for number in threads)
    slots = cores // most
    if "training_slots" in given or slots < 2:
        return settings
    queue = changed(settings.queue, training_slots=slots)
    return changed(settings, queue=queue if "inference_threads" in given else changed(queue, inference_threads=most))


def _view() -> JobView[ExperimentStatus]:
    """Return the view of an experiment, which shows each finished cell once."""
    shown: set[Cell] = set()

    async def note(_: str, status: ExperimentStatus, installation: Installation, terminal: Terminal) -> None:
        for cell in status.cells:
            if cell.status == "completed" and cell not in shown:
                shown.add(cell)
                line = await _cell_line(cell, installation, terminal.unit)
                terminal.note(f"{len(shown)}/{len(status.cells)}  {line}")

    return JobView("experiments", EXPERIMENTS, _show, note)


def _trainings(request: ExperimentRequest) -> str:
    """Return the number of trainings and what it is the product of."""
    numbers = {"language": len(request.trained_languages), "model": len(request.models), "seed": len(request.seeds)}
    factors = " x ".join(counted(number, noun) for noun, number in numbers.items())
    return f"{counted(prod(numbers.values()), 'training')}: {factors}"


async def _cell_line(cell: Cell, installation: Installation, unit: Unit) -> str:
    name = f"{cell.model} {cell.language}, seed {cell.seed}"
    if cell.kind != "train" or cell.run_id is None:
        return f"{name}: {'batteries' if cell.kind == 'battery' else 'texts'} scored"
    manifest = await completed_manifest(installation, cell.run_id)
    metrics, share = manifest.metrics, manifest.unknown_char_share
    figures = loss_figures(metrics.test, metrics.bits_per_char, unit, manifest.effective.objective, share)
    return f"{name}: trained in {duration(manifest.timings.train_seconds)}, {figures or 'no test split'}"


async def _show(experiment_id: str, status: ExperimentStatus, installation: Installation, terminal: Terminal) -> None:
    """Show the report of an experiment that has completed, and the cells of others."""
    if status.status != "completed":
        rows = [("model", "language", "seed", "cell", "state", "run")]
        rows += [(c.model, c.language, f"{c.seed}", c.kind, c.status, c.run_id or "–") for c in status.cells]
        terminal.show(status, Text(f"{experiment_id}: {status.status}"), columns(rows), Text(status.message))
        return
    took = f"{counted(status.cells_done, 'cell')} in {duration(status.elapsed_seconds or 0.0)}"
    await show_results("experiments", experiment_id, ExperimentResult, took, installation, terminal)


def _matrix_rows(languages: Sequence[str], matrix: Sequence[MatrixRow], unit: Unit) -> list[list[str]]:
    excess = {(row.listener_language, row.text_language): loss_number(row.excess_cross_entropy, unit) for row in matrix}
    rows = [[listener, *(excess.get((listener, text), "–") for text in languages)] for listener in languages]
    return [["", *languages], *rows]


def _recompute(options: _RecomputeOptions, terminal: Terminal) -> int:
    from trainer.batteries.comparisons import language_rows  # numpy
    from trainer.experiments.quantities import recompute

    try:
        data = options.file.read_bytes()
    except OSError as error:
        raise AppError(ErrorCode.DATA_NOT_FOUND, unreadable(options.file, error)) from None
    file = parse_json(SectionsFile, data)
    tables = recompute(file)
    found = RecomputedTables(
        matrix=tables.matrix,
        listeners=tables.listeners,
        asymmetry=tables.asymmetry,
        batteries=language_rows(file.batteries),
    )
    languages = sorted({row.listener_language for row in tables.matrix})
    matrix = columns(_matrix_rows(languages, tables.matrix, terminal.unit))
    title = f"Excess surprisal, {terminal.unit} per position; a row per model, a column per text"
    terminal.show(found, Text(title), matrix)
    return 0
