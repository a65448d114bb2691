"""`mt train` and `mt validate`: build a request from a YAML file and options, then enqueue and follow it or show it."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel
from pydantic_core import to_json
from rich.text import Text

from trainer.artifacts.run_ids import Named, default_label
from trainer.artifacts.runs import RunStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.commands.arguments import RUN_IDS, Argument, Arguments, Commands, Options, assign, flag, repeatable
from trainer.commands.connection import (
    Installation,
    accept,
    full_model_name,
    hint_name,
    queued_run,
    settings_for_any,
    with_own_services,
    with_server,
)
from trainer.commands.corpus_names import corpus_name, server_corpus_name
from trainer.commands.groups import follow_group_to_end
from trainer.commands.studies import run_study
from trainer.commands.terminal import Terminal, columns, exit_code
from trainer.config.experiment_file import read_experiment, read_yaml, request_path
from trainer.config.presets import request_hash
from trainer.config.schema import Schema, schema_of
from trainer.config.settings import Settings
from trainer.config.train_request import (
    CORPORA,
    TRAIN_OPTIONS,
    RequestDraft,
    request_fields,
    train_request,
)
from trainer.config.validation import safe_name
from trainer.contracts.base import run_of
from trainer.contracts.errors import FAILS_AGAIN, AppError, ErrorCode
from trainer.contracts.http_answers import CheckedTraining
from trainer.contracts.models import ModelFamily, NgramConfig
from trainer.contracts.parameters import RunPath
from trainer.contracts.runs import (
    Accepted,
    RunStatus,
    Setting,
    TrainRequest,
    describe_unused,
)
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.lab.calls import CHECK_TRAINING, GET_RUN, TRAIN
from trainer.lab.here import Here
from trainer.queue.resolution import count_splits
from trainer.queue.resolve import TrainingPreview, preview_training
from trainer.queue.speed import with_measured_time
from trainer.reports.run_report import end_report
from trainer.system.hardware import OtherPrograms, physical_cores

if TYPE_CHECKING:
    from trainer.client.remote import Remote


def _number_or_word(text: str) -> int | str:
    return int(text) if text.removeprefix("-").isdecimal() else text


_OF_STEPS = ("training", "batch", "learning rate")
"""Rows of the settings that a model without steps does not have."""
_EXPERIMENT_SUFFIXES = (".yaml", ".yml", ".json")
_VALUES: dict[str, tuple[str, Callable[[str], object]]] = {
    "epochs": ("N", int),
    "max_steps": ("N", int),
    "minutes": ("N", float),
    "search": ("N", int),
    "batch_size": ("N", _number_or_word),
    "learning_rate": ("X", float),
    "seed": ("N", int),
    "seeds": ("N", str),
    "init_from": ("RUN", full_model_name),
    "devices": ("N", int),
    "early_stopping": ("N", int),
}


def _request_argument(name: str, about: str) -> Argument[object]:
    flag, about = f"--{name.replace('_', '-')}", f"{about[:1].lower()}{about[1:]}"
    if name in ("freeze_embeddings", "quick"):
        return Argument(flag, action="store_true", default=None, help=about)
    metavar, convert = _VALUES.get(name, (name.upper(), str))
    completion = RUN_IDS if convert is full_model_name else None
    return Argument(f"{flag} {metavar}", type=convert, completion=completion, help=about)


class TrainOptions(Options):
    """A train request: an experiment file or a corpus, the options of TRAIN_OPTIONS and `--set`."""

    record: ClassVar[type[BaseModel] | None] = TrainRequest
    file: Path | None = None
    corpus: str | None
    model: str | None
    tokenizer: str | None
    arguments: ClassVar[Arguments] = {
        "file": Argument(
            "FILE", nargs="?", type=Path, help="experiment file (.yaml), recipe or corpus; options replace its values"
        ),
        **{name: _request_argument(name, option.help) for name, option in TRAIN_OPTIONS.items()},
    }
    set = repeatable("--set KEY=VALUE", "set a field of the train request, as `mt train --help` lists them")


NO_PAUSE = "leave the run in the queue after Ctrl-C: the next worker continues it; default: it is paused"


class _TrainOptions(TrainOptions):
    no_pause = flag("--no-pause", NO_PAUSE)


def add_to(commands: Commands) -> None:
    commands.add("train", _TrainOptions, _train, with_unit=True).describe_fields = describe_request
    commands.add("validate", TrainOptions, _validate)


def read_training(options: TrainOptions, settings: Settings, terminal: Terminal) -> TrainingPreview:
    """Read and check a train request, changing nothing; raises one AppError with all problems."""
    terminal.lists_problems = True
    draft = _draft_of_family(options, settings)
    draft.fields.pop("search", None)  # a study trains what is left
    return _checked_training(draft, options.file, settings, terminal)


def _checked_training(
    draft: RequestDraft, file: Path | None, settings: Settings, terminal: Terminal
) -> TrainingPreview:
    training = asyncio.run(_read(draft, file, settings))
    _note_unused(training.unused_settings, terminal)
    return training


def _with_time(training: TrainingPreview, settings: Settings, terminal: Terminal) -> TrainingPreview:
    """Measure how long a training takes if that is not known, and somebody reads it."""
    if training.cost.seconds is not None or not terminal.is_read:
        return training
    terminal.note("Measuring how fast this machine trains …")
    return with_measured_time(training, settings)


def _note_unused(unused_settings: Mapping[str, Setting], terminal: Terminal) -> None:
    for line in describe_unused(unused_settings):
        terminal.note(f"mt: {line}")


def _draft(options: TrainOptions) -> RequestDraft:
    """Return the draft of the options; a FILE that is no experiment file becomes their corpus."""
    if options.file is not None:
        options.file = request_path(options.file)
    if options.file is not None and not _is_experiment_file(options.file):
        if options.corpus is not None:
            message = f"Give one corpus to train on: '{safe_name(str(options.file))}' or `--corpus`."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        options.corpus, options.file = str(options.file), None
    values: dict[str, object] = vars(options)
    typed = request_fields({name: values[name] for name in TRAIN_OPTIONS})
    assign(TrainRequest, typed, options.set)
    return RequestDraft(typed) if options.file is None else read_experiment(read_yaml(options.file), typed)


def _is_experiment_file(path: Path) -> bool:
    """Decide by the suffix; without one, a file is an experiment file if it has its fields, and so is a pipe."""
    if path.suffix or not path.is_file():
        return path.suffix.lower() in _EXPERIMENT_SUFFIXES or path.is_fifo()
    try:
        return not read_yaml(path).keys().isdisjoint(("corpus", "data"))
    except AppError:
        return False


def _draft_of_family(options: TrainOptions, settings: Settings) -> RequestDraft:
    draft = _draft(options)
    root, fields = settings.app.artifacts_root, draft.fields
    names: dict[str, Callable[[str], str]] = {
        "init_from_run_id": full_model_name,
        "tokenizer_id": lambda name: TokenizerStore(root).find_named(name).tokenizer_id,
    }
    for field, full_name in names.items():
        name = fields.get(field)
        if not isinstance(name, str):
            continue
        try:
            fields[field] = full_name(name)
        except AppError as error:
            if error.code is ErrorCode.INVALID_INPUT:  # the name of several; that of none is reported later
                raise draft.combined([draft.located(error, field)]) from None
    parent: ModelFamily | None = None
    with suppress(AppError):  # a run to initialise from that does not exist is reported later
        run = RunStore(settings.app.artifacts_root).get(run_of(str(draft.fields.get("init_from_run_id"))))
        parent = run.record().effective.model_family
    return draft.with_family(parent)


async def _read(draft: RequestDraft, file: Path | None, settings: Settings) -> TrainingPreview:
    corpora = CorpusStore(settings)
    errors: list[AppError] = []
    min_lines = 1
    try:
        min_lines = count_splits(draft.request())
    except AppError as error:
        errors.append(error)
    fields = dict(draft.fields)
    for field, name in _named_corpora(draft, errors, fields):
        try:
            found = await corpus_name(name, file, corpora)
            corpora.find(found, field)
            fields[field] = found
        except AppError as error:
            errors.append(draft.located(error, field))
    corpus = draft.fields.get("corpus")
    if isinstance(corpus, str) and fields.get("label") is None:
        runs = RunStore(settings.app.artifacts_root).named()
        stem = corpora.shown(str(fields.get("corpus")))
        fields["label"] = default_label(stem, fields.get("model_family"), runs, resumes=fields.get("resume") is True)
    if not errors:
        try:
            request, unused = train_request(fields), draft.unused_settings
            return await preview_training(
                request,
                corpora,
                settings,
                named=RunStore(settings.app.artifacts_root).named(),
                requested_paths=draft.requested_paths,
                unused_settings=unused,
            )
        except AppError as error:
            errors.append(draft.located(error))
    for field, name in _named_corpora(draft, errors, fields):  # the content of all of them, to report all problems
        try:
            await corpora.describe(name, field, minimum_lines=min_lines if field == "corpus" else 1)
        except AppError as error:
            errors.append(draft.located(error, field))
    raise draft.combined(errors)


def _named_corpora(draft: RequestDraft, errors: list[AppError], fields: dict[str, object]) -> list[tuple[str, str]]:
    """Return the corpus fields that have no error yet, with their values."""
    places = {problem.path for error in errors for problem in error.details}
    names = [(field, fields.get(field)) for field in CORPORA if draft.place(field) not in places]
    return [(field, name) for field, name in names if isinstance(name, str)]


def _train(options: _TrainOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    terminal.lists_problems = True
    is_here = settings.client.url is None
    draft = _draft_of_family(options, settings) if is_here else _draft(options)
    if (study := draft.study()) is not None:
        _note_unused(draft.unused_settings, terminal)
        return run_study(study, options.file, terminal)
    if not is_here:
        return with_server(settings, lambda server: _train_there(draft, options.file, server, terminal), terminal)
    others = OtherPrograms()
    training = _with_time(_checked_training(draft, options.file, settings, terminal), settings, terminal)
    cost, *more = _cost_and_notes(training.checked())
    busy = busy_note(others.cores(), physical_cores())
    for line in (f"{cost}{busy}", *more):
        terminal.note(line)
    terminal.pauses = not options.no_pause
    return with_own_services(settings, terminal, lambda here: _train_here(training, here, terminal))


def busy_note(busy_cores: float, cores: int) -> str:
    """Return a sentence, after a space, on other programs that use half of the cores or more; else nothing."""
    if busy_cores < cores / 2:
        return ""
    return f" Other programs use {min(busy_cores, cores):.1f} of {counted(cores, 'core')}, so it takes longer now."


def _cost_and_notes(checked: CheckedTraining) -> list[str]:
    """Return the cost of a training, and the notes and warnings about it."""
    notes = [f"Note: {note}" for note in checked.notes]
    return [*checked.cost, *notes, *(f"Warning: {warning}" for warning in checked.warnings)]


async def _train_there(draft: RequestDraft, file: Path | None, server: "Remote", terminal: Terminal) -> int:
    uploaded = await _uploaded(draft, file, server, terminal)
    label = str(uploaded.fields.get("label") or "")
    accepted = await accept(server.send(TRAIN, uploaded), lambda run: queued_run(run, label or None), terminal)
    _note_unused(draft.unused_settings, terminal)
    return await follow_accepted(accepted, terminal, server)


async def _uploaded(draft: RequestDraft, file: Path | None, server: "Remote", terminal: Terminal) -> RequestDraft:
    """Return the draft with the names of its corpora on the server, after uploading those of this machine."""
    request = await server.request(draft)  # before anything is uploaded
    fields, corpus = dict(draft.fields), draft.fields.get("corpus")
    for field in CORPORA:
        name = fields.get(field)
        if isinstance(name, str):
            fields[field] = await server_corpus_name(name, file, server, terminal)
    is_uploaded = isinstance(corpus, str) and not str(fields["corpus"]).startswith(corpus)
    if is_uploaded and fields.get("label") is None:
        label = default_label(str(corpus), request.model_family, (), resumes=True)
        runs = [Named(run.run_id, run.label) async for run in server.newest(search=label)]
        fields["label"] = default_label(str(corpus), request.model_family, runs, resumes=request.resume)
    return draft._replace(fields=fields)


async def _train_here(training: TrainingPreview, here: Here, terminal: Terminal) -> int:
    accepting = (await here.lab.live()).accept(training, user_id=None)
    accepted = await accept(accepting, lambda run: queued_run(run, training.request.label), terminal)
    resumed = (await asyncio.to_thread(here.runs.get(accepted.run_id).record)).resumed_from_run_id
    if resumed is not None:
        terminal.note(f"mt: {accepted.run_id} resumes {resumed}.")
    return await follow_accepted(accepted, terminal, here)


async def follow_accepted(accepted: Accepted, terminal: Terminal, installation: Installation) -> int:
    """Show the progress of a run or a group until it has ended, then its results; return the exit code."""
    if accepted.group is None:
        return await follow_to_end(accepted.name, terminal, installation)
    return await follow_group_to_end(accepted.name, terminal, installation)


def _validate(options: TrainOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    name_of = safe_name
    if settings.client.url is None:
        training = _with_time(read_training(options, settings, terminal), settings, terminal)
        checked, name_of = training.checked(), training.corpora.shown
    else:
        terminal.lists_problems = True
        checked = with_server(settings, lambda server: _check_there(options, server, terminal))
    cost = Text("\n".join(_cost_and_notes(checked)))
    request: dict[str, object] = dict(checked.request)
    parts = [columns(_settings(checked, name_of)), cost, Text("Valid. Nothing was started.")]
    if checked.chosen:
        reasons = [(choice.field, choice.shown_value(), choice.reason) for choice in checked.chosen]
        parts[1:1] = [Text("Values by rule, unless you give others:"), columns(reasons)]
    terminal.show(request, *parts)
    return 0


async def _check_there(options: TrainOptions, server: "Remote", terminal: Terminal) -> CheckedTraining:
    draft = _draft(options)
    draft.fields.pop("search", None)
    checked = await server.send(CHECK_TRAINING, await _uploaded(draft, options.file, server, terminal))
    _note_unused(draft.unused_settings, terminal)
    return checked


def _settings(training: CheckedTraining, name_of: Callable[[str], str]) -> list[tuple[str, str]]:
    effective, model = training.effective, training.effective.model
    counts = isinstance(model, NgramConfig)
    sizes = model.sizes() if counts else f"{model.sizes()}, dropout {model.dropout:g}"
    corpora = {"corpus": effective.corpus, "validation": effective.validation_corpus, "test": effective.test_corpus}
    length = counted(effective.num_epochs, "step" if effective.counts_steps else "epoch")
    if effective.max_steps is not None and not effective.counts_steps:
        length += f", at most {counted(effective.max_steps, 'step')}"
    if effective.minutes is not None:
        length = f"{effective.minutes:g} minutes, at most {length}"
    rows = counted(effective.batch_size, "row")
    rows_of_all: list[tuple[str, str]] = [
        ("model", f"{effective.model_family} {sizes}{', tied' if model.tie_word_embeddings else ''}"),
        ("objective", effective.objective + (", both directions" if effective.is_bidirectional else "")),
        ("tokenizer", effective.tokenizer_id or effective.tokenizer.method),
        *(
            (field, f"{name_of(text.name)}, {counted(text.bytes, 'byte')}")
            for field, text in corpora.items()
            if text is not None
        ),
        ("training", length),
        ("batch", f"{rows} of {effective.max_seq_len} tokens"),
        *((("seeds", ", ".join(map(str, training.seeds))),) if len(training.seeds) > 1 else ()),
        ("learning rate", f"{effective.learning_rate:g}, {effective.lr_schedule}, {effective.optimizer.name}"),
        ("request hash", request_hash(effective)),
    ]
    return [row for row in rows_of_all if not (counts and row[0] in _OF_STEPS)]


async def follow_to_end(run_id: str, terminal: Terminal, installation: Installation) -> int:
    """Show the progress of a run until it has ended, then its results; return the exit code."""
    async with aclosing(installation.follow(GET_RUN, RunPath(run_id=run_id))) as statuses:
        async for status in statuses:
            terminal.progress(status)
            note_waiting_for_storage(status, terminal)
    if status.status == "completed":
        name = await hint_name(run_id, status.label, installation)
        generate = f'mt generate {name} "…"   ·   ' if status.objective == "causal_lm" else ""
        after = f'next: {generate}mt score {name} "…"'
    else:
        after = " ".join([status.message, *await recovery_hint(status, installation)])
    terminal.show_report(status, end_report(status), Text(after))
    return exit_code(status)


def note_waiting_for_storage(status: RunStatus | TokenizerStatus, terminal: Terminal) -> None:
    """Note once that a job waits for its disk or for the object store."""
    if status.waits_for in ("object_store", "disk_space", "disk"):
        terminal.note_once(f"mt: {status.message}")


async def recovery_hint(status: RunStatus, installation: Installation) -> list[str]:
    """Return a sentence with the commands to use after a failure; none where the run would fail again."""
    if status.error is None or status.error.code in FAILS_AGAIN:
        return []
    step = await installation.saved_step(status)
    name = await hint_name(status.run_id, status.label, installation)
    resume = "start it again with `mt train`"
    if step is not None:
        resume = f"resume it from step {step} with `mt resume {name}`"
    return [f"See its log with `mt logs {name}`; {resume}."]


_FIELDS_HEAD = """\
Fields of an experiment file and of --set KEY=VALUE, with type, range and default (`mt validate --model MODEL
--corpus NAME` shows the values that rules choose for a request, with their reasons):
"""


def describe_request() -> str:
    """List every field of a train request with its option, type, range, default and meaning."""
    options = {option.field: f", --{name.replace('_', '-')}" for name, option in TRAIN_OPTIONS.items()}
    # by path: the first block's schema, and the types in all blocks, such as those of several tokenizers
    fields: dict[str, tuple[Schema, dict[str, None]]] = {}
    for path, field in schema_of(TrainRequest).fields():
        for kind in field.members:
            if kind.type != "null" and not kind.properties:
                words = kind.words().removeprefix("an ").removeprefix("a ")
                fields.setdefault(path, (field, {}))[1][words] = None
    lines = [_FIELDS_HEAD]
    for path, (field, types) in fields.items():
        end = "; required" if path == "corpus" else ""
        if field.default is not None and "By rule" not in (field.description or ""):
            end = f"; default {to_json(field.default).decode()}"
        lines.append(f"  {path}{options.get(path, '')}: {' or '.join(types)}{end}")
        if field.description:
            lines.append(f"      {field.description}")
    return "\n".join(lines)
