"""The battery child: looks for the items in the training texts, computes the results and writes the report."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import structlog

from trainer.artifacts.batteries import BatteryDirectory, BatteryStore
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.batteries.controls import Part
from trainer.batteries.reading import with_distinct_names, with_items
from trainer.batteries.results import development_of, summarize
from trainer.batteries.sources import find_battery
from trainer.batteries.word_contexts import choose_words, frequencies_per_million, texts_of
from trainer.config.settings import Settings
from trainer.contracts.batteries import LEAK_WORDS, BatteryItem, Counts, DevelopmentOptions, LeakedItems
from trainer.contracts.development import WordTexts
from trainer.contracts.reports import Note, note
from trainer.contracts.runs import EffectiveRequest
from trainer.data.corpora import CorpusStore
from trainer.data.leaks import find_leaked, measure_leaks
from trainer.data.run_corpora import read_text, split_corpus
from trainer.inference.leaks import LeakSearch
from trainer.reports.battery_report import battery_report, item_leak_notes
from trainer.reports.battery_tables import accuracy_csv, report_files
from trainer.reports.development_charts import words_picture
from trainer.reports.development_report import development_report
from trainer.reports.development_tables import report_files as development_files
from trainer.reports.leak_notes import leak_notes, split_note
from trainer.reports.report_figures import pictures_of
from trainer.system.child_environment import allow_network
from trainer.system.hardware import package_version
from trainer.worker.children.counted_controls import CountedControls
from trainer.worker.children.step import run_step

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


def run_battery_child(settings: Settings, battery_id: str) -> int:
    """Compute and write the results, as `run_step` does."""
    battery = BatteryStore(settings.app.artifacts_root).get(battery_id)
    return run_step(battery, settings, lambda: _write(battery, settings))


def _write(battery: BatteryDirectory, settings: Settings) -> None:
    record, items = battery.record(), battery.items()
    if record.to_fetch:
        allow_network()
        stored = with_items(record.batteries, items)
        fetched = [find_battery(name, record.options, settings) for name in record.to_fetch]
        batteries = with_distinct_names([*stored, *fetched])
        infos, of_all = [one.info for one in batteries], chain.from_iterable(one.items for one in batteries)
        battery.add_fetched(infos, of_all)
        log.info("batteries_fetched", names=record.to_fetch)
        return
    options, corpora = record.options.development, CorpusStore(settings)
    if options is not None and options.has_words and battery.word_texts() is None:
        effective = RunStore(settings.app.artifacts_root).get(record.development_of or "").record().effective
        battery.write_word_texts(_choose_words(options, effective, corpora))
        log.info("words_chosen")
        return
    runs = RunStore(settings.app.artifacts_root)
    leaks: dict[str, list[LeakedItems]] = {}
    counts: dict[str, Mapping[Part, Counts]] = {}
    has_counts = record.options.has_controls and record.options.has_counts is not False
    if items and has_counts:
        of_runs = {run_id: _leaks(run_id, runs, corpora, items) for run_id in {run.run_id for run in record.runs}}
        leaks = {run.name: of_runs[run.run_id] for run in record.runs}
    if options is None and has_counts:
        counted = CountedControls(record, items, settings)
        counts = {run.name: counted.of(runs.get(run.run_id)) for run in record.runs}
    summary = summarize(battery, leaks, counts)
    if options is not None:
        texts = battery.word_texts()
        frequencies, missing = (None, ()) if texts is None else (texts.frequencies or None, texts.missing)
        of_items = leaks.get(record.runs[-1].name, [])
        notes = [
            *_split_notes(options, runs.get(record.development_of or ""), runs, corpora),
            *(one for leak in of_items for one in item_leak_notes(leak)),
        ]
        development, words = development_of(battery, summary, frequencies, missing, notes)
        report = development_report(development, summary)
        images = {**pictures_of(report), **words_picture(development, words)}
        files = development_files(development, report, words, images)
        files |= {"accuracy.csv": accuracy_csv(summary)} if items else {}
        battery.write_result(summary, files, package_version("model-trainer"), development)
        log.info("battery_completed")
        return
    scores = {run.name: battery.scores(run.name, "trained") for run in record.runs}
    report = battery_report(summary)
    files = report_files(summary, report, items, scores, pictures_of(report))
    battery.write_result(summary, files, package_version("model-trainer"))
    log.info("battery_completed")


def _choose_words(options: DevelopmentOptions, effective: EffectiveRequest, corpora: CorpusStore) -> WordTexts:
    """Return the words to measure with their lines of the held-out split, and how frequent they were in training."""
    corpus = split_corpus(corpora, effective)
    lines = [line for block in corpus.lines(options.split) for line in block.split("\n")]
    contexts = choose_words(lines, options.words or None)
    frequencies = frequencies_per_million(corpus.lines("train"), contexts.occurrences)
    return texts_of(contexts, lines, frequencies)


def _leaks(run_id: str, runs: RunStore, corpora: CorpusStore, items: Sequence[BatteryItem]) -> list[LeakedItems]:
    """Return the shares of items of each battery that a run or its ancestors have read; none if its text is gone."""
    read = LeakSearch(run_id, runs.get(run_id).record().effective, runs, corpora).read()
    if run_id in read.missing:
        log.warning("training_text_not_found", run_id=run_id)
        return []
    # every sequence counts: a model that has read the wrong one knows it as well
    texts = [(item.battery, sequence.text) for item in items for sequence in item.sequences]
    found = find_leaked([text for _, text in texts], read.blocks(), LEAK_WORDS)
    in_training, in_validation = found["train"], found["validation"]
    columns = (in_training.whole, in_training.ngram, in_validation.whole, in_validation.ngram)
    whole, ngrams, validation_whole, validation_ngrams = (_shares(items, column) for column in columns)
    return [
        LeakedItems(
            battery=battery,
            n_items=n_items,
            whole=whole[battery],
            ngrams=ngrams[battery],
            validation_whole=validation_whole[battery],
            validation_ngrams=validation_ngrams[battery],
            ancestors=read.ancestors,
            unsearched=read.missing,
        )
        for battery, n_items in Counter(item.battery for item in items).items()
    ]


def _shares(items: Sequence[BatteryItem], is_found: Iterable[bool]) -> dict[str, float]:
    """Return the share of items by battery of which a sequence was found, given which of all sequences were."""
    sequences, by_battery = iter(is_found), dict[str, list[bool]]()
    for item in items:
        by_battery.setdefault(item.battery, []).append(any([next(sequences) for _ in item.sequences]))
    return {battery: sum(of_items) / len(of_items) for battery, of_items in by_battery.items()}


def _split_notes(
    options: DevelopmentOptions, run: RunDirectory, runs: RunStore, corpora: CorpusStore
) -> tuple[Note, ...]:
    """Return warnings about the split of which losses and words are measured: what of it was trained on."""
    if not (options.has_loss or options.has_words):
        return ()
    effective = run.record().effective
    ancestors = read_text(corpora, runs.ancestors(effective))
    leaks = measure_leaks(split_corpus(corpora, effective), effective.documents, effective.split_seed, ancestors)
    leak = leaks.get(options.split)
    return () if leak is None else tuple(leak_notes(leak, split_note(options.split), note("the training split")))
