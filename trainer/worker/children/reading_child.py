"""The reading child: scores units by counts of the training texts, fits the times, and writes results and report."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import log
from typing import Literal, NamedTuple

import structlog

from trainer.artifacts.readings import ReadingDirectory, ReadingStore
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.presets import request_hash
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError
from trainer.contracts.job_status import StepProgress
from trainer.contracts.readings import (
    Measure,
    ModelFit,
    Predictor,
    ReadingComparison,
    ReadingOptions,
    ReadingRecord,
    ReadingResult,
    ScoringModel,
    UnitScores,
)
from trainer.contracts.reports import Note, counted_note, note
from trainer.contracts.runs import Leak, RunModel
from trainer.contracts.sequences import SequencesResponse
from trainer.data.corpora import CorpusStore
from trainer.data.normalization import normalized
from trainer.data.run_corpora import training_text
from trainer.inference.frequencies import Frequencies
from trainer.inference.leaks import LeakSearch
from trainer.inference.sequences import score_parts
from trainer.models.ngram import NgramModel, are_same_surprisals
from trainer.reading.analysis import MeasureAnalysis, Scores, comparisons, differing, with_common_units
from trainer.reading.files import reading_files
from trainer.reading.scoring import no_counts, portions, scores_of, times_of
from trainer.reading.tables import Times
from trainer.reports.reading_report import reading_report
from trainer.reports.report_figures import pictures_of
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Tokenizer
from trainer.worker.children.counted_text import count_text, text_key
from trainer.worker.children.step import run_step

logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)
_NATS_PER_BIT = log(2)


class Scored(NamedTuple):
    """What has scored all units: a model, or counts of its training text."""

    model: ScoringModel
    scores: Scores


def run_reading_child(settings: Settings, reading_id: str) -> int:
    """Compute and write the results, as `run_step` does."""
    reading = ReadingStore(settings.app.artifacts_root).get(reading_id)
    return run_step(reading, settings, lambda: _write(reading, settings))


def _write(reading: ReadingDirectory, settings: Settings) -> None:
    record, times = reading.record(), times_of(reading)
    counts = _Counts(times, record.options, settings)
    scored, copies = _without_copies([*_scored(reading, counts, settings)])
    common = with_common_units([one.scores for one in scored])
    total = len(record.runs) + len(record.measures) * len(scored)
    fitted: list[ModelFit] = []
    compared: list[ReadingComparison] = []
    firsts = dict[Measure, ModelFit]()
    left_out: list[Note] = []
    for measure in record.measures:
        analysis = MeasureAnalysis(times, measure, record.options)
        of_measure: list[ModelFit] = []
        for one, scores in zip(scored, common, strict=True):
            done = len(record.runs) + len(fitted) + len(of_measure)
            reading.write_progress(StepProgress(done=done, total=total))
            name = f"{measure}-{one.model.counts or 'model'}-{one.model.model}"
            found = reading.fit(name)
            if found is None:
                try:
                    found = _explained(analysis, one.model, scores)
                except AppError as error:
                    if one.model.counts is None:
                        raise
                    left_out.append(note("Left out: {problem}", problem=error.message))
                    continue
                reading.add_fit(name, found)
            of_measure.append(found)
        firsts[measure] = of_measure[0]
        compared += comparisons(of_measure, record.options.seed)
        fitted += of_measure
        for name, parts in analysis.tables(common[0]).items():
            reading.add_table(name, parts)
        logger.info("times_fitted", reason=measure)
    result = ReadingResult(
        reading_id=reading.reading_id,
        data=changed(record.data, notes=(*record.data.notes, *counts.notes, *copies, *left_out)),
        fits=tuple(one.fit for one in fitted),
        comparisons=tuple(compared),
        differing=differing(record.options.baseline, common),
    )
    report = reading_report(result, record, firsts)
    reading.write_result(result, reading_files(result, report, pictures_of(report)))
    logger.info("reading_completed")


def _explained(analysis: MeasureAnalysis, model: ScoringModel, scores: Scores) -> ModelFit:
    """Fit a measure by a model; errors name both."""
    try:
        return analysis.explained_by(model, scores)
    except AppError as error:
        raise AppError(error.code, f"{analysis.measure} ({model.name}): {error.message}", error.details) from None


def _scored(reading: ReadingDirectory, counts: "_Counts", settings: Settings) -> Iterator[Scored]:
    """Yield the scores by each model, then those by the counts of each training text once.

    Counts that are in the baseline do not stand beside the models.
    """
    runs, record = RunStore(settings.app.artifacts_root), reading.record()
    leaks = _leaks(record, times_of(reading), runs, CorpusStore(settings))
    named = record.options.frequencies
    of_all = None if named is None else counts.of(runs.get(named))
    seen: list[_OfText] = []
    counted: list[Scored] = []
    for one in record.runs:
        run = runs.get(one.run_id)
        scores, of_counts = reading.scores(one.name), counts.of(run)
        bound = _bits(scores.bound_nats)
        model = changed(_model(one, run), n_cut=scores.n_cut, n_unknown=scores.n_unknown, bound_bits=bound)
        model = changed(model, leak=leaks.get(one.run_id))
        baseline = of_all or of_counts
        yield Scored(model, baseline.beside(scores))
        if not any(of_counts is one for one in seen):
            seen.append(of_counts)
            of_run = changed(model, model=run.run_id, is_masked=False, n_cut=0, leak=None)
            counted += [
                Scored(changed(of_run, counts=kind, bound_bits=_bits(of_kind.bound_nats)), baseline.beside(of_kind))
                for kind, of_kind in of_counts.kinds.items()
                if kind not in record.options.baseline
            ]
    yield from counted


def _leaks(record: ReadingRecord, times: Times, runs: RunStore, corpora: CorpusStore) -> dict[str, Leak]:
    """Return how much of the running texts each run and its ancestors have read; nothing for a job without counts."""
    leaks: dict[str, Leak] = {}
    for run_id in {one.run_id for one in record.runs} if record.options.has_counts is not False else ():
        effective = runs.get(run_id).record().effective
        texts = [normalized(text.running, effective.tokenizer.normalization) for text in times.texts]
        leaks[run_id] = LeakSearch(run_id, effective, runs, corpora).of_running(texts)
    return leaks


def _without_copies(scored: Sequence[Scored]) -> tuple[Sequence[Scored], Sequence[Note]]:
    """Return what has scored the units without copies of a run of n-grams, and notes: its counts, and its other seeds.

    The difference of such two is 0, and another comparison makes the correction of the p-values stricter for all.
    """
    ngrams: list[Scored] = []
    kept: list[Scored] = []
    notes: list[Note] = []
    for one in scored:
        is_model = one.model.counts is None
        is_ngram = one.model.family == "ngram"
        surprisals = one.scores["surprisal"]
        same = [
            ngram
            for ngram in ngrams
            if (is_ngram or not is_model) and are_same_surprisals(surprisals, ngram.scores["surprisal"])
        ]
        if same:
            notes.append(
                note(
                    "Without {counts} as a model of its own: {model} is the same n-gram.",
                    counts=one.model.name,
                    model=same[0].model.name,
                )
            )
            continue
        kept.append(one)
        if is_model and is_ngram:
            ngrams.append(one)
    return kept, notes


def _model(one: RunModel, run: RunDirectory) -> ScoringModel:
    """Return what is known of a model."""
    effective, manifest = run.record().effective, run.manifest()
    last = 0 if manifest is None else manifest.steps
    return ScoringModel(
        model=one.name,
        family=effective.model_family,
        params=None if manifest is None or manifest.model is None else manifest.model.params,
        step=last if one.checkpoint is None else one.checkpoint,
        series=request_hash(changed(effective, seed=0)),
        is_masked=effective.objective == "masked_lm",
    )


class _OfText(NamedTuple):
    """What is counted in a training text; nothing if it is gone."""

    log_frequencies: Sequence[float | None] = ()
    kinds: Mapping[Literal["unigram", "ngram"], UnitScores] = {}

    def beside(self, scores: UnitScores) -> Scores:
        """Return the scores of a model in bits, with what is counted beside them."""
        found: dict[Predictor, Sequence[float | None]] = {
            kind: [*map(_bits, of_kind.surprisal_nats)] for kind, of_kind in self.kinds.items()
        }
        if self.log_frequencies:
            found["log_frequency"] = self.log_frequencies
        surprisal, entropy = ([*map(_bits, nats)] for nats in (scores.surprisal_nats, scores.entropy_nats))
        return {**found, "surprisal": surprisal, "entropy": entropy}


class _Counts:
    """Scores of the units by counts of training texts; runs with equal texts and tokenizers are counted once."""

    def __init__(self, times: Times, options: ReadingOptions, settings: Settings) -> None:
        self._times, self._options, self._settings = times, options, settings
        self._asked = [*portions(times, options.tokenizations)]
        self._known: dict[object, _OfText] = {}
        self._gone: dict[str, None] = {}
        self._n_wordless = 0

    @property
    def notes(self) -> Sequence[Note]:
        """Notes on units without words, and on texts that are gone."""
        return [*self._on_words(), *self._on_texts()]

    def _on_words(self) -> Iterator[Note]:
        if self._n_wordless and "log_frequency" in self._options.baseline:
            yield note(
                "{units} without words, such as punctuation: their log frequency is 0, the sum of none. "
                "`exclude` leaves them out",
                units=counted_note(self._n_wordless, "unit"),
            )

    def _on_texts(self) -> Sequence[Note]:
        if self._options.has_counts is False:
            return [note("Without counts of the training text, which only the owner of a run and admins get.")]
        runs = ", ".join(self._gone)
        gone = note("Without counts of the training text of {runs}, which is deleted or has changed.", runs=runs)
        return [gone] if runs else []

    def of(self, run: RunDirectory) -> _OfText:
        """Return what is counted in the text of a run; raises DATA_NOT_FOUND if the baseline needs what is gone."""
        key = text_key(run)
        if key not in self._known:
            is_counted = self._options.has_counts is not False or run.run_id == self._options.frequencies
            self._known[key] = self._count(run) if is_counted else _OfText()
        if not self._known[key].kinds:
            self._gone[run.run_id] = None
        return self._known[key]

    def _count(self, run: RunDirectory) -> _OfText:
        words = [unit.word for unit in self._times.units]
        effective, tokenizer = run.record().effective, load_tokenizer(run.tokenizer)
        lines = partial(training_text, CorpusStore(self._settings), effective)
        try:
            counted = count_text(run, self._settings)
        except AppError as error:
            logger.warning("counts_not_possible", run_id=run.run_id, error_code=error.code)
            is_needed = self._options.frequencies in (None, run.run_id)
            if is_needed and (refusal := no_counts(self._options.baseline, run.run_id)) is not None:
                raise refusal from None
            return _OfText()
        frequencies = Frequencies(tokenizer, lines).of_texts(words)
        self._n_wordless = sum(one is None for one in frequencies)
        return _OfText(
            [0.0 if one is None else one for one in frequencies],
            {"unigram": self._scores(counted.unigram, tokenizer), "ngram": self._scores(counted.ngram, tokenizer)},
        )

    def _scores(self, model: NgramModel, tokenizer: Tokenizer) -> UnitScores:
        nothing = SequencesResponse(request_id="counts", run_id="counts", status="queued")
        responses = [score_parts(model, tokenizer, portion.request, nothing) for portion in self._asked]
        return scores_of(len(self._times.units), self._asked, responses)


def _bits(nats: float | None) -> float | None:
    return None if nats is None else nats / _NATS_PER_BIT
