"""The battery child: looks for the items in the training texts, computes the results and writes the report."""

import sys
from collections.abc import Mapping, Sequence

import structlog

from trainer.artifacts.batteries import BatteryDirectory, BatteryStore
from trainer.artifacts.runs import RunStore
from trainer.batteries.controls import Part
from trainer.batteries.results import development_of, summarize
from trainer.batteries.word_contexts import choose_words, frequencies_per_million, texts_of
from trainer.config.settings import Settings
from trainer.contracts.batteries import LEAK_WORDS, BatteryItem, Counts, DevelopmentOptions, LeakedItems
from trainer.contracts.development import WordTexts
from trainer.contracts.errors import AppError
from trainer.contracts.runs import EffectiveRequest
from trainer.data.corpora import CorpusStore
from trainer.data.leaks import find_leaked
from trainer.data.run_corpora import split_corpus
from trainer.reports.battery_charts import region_figures
from trainer.reports.battery_tables import accuracy_csv, report_files
from trainer.reports.development_charts import development_figures
from trainer.reports.development_tables import report_files as development_files
from trainer.system.files import to_app_error
from trainer.system.hardware import package_version
from trainer.system.logs import add_log_file, setup_logging
from trainer.worker.children.counted_controls import CountedControls

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


def run_battery_child(settings: Settings, battery_id: str) -> int:
    """Compute and write the results; return 0. An error ends the job. The child can be killed at any time."""
    battery = BatteryStore(settings.app.artifacts_root).get(battery_id)
    setup_logging(settings, "model-trainer-worker", sys.stderr)
    add_log_file(battery.logs, "model-trainer-worker")
    structlog.contextvars.bind_contextvars(battery_id=battery_id)
    try:
        _write(battery, settings)
    except (AppError, OSError) as error:
        reason = to_app_error(error, settings.app.folders())
        log.error("battery_step_failed", error_code=reason.code, reason=reason.message)
        battery.fail(reason)
    return 0


def _write(battery: BatteryDirectory, settings: Settings) -> None:
    record, items = battery.record(), battery.items()
    options, corpora = record.options.development, CorpusStore(settings)
    if options is not None and options.has_words and battery.word_texts() is None:
        effective = RunStore(settings.app.artifacts_root).get(record.development_of or "").record().effective
        battery.write_word_texts(_choose_words(options, effective, corpora))
        log.info("words_chosen")
        return
    leaks: dict[str, list[LeakedItems]] = {}
    counts: dict[str, Mapping[Part, Counts]] = {}
    if options is None and record.options.has_controls:
        runs, counted = RunStore(settings.app.artifacts_root), CountedControls(record, items, settings)
        for run in record.runs:
            leaks[run.name] = _leaks(run.run_id, runs, corpora, items)
            counts[run.name] = counted.of(runs.get(run.run_id))
    summary = summarize(battery, leaks, counts)
    if options is not None:
        texts = battery.word_texts()
        frequencies, missing = (None, ()) if texts is None else (texts.frequencies or None, texts.missing)
        development, words = development_of(battery, summary, frequencies, missing)
        report = development_files(development, words, development_figures(development, words))
        files = {"accuracy.csv": accuracy_csv(summary), **report} if items else report
        battery.write_result(summary, files, package_version("model-trainer"), development)
        log.info("battery_completed")
        return
    scores = {run.name: battery.scores(run.name, "trained") for run in record.runs}
    files = report_files(summary, items, scores, region_figures(summary))
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
    """Return the shares of items of each battery that stand in a run's training text; none if that is gone."""
    effective = runs.get(run_id).record().effective
    try:
        corpus = split_corpus(corpora, effective)
    except AppError as error:
        log.warning("training_text_not_found", run_id=run_id, error_code=error.code)
        return []
    # every sequence counts: a model that has read the wrong one knows it as well
    texts = [(item.battery, sequence.text) for item in items for sequence in item.sequences]
    found = find_leaked([text for _, text in texts], corpus.lines("train"), LEAK_WORDS)
    sequences = iter(zip(found.whole, found.ngram, strict=True))
    counts: dict[str, tuple[int, int, int]] = {}
    for item in items:
        of_item = [next(sequences) for _ in item.sequences]
        n_items, whole, ngrams = counts.get(item.battery, (0, 0, 0))
        is_whole, has_ngram = any(one for one, _ in of_item), any(other for _, other in of_item)
        counts[item.battery] = n_items + 1, whole + is_whole, ngrams + has_ngram
    return [
        LeakedItems(battery=battery, n_items=n_items, whole=whole / n_items, ngrams=ngrams / n_items)
        for battery, (n_items, whole, ngrams) in counts.items()
    ]
