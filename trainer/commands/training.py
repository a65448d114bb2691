"""`mt train`: build a request from a YAML file and options, enqueue it and show its progress."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from rich.text import Text

from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.commands.arguments import Commands, Options, Parser, StoreFile
from trainer.commands.connection import settings_for, with_queue
from trainer.commands.request_help import describe_request
from trainer.commands.requests import assign, corpus_name
from trainer.commands.terminal import EXIT_FAILED, EXIT_USER, Terminal, add_loss, summary_table
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.config.request_options import TRAIN_OPTIONS, request_fields
from trainer.config.settings import Settings
from trainer.config.train_request import CORPORA, RequestDraft, train_request
from trainer.contracts.errors import FAILS_AGAIN, AppError, ErrorClass, FieldProblem
from trainer.contracts.models import ModelFamily
from trainer.contracts.runs import RunStatus, TrainRequest, describe_unused
from trainer.data.corpora import CorpusStore
from trainer.jobs.queue import JobQueue
from trainer.jobs.resolve import TrainingPreview, count_splits, preview_training
from trainer.system.files import is_full
from trainer.worker.attempts import DISK_IS_FULL, WAITS_FOR_DISK

FOLLOW_SECONDS = 0.2


class TrainOptions(Options):
    """Options of the commands that read a train request: a file, the options of TRAIN_OPTIONS, `--set`."""

    file: Path | None = None
    corpus: str | None
    model: str | None
    tokenizer: str | None
    set: list[str]


def add_file_to(parser: Parser) -> None:
    """Take an experiment file."""
    about = "experiment file (YAML); options replace its values"
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", action=StoreFile, help=about)


def add_to(commands: Commands) -> None:
    train = commands.add(
        "train",
        "Train",
        TrainOptions,
        _train,
        "train a model and show its progress",
        "mt train --corpus demo --model lstm --size tiny --epochs 3",
    )
    add_file_to(train)
    add_request_options(train)
    train.describe_fields = describe_request


def add_request_options(parser: Parser, *, with_corpus: bool = True) -> None:
    """Take the common fields of a train request, and `--set` for the others."""
    for name, option in TRAIN_OPTIONS.items():
        if name == "corpus" and not with_corpus:
            continue
        flag, about = f"--{name.replace('_', '-')}", f"{option.help[:1].lower()}{option.help[1:]}"
        if name == "freeze_embeddings":
            parser.add_argument(flag, action="store_true", default=None, help=about)
        else:
            convert, metavar = _CONVERTERS.get(name, (str, name.upper()))
            parser.add_argument(flag, type=convert, metavar=metavar, help=about)
    parser.add_assignments()


def _number_or_word(text: str) -> int | str:
    return int(text) if text.removeprefix("-").isdecimal() else text


_CONVERTERS: dict[str, tuple[Callable[[str], object], str]] = {
    "epochs": (int, "N"),
    "max_steps": (int, "N"),
    "batch_size": (_number_or_word, "N"),
    "learning_rate": (float, "X"),
    "seed": (int, "N"),
    "init_from": (str, "RUN"),
    "early_stopping": (int, "N"),
}


def read_training(options: TrainOptions, settings: Settings, terminal: Terminal) -> TrainingPreview | None:
    """Read and check a train request, changing nothing; None after several problems were listed, one a line.

    Raises AppError for a single problem, and for several with `--json`.
    """
    try:
        training = asyncio.run(_read(options, settings))
        for line in describe_unused(training.unused_settings):
            terminal.note(f"mt: {line}")
        return training
    except AppError as error:
        if options.json or len(error.details) < 2:
            raise
        for problem in error.details:
            terminal.note(f"mt: {in_words(problem)}")
        return None


def in_words(problem: FieldProblem) -> str:
    """Describe a problem in one line: the field, the problem and the allowed values."""
    path = "" if not problem.path or f"`{problem.path}" in problem.message else f"`{problem.path}`: "
    is_said = problem.allowed is None or problem.allowed in problem.message
    return f"{path}{problem.message}." if is_said else f"{path}{problem.message} (allowed: {problem.allowed})."


async def _read(options: TrainOptions, settings: Settings) -> TrainingPreview:
    given: dict[str, object] = {}
    for name in TRAIN_OPTIONS:
        value: object = getattr(options, name)
        given[name] = value
    typed = request_fields(given)
    for assignment in options.set:
        assign(TrainRequest, typed, assignment)
    experiment = RequestDraft(typed) if options.file is None else read_experiment(read_yaml(options.file), typed)
    experiment = experiment.with_family(_parent_family(experiment, settings))
    corpora = CorpusStore(settings)
    errors: list[AppError] = []
    min_lines = 1
    try:
        min_lines = count_splits(experiment.request())
    except AppError as error:
        errors.append(error)
    fields, missing = await _with_corpus_names(experiment, errors, options.file, corpora)
    errors += missing
    if not errors:
        try:
            return await preview_training(
                train_request(fields),
                corpora,
                settings,
                requested_paths=experiment.requested_paths,
                unused_settings=experiment.unused_settings,
            )
        except AppError as error:
            errors.append(experiment.located(error))
    raise experiment.combined(await _with_corpus_errors(experiment, errors, fields, min_lines, corpora))


def _parent_family(experiment: RequestDraft, settings: Settings) -> ModelFamily | None:
    """Return the model family of the run to initialise from; None where there is no such run."""
    try:
        run = RunStore(settings.app.artifacts_root).get(str(experiment.fields.get("init_from_run_id")))
        return run.record().effective.model_family
    except AppError:
        return None


async def _with_corpus_names(
    experiment: RequestDraft, known: list[AppError], yaml_file: Path | None, corpora: CorpusStore
) -> tuple[dict[str, object], list[AppError]]:
    """Return the fields with corpus names in place of local paths, and an error for each missing corpus."""
    fields = dict(experiment.fields)
    errors: list[AppError] = []
    for field, name in _corpora(experiment, known, fields):
        try:
            found = await corpus_name(name, yaml_file, corpora)
            corpora.find(found)
            fields[field] = found
        except AppError as error:
            errors.append(experiment.located(error, field))
    corpus = experiment.fields.get("corpus")
    if isinstance(corpus, str) and fields.get("label") is None and Path(corpus).stem.isprintable():
        fields["label"] = Path(corpus).stem[:64] or None
    return fields, errors


async def _with_corpus_errors(
    experiment: RequestDraft, errors: list[AppError], fields: dict[str, object], min_lines: int, corpora: CorpusStore
) -> list[AppError]:
    """Return the errors with those inside the corpora, each located at the field that names the corpus."""
    for field, name in _corpora(experiment, errors, fields):
        try:
            await corpora.describe(name, minimum_lines=min_lines if field == "corpus" else 1)
        except AppError as error:
            errors = [other for other in errors if other.message != error.message]
            errors.append(experiment.located(error, field))
    return errors


def _corpora(experiment: RequestDraft, errors: list[AppError], fields: dict[str, object]) -> list[tuple[str, str]]:
    """Return the corpus fields that have no error yet, with their values."""
    places = {problem.path for error in errors for problem in error.details}
    names = [(field, fields.get(field)) for field in CORPORA if experiment.place(field) not in places]
    return [(field, name) for field, name in names if isinstance(name, str)]


def _train(options: TrainOptions, terminal: Terminal) -> int:
    settings = settings_for()
    training = read_training(options, settings, terminal)
    if training is None:
        return EXIT_USER
    for line in training.cost.lines():
        terminal.note(line)
    return with_queue(settings, terminal, lambda queue: _enqueue(training, terminal, queue))


async def _enqueue(training: TrainingPreview, terminal: Terminal, queue: JobQueue) -> int:
    accepted = await queue.accept(training, user_id=None)
    resumed = (await asyncio.to_thread(queue.runs.get(accepted.run_id).record)).resumed_from_run_id
    if resumed is not None:
        terminal.note(f"mt: {accepted.run_id} resumes {resumed}.")
    return await follow_to_end(accepted.run_id, terminal, queue)


async def follow_to_end(run_id: str, terminal: Terminal, queue: JobQueue) -> int:
    """Show the progress of a run until it has ended, then its results; return the exit code."""
    await follow(run_id, terminal, queue)
    status, run = await queue.status(run_id), queue.runs.get(run_id)
    table = summary_table(f"{run_id}: {status.status}")
    add_loss(table, "test", status.test_loss, status.bits_per_char, status.objective)
    add_loss(table, "best validation", status.best_val_loss, status.best_val_bits_per_char, status.objective)
    after = f'next: mt score {run_id} "…"'
    if run.record().effective.objective == "causal_lm":
        after = f'next: mt generate {run_id} "…"   ·   mt score {run_id} "…"'
    if status.status != "completed":
        after = " ".join([status.message, *recovery_hint(status, run)])
    terminal.show(status, table, Text(after))
    return exit_code(status.error.error_class if status.error else None, is_completed=status.status == "completed")


def exit_code(error_class: ErrorClass | None, *, is_completed: bool) -> int:
    """Return the exit code for a job that has ended."""
    if is_completed:
        return 0
    return EXIT_USER if error_class is ErrorClass.USER_INPUT else EXIT_FAILED


async def follow(run_id: str, terminal: Terminal, queue: JobQueue) -> None:
    """Show the progress of a run until it has ended."""
    run, disk = queue.runs.get(run_id), DiskNotice(terminal)
    follower = await asyncio.to_thread(run.follow)
    while True:
        status = follower.refresh()
        terminal.progress(status)
        if follower.ended:
            return
        disk.check(run.path, status.message)
        await asyncio.sleep(FOLLOW_SECONDS)


class DiskNotice:
    """Notes once that a job waits for its disk."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._is_written = False

    def check(self, folder: Path, message: str) -> None:
        """Check the job's message, or the disk itself, which may be too full for messages."""
        reason = DISK_IS_FULL if is_full(folder) else message
        if not self._is_written and reason in WAITS_FOR_DISK:
            self._is_written = True
            self._terminal.note(f"mt: {reason}")


def recovery_hint(status: RunStatus, run: RunDirectory) -> list[str]:
    """Return a sentence with the commands to use after a failure; none where the run would fail again."""
    if status.error is None or status.error.code in FAILS_AGAIN:
        return []
    saved = newest_whole(run.checkpoints)
    resume = "start it again with `mt train`"
    if saved is not None:
        resume = f"resume it from step {saved.step} with `mt resume {run.run_id}`"
    return [f"See its log with `mt logs {run.run_id}`; {resume}."]
