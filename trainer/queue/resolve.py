"""Previews training requests: gathers their facts, resolves them, and estimates their cost."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from pydantic import JsonValue

from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.run_ids import Named, check_label
from trainer.artifacts.runs import Origin, RunDirectory, RunStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.presets import (
    Resolved,
    check_checkpoint,
    is_same_request,
    recorded_hash,
    request_hash,
    with_recorded,
)
from trainer.config.settings import Settings
from trainer.config.train_request import CORPORA, with_stored_tokenizer
from trainer.contracts.base import changed
from trainer.contracts.cost import Cost
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.http_answers import CheckedTraining
from trainer.contracts.runs import EffectiveRequest, Leaks, RunRecord, Setting, TrainRequest
from trainer.contracts.training_options import ChosenValue, Pace
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore, note_on_name
from trainer.queue.cost import preview_cost
from trainer.queue.resolution import gather, resolve
from trainer.reports.leak_notes import leak_warnings

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
    pace: Pace | None = None
    """What a worker has measured for a training that has `minutes`; else its size is that for its text so far."""
    vocab_size: int | None = None
    """The expected size of the vocabulary."""

    def is_of(self, record: RunRecord) -> bool:
        """Return True if a run has this request; with `minutes`, its worker may have chosen other values."""
        if self.effective.test != record.effective.test:  # which changes no number, but what is shown
            return False
        if self.request.minutes is None:
            return request_hash(self.effective) == record.request_hash
        has_same_texts = self.effective.hashes_by_field() == record.effective.hashes_by_field()
        return has_same_texts and is_same_request(self.request, record.request)

    def checked(self) -> CheckedTraining:
        """Return what the preview says of the training, for a person or a client."""
        request: dict[str, JsonValue] = self.request.model_dump(mode="json", exclude_unset=True)
        return CheckedTraining(
            request=request,
            effective=self.effective,
            seeds=self.seeds,
            chosen=self.chosen,
            cost=tuple(self.cost.lines(len(self.seeds))),
            warnings=leak_warnings(self.effective, self.leaks),
            notes=self.notes,
        )


async def preview_training(
    request: TrainRequest,
    corpora: CorpusStore,
    settings: Settings,
    *,
    named: Iterable[Named] = (),
    requested_paths: tuple[str, ...] | None = None,
    unused_settings: Mapping[str, Setting] = MappingProxyType({}),
    pace: Pace | None = None,
) -> TrainingPreview:
    """Check a training request and estimate its cost; changes nothing.

    `named` are the runs that the caller may name, for a note on a label that is taken.
    `requested_paths` and `unused_settings` are what the experiment file says besides the request; both are recorded.
    `pace` is what a worker has measured for a request that has `minutes`.
    Raises AppError, also if the training would not fit into this machine's memory or onto its disk.
    """
    check_label(request.label)
    request, notes_on_names = _with_full_names(request, corpora)
    seeds = request.all_seeds
    request = request if request.seeds is None else request.with_seed(seeds[0])
    request = with_labelled_tokenizer(request, requested_paths, settings)
    facts = await gather(request, corpora, settings)
    facts = facts._replace(pace=pace)
    found = await asyncio.to_thread(resolve, request, facts)
    effective = found.effective
    cost = await asyncio.to_thread(preview_cost, effective, found.measured, facts.sample, settings, n_runs=len(seeds))
    splits: tuple[Leaks, tuple[str, ...]] = await asyncio.to_thread(_preview_splits, effective, corpora, settings)
    leaks, notes_on_splits = splits
    return TrainingPreview(
        request=request,
        effective=effective,
        cost=cost,
        leaks=leaks,
        notes=(
            *notes_on_names,
            *_notes_on_label(request, named),
            *found.notes,
            *notes_on_splits,
            *_notes_on_length(effective, cost),
        ),
        corpora=corpora,
        requested_paths=requested_paths,
        unused_settings=unused_settings,
        seeds=seeds,
        chosen=found.chosen,
        pace=pace,
        vocab_size=found.measured.vocabulary.size,
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


def _notes_on_label(request: TrainRequest, named: Iterable[Named]) -> tuple[str, ...]:
    """Return a note on a label that another run has; that of a request which resumes is that of its run."""
    label = request.label
    if label is None or request.resume or all(run.label != label for run in named):
        return ()
    return (f"Another run is called '{label}' as well, so commands will ask for an id in place of this name.",)


async def resolve_request(request: TrainRequest, corpora: CorpusStore, settings: Settings) -> EffectiveRequest:
    """Check a training request and everything it names, and fill its absent values; changes nothing.

    Raises AppError.
    """
    facts = await gather(request, corpora, settings)
    return (await asyncio.to_thread(resolve, request, facts)).effective


async def resolve_again(record: RunRecord, corpora: CorpusStore, settings: Settings) -> EffectiveRequest:
    """Resolve the request of a run as `resolve_request` does, with the values that rules chose for the run.

    A lock of its test split that is newer than the run is not one of its values.
    """
    facts = (await gather(record.request, corpora, settings))._replace(locked_texts=frozenset(), locks_all=False)
    again = await asyncio.to_thread(resolve, record.request, facts)
    return with_recorded(Resolved(again.effective, again.chosen), record)


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
        raise AppError(ErrorCode.RUN_NOT_READY, f"The run {run.quoted} has not ended: it continues by itself.")
    if manifest.status == "completed":
        raise AppError(
            ErrorCode.RUN_FINISHED,
            f"The run {run.quoted} is completed: to continue from its weights, start another run"
            " that takes its initial weights from it.",
        )
    state = await asyncio.to_thread(newest_whole, run.checkpoints)
    if state is None:
        raise AppError(
            ErrorCode.CONFLICT,
            f"The run {run.quoted} has no complete checkpoint to resume from: start a new training.",
        )
    check_checkpoint(record := run.record(), state.request_hash)
    await _check_same(record, corpora, settings)
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
    is_known = state.request_hash in (recorded_hash(record), record.checkpoint_request_hash)
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
    if request_hash(again) == recorded_hash(record):
        return
    has_changed = again.hashes_by_field() != record.effective.hashes_by_field()
    what = "its corpus has changed since" if has_changed else "its request resolves to different settings today"
    raise AppError(ErrorCode.CONFLICT, f"The run '{record.run_id}' cannot be resumed: {what}. Start a new training.")


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


def _preview_splits(
    effective: EffectiveRequest, corpora: CorpusStore, settings: Settings
) -> tuple[Leaks, tuple[str, ...]]:
    """Split a short text, and return the leaks between its splits and notes; the worker splits a long one."""
    ancestors = [*RunStore(settings.app.artifacts_root).ancestors(effective)]
    requests = [effective, *(request for _, request in ancestors if request is not None)]
    if sum(corpus.bytes for request in requests for corpus in request.corpora) > _MAX_LEAK_BYTES:
        return {}, ()
    from trainer.data.leaks import measure_leaks  # numpy: not at the start of the bot
    from trainer.data.run_corpora import corpus_paths, read_text, split_paths

    split = split_paths(effective, corpus_paths(corpora, effective))
    leaks = measure_leaks(split, effective.documents, effective.split_seed, read_text(corpora, ancestors))
    lines = Counter(name for name, block in split.blocks([*leaks]) for _ in block.split("\n"))
    counted_leaks = {name: changed(leak, n_lines=lines[name]) for name, leak in leaks.items()}
    return counted_leaks, split.notes
