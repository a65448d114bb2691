"""Resolves training requests: gathers the facts that a request needs, and applies all rules in a pure function."""

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import structlog
from pydantic import ValidationError
from pydantic_core import to_json

from trainer.artifacts.checkpoints import named_model
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.runs import RunStore
from trainer.artifacts.tokenizer_files import read_manifest, unknown_share
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.presets import (
    Bf16Trial,
    Filled,
    architecture,
    check_bf16,
    check_parts,
    check_precision,
    resolve_with_reasons,
    tokenizer_of,
    with_parent,
    with_tokenizer,
)
from trainer.config.settings import Settings
from trainer.contracts.base import changed, run_of
from trainer.contracts.errors import AppError, ErrorCode, at_field, field_error
from trainer.contracts.models import Architecture
from trainer.contracts.runs import CorpusRef, EffectiveRequest, RunRecord, TrainRequest
from trainer.contracts.tokenizers import TokenizerManifest
from trainer.contracts.training_options import MAX_NOTE_CHARACTERS, ChosenValue, Pace, is_one_line
from trainer.data.corpora import CorpusStore, sample_lines, training_characters
from trainer.data.folders import FolderLayout
from trainer.data.line_keys import TELLING_SHARE, lines_of_corpus
from trainer.data.text import TextSample, corpus_sha256, sample_text, shown_name, text_files
from trainer.queue.cost import TextEstimate, measure_text, train_share
from trainer.system.child_environment import tuned_environment
from trainer.system.files import read_record, write_atomically
from trainer.system.hardware import instruction_set, may_have_cuda
from trainer.system.python import python_command

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_TRIAL_SECONDS = 120.0
_SAMPLED_LINES = 1000
_MAX_UNKNOWN_SHARE = 0.5


class Device(NamedTuple):
    """The devices that a training may use, as known before a worker takes its run."""

    may_have_cuda: bool
    bf16_trial: Bf16Trial | None = None
    """The trial of this machine's CPU, for a request that trains on it in bf16."""


class Parent(NamedTuple):
    """The model whose weights a warm start takes."""

    name: str
    effective: EffectiveRequest
    is_same_corpus: bool
    """True if the request names the parent's training text."""
    held_out: Mapping[str, str]
    """The shown names of validation and test corpora that a request for the same corpus can take over, by field."""


class Facts(NamedTuple):
    """Everything outside a training request that decides what it resolves to."""

    device: Device
    parent: Parent | None
    tokenizer: TokenizerManifest | None
    """The tokenizer that the run takes; None if the run trains its own."""
    unknown_share: float
    """The share of the corpus's characters that this tokenizer does not know."""
    layout: FolderLayout
    """The corpora that the files of the corpus's folder are."""
    references: Mapping[str, CorpusRef]
    """The corpora of the request, of its folder and of its parent, by field."""
    sample: TextSample
    """A sample of the training corpus."""
    n_files: int
    """The files of the training corpus."""
    shown_name: str
    """The name of the training corpus for messages."""
    locked_texts: frozenset[str] = frozenset()
    """The fields of the corpora that tell of a text whose test splits are locked for every run."""
    inherited: frozenset[str] = frozenset()
    """The fields of the corpora that tell of the locked test split of an ancestor."""
    locks_all: bool = False
    """True if the test splits of all runs of the installation are locked."""
    pace: Pace | None = None
    """What a worker has measured for a training that has `minutes`."""


class Resolution(NamedTuple):
    """A resolved request, the values in it that rules have chosen, and notes for a person."""

    effective: EffectiveRequest
    chosen: tuple[ChosenValue, ...]
    measured: TextEstimate
    """The training split, in tokens of the tokenizer."""
    notes: tuple[str, ...]


async def gather(request: TrainRequest, corpora: CorpusStore, settings: Settings) -> Facts:
    """Find and read what a training request names, without changing anything.

    A request whose device or parts are wrong is refused before its corpora are read. Raises AppError.
    """
    device = await asyncio.to_thread(_find_device, request, settings)
    _check_device(request, device)
    parent = await asyncio.to_thread(_find_parent, request, corpora, settings)
    request = _with_values_of(request, parent).request
    folder = _find_tokenizer(request, settings)
    tokenizer = None if folder is None else read_manifest(folder)
    with at_field("corpus"):
        layout = corpora.layout(request.corpus, _given_fields(request))
    request = changed(request, **layout.files)
    corpus, reference = await corpora.read(request.corpus, "corpus", minimum_lines=count_splits(request))
    references: dict[str, CorpusRef] = {"corpus": reference}
    for field, name in (("validation_corpus", request.validation_corpus), ("test_corpus", request.test_corpus)):
        if name is not None:
            references[field] = await corpora.describe(name, field)
    locks: _Locks = await asyncio.to_thread(_find_locks, references, corpora, parent, settings)
    return Facts(
        device=device,
        parent=parent,
        tokenizer=tokenizer,
        unknown_share=await asyncio.to_thread(_unknown_share, folder, corpus, request.seed),
        layout=layout,
        references=references,
        sample=await asyncio.to_thread(sample_text, corpus),
        n_files=len(text_files(corpus)),
        shown_name=corpora.shown(request.corpus),
        locked_texts=locks.locked_texts,
        inherited=locks.inherited,
        locks_all=settings.app.test_split == "locked",
    )


class _Locks(NamedTuple):
    """The fields of the corpora that tell of locked texts, and of locked test splits of ancestors."""

    locked_texts: frozenset[str] = frozenset()
    inherited: frozenset[str] = frozenset()


def _find_locks(
    references: Mapping[str, CorpusRef], corpora: CorpusStore, parent: Parent | None, settings: Settings
) -> _Locks:
    """Compare the corpora of a request with locked texts; reads none of them if nothing is locked for it."""
    looks, family = LookLedger.of(settings), list[EffectiveRequest]()
    if parent is not None:
        older = RunStore(settings.app.artifacts_root).ancestors(parent.effective)
        family = [parent.effective, *(one for _, one in older if one is not None)]
    locked = [one for one in family if one.test == "locked"]
    if not locked and not looks.has_locks:
        return _Locks()
    texts = {field: lines_of_corpus(corpora.find(text.name, field)) for field, text in references.items()}
    return _Locks(
        frozenset(field for field, text in texts.items() if looks.has_lock(text)),
        frozenset(field for field, text in texts.items() if any(looks.has_test_lines(one, text) for one in locked)),
    )


def facts_of_run(record: RunRecord, corpus: Path, settings: Settings, *, has_cuda: bool) -> Facts:
    """Return the facts of an accepted run on the machine that trains it, which has its training text as a file.

    The names of its corpora may be those of another machine.
    """
    effective, folder = record.effective, _find_tokenizer(record.request, settings)
    references, parent = effective.corpora_by_field(), None
    if effective.init_from_run_id is not None:
        model = named_model(RunStore(settings.app.artifacts_root), effective.init_from_run_id)
        parent = Parent(model.name, model.effective, model.effective.corpus.sha256 == effective.corpus.sha256, {})
    return Facts(
        device=Device(has_cuda),
        parent=parent,
        tokenizer=None if folder is None else read_manifest(folder),
        unknown_share=0.0,
        layout=FolderLayout({field: reference.name for field, reference in references.items()}),
        references=references,
        sample=sample_text(corpus),
        n_files=len(text_files(corpus)),
        shown_name=shown_name(effective.corpus.name),
    )


def _find_parent(request: TrainRequest, corpora: CorpusStore, settings: Settings) -> Parent | None:
    """Return the model whose weights a warm start takes; raises RUN_NOT_FOUND, RUN_NOT_READY or DATA_NOT_FOUND."""
    if request.init_from_run_id is None:
        return None
    try:
        model = named_model(RunStore(settings.app.artifacts_root), request.init_from_run_id)
    except AppError as error:
        what = "checkpoint" if "@" in request.init_from_run_id else "completed run"
        message = f"names no {what}. {error.message}"
        raise field_error(error.code, "init_from_run_id", message) from None
    if not model.is_permanent:
        message = f"is '{model.name}', which a cleanup removes: name a checkpoint that a `checkpoint_schedule` keeps."
        raise field_error(ErrorCode.DATA_NOT_FOUND, "init_from_run_id", message)
    with at_field("corpus"):
        files = corpora.layout(request.corpus, _given_fields(request)).files
        text = corpora.find(files.get("corpus", request.corpus))
        is_same_corpus = corpus_sha256(text) == model.effective.corpus.sha256
    held_out = {
        field: corpora.shown(corpus.name)
        for field, corpus in (model.effective.corpora_by_field() if is_same_corpus else {}).items()
        if field != "corpus" and field not in files and _is_here(corpus, corpora)
    }
    return Parent(model.name, model.effective, is_same_corpus, held_out)


def _is_here(corpus: CorpusRef, corpora: CorpusStore) -> bool:
    return corpora.has(corpus.name) and corpus_sha256(corpora.find(corpus.name)) == corpus.sha256


def _find_tokenizer(request: TrainRequest, settings: Settings) -> Path | None:
    """Return the folder of the stored tokenizer that a run takes; None if the run trains its own.

    Raises RUN_NOT_FOUND or TOKENIZER_NOT_FOUND, and CONFLICT while the tokenizer is being trained.
    """
    if request.init_from_run_id is not None:
        return RunStore(settings.app.artifacts_root).get(run_of(request.init_from_run_id)).tokenizer
    if request.tokenizer_id is None:
        return None
    with at_field("tokenizer_id"):
        tokenizer = TokenizerStore(settings.app.artifacts_root).get(request.tokenizer_id)
        tokenizer.completed_manifest()
    tokenizer.mark_used()  # so that no cleanup removes it before the run is accepted
    return tokenizer.path


def _unknown_share(folder: Path | None, corpus: Path, seed: int) -> float:
    return 0.0 if folder is None else unknown_share(folder, sample_lines(corpus, _SAMPLED_LINES, seed))


def _find_device(request: TrainRequest, settings: Settings) -> Device:
    has_cuda = may_have_cuda()
    is_on_cpu = request.device == "cpu" or (request.device == "auto" and not has_cuda)
    needs_trial = request.precision == "bf16" and is_on_cpu and settings.redis.is_local
    trial = _bf16_trial(architecture(request.model_family), settings) if needs_trial else None
    return Device(may_have_cuda=settings.redis.url is not None or has_cuda, bf16_trial=trial)


def _bf16_trial(architecture: Architecture, settings: Settings) -> Bf16Trial | None:
    """Return whether this machine's CPU can train an architecture in bf16; None if that is unknown.

    The first call runs a trial in a new process, which takes some seconds, and stores the result. The worker decides if
    the trial itself fails, and where torch is not installed, as in the bot's container.
    """
    try:
        key = to_json({"architecture": architecture, "torch": version("torch")} | instruction_set())
    except PackageNotFoundError:
        return None
    stored = settings.app.data_root / "bf16_trials" / f"{sha256(key).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        return read_record(stored, Bf16Trial)
    trial = _run_trial(architecture, settings)
    if trial is not None:
        with suppress(OSError, AppError):  # the next request tries again
            stored.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(stored, trial.model_dump_json().encode())
    return trial


def _run_trial(architecture: Architecture, settings: Settings, seconds: float = _TRIAL_SECONDS) -> Bf16Trial | None:
    command = python_command("-m", "trainer.training.bf16", architecture)
    try:
        tried = subprocess.run(
            command, env=tuned_environment(settings), capture_output=True, text=True, timeout=seconds, check=True
        )
        return Bf16Trial.model_validate_json(tried.stdout.rpartition("\n")[2])
    except (OSError, subprocess.SubprocessError, ValidationError) as error:
        log.warning("bf16_trial_failed", architecture=architecture, error=type(error).__name__)
        return None


def resolve(request: TrainRequest, facts: Facts) -> Resolution:
    """Check a request, and fill every absent value; raises AppError if its values do not fit the facts or each other.

    Reads and changes nothing but its arguments: equal requests and facts resolve equally.
    """
    _check_device(request, facts.device)
    _check_source(request)
    request, taken = _with_values_of(request, facts.parent)
    request = changed(request, **facts.layout.files)
    request, by_text = with_tokenizer(request, training_characters([facts.sample], train_share(request)))
    measured = measure_text(request, tokenizer_of(request, facts.tokenizer), facts.sample, facts.tokenizer)
    effective, by_rule = resolve_with_reasons(
        request,
        measured.for_rules,
        facts.references,
        parent=None if facts.parent is None else facts.parent.effective,
        tokenizer=facts.tokenizer,
        pace=facts.pace,
    )
    if not request.allow_same_corpus:
        _check_different(effective)
    _check_corpus(request, facts)
    effective, locked = _with_lock(request, effective, facts)
    notes = (*_notes_on_parent(taken), *facts.layout.notes, *_notes_on_files(effective, facts.n_files), *locked)
    return Resolution(effective, (*taken, *by_text, *by_rule), measured, notes)


def _check_device(request: TrainRequest, device: Device) -> None:
    """Refuse a device or precision that this machine lacks; a worker on another machine checks by itself."""
    if request.device.startswith("cuda") and not device.may_have_cuda:
        message = f"is '{request.device}', but this machine has no CUDA: use 'cpu'."
        raise field_error(ErrorCode.CUDA_NOT_AVAILABLE, "device", message)
    check_precision(request.precision, on_cuda=device.may_have_cuda and request.device != "cpu")
    if device.bf16_trial is not None:
        check_bf16(device.bf16_trial)


def _check_source(request: TrainRequest) -> None:
    """Refuse a source that is no line; runs of earlier versions may have one."""
    if request.provenance is not None and not is_one_line(request.provenance.source_corpus):
        message = f"must be one line of printable characters, at most {MAX_NOTE_CHARACTERS:,}"
        raise field_error(ErrorCode.INVALID_INPUT, "provenance.source_corpus", message)


def _with_values_of(request: TrainRequest, parent: Parent | None) -> Filled:
    """Return a checked request with the values of its parent that it leaves out, and what was taken over.

    For an equal corpus, these are the validation and test corpora of the parent too. Raises MODEL_INCOMPATIBLE if the
    parts of the request do not work together.
    """
    taken: tuple[ChosenValue, ...] = ()
    if parent is not None:
        request = changed(request, init_from_run_id=parent.name)
        request, taken = with_parent(request, parent.effective, is_same_corpus=parent.is_same_corpus)
        corpora = parent.effective.corpora_by_field()
        for field, shown in parent.held_out.items():
            named: str | None = getattr(request, field)
            if named is None:
                request = changed(request, **{field: corpora[field].name})
                taken = (*taken, ChosenValue(field=field, value=shown, reason=f"as in its parent '{parent.name}'"))
    check_parts(request)
    return Filled(request, taken)


def _with_lock(
    request: TrainRequest, effective: EffectiveRequest, facts: Facts
) -> tuple[EffectiveRequest, tuple[str, ...]]:
    """Lock the test split where its corpus, its parent or the installation says so; return a note then.

    Raises TEST_LOCKED for a request that opens it.
    """
    _check_validation(effective, facts)
    if effective.test_text is None:
        return changed(effective, test="open"), ()
    field = "corpus" if effective.test_corpus is None else "test_corpus"
    if facts.locks_all:
        reason = "`APP__TEST_SPLIT` locks the test splits of all runs here"
    elif field in facts.locked_texts:
        reason = "the test split of its text is locked for every run"
    elif field in facts.inherited:
        reason = "that of its parent, which has the same text, is locked"
    else:
        return changed(effective, test=request.test or "open"), ()
    if request.test == "open":
        message = f"is 'open', but {reason}: leave it out, and read the split once by an unlock when all is decided."
        raise field_error(ErrorCode.TEST_LOCKED, "test", message)
    note = f"The test split stays locked, because {reason}."
    return changed(effective, test="locked"), (note,) if request.test is None else ()


def _check_validation(effective: EffectiveRequest, facts: Facts) -> None:
    """Refuse validation on a locked text, or on a split of the corpus that has as much of one as tells of it."""
    if effective.validation_corpus is not None:
        field, is_locked = "validation_corpus", "validation_corpus" in facts.locked_texts | facts.inherited
    else:
        parent = None if facts.parent is None else facts.parent.effective
        is_drawn_again = parent is not None and parent.test_id != effective.test_id and "corpus" in facts.inherited
        has_no_test = "corpus" in facts.locked_texts and (effective.test_corpus is not None or not effective.test_id)
        field, is_locked = "holdout_fraction", has_no_test or is_drawn_again
        is_locked &= effective.holdout_fraction >= TELLING_SHARE
    if is_locked:
        message = "takes lines of a locked test split for validation: validate on other lines."
        raise field_error(ErrorCode.TEST_LOCKED, field, message)


def _notes_on_parent(taken: Sequence[ChosenValue]) -> tuple[str, ...]:
    """Return a note on the values that a warm start takes over."""
    values = ", ".join(f"`{one.field}` {one.shown_value()}" for one in taken)
    return (f"As in its parent, unless you give others: {values}.",) if values else ()


def _notes_on_files(effective: EffectiveRequest, n_files: int) -> tuple[str, ...]:
    """Return a note on held-out lines that are drawn from the files of the training lines."""
    if n_files == 1 or not any(effective.draws_lines(split) for split in ("validation", "test")):
        return ()
    return (
        f"The held-out lines are drawn from the {n_files} files that are trained on: losses and their intervals are of"
        " other lines of these files. `split_by: file` holds out complete files.",
    )


def _given_fields(request: TrainRequest) -> set[str]:
    """Return the fields that decide what the files of a folder are; a split by position keeps them as splits."""
    given: dict[str, object] = request.model_dump(exclude_unset=True, exclude_none=True)
    return {field for field, value in given.items() if (field, value) != ("split_by", "position")}


def count_splits(request: TrainRequest) -> int:
    """Return the number of splits that are cut from the corpus; each needs at least one line."""
    cut_test = request.test_corpus is None and request.test_fraction > 0
    return 1 + (request.validation_corpus is None) + cut_test


def _check_different(effective: EffectiveRequest) -> None:
    """Refuse a text in two roles: what is measured on it would be known from training or from selecting weights."""
    roles: dict[str, str] = {}
    for field, corpus in effective.corpora_by_field().items():
        other = roles.setdefault(corpus.sha256, field)
        if other != field:
            raise field_error(
                ErrorCode.SAME_CORPUS,
                field,
                f"has the same text as `{other}`: a loss on text that the run has seen says nothing about unseen text."
                " Give another text, or leave it out; `allow_same_corpus: true` trains all the same.",
            )


def _check_corpus(request: TrainRequest, facts: Facts) -> None:
    """Refuse a corpus with too few files, or one whose characters a stored tokenizer hardly knows."""
    needed, name = count_splits(request), facts.shown_name
    if request.split_by == "file" and facts.n_files < needed:
        raise field_error(
            ErrorCode.CORPUS_EMPTY,
            "split_by",
            f"is 'file', which needs a folder of at least {needed} texts, one for each split; '{name}' has"
            f" {facts.n_files}.",
        )
    if facts.unknown_share > _MAX_UNKNOWN_SHARE:
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"The tokenizer does not know {facts.unknown_share:.0%} of the characters of '{name}': train one on texts"
            " like it, or start from a run in the same script.",
        )
