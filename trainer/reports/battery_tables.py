"""Tables of the results of batteries: the accuracies for people, and all rows as CSV, LaTeX and a page."""

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from trainer.contracts.base import Frozen
from trainer.contracts.batteries import (
    MEASURES,
    Accuracy,
    BatteryItem,
    BatterySummary,
    Comparison,
    Controls,
    Counts,
    GroupResult,
    ItemScores,
    Measure,
    RunResult,
    SeedBand,
)
from trainer.contracts.units import Unit, surprisal_number
from trainer.contracts.wording import counted
from trainer.reports.experiment_html import PAGE, cell_style, figure_html, html_table, section, table_of
from trainer.reports.experiment_tables import MISSING, HeatScale, csv_table, csv_text, latex_rows, latex_text, values_of

MEASURE_WORDS: Mapping[Measure, str] = {
    "sum": "sum of log-probabilities",
    "token": "log-probability per token",
    "char": "log-probability per character",
    "byte": "log-probability per byte",
    "end": "sum of log-probabilities with the line end",
}
_SCALE = HeatScale(0.0, 1.0)
_SHARE = re.compile(r"(\d+\.\d)%(?: \(.*)?")
"""A share, which an interval in brackets can follow."""
ODD_ITEMS: Mapping[str, str] = {
    "n_identical": "two equal sequences, and no right answer",
    "n_duplicates": "the sequences of an item before, which count twice",
    "n_prefix": "a sequence that begins another one, so that the sum favours the shorter one"
    " (the measure `end` does not)",
    "n_unknown": "a token that the tokenizer does not know",
    "n_cut": "a sequence beyond the model's context",
}
"""Items to know about, by the field of GroupResult that counts them."""
INTERVALS = "Intervals: Wilson (1927), 95 %."
DIFFERENCES = (
    "Accuracy of the first run less that of the second: the score interval of Tango (1998), and the exact test of"
    " McNemar, also adjusted for the number of rows (Holm 1979)."
)
BANDS = (
    "Runs that differ in their seeds only. Intervals by Student's t over the seeds, or by Wilson over the items of a"
    " run where these are wider."
)
Rows = list[list[str]]


def run_titles(summary: BatterySummary) -> Mapping[str, str]:
    """Return the titles of models by name: a unique label, else the name; the step where all are of one run."""
    runs = [result.run for result in summary.runs]
    labels, is_of_one_run = [run.label for run in runs], len({run.run_id for run in runs}) == 1
    titles: dict[str, str] = {}
    for run in runs:
        titles[run.name] = run.name if run.label is None or labels.count(run.label) > 1 else run.label
        if is_of_one_run and run.checkpoint is not None:
            titles[run.name] = f"step {run.checkpoint:,}"
    return titles


def percent(share: float | None) -> str:
    return MISSING if share is None else f"{share:.1%}"


def interval_text(low: float | None, high: float | None) -> str:
    return MISSING if low is None or high is None else f"{low:.1%} to {high:.1%}"


def accuracy_rows(summary: BatterySummary) -> Rows:
    """Return a row for each battery and its parts: of one run by all measures, or of several runs side by side."""
    if len(summary.runs) == 1:
        return _rows_of_one(summary.runs[0], summary.measure)
    rows = [["", "", "items", *run_titles(summary).values()]]
    for place, group in enumerate(summary.runs[0].groups):
        groups = [result.groups[place] for result in summary.runs]
        cells = [_with_interval(one.by(summary.measure)) for one in groups]
        rows.append([*_titles(group), f"{group.n_items:,}", *cells])
        if group.level == "battery":
            means = [one.mean_over_paradigms.get(summary.measure) for one in groups]
            rows.append(["", "mean over paradigms", "", *map(percent, means)])
    return rows


def _with_interval(accuracy: Accuracy | None) -> str:
    """Return an accuracy with its interval, and the number of ties if there are any."""
    if accuracy is None:
        return MISSING
    ties = counted(accuracy.n_ties, "tie") if accuracy.n_ties else ""
    if accuracy.accuracy is None or accuracy.low is None or accuracy.high is None:
        return ", ".join(filter(None, (MISSING, ties)))
    text = f"{accuracy.accuracy:.1%} ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})"
    return ", ".join(filter(None, (text, ties)))


def _rows_of_one(result: RunResult, measure: Measure) -> Rows:
    known = {one.measure for group in result.groups for one in group.accuracies}
    others = [one for one in MEASURES if one != measure and (one != "end" or one in known)]
    rows = [["", "", "items", "ties", _measure_title(measure), "95 % interval", *map(_measure_title, others)]]
    for group in result.groups:
        main = group.by(measure)
        low, high = (None, None) if main is None else (main.low, main.high)
        ties = "" if main is None else f"{main.n_ties:,}"
        shares = [percent(_share(group.by(one))) for one in (measure, *others)]
        rows.append([*_titles(group), f"{group.n_items:,}", ties, shares[0], interval_text(low, high), *shares[1:]])
        if group.level == "battery":
            means = [percent(group.mean_over_paradigms.get(one)) for one in (measure, *others)]
            rows.append(["", "mean over paradigms", "", "", means[0], "", *means[1:]])
    return rows


def _measure_title(measure: Measure) -> str:
    return {"sum": "by sum", "end": "with line end"}.get(measure, f"per {measure}")


def _share(accuracy: Accuracy | None) -> float | None:
    return None if accuracy is None else accuracy.accuracy


def _titles(group: GroupResult) -> tuple[str, str]:
    return (group.battery, "all items") if group.level == "battery" else (group.level, group.name)


def notes(summary: BatterySummary) -> Iterator[str]:
    """Yield what is to be known about the numbers: odd items, controls, and leaked items."""
    titles = run_titles(summary)
    yield from battery_notes(summary)
    for result in summary.runs:
        where = f"{titles[result.run.name]}: " if len(summary.runs) > 1 else ""
        for group in result.groups:
            if group.level == "battery":
                yield from (f"{where}{group.battery}: {note}" for note in _odd_items(group))
        for control in result.controls:
            name = control_name(control)
            yield f"{where}{name}: {_control(control)}"
            if control.counts is not None:
                yield f"{where}{name}: {_counts(control.counts)}"
        if result.controls and not result.leaks and all(control.counts is None for control in result.controls):
            yield f"{where}the training text was neither searched for the items nor counted"
        yield from (f"{where}{note}" for leak in result.leaks for note in leak.described())
    yield from (note.removesuffix(".") for note in summary.notes)


def battery_notes(summary: BatterySummary) -> Iterator[str]:
    """Yield how the files of batteries were read."""
    for one in summary.batteries:
        yield from (f"{one.name}: {note.removesuffix('.')}" for note in one.notes)


def _odd_items(group: GroupResult) -> Iterator[str]:
    for field, what in ODD_ITEMS.items():
        n_items: int = getattr(group, field)
        if n_items:
            yield f"{counted(n_items, 'item')} with {what}"


def control_name(control: Controls) -> str:
    """Return the name of the battery, or of a suite in it."""
    return f"{control.battery}: {control.suite}" if control.suite else control.battery


def _control(control: Controls) -> str:
    untrained = control.untrained
    share, ends = percent(untrained.accuracy), interval_text(untrained.low, untrained.high)
    at = {True: "at chance", False: "NOT at chance", None: "only ties"}[control.is_at_chance]
    none = " (no random item has all formulas: read each by itself)" if control.chance == 0 else ""
    return f"untrained {share} ({ends}), {at}; chance is {control.chance:.1%}{none}"


def _counts(counts: Counts) -> str:
    shares = [f"{percent(one.accuracy)} ({interval_text(one.low, one.high)})" for one in (counts.unigram, counts.ngram)]
    ngrams = "" if counts.order == 1 else f", its {counts.order}-grams {shares[1]}"
    return f"unigrams of the training text {shares[0]}{ngrams}"


def effect_rows(summary: BatterySummary, result: RunResult, unit: Unit = "nats") -> Rows:
    """Return the formulas of a run's suites, the regions of their conditions, and the compared differences."""
    suites = {(one.name, paradigm): suite for one in summary.batteries for paradigm, suite in one.suites.items()}
    rows = [["suite", "what", "region", "items", "undecided", f"right / {unit}", "95 % interval", "chance"]]
    for one in result.formulas:
        share = [percent(one.accuracy), interval_text(one.low, one.high), percent(one.chance)]
        rows.append([one.paradigm, one.formula, "", f"{one.n_items:,}", f"{one.n_undecided:,}", *share])
    for effect in result.effects:
        ends = MISSING
        if effect.low is not None and effect.high is not None:
            ends = f"{surprisal_number(effect.low, unit)} to {surprisal_number(effect.high, unit)}"
        region = ""
        if effect.region is not None:
            name = suites[effect.battery, effect.paradigm].regions.get(effect.region, "")
            region = f"{effect.region} {name}".strip()
        mean = surprisal_number(effect.nats, unit)
        rows.append([effect.paradigm, effect.what, region, f"{effect.n_items:,}", "", mean, ends, ""])
    return rows


def comparison_rows(summary: BatterySummary) -> Rows:
    """Return the differences between runs."""
    titles = run_titles(summary)
    rows = [["", "first", "second", "items", "difference", "95 % interval", "p", "p (Holm)"]]
    for one in summary.comparisons:
        p_holm = "" if one.p_holm is None else f"{one.p_holm:.4g}"
        ends = f"{one.low:+.1%} to {one.high:+.1%}"
        names = [one.name or one.battery, titles[one.first_run_id], titles[one.second_run_id]]
        rows.append([*names, f"{one.n_items:,}", f"{one.difference:+.1%}", ends, f"{one.p:.4g}", p_holm])
    return rows


def seed_rows(summary: BatterySummary) -> Rows:
    """Return the mean accuracies over seeds."""
    rows = [["", "seeds", "mean", "deviation", "95 % band of the mean"]]
    for one in summary.seeds:
        name = one.name or one.battery
        rows.append(
            [name, f"{len(one.run_ids)}", f"{one.mean:.1%}", f"{one.deviation:.1%}", interval_text(one.low, one.high)]
        )
    return rows


def report_files(
    summary: BatterySummary,
    items: Sequence[BatteryItem],
    scores: Mapping[str, Sequence[ItemScores]],
    images: Mapping[str, bytes],
) -> dict[str, str | bytes]:
    """Return the files of a report by name, given the items, their scores by run, and pictures by their titles."""
    files: dict[str, str | bytes] = {
        "accuracy.csv": accuracy_csv(summary),
        "items.csv": csv_table(_ITEM_COLUMNS, _items(items, scores)),
        "table.tex": latex_table(summary),
        "report.html": html_page(summary, images),
        **{f"regions-{number}.png": image for number, image in enumerate(images.values(), 1)},
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


_ACCURACY_COLUMNS = (
    *("run_id", "label", "seed", "battery", "level", "name", "n_items", "measure"),
    *("n_right", "n_wrong", "n_ties", "accuracy", "low", "high", "mean_over_paradigms"),
)
_ITEM_COLUMNS = (
    *("run_id", "battery", "item", "paradigm", "sequence", "condition", "region", "context", "text"),
    *("nats", "n_tokens", "n_chars", "n_bytes", "unk_count", "end_nats"),
)


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


def latex_table(summary: BatterySummary) -> str:
    """Return the accuracies as a table for a paper; it needs booktabs."""
    header, *rows = accuracy_rows(summary)
    names = latex_text(", ".join(battery.name for battery in summary.batteries))
    caption = (
        f"Accuracy on {names} by {MEASURE_WORDS[summary.measure]}, without ties."
        r" Intervals: Wilson (1927), 95\,\%."
    )
    return latex_rows(caption, None, header, [[title, *map(latex_text, cells)] for title, *cells in rows], n_titles=2)


def html_page(summary: BatterySummary, images: Mapping[str, bytes]) -> str:
    """Return the results as one page without outside assets, with pictures of regions by their titles."""
    title = ", ".join(battery.name for battery in summary.batteries)
    header, *rows = accuracy_rows(summary)
    sources = [
        f"{one.name}: {counted(one.n_items, 'item')}"
        + "".join(f", {extra}" for extra in (one.source, one.licence) if extra is not None)
        for one in summary.batteries
    ]
    caption = f"Accuracy by {MEASURE_WORDS[summary.measure]}, without ties. {INTERVALS}"
    parts = [
        section("Accuracy", _heat_map(header, rows, caption)),
        section("To know", *(f"<p>{escape(note)}.</p>" for note in (*sources, *notes(summary)))),
    ]
    for result in summary.runs:
        if result.effects:
            names, *cells = effect_rows(summary, result)
            text = "Shares of items for which a formula holds; mean surprisals and differences in nats."
            parts.append(section(f"Regions: {run_titles(summary)[result.run.name]}", table_of(names, cells, text)))
    parts += [figure_html(image, f"Mean surprisal by region, {name}.") for name, image in images.items()]
    if summary.comparisons:
        names, *cells = comparison_rows(summary)
        parts.append(section("Differences between runs", table_of(names, cells, DIFFERENCES)))
    if summary.seeds:
        names, *cells = seed_rows(summary)
        parts.append(section("Over seeds", table_of(names, cells, BANDS)))
    return PAGE.format(title=escape(title), body="\n".join(parts))


def _heat_map(header: Sequence[str], rows: Rows, caption: str) -> str:
    """Return the table with shares in colours."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(map(_heat_cell, row))}</tr>\n" for row in rows)
    return html_table(caption, head, body)


def _heat_cell(cell: str) -> str:
    share = _SHARE.fullmatch(cell)
    if share is None:
        return f"<td>{escape(cell)}</td>"
    return f'<td style="{cell_style(_SCALE, float(share.group(1)) / 100)}">{escape(cell)}</td>'
