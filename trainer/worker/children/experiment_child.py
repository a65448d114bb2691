"""The experiment child: prepares the texts of an experiment, and in the end computes its results and report."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import chain, product

import structlog

from trainer.artifacts.batteries import BatteryDirectory, BatteryStore
from trainer.artifacts.experiments import ExperimentDirectory, ExperimentStore, cell_keys, encodings_of, losses_path
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.batteries.comparisons import language_rows
from trainer.batteries.reading import with_items
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.baselines import mean_baseline
from trainer.contracts.batteries import BatteryScores
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import (
    CellBaseline,
    CellKey,
    CellRun,
    CurveRow,
    Encoding,
    ExperimentRecord,
    ExperimentRequest,
    ExperimentText,
    ExperimentTexts,
    Replacement,
    TextKind,
    TextLeak,
)
from trainer.contracts.reports import note
from trainer.contracts.runs import CorpusRef, EffectiveRequest, Leak
from trainer.data.corpora import CorpusStore
from trainer.data.corpus import Split, read_lines
from trainer.data.run_corpora import split_corpus, split_rule
from trainer.data.text import corpus_sha256
from trainer.experiments.analysis import KINDS, Listener, analyse
from trainer.experiments.ratings_file import read_ratings
from trainer.experiments.report import write_report
from trainer.experiments.sections import TextLosses, cut_sections, shuffle_sections
from trainer.experiments.segments import Assimilator
from trainer.inference.leaks import LeakSearch
from trainer.inference.section_scores import known_characters
from trainer.queue.experiments import Start, read_batteries, training_request, unique_items
from trainer.queue.resolve import resolve_request
from trainer.reports.leak_notes import unit_leak_notes
from trainer.system.child_environment import allow_network
from trainer.tokenizers import load_tokenizer
from trainer.worker.children.step import run_step

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


def run_experiment_child(settings: Settings, experiment_id: str) -> int:
    """Prepare the texts, or compute the report if that has been done, as `run_step` does."""
    experiment = ExperimentStore(settings.app.artifacts_root).get(experiment_id)

    def work() -> None:
        texts = experiment.texts()
        if texts is None:
            prepare(experiment, CorpusStore(settings), settings)
        else:
            analyse_and_report(experiment, texts, settings)

    return run_step(experiment, settings, work)


def prepare(experiment: ExperimentDirectory, corpora: CorpusStore, settings: Settings) -> None:
    """Fetch batteries, and write the texts that all models score.

    Raises DATA_NOT_FOUND for corpora that have changed, and the errors of `find_battery`.
    """
    record = experiment.record()
    if record.to_fetch:
        _fetch_batteries(experiment, record, settings)
    options = record.request.texts
    for corpus in (*record.corpora.values(), *record.passages.values()):
        _check_unchanged(corpus, corpora)
    trainings = {code: _held_out_request(record, code, corpora, settings) for code in record.corpora}
    normalization = next(iter(trainings.values())).tokenizer.normalization
    sections: dict[tuple[TextKind, str], list[str]] = {}
    for code, passages in record.passages.items():
        sections["passages", code] = cut_sections(read_lines(corpora.find(passages.name), normalization), options)
    for code, training in trainings.items() if options.held_out or options.shuffled else ():
        held_out = cut_sections(split_lines(training, corpora, "test"), options)
        if options.held_out:
            sections["held_out", code] = held_out
        if options.shuffled:
            sections["shuffled", code] = shuffle_sections(held_out, code, normalization)
    stored = [
        _store(experiment, kind, code, lines, None if kind == "passages" else trainings[code].test_id)
        for (kind, code), lines in sections.items()
    ]
    texts = tuple(text for kind in KINDS for text in stored if text.kind == kind)
    experiment.write_texts(ExperimentTexts(normalization=normalization, texts=texts))
    log.info("experiment_texts_prepared", texts=len(texts))


def _fetch_batteries(experiment: ExperimentDirectory, record: ExperimentRecord, settings: Settings) -> None:
    allow_network()
    items = experiment.items()
    batteries = {code: with_items(infos, items) for code, infos in record.batteries.items()}
    for code, fetched in read_batteries(record.to_fetch, settings).items():
        batteries.setdefault(code, []).extend(fetched)
    infos = {code: tuple(battery.info for battery in of_language) for code, of_language in batteries.items()}
    experiment.add_fetched(infos, unique_items(batteries))
    log.info("batteries_fetched", names=record.to_fetch)


def analyse_and_report(experiment: ExperimentDirectory, texts: ExperimentTexts, settings: Settings) -> None:
    """Compute all numbers from the losses of the runs, and write the report."""
    record, corpora = experiment.record(), CorpusStore(settings)
    sections = [(text, experiment.sections(text)) for text in texts.texts]
    runs, cells = RunStore(settings.app.artifacts_root), experiment.runs()
    # in a fixed order, whatever the order in which runs were started
    in_order = [cells[key] for key in cell_keys(record.request)]
    listeners = [_listener(record, cell, runs.get(cell.run_id), sections) for cell in in_order]

    def training_text(language: str) -> Iterator[str]:
        return split_lines(_held_out_request(record, language, corpora, settings), corpora, "train")

    ratings = () if record.ratings is None else read_ratings(corpora.find(record.ratings.name, "ratings"))
    result, section_scores = analyse(record, sections, listeners, training_text, ratings)
    stored = BatteryStore(settings.app.artifacts_root)
    jobs = {key: stored.get(cell.battery_id) for key, cell in experiment.batteries().items()}
    batteries = tuple(_battery_scores(record, cells, jobs))
    battery_ids = tuple(job.battery_id for job in jobs.values())
    developments = experiment.developments()
    development_ids = tuple(developments[key].battery_id for key in cell_keys(record.request) if key in developments)
    found: dict[str, object] = {
        "batteries": language_rows(batteries),
        "battery_ids": battery_ids,
        "development_ids": development_ids,
        "leaks": tuple(_leaks(record.request, cells, sections, runs, corpora)),
        "baselines": tuple(_cell_baselines(record.request, cells, runs)),
    }
    result = changed(result, **found)
    write_report(experiment.path, result, changed(section_scores, batteries=batteries))
    log.info("experiment_completed")


def _leaks(
    request: ExperimentRequest,
    cells: Mapping[CellKey, CellRun],
    texts: Sequence[tuple[ExperimentText, Sequence[str]]],
    runs: RunStore,
    corpora: CorpusStore,
) -> Iterator[TextLeak]:
    """Yield the leaks of which readers are warned. Models that have read the same text are searched once."""
    known: dict[object, Leak] = {}
    for model, language in product(request.models, request.trained_languages):
        run_id = cells[CellKey(model, language, request.seeds[0])].run_id
        effective = runs.get(run_id).record().effective
        search = LeakSearch(run_id, effective, runs, corpora)
        read = effective.corpora, split_rule(effective), effective.documents, effective.init_from_run_id
        for text, sections in texts:
            key = (*read, text.text_id)
            if text.kind != "shuffled":
                leak = known[key] = known.get(key) or search(["\n".join(sections)])
                if any(unit_leak_notes(leak, note("this text"))):
                    yield TextLeak(model=model, language=language, run_id=run_id, text_id=text.text_id, leak=leak)


def _cell_baselines(
    request: ExperimentRequest, cells: Mapping[CellKey, CellRun], runs: RunStore
) -> Iterator[CellBaseline]:
    for model in request.models:
        for language in request.trained_languages:
            of_seeds = (runs.get(cells[CellKey(model, language, seed)].run_id) for seed in request.seeds)
            found = [run.completed_manifest().baselines for run in of_seeds]
            if known := [one["test"] for one in found if "test" in one]:
                yield CellBaseline(model=model, language=language, baseline=mean_baseline(known))


def _battery_scores(
    record: ExperimentRecord, cells: Mapping[CellKey, CellRun], jobs: Mapping[tuple[str, int], BatteryDirectory]
) -> Iterator[BatteryScores]:
    """Yield the results of each run on the batteries of each language, from the jobs of all models and seeds."""
    for (model, seed), job in jobs.items():
        groups = {one.run.run_id: one.groups for one in job.summary().runs}
        for language in record.request.trained_languages:
            of_run = groups[cells[CellKey(model, language, seed)].run_id]
            for code, infos in record.batteries.items():
                names = {info.name for info in infos}
                chosen = tuple(group for group in of_run if group.battery in names)
                yield BatteryScores(model=model, language=language, seed=seed, battery_language=code, groups=chosen)


def _listener(
    record: ExperimentRecord,
    cell: CellRun,
    run: RunDirectory,
    texts: Sequence[tuple[ExperimentText, Sequence[str]]],
) -> Listener:
    """Return a run with its losses of all texts and the characters that it has replaced."""
    manifest = run.completed_manifest()
    metrics = manifest.metrics
    transfer = record.request.models[cell.model].transfer
    in_first = transfer is not None and transfer.first == cell.language
    curve = CurveRow(
        model=cell.model,
        language=cell.language,
        seed=cell.seed,
        run_id=cell.run_id,
        phase="single" if transfer is None else "first" if in_first else "second",
        steps=manifest.steps,
        epochs=len(manifest.timings.epoch_seconds),
        early_stopped=manifest.early_stopped,
        initial_val_loss=metrics.initial,
        best_val_loss=metrics.best,
        test_loss=metrics.test,
        test_perplexity=metrics.test_perplexity,
        bits_per_char=metrics.bits_per_char,
        auc=metrics.auc,
    )
    encodings = encodings_of(record.request)
    losses: dict[tuple[str, Encoding], TextLosses] = {
        (text.text_id, encoding): TextLosses.load(losses_path(run.path, text.sha256, encoding))
        for text, _ in texts
        for encoding in encodings
    }
    tokenizer = load_tokenizer(run.tokenizer)
    sections = [sections for _, sections in texts]
    replacements: tuple[Replacement, ...] = ()
    if "assimilated" in encodings:
        assimilator = Assimilator(known_characters(tokenizer, sections))
        lines = chain.from_iterable(sections)
        replacements = assimilator.replacements(lines, model=cell.model, language=cell.language, seed=cell.seed)
    is_char = tokenizer.manifest.method == "char"
    return Listener(cell.model, cell.language, cell.seed, curve, losses, replacements, is_char)


def _check_unchanged(corpus: CorpusRef, corpora: CorpusStore) -> None:
    if corpus_sha256(corpora.find(corpus.name)) != corpus.sha256:
        message = f"The corpus '{corpus.name}' has changed since the experiment was accepted."
        raise AppError(ErrorCode.DATA_NOT_FOUND, message)


def _held_out_request(
    record: ExperimentRecord, language: str, corpora: CorpusStore, settings: Settings
) -> EffectiveRequest:
    """Return a training of a language, as all of its trainings hold out the same text."""
    key = CellKey(next(iter(record.request.models)), language, record.request.seeds[0])
    return asyncio.run(resolve_request(training_request(record.request, key, Start()), corpora, settings))


def split_lines(training: EffectiveRequest, corpora: CorpusStore, split: Split) -> Iterator[str]:
    """Yield the lines of one split of a training, without reading its tokenizer or encoding them."""
    return chain.from_iterable(block.split("\n") for block in split_corpus(corpora, training).lines(split))


def _store(
    experiment: ExperimentDirectory, kind: TextKind, language: str, sections: list[str], test_id: str | None
) -> ExperimentText:
    text_id = f"{kind.replace('_', '-')}-{language}"
    if not sections:
        minimum = experiment.record().request.texts.min_characters
        message = f"The text '{text_id}' has no line of at least {minimum} characters: give a longer one."
        raise AppError(ErrorCode.CORPUS_EMPTY, message)
    content = "\n".join(sections).encode()
    experiment.write_text(text_id, content)
    return ExperimentText(
        text_id=text_id,
        kind=kind,
        language=language,
        sections=len(sections),
        characters=sum(map(len, sections)),
        sha256=sha256(content).hexdigest(),
        test_id=test_id,
    )
