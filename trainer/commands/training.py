"""`mt train`: from a YAML file, options or both to a run, and to its end."""

import asyncio
from pathlib import Path

from rich.text import Text

from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.commands.arguments import Arguments, Commands, Parser
from trainer.commands.connection import settings_for, with_queue
from trainer.commands.requests import assign, corpus_name
from trainer.commands.terminal import Terminal, add_loss, summary_table
from trainer.config.experiment_file import CORPORA, Experiment, read_experiment, read_yaml
from trainer.config.settings import Settings
from trainer.config.train_request import train_request
from trainer.contracts.errors import FAILS_AGAIN, AppError, ErrorClass, FieldProblem
from trainer.contracts.models import ModelFamily
from trainer.contracts.runs import RunStatus, TrainRequest, describe_unused
from trainer.data.corpora import CorpusStore
from trainer.jobs.queue import JobQueue
from trainer.jobs.resolve import TrainingPreview, preview_training, splits_of_corpus
from trainer.system.files import is_full
from trainer.worker.attempts import DISK_IS_FULL, WAITS_FOR_DISK

EXIT_FAILED, EXIT_USER = 1, 2
_FOLLOW_SECONDS = 0.2


def add_to(commands: Commands) -> None:
    train = commands.add("train", _do_train, "train a model and wait for it")
    train.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a YAML experiment file")
    add_fields_to(train)


def add_fields_to(parser: Parser) -> None:
    """The words that say what to train: a file, options, or both."""
    parser.add_argument("--corpus", metavar="PATH", help="a corpus name or the path of a text file")
    parser.add_assignments()


def _do_train(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    training = read_or_tell(arguments, settings, terminal)
    if training is None:
        return EXIT_USER
    for line in training.cost.lines():
        terminal.note(line)
    return with_queue(settings, terminal, lambda queue: _train(training, terminal, queue))


def read_or_tell(arguments: Arguments, settings: Settings, terminal: Terminal) -> TrainingPreview | None:
    """Read and check a training, changing nothing; None, after all its problems were told to a person, one a line."""
    try:
        training = asyncio.run(_read(arguments, settings))
        for line in describe_unused(training.unused_settings):
            terminal.note(f"mt: {line}")
        return training
    except AppError as error:
        if arguments.json or len(error.details) < 2:
            raise
        for problem in error.details:
            terminal.note(f"mt: {in_words(problem)}")
        return None


def in_words(problem: FieldProblem) -> str:
    """A problem as one line: where, what, and what would be right."""
    path = "" if not problem.path or f"`{problem.path}" in problem.message else f"`{problem.path}`: "
    is_said = problem.allowed is None or problem.allowed in problem.message
    return f"{path}{problem.message}." if is_said else f"{path}{problem.message} (allowed: {problem.allowed})."


async def _read(arguments: Arguments, settings: Settings) -> TrainingPreview:
    typed: dict[str, object] = {} if arguments.corpus is None else {"corpus": arguments.corpus}
    for assignment in arguments.set:
        assign(TrainRequest, typed, assignment)
    experiment = Experiment(typed) if arguments.file is None else read_experiment(read_yaml(arguments.file), typed)
    experiment = experiment.with_family(_parent_family(experiment, settings))
    corpora = CorpusStore(settings)
    errors: list[AppError] = []
    least_lines = 1
    try:
        least_lines = splits_of_corpus(experiment.request())
    except AppError as error:
        errors.append(error)
    fields, missing = await _with_corpus_names(experiment, errors, arguments.file, corpora)
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
    raise experiment.combined(await _with_text_errors(experiment, errors, fields, least_lines, corpora))


def _parent_family(experiment: Experiment, settings: Settings) -> ModelFamily | None:
    """The family of the run that a warm start begins from; None where there is no such run."""
    try:
        run = RunStore(settings.app.artifacts_root).get(str(experiment.fields.get("init_from_run_id")))
        return run.record().effective.model_family
    except AppError:
        return None


async def _train(training: TrainingPreview, terminal: Terminal, queue: JobQueue) -> int:
    accepted = await queue.accept(training, user_id=None)
    old = (await asyncio.to_thread(queue.runs.get(accepted.run_id).record)).resumed_from_run_id
    if old is not None:
        terminal.note(f"mt: goes on with the run {old}.")
    return await follow_to_end(accepted.run_id, terminal, queue)


async def follow_to_end(run_id: str, terminal: Terminal, queue: JobQueue) -> int:
    """Show how an accepted run goes on, then what came of it; return the exit code."""
    await follow(run_id, terminal, queue)
    return _finish_train(await queue.status(run_id), queue.runs.get(run_id), terminal)


async def follow(run_id: str, terminal: Terminal, queue: JobQueue) -> None:
    """Show how an accepted run goes on, until it has ended."""
    run, disk = queue.runs.get(run_id), DiskNotice(terminal)
    follower = await asyncio.to_thread(run.follow)
    while True:
        status = follower.refresh()
        terminal.progress(status)
        if follower.ended:
            return
        disk.look(run.path, status.message)
        await asyncio.sleep(_FOLLOW_SECONDS)


class DiskNotice:
    """Tells once that what a command waits for waits itself for its disk."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._is_told = False

    def look(self, folder: Path, message: str) -> None:
        """See by its message, or by the disk where not even that can be written, whether it waits."""
        reason = DISK_IS_FULL if is_full(folder) else message
        if not self._is_told and reason in WAITS_FOR_DISK:
            self._is_told = True
            self._terminal.note(f"mt: {reason}")


def _finish_train(status: RunStatus, run: RunDirectory, terminal: Terminal) -> int:
    table = summary_table(f"{status.run_id}: {status.status}")
    add_loss(table, "test", status.test_loss, status.bits_per_char, status.objective)
    add_loss(table, "best validation", status.best_val_loss, status.best_val_bits_per_char, status.objective)
    scoring = f'mt score {status.run_id} "…"'
    is_causal = run.record().effective.objective == "causal_lm"
    after = f'next: mt generate {status.run_id} "…"   ·   {scoring}' if is_causal else f"next: {scoring}"
    if status.status != "completed":
        after = " ".join([status.message, *recovery(status, run)])
    terminal.show(status, table, Text(after))
    if status.status == "completed":
        return 0
    by_user = status.error is not None and status.error.error_class is ErrorClass.USER_INPUT
    return EXIT_USER if by_user else EXIT_FAILED


def recovery(status: RunStatus, run: RunDirectory) -> list[str]:
    """The sentence with the commands after a failure; none where the run would fail in the same way again."""
    if status.error is None or status.error.code in FAILS_AGAIN:
        return []
    saved = newest_whole(run.checkpoints)
    resume = "`mt train` with the same request starts it anew"
    if saved is not None:
        resume = f"`mt resume {run.run_id}` resumes it from step {saved.step}"
    return [f"`mt logs {run.run_id}` shows what happened; {resume}."]


async def _with_corpus_names(
    experiment: Experiment, told: list[AppError], yaml_file: Path | None, corpora: CorpusStore
) -> tuple[dict[str, object], list[AppError]]:
    """The fields with the names of texts in place of their paths here (DEC D06), and which texts there are not."""
    fields = dict(experiment.fields)
    errors: list[AppError] = []
    for field, name in _texts(experiment, told, fields):
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


async def _with_text_errors(
    experiment: Experiment, errors: list[AppError], fields: dict[str, object], least_lines: int, corpora: CorpusStore
) -> list[AppError]:
    """These errors, and what is wrong inside the texts that there are: each is told with the field that names it."""
    for field, name in _texts(experiment, errors, fields):
        try:
            await corpora.describe(name, minimum_lines=least_lines if field == "corpus" else 1)
        except AppError as error:
            errors = [other for other in errors if other.message != error.message]
            errors.append(experiment.located(error, field))
    return errors


def _texts(experiment: Experiment, told: list[AppError], fields: dict[str, object]) -> list[tuple[str, str]]:
    """The fields that name a text, with what they say, where nothing was told of them yet."""
    places = {problem.path for error in told for problem in error.details}
    texts = [(field, fields.get(field)) for field in CORPORA if experiment.place(field) not in places]
    return [(field, name) for field, name in texts if isinstance(name, str)]
