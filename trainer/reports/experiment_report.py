"""The report of an experiment: how much a model of one language is surprised by another, and what supports it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryRow
from trainer.contracts.experiments import (
    TRIGRAM,
    Correlation,
    CorrelationKind,
    ExperimentResult,
    MatrixRow,
    ModelTables,
    PairSet,
    ScoringMode,
    TextKind,
    ValidityCheck,
)
from trainer.contracts.reports import (
    Cell,
    Column,
    Estimate,
    Figure,
    Link,
    Note,
    Part,
    Quantity,
    Report,
    Table,
    choice,
    column,
    counted_note,
    note,
    section,
)
from trainer.reports.experiment_tables import (
    ListenerFigures,
    battery_rows,
    excess_scale,
    listener_figures,
    pair_rows,
    pair_seeds,
)
from trainer.reports.leak_notes import unit_leak_notes
from trainer.reports.run_notes import shown_figure, stronger_note

_KINDS: Mapping[TextKind, str] = {
    "passages": "the passages",
    "held_out": "held-out text",
    "shuffled": "held-out text with shuffled characters",
}
_MODES: Mapping[ScoringMode, str] = {
    "skip": "positions whose character every model knows",
    "unk": "all positions",
    "assimilate": "all positions, unknown characters replaced by the nearest known ones",
}
_STATISTICS: Mapping[CorrelationKind, str] = {"pearson": "Pearson's r", "spearman": "Spearman's ρ"}
_PAIRS: Mapping[PairSet, str] = {"all": "all rated pairs", "across_branches": "without pairs within a branch"}
_GAP = (
    "The mean distance is {within} {unit} within branches and {across} across branches: a gap of {gap}, which should be"
    " above 0."
)
_JOINS: Mapping[bool, str] = {
    True: "The tree joins the languages of each branch first.",
    False: "The tree does not join the languages of each branch first.",
}
_EXCESS = (
    "The excess is the cross-entropy of a listener's model on a text, above that of the text's own model, in {unit} per"
    " character. Brackets and parentheses hold 95 % intervals of a paired bootstrap (2,000 resamples)"
)


def experiment_report(result: ExperimentResult) -> Report:
    """Return the report of an experiment's results."""
    sections = [
        *section("Excess surprisal", [_matrices(result), _heat_map(result), *_notes(result)]),
        *section("Validity", _validity(result)),
        *section("Human ratings", _ratings(result)),
        *section("Batteries", _batteries(result)),
        *section("Perplexity", [_perplexities(result)]),
        *section("Counting", _counting(result)),
        *section("Tree", _tree(result)),
        *section("Asymmetry", _asymmetry(result), is_detail=True),
        *section("Listeners of one text", _listeners(result), is_detail=True),
        *section("Trainings", _trainings(result), is_detail=True),
        *section("Spread over seeds", _seeds(result), is_detail=True),
        *section("Replaced characters", _replacements(result), is_detail=True),
        *section("Jobs", _jobs(result)),
    ]
    return Report(title=note("Experiment {name}", name=result.name), sections=tuple(sections))


def covered(result: ExperimentResult, model: str | None = None) -> Note:
    """Return what the intervals of a model cover; default: those of the headline model."""
    if model == TRIGRAM:
        return note("The trigram baseline has no seeds: its intervals cover sections of the text.")
    n_seeds = len(result.seeds)
    if n_seeds == 1:
        return note("One seed per language: the intervals cover sections of the text, not the spread of trainings.")
    seeds = counted_note(n_seeds, "seed")
    return note("{seeds} per language: the intervals cover seeds and sections of the text.", seeds=seeds)


def check_note(check: ValidityCheck, checks: Sequence[ValidityCheck]) -> Note:
    """Return the sentence of a check with its distances; `checks` has that of the held-out text, if there is one."""
    found = check.gap
    numbers = {
        name: _nats(nats) for name, nats in (("within", found.within), ("across", found.across), ("gap", found.gap))
    }
    match check.name:
        case "shuffled":
            held_out = next((one.gap for one in checks if one.name == "held_out"), None)
            if held_out is None:
                return note("With shuffled characters the gap is {gap} {unit}.", gap=numbers["gap"])
            return note(
                "With shuffled characters the gap is {gap} {unit}; it should be below half of the {held_out} of the"
                " held-out text.",
                gap=numbers["gap"],
                held_out=_nats(held_out.gap),
            )
        case "control":
            distances = found.control_distances
            control = min(distances, key=distances.__getitem__, default="")
            return note(
                "The smallest distance of a control is {nearest} {unit} ({control}); it should be above the mean"
                " distance across branches, {across}.",
                nearest=_nats(distances.get(control, 0.0)),
                control=control,
                across=numbers["across"],
            )
        case _:
            tree = note(_JOINS[check.joins_branches_first is True])
            return note("{distances} {tree}", distances=note(_GAP, **numbers), tree=tree)


def _nats(nats: float) -> Quantity:
    return Quantity(value=nats, form="loss")


def _picture(name: str, text: Note) -> Figure:
    return Figure(name=name, title=text, text=text)


def _heat_map(result: ExperimentResult) -> Figure:
    text = note(
        "Heat map of the excess cross-entropy: the numbers of the first table. {covered}", covered=covered(result)
    )
    return _picture("heat_map", text)


def on_text(model: str, kind: TextKind, mode: ScoringMode) -> Note:
    """Return a model with the text that it scores."""
    return note("{model} on {text}, {positions}", model=model, text=note(_KINDS[kind]), positions=note(_MODES[mode]))


def _matrices(result: ExperimentResult) -> Part:
    """Return the matrix of each model, kind of text and mode, the headline first."""
    found = [(tables, mode) for tables in result.models for mode in result.modes]
    return choice("Model and text", [_matrix(result, *one, number) for number, one in enumerate(found)])


def _matrix(result: ExperimentResult, tables: ModelTables, mode: ScoringMode, number: int) -> Table:
    """Return the excess of each listener, in rows, on the text of each language."""
    pairs, seeds = pair_rows(tables, mode), pair_seeds(result, tables.model, tables.kind, mode)
    rows: list[tuple[Cell, ...]] = []
    for listener in result.languages:
        cells: list[Cell] = [listener]
        for text in result.languages:
            row, seed = pairs.get((listener, text)), seeds.get((listener, text))
            cells.append(None if row is None else _excess(row, None if seed is None else seed.excess_sd))
        rows.append(tuple(cells))
    scale, what = excess_scale(pairs), on_text(tables.model, tables.kind, mode)
    return Table(
        name="matrix" if number == 0 else f"matrix-{number}",
        title=what,
        caption=note(
            "Excess cross-entropy in {unit} per character: {what}. Rows: listeners; columns: languages of the text."
            " {covered}",
            what=what,
            covered=covered(result, tables.model),
        ),
        columns=(column(""), *(Column(title=note("{name}", name=text), form="loss") for text in result.languages)),
        rows=tuple(rows),
        scale=(scale.low, scale.high),
        file=f"{_folder(result, tables)}matrix.csv",
    )


def _folder(result: ExperimentResult, tables: ModelTables) -> str:
    if (tables.model, tables.kind) == result.headline:
        return ""
    return f"tables/{tables.model}-{tables.kind.replace('_', '-')}/"


def _excess(row: MatrixRow, deviation: float | None) -> Estimate:
    """Return an excess with its interval; that of a language's own model is 0 by definition."""
    if row.listener_language == row.text_language:
        return Estimate(value=row.excess_cross_entropy, is_own=True)
    return Estimate(value=row.excess_cross_entropy, low=row.interval_low, high=row.interval_high, deviation=deviation)


def _notes(result: ExperimentResult) -> Iterator[Note]:
    yield note(_EXCESS)
    if result.common_characters is not None:
        shown = " ".join("␣" if character == " " else character for character in result.common_characters)
        number = len(result.common_characters)
        yield note("Characters that every model knows ({number}): {characters}", number=number, characters=shown)
    for one in result.leaks:
        yield from unit_leak_notes(one.leak, note("the text `{name}`", name=one.text_id), one.run_id)


def _validity(result: ExperimentResult) -> Iterator[Note]:
    checks = result.validity.checks
    if result.validity.passed is None:
        yield note("Nothing to check: the plan has no two branches with two languages")
    for check in checks:
        template = "✓ passed, {name}: {text}" if check.passed else "✗ failed, {name}: {text}"
        yield note(template, name=check.name.replace("_", "-"), text=check_note(check, checks))


def _ratings(result: ExperimentResult) -> Iterator[Part]:
    """Yield the primary test as a sentence, and the table of all tests, the primary one first."""
    primary = next((row for row in result.correlations if row.is_primary), None)
    if primary is None:
        return
    yield _primary_note(primary)
    others = [row for row in result.correlations if not row.is_primary]
    yield Table(
        name="correlations",
        title=note("Correlations with human ratings"),
        caption=note(
            "{tests} of the excess cross-entropy with human ratings, over ordered pairs of different languages. People"
            " who understand more give higher ratings, so a negative correlation means that both agree. p is the share"
            " of permutations of the languages with a correlation at least as large. The plan names the primary test;"
            " the p-values of {others} are adjusted for their number (Holm). {covered}",
            tests=counted_note(len(others) + 1, "correlation"),
            others=counted_note(len(others), "exploratory test"),
            covered=covered(result),
        ),
        columns=(
            *(column("test"), column("model"), column("text", is_detail=True), column("positions", is_detail=True)),
            *(column("statistic"), column("pairs"), column("languages", "count", is_detail=True), column("n", "count")),
            *(column("r", "thousandths"), column("p", "p")),
        ),
        rows=tuple(map(_correlation, (primary, *others))),
        n_titles=6,
        file="correlations.csv",
    )


def _correlation(row: Correlation) -> tuple[Cell, ...]:
    return (
        note("primary") if row.is_primary else note("exploratory"),
        *(row.model, note(_KINDS[row.kind]), note(_MODES[row.mode])),
        *(note(_STATISTICS[row.statistic]), note(_PAIRS[row.pairs]), row.n_languages, row.n_pairs),
        *(row.r, row.p if row.is_primary else row.p_holm),
    )


def _primary_note(row: Correlation) -> Note:
    what = on_text(row.model, row.kind, row.mode)
    over = {
        "pairs": counted_note(row.n_pairs, "pair"),
        "languages": counted_note(row.n_languages, "language"),
        "set": note(_PAIRS[row.pairs]),
    }
    if row.r is None or row.p is None:
        return note("Primary test, {what}: no correlation, {pairs} of {languages}, {set}", what=what, **over)
    return note(
        "Primary test, {what}: {statistic} = {r}, p = {p} ({pairs} of {languages}, {set}; {permutations} of the"
        " languages)",
        what=what,
        statistic=note(_STATISTICS[row.statistic]),
        r=Quantity(value=row.r, form="thousandths"),
        p=Quantity(value=row.p, form="p"),
        permutations=counted_note(row.n_permutations, "permutation"),
        **over,
    )


def _batteries(result: ExperimentResult) -> Iterator[Part]:
    if not result.batteries:
        return
    models = [*{row.model: None for row in result.batteries}]
    yield choice("Model", [battery_table(result, model) for model in models])
    text = note(
        "Heat map of accuracies on batteries: the numbers of the table of batteries. {seeds}",
        seeds=means_over_seeds(result),
    )
    yield _picture("batteries", text)
    yield note("Paradigms and other measures: batteries.csv. Controls, and differences between runs: the jobs below")


def battery_table(result: ExperimentResult, model: str) -> Table:
    """Return the accuracies of a model on whole batteries: a row for each of its languages."""
    found = battery_rows(result, model)
    titles = [*{title: None for _, title in found}]
    ends = note("of Wilson over the items")
    if len(result.seeds) > 1:
        ends = note("by Student's t over the seeds, or of Wilson if wider")
    rows = [(language, *(_accuracy(found.get((language, title))) for title in titles)) for language in result.languages]
    return Table(
        name=f"batteries-{model}",
        title=note("Accuracy of model {model}", model=model),
        caption=note(
            "Accuracy in % of model {model} by the sum of log-probabilities, without ties. Rows: language of the model;"
            " columns: battery, after its language. {seeds}{intervals}",
            model=model,
            seeds=means_over_seeds(result),
            intervals=note(" In brackets: 95 % intervals {ends}.", ends=ends),
        ),
        columns=(column(""), *(Column(title=note("{name}", name=title), form="points") for title in titles)),
        rows=tuple(rows),
        scale=(0.0, 1.0),
        file="batteries.csv",
    )


def means_over_seeds(result: ExperimentResult) -> Note:
    """Return over how many seeds the numbers are means."""
    if len(result.seeds) == 1:
        return note("One seed per language.")
    return note("Means of {seeds} per language.", seeds=counted_note(len(result.seeds), "seed"))


def _accuracy(row: BatteryRow | None) -> Estimate | None:
    if row is None or row.accuracy is None:
        return None
    return Estimate(value=row.accuracy, low=row.low, high=row.high, is_own=row.model_language == row.battery_language)


def _perplexities(result: ExperimentResult) -> Part:
    """Return the perplexities of each model, kind of text and mode, the headline first."""
    found = [(tables.model, tables.kind, mode) for tables in result.models for mode in result.modes]
    return choice("Model and text", [perplexity_table(result, *one) for one in found])


def perplexity_table(result: ExperimentResult, model: str, kind: TextKind, mode: ScoringMode) -> Table:
    """Return a row per listener: its perplexity on each text, and the area under its training loss."""
    figures, rows = listener_figures(result, model, kind, mode), list[tuple[Cell, ...]]()
    for each in figures:
        found = [each.perplexities.get(text) for text in result.text_languages]
        cells = [None if row is None else Estimate(value=row.perplexity, deviation=row.perplexity_sd) for row in found]
        area = None if each.area is None else Estimate(value=each.area, deviation=each.area_sd)
        rows.append((_listener(each), *cells, area))
    what = on_text(model, kind, mode)
    texts = [Column(title=note("{name}", name=text), form="perplexity") for text in result.text_languages]
    return Table(
        name=f"perplexity-{model}-{kind}-{mode}",
        title=note("Perplexity: {what}", what=what),
        caption=note(
            "Perplexity per character: {what}; area under the training loss in {unit} · steps. Rows: language of the"
            " model; columns: language of the text. {covered} ±: standard deviation over seeds.",
            what=what,
            covered=covered(result, model),
        ),
        columns=(column(""), *texts, column("area", "surprisal")),
        rows=tuple(rows),
        file="perplexity.csv",
    )


def _counting(result: ExperimentResult) -> Iterator[Part]:
    """Yield the losses of the trained models beside those of counting in their training text, and what to do."""
    figures = [
        (one, (one.baseline.bits_per_char, one.baseline.counted_bits_per_char, one.baseline.difference))
        for one in result.baselines
    ]
    rows = tuple(
        (
            *(one.model, one.language, stronger_note(one.baseline)),
            *(shown_figure(each, one.baseline.unknown_char_share, has_known=False) for each in of_one),
        )
        for one, of_one in figures
    )
    if not rows:
        return
    yield Table(
        name="counting",
        title=note("Models and counting"),
        caption=note(
            "Losses on the test split of each training text, in {unit} per character, beside those of the best n-gram"
            " that was counted in the training text. {covered}",
            covered=means_over_seeds(result),
        ),
        columns=(
            *(column("model"), column("language"), column("n-gram")),
            *(column("model's loss", "per_char"), column("n-gram's loss", "per_char")),
            column("difference", "per_char_change"),
        ),
        rows=rows,
        n_titles=3,
    )
    warnings = Counter(text for one in result.baselines for text in one.baseline.warnings())
    for text, number in warnings.items():
        yield note("Warning: {number} of {all}: {text}", number=number, all=len(rows), text=note(text))


def _listener(figures: ListenerFigures) -> Cell:
    """Return the language of a listener, with its phase, and where it has kept its parent's weights."""
    if figures.phase is None:
        return figures.language
    phase = note("first phase") if figures.phase == "first" else note("second phase")
    if not figures.n_of_parent:
        return note("{language} ({phase})", language=figures.language, phase=phase)
    parents = note("best epoch 0: the parent's weights")
    if figures.n_seeds > 1:
        seeds = counted_note(figures.n_seeds, "seed")
        parents = note("{parents} in {number} of {seeds}", parents=parents, number=figures.n_of_parent, seeds=seeds)
    return note("{language} ({phase}; {parents})", language=figures.language, phase=phase, parents=parents)


def _tree(result: ExperimentResult) -> Iterator[Part]:
    joins = result.models[0].tree
    text = note(
        "Average-linkage tree of the languages: the joins of the table of joins. {covered}", covered=covered(result)
    )
    leaves = {one: leaf_title(result, one) for one in result.languages}
    yield changed(_picture("tree", text), title=note("Tree of the languages"), joins=joins, leaves=leaves)
    yield Table(
        name="joins",
        title=note("Joins, the nearest first"),
        caption=note("Joins, the nearest first. {covered}", covered=covered(result)),
        columns=(column("left"), column("right"), column("{unit} per character", "loss")),
        rows=tuple((" ".join(join.left), " ".join(join.right), join.height) for join in joins),
        n_titles=2,
    )


def leaf_title(result: ExperimentResult, language: str) -> str:
    """Return a language with its branch, or the mark of a control."""
    group = "control" if language in result.controls else result.branches.get(language)
    return language if group is None else f"{language} ({group})"


def _asymmetry(result: ExperimentResult) -> Iterator[Table]:
    """Yield both directions of each pair of languages, by the headline model in the first mode."""
    rows = [row for row in result.models[0].tables.asymmetry if row.scoring_mode == result.modes[0]]
    yield Table(
        name="asymmetry",
        title=note("Asymmetry, {unit} per character"),
        caption=note("Both directions of each pair, in {unit} per character. {covered}", covered=covered(result)),
        columns=(
            *(column("a"), column("b"), column("a on b", "loss"), column("b on a", "loss")),
            column("difference", "loss"),
        ),
        rows=tuple(
            (
                *(row.language_a, row.language_b, row.excess_a_on_b, row.excess_b_on_a),
                Estimate(value=row.asymmetry, low=row.interval_low, high=row.interval_high),
            )
            for row in rows
        ),
        n_titles=2,
        file="asymmetry.csv",
    )


def _listeners(result: ExperimentResult) -> Iterator[Table]:
    """Yield the differences of two listeners of one text, by the headline model in the first mode."""
    rows = [row for row in result.models[0].tables.listeners if row.scoring_mode == result.modes[0]]
    yield Table(
        name="listeners",
        title=note("Differences between listeners of one text, {unit} per character"),
        caption=note(
            "The excess of a on the text, less that of b, in {unit} per character. {covered}", covered=covered(result)
        ),
        columns=(column("text"), column("a"), column("b"), column("difference", "loss")),
        rows=tuple(
            (
                *(row.text_language, row.listener_a, row.listener_b),
                Estimate(value=row.difference, low=row.interval_low, high=row.interval_high),
            )
            for row in rows
        ),
        n_titles=3,
        file="listeners.csv",
    )


def _trainings(result: ExperimentResult) -> Iterator[Part]:
    text = note(
        "Best validation loss and area under the training loss of each training: the table of trainings. {covered}",
        covered=covered(result),
    )
    yield _picture("curves", text)
    yield Table(
        name="trainings",
        title=note("All trainings"),
        caption=note("Losses in {unit} per token, area under the training loss in {unit} · steps."),
        columns=(
            *(column("run"), column("model"), column("language"), column("seed", "count"), column("phase")),
            *(column("steps", "count"), column("epochs", "count"), column("best validation loss", "loss")),
            *(column("test loss", "loss"), column("perplexity", "perplexity")),
            *(column("{unit} per character", "per_char"), column("area", "surprisal")),
        ),
        rows=tuple(
            (
                Link(text=row.run_id, address=f"runs/{row.run_id}"),
                *(row.model, row.language, row.seed, row.phase, row.steps, row.epochs),
                *(row.best_val_loss, row.test_loss, row.test_perplexity, row.bits_per_char, row.auc),
            )
            for row in result.curves
        ),
        n_titles=5,
        file="curves.csv",
    )


def _seeds(result: ExperimentResult) -> Iterator[Table]:
    """Yield means and standard deviations over seeds of the headline model in the first mode."""
    wanted = (*result.headline, result.modes[0])
    rows = [row for row in result.seed_rows if (row.model, row.kind, row.scoring_mode) == wanted]
    if len(result.seeds) > 1:
        yield Table(
            name="seeds",
            title=note("Mean and standard deviation over seeds"),
            caption=note("Mean±deviation over seeds, in {unit} per character: {what}.", what=on_text(*wanted)),
            columns=(column("listener"), column("text"), column("cross-entropy", "loss"), column("excess", "loss")),
            rows=tuple(
                (
                    *(row.listener_language, row.text_language),
                    Estimate(value=row.cross_entropy_mean, deviation=row.cross_entropy_sd),
                    Estimate(value=row.excess_mean, deviation=row.excess_sd),
                )
                for row in rows
            ),
            n_titles=2,
            file="seeds.csv",
        )


def _replacements(result: ExperimentResult) -> Iterator[Part]:
    if not result.replacements:
        yield note("No model met a character that it does not know")
        return
    yield Table(
        name="replacements",
        title=note("Characters unknown to a listener, and the ones read instead"),
        columns=(
            *(column("character"), column("read as"), column("model"), column("listener"), column("seed", "count")),
            *(column("distance", "hundredths"), column("occurrences", "count")),
        ),
        rows=tuple(
            (
                *(row.character, row.replacement, row.model, row.listener_language, row.seed),
                *(row.distance, row.count),
            )
            for row in result.replacements
        ),
        n_titles=4,
        file="assimilation.csv",
    )


def _jobs(result: ExperimentResult) -> Iterator[Table]:
    """Yield the jobs that have scored batteries, and those that have measured checkpoints."""
    battery, development = note("batteries and differences between runs"), note("development over checkpoints")
    rows = [(Link(text=one, address=f"batteries/{one}"), battery) for one in result.battery_ids]
    rows += [(Link(text=one, address=f"batteries/{one}"), development) for one in result.development_ids]
    if rows:
        columns = (column("job"), column("what"))
        yield Table(name="jobs", title=note("Jobs of the experiment"), columns=columns, rows=tuple(rows))
