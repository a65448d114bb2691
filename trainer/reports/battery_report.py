"""The report of a battery: accuracies of runs, controls, regions, differences between runs, and bands over seeds."""

from collections.abc import Iterator, Mapping, Sequence

from trainer.contracts.base import changed
from trainer.contracts.batteries import (
    MEASURES,
    Accuracy,
    BatterySummary,
    Controls,
    GroupResult,
    LeakedItems,
    Measure,
    RunResult,
)
from trainer.contracts.reports import (
    Axis,
    Cell,
    Column,
    Estimate,
    Figure,
    Note,
    Part,
    Quantity,
    Report,
    Series,
    Table,
    choice,
    column,
    counted_note,
    joined,
    note,
    section,
)
from trainer.reports.names import name_of_model, named, names_of_models

MEASURE_WORDS: Mapping[Measure, str] = {
    "sum": "sum of log-probabilities",
    "token": "log-probability per token",
    "char": "log-probability per character",
    "byte": "log-probability per byte",
    "end": "sum of log-probabilities with the line end",
}
_MEASURE_TITLES: Mapping[Measure, str] = {
    "sum": "by sum",
    "token": "per token",
    "char": "per char",
    "byte": "per byte",
    "end": "with line end",
}
ODD_ITEMS: Mapping[str, str] = {
    "n_identical": "two equal sequences, and no right answer",
    "n_duplicates": "the sequences of an item before, which count twice",
    "n_prefix": "a sequence that begins another one, so that the sum favours the shorter one"
    " (the measure `end` does not)",
    "n_unknown": "a token that the tokenizer does not know",
    "n_cut": "a sequence beyond the model's context",
    "n_inside": "a region that begins and ends inside a token, so that its surprisal counts as 0",
}
"""Items to know about, by the field of GroupResult that counts them."""
_LEAKS: Mapping[str, str] = {
    "training": "{battery}: {whole} of the items stand in the training text{ancestors}, and {ngrams} with"
    " eight words in a row",
    "ancestor": " or in that of `{name}`",
    "validation": "{battery}: {whole} of the items stand in the validation text, which chooses the weights, and"
    " {ngrams} with eight words in a row",
    "unsearched": "{battery}: the training text of `{name}` is deleted or has changed, so the items were not searched"
    " for in it",
}
_AT_CHANCE: Mapping[bool | None, str] = {True: "at chance", False: "NOT at chance", None: "only ties"}
_DIFFERENCES = (
    "Accuracy of the first run less that of the second: the score interval of Tango (1998), and the exact test of"
    " McNemar, also adjusted for the number of rows (Holm 1979)."
)
_BANDS = (
    "Runs that differ in their seeds only. Intervals by Student's t over the seeds, or by Wilson over the items of a"
    " run where these are wider."
)
_ITEMS = column("items", "count", is_detail=True)


def battery_report(summary: BatterySummary) -> Report:
    """Return the report of a battery's results."""
    titles = run_titles(summary)
    names = ", ".join(battery.name for battery in summary.batteries)
    sections = [
        *section("Accuracy", [choice("Measure", accuracy_tables(summary)), *_notes(summary, titles)]),
        *section("Controls", _controls(summary, titles)),
        *section("Regions", _regions(summary, titles)),
        *section("Differences between runs", _differences(summary, titles)),
        *section("Over seeds", _seeds(summary)),
    ]
    report = Report(title=note("{names}", names=names), sections=tuple(sections))
    return named(report, names_of_models(result.run for result in summary.runs))


def run_titles(summary: BatterySummary) -> Mapping[str, Note]:
    """Return the titles of models by name: those that people have given; the step where all are of one run."""
    runs = [result.run for result in summary.runs]
    names, is_of_one_run = names_of_models(runs), len({run.run_id for run in runs}) == 1
    titles: dict[str, Note] = {}
    for run in runs:
        titles[run.name] = note("{name}", name=name_of_model(run.name, names))
        if is_of_one_run and run.checkpoint is not None:
            titles[run.name] = note("step {step}", step=run.checkpoint)
    return titles


def accuracy_tables(summary: BatterySummary) -> list[Table]:
    """Return the accuracies of one run by all measures, or of several runs side by side, a table for each measure."""
    if len(summary.runs) == 1:
        return [_accuracies_of_one(summary.runs[0], summary.measure)]
    known = {one.measure for result in summary.runs for group in result.groups for one in group.accuracies}
    measures = [summary.measure, *(one for one in MEASURES if one in known and one != summary.measure)]
    return [_side_by_side(summary, one) for one in measures]


def _side_by_side(summary: BatterySummary, measure: Measure) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for place, group in enumerate(summary.runs[0].groups):
        groups = [result.groups[place] for result in summary.runs]
        rows.append((*_titles(group, measure), group.n_items, *(_estimate(one.by(measure)) for one in groups)))
        if group.level == "battery":
            means = [_mean(one, measure) for one in groups]
            rows.append(("", note("mean over paradigms"), "", *means))
    runs = [Column(title=title, form="accuracy") for title in run_titles(summary).values()]
    return _accuracy_table(measure, [_ITEMS, *runs], rows)


def _accuracies_of_one(result: RunResult, measure: Measure) -> Table:
    known = {one.measure for group in result.groups for one in group.accuracies}
    others = [one for one in MEASURES if one != measure and (one != "end" or one in known)]
    rows: list[tuple[Cell, ...]] = []
    for group in result.groups:
        main, by_measure = _estimate(group.by(measure)), {one.measure: one for one in group.accuracies}
        rest = [_estimate(by_measure.get(one)) for one in others]
        n_ties = "" if main is None else main.n_ties
        rows.append((*_titles(group, measure), group.n_items, n_ties, main, main, *rest))
        if group.level == "battery":
            mean, means = _mean(group, measure), [group.mean_over_paradigms.get(one) for one in others]
            rows.append(("", note("mean over paradigms"), "", "", mean, "", *means))
    columns = [
        _ITEMS,
        column("ties", "count", is_detail=True),
        Column(title=note(_MEASURE_TITLES[measure]), form="share", shows="value"),
        column("95 % interval", "share", shows="interval"),
        *(Column(title=note(_MEASURE_TITLES[one]), form="share", shows="value", is_detail=True) for one in others),
    ]
    return _accuracy_table(measure, columns, rows)


def _accuracy_table(measure: Measure, columns: Sequence[Column], rows: Sequence[tuple[Cell, ...]]) -> Table:
    return Table(
        name="accuracy" if measure == "sum" else f"accuracy-{measure}",
        title=note("Accuracy by {measure}", measure=note(MEASURE_WORDS[measure])),
        caption=note(
            "Accuracy by {measure}, without ties. Intervals: Wilson (1927), 95 %.", measure=note(MEASURE_WORDS[measure])
        ),
        columns=(column(""), column(""), *columns),
        rows=tuple(rows),
        n_titles=2,
        scale=(0.0, 1.0),
        file="accuracy.csv",
    )


def _titles(group: GroupResult, measure: Measure) -> tuple[Cell, Cell]:
    found = group.by(measure)
    name = note("all items") if group.level == "battery" else note("{name}", name=group.name)
    if found is not None and found.measure != measure:
        name = note("{name} (by sum)", name=name)
    return (group.battery if group.level == "battery" else note(group.level)), name


def _mean(group: GroupResult, measure: Measure) -> float | None:
    found = group.by(measure)
    return None if found is None else group.mean_over_paradigms.get(found.measure)


def _estimate(found: Accuracy | None) -> Estimate | None:
    if found is None:
        return None
    return Estimate(value=found.accuracy, low=found.low, high=found.high, n_ties=found.n_ties)


def _notes(summary: BatterySummary, titles: Mapping[str, Note]) -> Iterator[Note]:
    """Yield what is to be known about the numbers: sources, odd items, leaked items and runs."""
    for one in summary.batteries:
        facts = {name: fact for name, fact in (("source", one.source), ("licence", one.licence)) if fact is not None}
        template = "".join(["{battery}: {items}", *(f", {{{name}}}" for name in facts)])
        yield note(template, battery=one.name, items=counted_note(one.n_items, "item"), **facts)
        yield from (note("{battery}: {text}", battery=one.name, text=text) for text in one.notes)
    of_runs = {result.run.name: [*_notes_of_run(result)] for result in summary.runs}
    shared = [one for one in next(iter(of_runs.values()), []) if all(one in notes for notes in of_runs.values())]
    yield from shared
    for name, notes in of_runs.items():
        yield from (note("{run}: {note}", run=titles[name], note=one) for one in notes if one not in shared)
    yield from summary.notes


def _notes_of_run(result: RunResult) -> Iterator[Note]:
    for group in result.groups:
        if group.level == "battery":
            yield from _odd_items(group)
    if result.controls and not result.leaks and all(control.counts is None for control in result.controls):
        yield note("the training text was neither searched for the items nor counted")
    for control in result.controls:
        if control.chance == 0:
            yield note(
                "{battery}: no random item has all formulas, so chance is 0: read each by itself",
                battery=_control_name(control),
            )
    for one in result.formulas:
        if one.n_undecided > one.n_items / 2:
            yield note(
                "{suite}: {formula} is undecided for {undecided} of {items}",
                suite=one.paradigm,
                formula=one.formula,
                undecided=one.n_undecided,
                items=counted_note(one.n_items, "item"),
            )
    for leak in result.leaks:
        yield from item_leak_notes(leak)


def _odd_items(group: GroupResult) -> Iterator[Note]:
    for field, what in ODD_ITEMS.items():
        n_items: int = getattr(group, field)
        if n_items:
            items = counted_note(n_items, "item")
            yield note("{battery}: {items} with {what}", battery=group.battery, items=items, what=note(what))


def item_leak_notes(leak: LeakedItems) -> Iterator[Note]:
    """Yield the shares of the items in training and validation text, and what was not searched."""
    ancestors = joined(note(_LEAKS["ancestor"], name=name) for name in leak.ancestors)
    shares = [
        Quantity(value=share, form="share")
        for share in (leak.whole, leak.ngrams, leak.validation_whole, leak.validation_ngrams)
    ]
    yield note(_LEAKS["training"], battery=leak.battery, whole=shares[0], ngrams=shares[1], ancestors=ancestors)
    if leak.validation_whole or leak.validation_ngrams:
        yield note(_LEAKS["validation"], battery=leak.battery, whole=shares[2], ngrams=shares[3])
    for name in leak.unsearched:
        yield note(_LEAKS["unsearched"], battery=leak.battery, name=name)


def _controls(summary: BatterySummary, titles: Mapping[str, Note]) -> list[Part]:
    rows = [(titles[result.run.name], *_control(control)) for result in summary.runs for control in result.controls]
    columns = (
        *(column("run", is_detail=len(summary.runs) == 1), column("battery"), _ITEMS),
        column("chance", "share"),
        column("untrained", "accuracy"),
        column("untrained is"),
        column("unigrams", "accuracy"),
        column("n-grams", "accuracy"),
        column("n"),
    )
    title = note("Controls: the untrained architecture, and counts of the training text")
    return [Table(name="controls", title=title, columns=columns, rows=tuple(rows), n_titles=2)] if rows else []


def _control(control: Controls) -> tuple[Cell, ...]:
    counts = control.counts
    of_counts: tuple[Cell, ...] = (note("not counted"), None, None)
    if counts is not None:
        of_counts = (_estimate(counts.unigram), _estimate(counts.ngram), f"{counts.order}")
    return (
        _control_name(control),
        control.n_items,
        control.chance,
        _estimate(control.untrained),
        note(_AT_CHANCE[control.is_at_chance]),
        *of_counts,
    )


def _control_name(control: Controls) -> str:
    return f"{control.battery}: {control.suite}" if control.suite else control.battery


def _regions(summary: BatterySummary, titles: Mapping[str, Note]) -> list[Part]:
    """Return the shares of items for which formulas hold, the mean surprisals of regions, and their figures."""
    suites = {(one.name, paradigm): suite for one in summary.batteries for paradigm, suite in one.suites.items()}
    formulas: list[tuple[Cell, ...]] = []
    effects: list[tuple[Cell, ...]] = []
    figures: list[Figure] = []
    for result in summary.runs:
        title = titles[result.run.name]
        for one in result.formulas:
            share = Estimate(value=one.accuracy, low=one.low, high=one.high)
            formulas.append((title, one.paradigm, one.formula, one.n_items, one.n_undecided, share, share, one.chance))
        for effect in result.effects:
            mean = Estimate(value=effect.nats, low=effect.low, high=effect.high)
            region = ""
            if effect.region is not None:
                name = suites[effect.battery, effect.paradigm].regions.get(effect.region, "")
                region = f"{effect.region} {name}".strip()
            effects.append((title, effect.paradigm, effect.what, region, effect.n_items, mean, mean))
        for battery, paradigm in suites:
            figures.append(_figure(result, title, battery, paradigm, summary, len(figures) + 1))
    run, suite = column("run", is_detail=len(summary.runs) == 1), column("suite")
    tables = [
        Table(
            name="formulas",
            title=note("Shares of items for which a formula holds"),
            columns=(
                *(run, suite, column("formula"), _ITEMS),
                column("undecided", "count", is_detail=True),
                column("right", "share", shows="value"),
                column("95 % interval", "share", shows="interval"),
                column("chance", "share"),
            ),
            rows=tuple(formulas),
            n_titles=3,
        ),
        Table(
            name="effects",
            title=note("Mean surprisals of regions, and differences"),
            columns=(
                *(run, suite, column("what"), column("region"), _ITEMS),
                column("{unit}", "surprisal", shows="value"),
                column("95 % interval", "surprisal", shows="interval"),
            ),
            rows=tuple(effects),
            n_titles=4,
        ),
    ]
    return [*(part for table in tables for part in _filed(table)), *figures]


def _figure(
    result: RunResult, title: Note, battery: str, paradigm: str, summary: BatterySummary, number: int
) -> Figure:
    """Return the mean surprisals of the regions of a suite, a line for each condition."""
    [suite] = [one.suites[paradigm] for one in summary.batteries if one.name == battery]
    effects = {
        (one.what, one.region): Estimate(value=one.nats, low=one.low, high=one.high)
        for one in result.effects
        if (one.battery, one.paradigm) == (battery, paradigm) and one.region is not None
    }
    regions = sorted({region or 0 for _, region in effects})
    names = [f"{region} {suite.regions.get(region, '')}".strip() for region in regions]
    shown = note("{run}: {suite}", run=title, suite=paradigm)
    return Figure(
        name=f"regions-{number}",
        title=shown,
        text=note("Mean surprisal by region, {what}.", what=shown),
        axes=(Axis(title=note("region"), names=tuple(names)),),
        y=note("surprisal ({unit})"),
        form="surprisal",
        series=tuple(
            Series(name=condition, values=tuple(effects.get((condition, region)) for region in regions))
            for condition in {condition: None for condition, _ in effects}
        ),
    )


def _differences(summary: BatterySummary, titles: Mapping[str, Note]) -> list[Part]:
    rows: list[tuple[Cell, ...]] = []
    for one in summary.comparisons:
        difference = Estimate(value=one.difference, low=one.low, high=one.high)
        runs = titles[one.first_run_id], titles[one.second_run_id]
        p_holm = "" if one.p_holm is None else one.p_holm
        rows.append((one.name or one.battery, *runs, one.n_items, difference, difference, one.p, p_holm))
    columns = (
        *(column(""), column("first"), column("second"), _ITEMS),
        column("difference", "change", shows="value"),
        column("95 % interval", "change", shows="interval"),
        *(column("p", "p"), column("p (Holm)", "p")),
    )
    title = note("Differences between runs")
    return _filed(
        Table(
            name="comparisons", title=title, caption=note(_DIFFERENCES), columns=columns, rows=tuple(rows), n_titles=3
        )
    )


def _seeds(summary: BatterySummary) -> list[Part]:
    rows: list[tuple[Cell, ...]] = []
    for one in summary.seeds:
        mean = Estimate(value=one.mean, low=one.low, high=one.high)
        rows.append((one.name or one.battery, len(one.run_ids), mean, one.deviation, mean))
    columns = (
        *(column(""), column("seeds", "count")),
        column("mean", "share", shows="value"),
        column("deviation", "share"),
        column("95 % band of the mean", "share", shows="interval"),
    )
    return _filed(
        Table(name="seeds", title=note("Over seeds"), caption=note(_BANDS), columns=columns, rows=tuple(rows))
    )


def _filed(table: Table) -> list[Part]:
    """Return a table with the file of its name; nothing without rows."""
    return [changed(table, file=f"{table.name}.csv")] if table.rows else []
