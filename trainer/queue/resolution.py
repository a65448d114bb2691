"""Resolves a training request: checks it with everything that it names, and fills its absent values."""

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import structlog
from pydantic import ValidationError
from pydantic_core import to_json

from trainer.artifacts.checkpoints import NamedModel, named_model
from trainer.artifacts.runs import RunStore
from trainer.artifacts.tokenizer_files import read_manifest, unknown_share
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.defaults import PACE_SIZES, Pace
from trainer.config.presets import (
    Bf16Trial,
    Filled,
    architecture,
    check_bf16,
    check_parts,
    check_precision,
    has_free_size,
    resolve_with_reasons,
    tokenizer_of,
    with_parent,
    with_split,
    with_tokenizer,
)
from trainer.config.settings import Settings
from trainer.contracts.base import changed, run_of
from trainer.contracts.errors import AppError, ErrorCode, at_field, field_error
from trainer.contracts.models import Architecture
from trainer.contracts.runs import CorpusRef, EffectiveRequest, TrainRequest
from trainer.contracts.training_options import ChosenValue
from trainer.data.corpora import CorpusStore, sample_lines, training_characters
from trainer.data.text import TextSample, corpus_sha256, sample_text, text_files
from trainer.queue.cost import TextEstimate, measure_text, preview_cost, train_share
from trainer.queue.speed import measure_pace
from trainer.system.child_environment import tuned_environment
from trainer.system.files import read_record, write_atomically
from trainer.system.hardware import instruction_set, may_have_cuda
from trainer.system.python import python_command

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_TRIAL_SECONDS = 120.0
_SAMPLED_LINES = 1000
_MAX_UNKNOWN_SHARE = 0.5


class Resolution(NamedTuple):
    """A checked request with the files that it takes."""

    effective: EffectiveRequest
    chosen: tuple[ChosenValue, ...]
    paths: Mapping[str, Path]
    """The files or folders of its corpora, by field."""
    sample: TextSample
    """A sample of its corpus."""
    measured: TextEstimate
    """Its training split, in tokens of its tokenizer."""
    pace: Pace | None
    """The measured pace of a training that has `minutes`."""
    notes: tuple[str, ...]
    """Notes on the files of its corpus."""


async def resolve_all(
    request: TrainRequest, corpora: CorpusStore, settings: Settings, *, measures_pace: bool = False
) -> Resolution:
    """Check a training request and everything it names, and fill its absent values; changes nothing.

    In one pass: parts, device, parent run and tokenizer, corpora, rules and presets, and the fit of corpus and
    tokenizer. `measures_pace` is for a new training: with `minutes`, its speed is measured. Raises AppError.
    """
    await _check_device(request, settings)
    parent = _find_parent(request, settings)
    taken: tuple[ChosenValue, ...] = ()
    if parent is not None:
        request = changed(request, init_from_run_id=parent.name)
        inherited = await asyncio.to_thread(_with_parent, request, parent.effective, corpora)
        request, taken = inherited.request, inherited.values
    check_parts(request)
    folder = _tokenizer_folder(request, settings)
    tokenizer = None if folder is None else read_manifest(folder)
    with at_field("corpus"):
        layout = corpora.layout(request.corpus, _given(request))
    request = changed(request, **layout.files)
    paths: dict[str, Path] = {}
    references: dict[str, CorpusRef] = {}
    for field, minimum_lines in (("corpus", count_splits(request)), ("validation_corpus", 1), ("test_corpus", 1)):
        name: str | None = getattr(request, field)
        if name is not None:
            paths[field], references[field] = await corpora.read(name, field, minimum_lines=minimum_lines)
    sample = await asyncio.to_thread(sample_text, paths["corpus"])
    characters = await asyncio.to_thread(training_characters, [sample], train_share(with_split(request)))
    request, by_text = with_tokenizer(request, characters)
    config = tokenizer_of(request, tokenizer)
    measured = await asyncio.to_thread(measure_text, with_split(request), config, sample, tokenizer)
    resolved = partial(
        resolve_with_reasons,
        text=measured.for_rules,
        corpus=references["corpus"],
        validation_corpus=references.get("validation_corpus"),
        test_corpus=references.get("test_corpus"),
        parent=None if parent is None else parent.effective,
        tokenizer=tokenizer,
    )
    effective, by_rule = resolved(request)
    if not request.allow_same_corpus:
        _check_different(effective)
    shown = corpora.shown(request.corpus)
    await asyncio.to_thread(_check_corpus, request, paths["corpus"], shown, folder)
    pace: Pace | None = None
    if request.minutes is not None and measures_pace:
        sizes = PACE_SIZES if has_free_size(request) else (request.model_size,)
        candidates = [resolved(changed(request, model_size=size)).effective for size in sizes]
        fitting = await asyncio.to_thread(_fitting, candidates, measured, sample, settings)
        pace = await asyncio.to_thread(measure_pace, fitting, measured.for_rules, settings)
        effective, by_rule = resolved(request, pace=pace)
    notes = (*_notes_on_parent(taken), *layout.notes)
    return Resolution(effective, (*taken, *by_text, *by_rule), paths, sample, measured, pace, notes)


def _notes_on_parent(taken: Sequence[ChosenValue]) -> tuple[str, ...]:
    """Return a note on the values that a warm start takes over."""
    values = ", ".join(f"`{one.field}` {one.shown_value()}" for one in taken)
    return (f"As in its parent, unless you give others: {values}.",) if values else ()


def _given(request: TrainRequest) -> set[str]:
    """Return the fields that decide what the files of a folder are; a split by position keeps them as splits."""
    given: dict[str, object] = request.model_dump(exclude_unset=True, exclude_none=True)
    return {field for field, value in given.items() if (field, value) != ("split_by", "position")}


def _with_parent(request: TrainRequest, parent: EffectiveRequest, corpora: CorpusStore) -> Filled:
    """Return the request of a warm start with values of its parent that it leaves out, and what was taken over.

    For an equal corpus, these are the validation and test corpora of the parent too, if they are still here.
    """
    with at_field("corpus"):
        folder = corpora.layout(request.corpus, _given(request)).files
        is_same = corpus_sha256(corpora.find(folder.get("corpus", request.corpus))) == parent.corpus.sha256
    request, taken = with_parent(request, parent, is_same_corpus=is_same)
    for field, corpus in parent.corpora_by_field().items() if is_same else ():
        named: str | None = getattr(request, field)
        if named is None and field not in folder and _is_here(corpus, corpora):
            request = changed(request, **{field: corpus.name})
            reason = f"as in its parent '{request.init_from_run_id}'"
            taken = (*taken, ChosenValue(field=field, value=corpora.shown(corpus.name), reason=reason))
    return Filled(request, taken)


def _is_here(corpus: CorpusRef, corpora: CorpusStore) -> bool:
    return corpora.has(corpus.name) and corpus_sha256(corpora.find(corpus.name)) == corpus.sha256


def _fitting(
    candidates: Sequence[EffectiveRequest], measured: TextEstimate, sample: TextSample, settings: Settings
) -> list[EffectiveRequest]:
    """Return the requests that fit into this machine, in ascending order; raises AppError if the first does not."""
    fitting = list[EffectiveRequest]()
    for one in candidates:
        try:
            preview_cost(one, measured, sample, settings)
        except AppError:
            if not fitting:
                raise
            break
        fitting.append(one)
    return fitting


async def _check_device(request: TrainRequest, settings: Settings) -> None:
    """Refuse a device or precision that this machine lacks; a worker on another machine checks by itself."""
    device = request.device
    has_cuda = settings.redis.url is not None or may_have_cuda()
    if device.startswith("cuda") and not has_cuda:
        raise field_error(
            ErrorCode.CUDA_NOT_AVAILABLE, "device", f"is '{device}', but this machine has no CUDA: use 'cpu'."
        )
    check_precision(request.precision, on_cuda=has_cuda and device != "cpu")
    on_cpu = device == "cpu" or (device == "auto" and not may_have_cuda())
    if request.precision == "bf16" and on_cpu and settings.redis.is_local:
        await check_bf16_here(architecture(request.model_family), settings)


def _find_parent(request: TrainRequest, settings: Settings) -> NamedModel | None:
    """Return the model whose weights a warm start takes; raises RUN_NOT_FOUND, RUN_NOT_READY or DATA_NOT_FOUND."""
    if request.init_from_run_id is None:
        return None
    try:
        parent = named_model(RunStore(settings.app.artifacts_root), request.init_from_run_id)
    except AppError as error:
        what = "checkpoint" if "@" in request.init_from_run_id else "completed run"
        message = f"names no {what}. {error.message}"
        raise field_error(error.code, "init_from_run_id", message) from None
    if not parent.is_permanent:
        message = f"is '{parent.name}', which a cleanup removes: name a checkpoint that a `checkpoint_schedule` keeps."
        raise field_error(ErrorCode.DATA_NOT_FOUND, "init_from_run_id", message)
    return parent


def _tokenizer_folder(request: TrainRequest, settings: Settings) -> Path | None:
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


def _check_corpus(request: TrainRequest, path: Path, name: str, stored_tokenizer: Path | None) -> None:
    """Refuse a corpus with too few files, or one whose characters a stored tokenizer hardly knows."""
    files, needed = len(text_files(path)), count_splits(request)
    if request.split_by == "file" and files < needed:
        raise field_error(
            ErrorCode.CORPUS_EMPTY,
            "split_by",
            f"is 'file', which needs a folder of at least {needed} texts, one for each split; '{name}' has {files}.",
        )
    if stored_tokenizer is not None:
        unknown = unknown_share(stored_tokenizer, sample_lines(path, _SAMPLED_LINES, request.seed))
        if unknown > _MAX_UNKNOWN_SHARE:
            raise AppError(
                ErrorCode.MODEL_INCOMPATIBLE,
                f"The tokenizer does not know {unknown:.0%} of the characters of '{name}': train one on texts like it,"
                " or start from a run in the same script.",
            )


def count_splits(request: TrainRequest) -> int:
    """Return the number of splits that are cut from the corpus; each needs at least one line."""
    cut_test = request.test_corpus is None and request.test_fraction > 0
    return 1 + (request.validation_corpus is None) + cut_test


async def check_bf16_here(architecture: Architecture, settings: Settings) -> None:
    """Raise INVALID_INPUT if this machine's CPU cannot train an architecture in bf16.

    The first call runs a trial in a new process, which takes some seconds, and stores the result. The worker decides if
    the trial itself fails, and where torch is not installed, as in the bot's container.
    """
    trial = await asyncio.to_thread(_trial, architecture, settings)
    if trial is not None:
        check_bf16(trial)


def _trial(architecture: Architecture, settings: Settings) -> Bf16Trial | None:
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
