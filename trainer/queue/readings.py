"""Reading times: checks a request with its models, and reads its table."""

import asyncio
import re
from hashlib import sha256

from trainer.artifacts.checkpoint_files import checkpoint_steps, scheduled_folder
from trainer.artifacts.checkpoints import named_model, run_model
from trainer.artifacts.runs import RunStore
from trainer.config.validation import parse
from trainer.contracts.base import HttpOrigin, changed, job_owner, model_name, now, run_of
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.readings import PREDICTORS, ReadingFile, ReadingOptions, ReadingRecord, ReadingRequest
from trainer.contracts.reports import note
from trainer.contracts.sequences import SequenceParts, SequencesRequest
from trainer.data.line_keys import lines_of_text
from trainer.data.rows import TextFile
from trainer.data.run_corpora import references_of, split_corpus
from trainer.queue.inference_kinds import kind_of
from trainer.queue.stores import Stores
from trainer.reading.scoring import no_counts
from trainer.reading.tables import Times, check_measures, check_number_of_texts, read_times, written_times

_SLUG_CHARACTERS = 40


async def resolve_reading(
    request: ReadingRequest, stores: Stores, *, user_id: int | None = None, http: HttpOrigin | None = None
) -> tuple[ReadingRecord, bytes]:
    """Check a request with its runs, and read its table; raises AppError, having accepted nothing.

    Counts the look at test texts whose lines are texts of the table; raises TEST_LOCKED if they are locked. Also
    returns the table with the known names of its columns.
    """

    def resolve() -> tuple[ReadingRecord, bytes]:
        fields: dict[str, object] = request.model_dump(include=set(ReadingOptions.model_fields))
        options = parse(ReadingOptions, fields)
        times = read_times(_text_file(request.file), options, options.separator)
        check_measures(times, options.measures)
        check_number_of_texts(len({text.item for text in times.texts}))
        if options.analysis == "mixed" and not times.persons:
            raise field_error(
                ErrorCode.INVALID_INPUT, "analysis", "must be 'means': the table has no column of persons."
            )
        _check_rows(options, times)
        return _record(request, options, times, stores, user_id, http), written_times(times)

    found: tuple[ReadingRecord, bytes] = await asyncio.to_thread(resolve)
    return found


def kept_names(runs: RunStore, run_id: str) -> list[str]:
    """Return the names of the checkpoints that a completed run has kept before its end, by their steps."""
    run = runs.get(run_id)
    last = run.completed_manifest().steps
    return [model_name(run_id, step) for step in checkpoint_steps(scheduled_folder(run.checkpoints)) if step < last]


def _check_rows(options: ReadingOptions, times: Times) -> None:
    """Raise INVALID_INPUT for a measure of which no row is left, or rows of too few texts, whatever the scores are."""
    from trainer.reading.analysis import MeasureAnalysis  # numpy: not at the start of the bot

    scores = {name: [0.0] * len(times.units) for name in PREDICTORS}
    for measure in options.measures or times.data.measures:
        analysis = MeasureAnalysis(times, measure, options)
        analysis.folds(analysis.observations(scores))


def _text_file(file: ReadingFile) -> TextFile:
    return TextFile(file.name, file.content.encode())


def _record(
    request: ReadingRequest,
    options: ReadingOptions,
    times: Times,
    stores: Stores,
    user_id: int | None,
    http: HttpOrigin | None,
) -> ReadingRecord:
    given = tuple([note("{text}", text=text) for text in request.file.notes])
    data = changed(times.data, notes=given or times.data.notes)
    probe = SequencesRequest(sequences=(SequenceParts(parts=("a",)),), tokenizations=options.tokenizations)
    read = set[object]()
    for name in request.runs:
        kind_of(probe).supports(probe, named_model(stores.runs, name).effective.objective)
    for name in request.runs if options.frequencies is None else [options.frequencies]:
        effective = named_model(stores.runs, name).effective
        if (error := no_counts(options.baseline, run_of(name))) and (text := references_of(effective)) not in read:
            try:
                split_corpus(stores.corpora, effective)
            except AppError:
                raise error from None
            read.add(text)
    measured = [(name, named_model(stores.runs, name).effective) for name in request.runs]
    lines = lines_of_text("\n".join(text.running for text in times.texts))
    stores.looks.read_text(measured, lines, "evaluation", job_owner(user_id, http))
    models = tuple(run_model(name, stores.runs) for name in request.runs)
    identity = [
        options.model_dump_json(exclude=options.unset),
        times.data.sha256,
        *(f"{one.name} {one.weights_sha256}" for one in models),
    ]
    content_hash = sha256("\n".join(identity).encode()).hexdigest()
    slug = re.sub("[^a-z0-9_-]", "-", times.data.name.lower())[:_SLUG_CHARACTERS].strip("-_")
    return ReadingRecord(
        reading_id=f"{slug or 'reading'}-{content_hash[:8]}",
        created_at=now(),
        user_id=user_id,
        http=http,
        options=options,
        runs=models,
        data=data,
        request_hash=content_hash,
    )
