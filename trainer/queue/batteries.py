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
from trainer.batteries.sources import find_battery, must_fetch
from trainer.config.settings import Settings
from trainer.contracts.base import HttpOrigin, changed, job_owner, model_name, now, run_of
from trainer.contracts.batteries import (
    BatteryFile,
    BatteryInfo,
    BatteryItem,
    BatteryOptions,
    BatteryRecord,
    BatteryRequest,
    DevelopmentOptions,
)
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunModel
from trainer.contracts.sequences import SequenceParts, SequencesRequest
from trainer.data.line_keys import lines_of_text
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
    """Check a request with its runs, and read its items; raises AppError, having accepted nothing.

    Known data sets that are not stored on this machine are left to the worker.
    """
    fields: dict[str, object] = request.model_dump(include=set(BatteryOptions.model_fields))
    options = BatteryOptions.model_validate(fields)

    def read() -> tuple[BatteryRecord, Items]:
        to_fetch = tuple(name for name in request.batteries if must_fetch(name, settings))
        by = job_owner(user_id, http)
        return new_job(options, request.runs, _read(request, to_fetch, settings), stores, to_fetch, by=by)

    job: tuple[BatteryRecord, Items] = await asyncio.to_thread(read)
    record, items = job
    return changed(record, user_id=user_id, http=http), items


def _read(request: BatteryRequest, to_fetch: Sequence[str], settings: Settings) -> list[Battery]:
    batteries = [find_battery(name, request, settings) for name in request.batteries if name not in to_fetch]
    by_battery: dict[str | int, list[BatteryFile]] = {}
    for number, file in enumerate(request.files):
        by_battery.setdefault(file.battery or number, []).append(file)  # a file that names no battery is one
    for files in by_battery.values():
        name = files[0].battery or files[0].name.rpartition(".")[0] or files[0].name
        texts = [TextFile(file.name, file.content.encode()) for file in files]
        batteries.append(battery_of(name, texts, request))
    return batteries


def new_job(
    options: BatteryOptions,
    models: Sequence[str],
    batteries: Sequence[Battery],
    stores: Stores,
    to_fetch: Sequence[str] = (),
    *,
    by: int | str | None = None,
) -> tuple[BatteryRecord, Items]:
    """Return the record of a job with its items; a model is a run or a checkpoint.

    `to_fetch` are the names of batteries that the worker reads. Counts the look by its owner `by` at test texts whose
    lines are items. Raises the errors of `named_model`, MODEL_INCOMPATIBLE for options that a model does not support,
    those of `_check_development`, and TEST_LOCKED for items that are lines of a locked test split.
    """
    named = with_distinct_names(batteries)
    developed = None
    if options.development is None:
        scoring = tuple(_run(name, options, stores.runs) for name in models)
    else:
        developed = _check_development(options.development, models, stores)
        scoring = tuple(kept_models(developed, options, stores.runs))
    tested = [f"{run.name} {run.weights_sha256}" for run in scoring] if developed is None else [developed]
    items = tuple(item for battery in named for item in battery.items)
    if items:
        measured = [(name, stores.runs.get(run_of(name)).record().effective) for name in models]
        text = lines_of_text("\n".join(sequence.text for item in items for sequence in item.sequences))
        stores.looks.read_text(measured, text, "evaluation", by)
    items_sha256 = sha256(items_content(items)).hexdigest()
    infos = [battery.info for battery in named]
    request_hash = _hash(options, tested, infos, items_sha256)
    record = BatteryRecord(
        battery_id=_job_id(developed, [info.name for info in infos], request_hash),
        created_at=now(),
        options=options,
        development_of=developed,
        runs=scoring,
        batteries=tuple(infos),
        to_fetch=tuple(to_fetch),
        items_sha256=items_sha256,
        request_hash=request_hash,
    )
    own = [battery for battery in named if battery.info.source is None]
    if to_fetch or len(own) < len(named):
        return _named_job(record, own, tested, items, stores)
    return record, items


def _named_job(
    record: BatteryRecord, own: Sequence[Battery], tested: Sequence[str], items: Items, stores: Stores
) -> tuple[BatteryRecord, Items]:
    """Return a job with known data sets, which continues one that has begun before they were fetched.

    The id of a job with data sets to fetch is made of their names, as their items are not known.
    """
    own_infos = [battery.info for battery in own]
    own_sha256 = sha256(items_content(item for battery in own for item in battery.items)).hexdigest()
    names = sorted({info.name for info in record.batteries if info.source is not None} | {*record.to_fetch})
    by_names = _hash(record.options, tested, own_infos, own_sha256, names)
    job_id = _job_id(record.development_of, [*(info.name for info in own_infos), *names], by_names)
    earlier = stores.batteries.find(job_id)
    if earlier is not None:
        known = earlier.record()
        if record.to_fetch or known.to_fetch or _hashes(known.batteries) == _hashes(record.batteries):
            found: dict[str, object] = {"to_fetch": known.to_fetch, "items_sha256": known.items_sha256}
            record = changed(record, battery_id=job_id, request_hash=by_names, batteries=known.batteries, **found)
            return record, tuple(earlier.items())
    return (changed(record, battery_id=job_id, request_hash=by_names) if record.to_fetch else record), items


def _job_id(developed: str | None, names: Sequence[str], request_hash: str) -> str:
    name = "development" if developed is not None else names[0] if names else ""
    slug = re.sub("[^a-z0-9_-]", "-", name.lower())[:_SLUG_CHARACTERS].strip("-_")
    return f"{slug or 'battery'}-{request_hash[:8]}"


def _hash(
    options: BatteryOptions,
    tested: Sequence[str],
    infos: Sequence[BatteryInfo],
    items_sha256: str,
    names: Sequence[str] = (),
) -> str:
    """Return the hash of a request; `names` stand for data sets without their items."""
    identity = [
        options.model_dump_json(exclude=options.unset_counts),
        *(info.model_dump_json() for info in infos),
        items_sha256,
        *tested,
        *names,
    ]
    return sha256("\n".join(identity).encode()).hexdigest()


def _hashes(infos: Sequence[BatteryInfo]) -> list[str]:
    return sorted(info.sha256 for info in infos)


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
        message = f"The run {run.quoted} is an n-gram model, which is counted at once: it has no development."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    own, share = (
        (effective.test_corpus, effective.test_fraction)
        if options.split == "test"
        else (effective.validation_corpus, effective.holdout_fraction)
    )
    if own is None and share == 0 and options.reads_split:
        raise AppError(ErrorCode.INVALID_INPUT, f"The run {run.quoted} has no {options.split} split.")
    if options.split == "test" and options.reads_split:
        stores.looks.check(effective, run.run_id)
    will_keep = options.follows and run.is_unfinished() and effective.checkpoint_schedule is not None
    if not will_keep and not checkpoint_steps(scheduled_folder(run.checkpoints)):
        message = f"The run {run.quoted} has kept no checkpoints: set `checkpoint_schedule` for its training."
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
