"""Resolves training requests: checks them with everything they name, and fills their absent values."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import structlog
from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.checkpoints import NamedModel, named_model
from trainer.artifacts.run_ids import check_label
from trainer.artifacts.runs import Origin, RunDirectory, RunStore
from trainer.artifacts.tokenizer_files import read_manifest, unknown_share
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.defaults import PACE_SIZES, Pace
from trainer.config.presets import (
    Bf16Trial,
    Filled,
    Resolved,
    architecture,
    check_bf16,
    check_parts,
    check_precision,
    has_free_size,
    request_hash,
    resolve_with_reasons,
    tokenizer_of,
    with_parent,
    with_recorded,
    with_split,
    with_tokenizer,
)
from trainer.config.settings import Settings
from trainer.config.train_request import CORPORA, with_stored_tokenizer
from trainer.contracts.base import changed, run_of
from trainer.contracts.cost import Cost
from trainer.contracts.errors import AppError, ErrorCode, at_field, field_error
from trainer.contracts.http_answers import CheckedTraining
from trainer.contracts.models import Architecture
from trainer.contracts.runs import CorpusRef, EffectiveRequest, Leaks, RunRecord, Setting, TrainRequest
from trainer.contracts.training_options import ChosenValue
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore, note_on_name, sample_lines, training_characters
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
_MAX_LEAK_BYTES = 8 << 20
"""Text in which leaks are measured before a run is queued, within a second."""


class TrainingPreview(NamedTuple):
    """A checked training request with its estimated cost; nothing has been stored or enqueued yet."""

    request: TrainRequest
    effective: EffectiveRequest
    cost: Cost
    leaks: Leaks
    """Leaks between the splits; empty for a long corpus, which the worker measures."""
    notes: tuple[str, ...]
    """What the program has chosen or left out; of the lines of a long corpus, only the worker knows."""
    corpora: CorpusStore
    """Its corpora, some of which may have been offered for this request only."""
    requested_paths: tuple[str, ...] | None
    unused_settings: Mapping[str, Setting]
    seeds: tuple[int, ...]
    """The seeds of the runs to start; `request` and `effective` are those of the first."""
    chosen: tuple[ChosenValue, ...]
    """The values that rules have chosen, those of the parent of a warm start first."""

    def is_of(self, record: RunRecord) -> bool:
        """Return True if a run has this request; a measurement for its `minutes` may choose other values each time."""
        effective = self.effective
        if effective.minutes is not None and record.effective.minutes == effective.minutes:
            effective = with_recorded(Resolved(effective, self.chosen), record.effective)
        return request_hash(effective) == record.request_hash

    def cost_lines(self) -> list[str]:
        """Return the cost of the run, or of all runs of the group, as sentences."""
        return self.cost.lines(len(self.seeds))

    def checked(self) -> CheckedTraining:
        """Return what the preview says of the training, for a person or a client."""
        request: dict[str, JsonValue] = self.request.model_dump(mode="json", exclude_unset=True)
        return CheckedTraining(
            request=request,
            effective=self.effective,
            seeds=self.seeds,
            chosen=self.chosen,
            cost=tuple(self.cost_lines()),
            warnings=self.effective.leak_warnings(self.leaks),
            notes=self.notes,
        )


class _Resolved(NamedTuple):
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


async def preview_training(
    request: TrainRequest,
    corpora: CorpusStore,
    settings: Settings,
    *,
    requested_paths: tuple[str, ...] | None = None,
    unused_settings: Mapping[str, Setting] = MappingProxyType({}),
) -> TrainingPreview:
    """Check a training request and estimate its cost; changes nothing.

    `requested_paths` and `unused_settings` are what the experiment file says besides the request; both are recorded.
    Raises AppError, also if the training would not fit into this machine's memory or onto its disk.
    """
    check_label(request.label)
    request, named = _with_full_names(request, corpora)
    seeds = request.all_seeds
    request = request if request.seeds is None else request.with_seed(seeds[0])
    request = with_labelled_tokenizer(request, requested_paths, settings)
    found = await _resolve_all(request, corpora, settings, measures_pace=True)
    effective, paths = found.effective, found.paths
    cost = await asyncio.to_thread(
        preview_cost, effective, found.measured, found.sample, settings, n_runs=len(seeds), pace=found.pace
    )
    splits: _PreviewedSplits = await asyncio.to_thread(_preview_splits, effective, paths, corpora, settings)
    return TrainingPreview(
        request=request,
        effective=effective,
        cost=cost,
        leaks=splits.leaks,
        notes=(*named, *found.notes, *splits.notes, *_notes_on_length(effective, cost)),
        corpora=corpora,
        requested_paths=requested_paths,
        unused_settings=unused_settings,
        seeds=seeds,
        chosen=found.chosen,
    )


def _with_full_names(request: TrainRequest, corpora: CorpusStore) -> tuple[TrainRequest, tuple[str, ...]]:
    """Return the request with complete names of its corpora, and notes on those that were given by their beginning."""
    notes: list[str] = []
    for field in CORPORA:
        given: str | None = getattr(request, field)
        name = None if given is None else corpora.full_name(given, field)
        if given is not None and name is not None and given != name:
            request = changed(request, **{field: name})
            notes += note_on_name(given, name)
    return request, tuple(notes)


async def resolve_request(request: TrainRequest, corpora: CorpusStore, settings: Settings) -> EffectiveRequest:
    """Check a training request and everything it names, and fill its absent values; changes nothing.

    Raises AppError.
    """
    return (await _resolve_all(request, corpora, settings)).effective


async def resolve_again(record: RunRecord, corpora: CorpusStore, settings: Settings) -> EffectiveRequest:
    """Resolve the request of a run as `resolve_request` does, with the values that rules chose for the run."""
    again = await _resolve_all(record.request, corpora, settings)
    return with_recorded(Resolved(again.effective, again.chosen), record.effective)


async def _resolve_all(
    request: TrainRequest, corpora: CorpusStore, settings: Settings, *, measures_pace: bool = False
) -> _Resolved:
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
    return _Resolved(effective, (*taken, *by_text, *by_rule), paths, sample, measured, pace, notes)


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


def with_labelled_tokenizer(
    request: TrainRequest, requested_paths: tuple[str, ...] | None, settings: Settings
) -> TrainRequest:
    """Return the request with the stored tokenizer whose label is the tokenizer folder of the experiment file.

    Without such a tokenizer the run trains its own from its training split. Raises MODEL_INCOMPATIBLE if the stored
    tokenizer differs from the request's tokenizer block, and CONFLICT while it is being trained.
    """
    if request.tokenizer is None or requested_paths is None:
        return request
    tokenizer = TokenizerStore(settings.app.artifacts_root).labelled(requested_paths[0])
    if tokenizer is None:
        return request
    return with_stored_tokenizer(request, requested_paths[0], tokenizer.completed_manifest())


async def resolve_origin(run: RunDirectory, corpora: CorpusStore, settings: Settings) -> Origin:
    """Check that a run can be resumed, and that its request still resolves to the same training; raises AppError."""
    manifest = run.manifest()
    if manifest is None:
        raise AppError(ErrorCode.RUN_NOT_READY, f"The run '{run.run_id}' has not ended: it continues by itself.")
    if manifest.status == "completed":
        raise AppError(
            ErrorCode.RUN_FINISHED,
            f"The run '{run.run_id}' is completed: to continue from its weights, start another run"
            " that takes its initial weights from it.",
        )
    state = await asyncio.to_thread(newest_whole, run.checkpoints)
    if state is None:
        raise AppError(
            ErrorCode.CONFLICT,
            f"The run '{run.run_id}' has no complete checkpoint to resume from: start a new training.",
        )
    await _check_same(run.record(), corpora, settings)
    return Origin(run, state)


def with_epochs(record: RunRecord, origin: Origin, epochs: int | None) -> RunRecord:
    """Return the record of a resumed run with a number of epochs, by default its own.

    Raises INVALID_INPUT if the run has trained on more epochs.
    """
    state, request, effective = origin.state, record.request, record.effective
    if epochs is not None:
        if effective.minutes is not None:
            message = f"cannot be given: the run trains for its {effective.minutes:g} `minutes`. Leave it out."
            raise field_error(ErrorCode.INVALID_INPUT, "num_epochs", message)
        started = len(state.epochs) + (state.position > 0)
        if epochs < started:
            message = f"must be {started} or more, you gave {epochs}: the run has come to epoch {started}."
            raise field_error(ErrorCode.INVALID_INPUT, "num_epochs", message)
        request, effective = changed(request, num_epochs=epochs), changed(effective, num_epochs=epochs)
    own_hash = request_hash(effective)
    is_other = state.request_hash != own_hash
    is_known = state.request_hash in (record.request_hash, record.checkpoint_request_hash)
    return changed(
        record,
        request=request,
        effective=effective,
        request_hash=own_hash,
        checkpoint_request_hash=state.request_hash if is_other and is_known else None,
    )


async def _check_same(record: RunRecord, corpora: CorpusStore, settings: Settings) -> None:
    """Refuse to resume a run whose request resolves to different settings today; its checkpoint would not fit."""
    try:
        again = await resolve_again(record, corpora, settings)
    except AppError as error:
        raise AppError(error.code, f"The run '{record.run_id}' cannot be resumed. {error.message}") from None
    if request_hash(again) == record.request_hash:
        return
    old = record.effective
    texts = (again.corpus, again.validation_corpus, again.test_corpus)
    has_changed = texts != (old.corpus, old.validation_corpus, old.test_corpus)
    what = "its corpus has changed since" if has_changed else "its request resolves to different settings today"
    raise AppError(ErrorCode.CONFLICT, f"The run '{record.run_id}' cannot be resumed: {what}. Start a new training.")


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


def _notes_on_length(effective: EffectiveRequest, cost: Cost) -> tuple[str, ...]:
    """Return a note if the epochs end a training before its steps."""
    steps = effective.max_steps or 0
    if effective.counts_steps or cost.steps >= steps:
        return ()
    epochs = counted(effective.num_epochs, "epoch")
    return (
        f"The training ends after its {epochs}, which are about {counted(cost.steps, 'step')}, before `max_steps` of"
        f" {steps:,}: without `num_epochs` it has so many steps.",
    )


class _PreviewedSplits(NamedTuple):
    leaks: Leaks
    notes: tuple[str, ...]


def _preview_splits(
    effective: EffectiveRequest, paths: Mapping[str, Path], corpora: CorpusStore, settings: Settings
) -> _PreviewedSplits:
    """Split a short text, and return the leaks between its splits and notes; the worker splits a long one."""
    ancestors = [*RunStore(settings.app.artifacts_root).ancestors(effective)]
    requests = [effective, *(request for _, request in ancestors if request is not None)]
    if sum(corpus.bytes for request in requests for corpus in request.corpora) > _MAX_LEAK_BYTES:
        return _PreviewedSplits({}, ())
    from trainer.data.corpus import SplitCorpus, SplitRule  # numpy: not at the start of the bot
    from trainer.data.leaks import measure_leaks
    from trainer.data.run_corpora import read_text

    split = SplitCorpus(
        paths["corpus"],
        effective.tokenizer.normalization,
        SplitRule(effective.holdout_fraction, effective.test_fraction, effective.split_seed, effective.split_by),
        documents=effective.documents,
        validation=paths.get("validation_corpus"),
        test=paths.get("test_corpus"),
    )
    leaks = measure_leaks(split, effective.documents, effective.split_seed, read_text(corpora, ancestors))
    lines = Counter(name for name, block in split.blocks([*leaks]) for _ in block.split("\n"))
    counted_leaks = {name: changed(leak, n_lines=lines[name]) for name, leak in leaks.items()}
    return _PreviewedSplits(counted_leaks, split.notes)


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
