"""The files of a battery's report: its rows as CSV, its table for a paper, and a page."""

from collections.abc import Iterator, Mapping, Sequence

from trainer.contracts.base import Frozen
from trainer.contracts.batteries import BatteryItem, BatterySummary, Comparison, ItemScores, SeedBand
from trainer.contracts.reports import Report, note
from trainer.reports.battery_report import MEASURE_WORDS, accuracy_tables
from trainer.reports.experiment_tables import csv_table, csv_text, values_of
from trainer.reports.report_html import report_html
from trainer.reports.report_latex import latex_of

_ACCURACY_COLUMNS = (
    *("run_id", "label", "seed", "battery", "level", "name", "n_items", "measure"),
    *("n_right", "n_wrong", "n_ties", "accuracy", "low", "high", "mean_over_paradigms"),
)
_ITEM_COLUMNS = (
    *("run_id", "battery", "item", "paradigm", "sequence", "condition", "region", "context", "text"),
    *("nats", "n_tokens", "n_chars", "n_bytes", "unk_count", "end_nats"),
)


def report_files(
    summary: BatterySummary,
    report: Report,
    items: Sequence[BatteryItem],
    scores: Mapping[str, Sequence[ItemScores]],
    images: Mapping[str, bytes],
) -> dict[str, str | bytes]:
    """Return the files of a report by name, given the items, their scores by run, and the pictures of its figures."""
    files: dict[str, str | bytes] = {
        "accuracy.csv": accuracy_csv(summary),
        "items.csv": csv_table(_ITEM_COLUMNS, _items(items, scores)),
        "table.tex": _latex(summary),
        "report.html": report_html(report, images),
        "report.json": report.model_dump_json(),
        **{f"{name}.png": image for name, image in images.items()},
    }
    if summary.comparisons:
        files["comparisons.csv"] = csv_text(Comparison, summary.comparisons)
    if summary.seeds:
        files["seeds.csv"] = csv_text(SeedBand, summary.seeds)
    of_runs: dict[str, list[tuple[str, Frozen]]] = {
        "formulas": [(result.run.name, one) for result in summary.runs for one in result.formulas],
        "effects": [(result.run.name, one) for result in summary.runs for one in result.effects],
        "leaks": [(result.run.name, one) for result in summary.runs for one in result.leaks],
    }
    files |= {f"{name}.csv": _records(rows) for name, rows in of_runs.items() if rows}
    return files


def accuracy_csv(summary: BatterySummary) -> str:
    """Return the accuracies of all groups of items by all models and measures as CSV."""
    return csv_table(_ACCURACY_COLUMNS, _accuracies(summary))


def _latex(summary: BatterySummary) -> str:
    """Return the accuracies as a table for a paper."""
    caption = note(
        "Accuracy on {names} by {measure}, without ties. Intervals: Wilson (1927), 95\u202f%.",
        names=", ".join(battery.name for battery in summary.batteries),
        measure=MEASURE_WORDS[summary.measure],
    )
    return latex_of(accuracy_tables(summary)[0], caption)


def _records(rows: Sequence[tuple[str, Frozen]]) -> str:
    """Return rows of one type with the id of their run."""
    columns = ["run_id", *type(rows[0][1]).model_fields]
    return csv_table(columns, ([run_id, *values_of(row)] for run_id, row in rows))


def _accuracies(summary: BatterySummary) -> Iterator[Sequence[object]]:
    for result in summary.runs:
        for group in result.groups:
            for one in group.accuracies:
                mean = group.mean_over_paradigms.get(one.measure)
                yield (
                    *(result.run.name, result.run.label, result.run.seed, group.battery, group.level, group.name),
                    *(group.n_items, one.measure, one.n_right, one.n_wrong, one.n_ties),
                    *(one.accuracy, one.low, one.high, mean),
                )


def _items(items: Sequence[BatteryItem], scores: Mapping[str, Sequence[ItemScores]]) -> Iterator[Sequence[object]]:
    """Yield a row for each sequence of an item, or for each region of one."""
    for run_id, of_run in scores.items():
        for place, of_item in ((one.item, one.scores) for one in of_run):
            item = items[place]
            start = (run_id, item.battery, item.name, item.paradigm)
            for number, (sequence, score) in enumerate(zip(item.sequences, of_item, strict=True)):
                counts = (score.n_tokens, score.n_chars, score.n_bytes, score.unk_count, score.end_nats)
                if not item.conditions:
                    text = "".join(sequence.parts)
                    yield (*start, number + 1, "", "", sequence.context, text, score.nats, *counts)
                    continue
                regions = zip(item.regions[number], sequence.parts, score.part_nats, strict=True)
                for region, text, nats in regions:
                    yield (*start, number + 1, item.conditions[number], region, "", text, nats, *(None for _ in counts))
