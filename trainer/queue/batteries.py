"""Batteries: checks a request with its runs, and reads its items."""

import asyncio
import re
from collections.abc import Sequence
from hashlib import sha256

from trainer.artifacts.batteries import items_content
from trainer.artifacts.checkpoint_files import (
    STATE,
    TrainingState,
    checkpoint_steps,
    scheduled_folder,
)
from trainer.artifacts.checkpoints import checkpoint_folder, named_model, run_model
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.batteries.reading import Battery, battery_of, with_distinct_names
from trainer.batteries.sources import find_battery
from trainer.config.settings import Settings
from trainer.contracts.base import HttpOrigin, changed, model_name, now, run_of
from trainer.contracts.batteries import (
    BatteryFile,
    BatteryItem,
    BatteryOptions,
    BatteryRecord,
    BatteryRequest,
    DevelopmentOptions,
)
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunModel
from trainer.contracts.sequences import SequenceParts, SequencesRequest
from trainer.data.rows import TextFile
from trainer.queue.inference_kinds import kind_of
from trainer.queue.stores import Stores
from trainer.system.files import read_record

_SLUG_CHARACTERS = 40

Items = tuple[BatteryItem, ...]


async def resolve_battery(
    request: BatteryRequest,
    stores: Stores,
    settings: Settings,
    *,
    user_id: int | None = None,
    http: HttpOrigin | None = None,
) -> tuple[BatteryRecord, Items]:
    """Check a request with its runs, and read its items; raises AppError, having changed nothing."""
    fields: dict[str, object] = request.model_dump(include=set(BatteryOptions.model_fields))
    options = BatteryOptions.model_validate(fields)

    def read() -> tuple[BatteryRecord, Items]:
        return new_job(options, request.runs, _read(request, settings), stores)

    job: tuple[BatteryRecord, Items] = await asyncio.to_thread(read)
    record, items = job
    return changed(record, user_id=user_id, http=http), items


def _read(request: BatteryRequest, settings: Settings) -> list[Battery]:
    batteries = [find_battery(name, request, settings) for name in request.batteries]
    by_battery: dict[str | int, list[BatteryFile]] = {}
    for number, file in enumerate(request.files):
        by_battery.setdefault(file.battery or number, []).append(file)  # a file that names no battery is one
    for files in by_battery.values():
        name = files[0].battery or files[0].name.rpartition(".")[0] or files[0].name
        texts = [TextFile(file.name, file.content.encode()) for file in files]
        batteries.append(battery_of(name, texts, request))
    return batteries


def new_job(
    options: BatteryOptions, models: Sequence[str], batteries: Sequence[Battery], stores: Stores
) -> tuple[BatteryRecord, Items]:
    """Return the record of a job with its items; a model is a run or a checkpoint.

    Raises the errors of `named_model`, MODEL_INCOMPATIBLE for options that a model does not support, and those of
    `_check_development`.
    """
    named = with_distinct_names(batteries)
    items = tuple(item for battery in named for item in battery.items)
    developed = None
    if options.development is None:
        scoring = tuple(_run(name, options, stores.runs) for name in models)
    else:
        developed = _check_development(options.development, models, stores)
        scoring = tuple(kept_models(developed, options, stores.runs))
    items_sha256 = sha256(items_content(items)).hexdigest()
    infos = tuple(battery.info for battery in named)
    identity = [
        options.model_dump_json(exclude=options.unset_counts),
        *(info.model_dump_json() for info in infos),
        items_sha256,
    ]
    identity += [f"{run.name} {run.weights_sha256}" for run in scoring] if developed is None else [developed]
    content_hash = sha256("\n".join(identity).encode()).hexdigest()
    name = "development" if developed is not None else infos[0].name
    slug = re.sub("[^a-z0-9_-]", "-", name.lower())[:_SLUG_CHARACTERS].strip("-_")
    record = BatteryRecord(
        battery_id=f"{slug or 'battery'}-{content_hash[:8]}",
        created_at=now(),
        options=options,
        development_of=developed,
        runs=scoring,
        batteries=infos,
        items_sha256=items_sha256,
        request_hash=content_hash,
    )
    return record, items


def kept_models(run_id: str, options: BatteryOptions, runs: RunStore, known: Sequence[RunModel] = ()) -> list[RunModel]:
    """Return the checkpoints that the schedule of a run has kept so far, in ascending order of their steps.

    `known`: those of an earlier call, which are not read again.
    """
    run, by_step = runs.get(run_id), {one.checkpoint: one for one in known}
    steps = checkpoint_steps(scheduled_folder(run.checkpoints))
    return [by_step.get(step) or _kept_model(run, step, options, runs) for step in steps]


def _kept_model(run: RunDirectory, step: int, options: BatteryOptions, runs: RunStore) -> RunModel:
    state = read_record(checkpoint_folder(run, step) / STATE, TrainingState)
    kept = _run(model_name(run.run_id, step), options, runs)
    return changed(kept, epoch=len(state.epochs), words=state.seen.words, tokens=state.seen.tokens)


def _check_development(options: DevelopmentOptions, models: Sequence[str], stores: Stores) -> str:
    """Return the run whose development is asked for.

    Raises RUN_NOT_FOUND, DATA_NOT_FOUND for a run without kept checkpoints, INVALID_INPUT for several runs, a
    checkpoint, an n-gram model, or a split that the run has not, and TEST_LOCKED for a test split that is locked.
    """
    if len(models) != 1 or run_of(models[0]) != models[0]:
        message = "A development is that of one run over its checkpoints: give the id of one run."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    run = stores.runs.get(models[0])
    effective = run.record().effective
    if effective.model_family == "ngram":
        message = f"The run '{run.run_id}' is an n-gram model, which is counted at once: it has no development."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    own, share = (
        (effective.test_corpus, effective.test_fraction)
        if options.split == "test"
        else (effective.validation_corpus, effective.holdout_fraction)
    )
    if own is None and share == 0 and options.reads_split:
        raise AppError(ErrorCode.INVALID_INPUT, f"The run '{run.run_id}' has no {options.split} split.")
    if options.split == "test" and options.reads_split:
        stores.looks.check(effective, run.run_id)
    will_keep = options.follows and run.is_unfinished() and effective.checkpoint_schedule is not None
    if not will_keep and not checkpoint_steps(scheduled_folder(run.checkpoints)):
        message = f"The run '{run.run_id}' has kept no checkpoints: set `checkpoint_schedule` for its training."
        raise AppError(ErrorCode.DATA_NOT_FOUND, message)
    return run.run_id


def _run(name: str, options: BatteryOptions, runs: RunStore) -> RunModel:
    probe = SequencesRequest(
        sequences=(SequenceParts(parts=("a",)),),
        pll_within_word=options.pll_within_word,
        has_end=options.measure == "end",
    )
    kind_of(probe).supports(probe, named_model(runs, name).effective.objective)
    return run_model(name, runs)
