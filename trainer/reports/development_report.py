"""The report of a run's development: its curves over checkpoints, and the ages at which it acquires words."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from trainer.contracts.batteries import LEVELS, BatterySummary
from trainer.contracts.development import (
    MIN_CHECKPOINTS,
    MIN_R_SQUARED,
    MIN_SHARE_SEEN,
    Acquisition,
    CurveMeasure,
    Development,
    DevelopmentRow,
    Misfit,
)
from trainer.contracts.reports import (
    Axis,
    Cell,
    Column,
    Estimate,
    Figure,
    Form,
    Link,
    Note,
    Part,
    Quantity,
    Report,
    Series,
    Table,
    column,
    counted_note,
    note,
    section,
)
from trainer.reports.battery_report import battery_report
from trainer.reports.names import named, names_of_models

_CURVES: Mapping[CurveMeasure, tuple[Note, Form]] = {
    "accuracy": (note("accuracy"), "share"),
    "loss": (note("loss in {unit} per token"), "loss"),
    "bits_per_char": (note("{unit} per character"), "per_char"),
}
"""The title and the form of each curve."""
_REASONS: Mapping[Misfit, Note] = {
    "too_few_checkpoints": note("fewer than {least} checkpoints after step 0", least=MIN_CHECKPOINTS),
    "no_fall": note("the surprisal does not fall"),
    "poor_fit": note("R² below {least}", least=Quantity(value=MIN_R_SQUARED, form="tenths")),
    "outside": note("half way is before the first or after the last checkpoint"),
    "no_plateau": note(
        "less than {least} of the fall lies between the first and the last checkpoint",
        least=Quantity(value=MIN_SHARE_SEEN, form="share"),
    ),
}
_AGE_INTERVALS = (
    "The 95 % intervals of ages cover how far the checkpoints are from the curve, not other seeds or contexts"
)
_MAX_LINES = 8


def development_report(development: Development, summary: BatterySummary) -> Report:
    """Return the report of a run's development; `summary` has the accuracies of its checkpoints."""
    sections = [
        *section("Over the checkpoints", [*_figures(development), *_checkpoints(development)]),
        *section("Ages of words", _ages(development)),
        *section("To know", _notes(development)),
        *(battery_report(summary).sections if summary.batteries else ()),
    ]
    report = Report(title=note("Development of {run_id}", run_id=development.run_id), sections=tuple(sections))
    return named(report, names_of_models(result.run for result in summary.runs))


def by_age(development: Development) -> list[Acquisition]:
    """Return the words that have an age, the youngest age first."""
    return sorted((word for word in development.acquisitions if word.fits), key=_age)


def _age(word: Acquisition) -> tuple[float, str]:
    return word.age_steps or 0.0, word.word


def _figures(development: Development) -> Iterator[Figure]:
    """Yield a figure of accuracies and one of losses, per character where these are known."""
    for name, measures in (("accuracy", ("accuracy",)), ("loss", ("bits_per_char", "loss"))):
        of_measures = [[row for row in development.curves if row.measure == measure] for measure in measures]
        rows = next((rows for rows in of_measures if rows), [])
        if rows:
            yield _figure(name, development, rows)


def _figure(name: str, development: Development, rows: Sequence[DevelopmentRow]) -> Figure:
    """Return a line for each battery and for its largest parts, as far as there is room, or for each split."""
    points, measure = development.points, rows[0].measure
    by_level = [[*{row.name: None for row in rows if row.level == level}] for level in (*LEVELS, "split")]
    whole, *parts = by_level
    several = next((names for names in parts if len(names) > 1), parts[-1])
    names = [*whole, *several][:_MAX_LINES]
    estimates = {(row.name, row.step): Estimate(value=row.value, low=row.low, high=row.high) for row in rows}
    read: list[tuple[Note, list[float | None]]] = [
        (note("words that the model has read"), [point.words for point in points]),
        (note("tokens that the model has read"), [point.tokens for point in points]),
        (note("step"), [point.step for point in points]),
    ]
    axes = [
        Axis(title=title, places=tuple(one for one in places if one is not None))
        for title, places in read
        if None not in places
    ]
    title, form = _CURVES[measure]
    return Figure(
        name=name,
        title=title,
        text=note("{what} over the checkpoints, with 95 % intervals.", what=title),
        axes=tuple(axes),
        y=title,
        form=form,
        series=tuple(
            Series(name=one, values=tuple(estimates.get((one, point.step)) for point in points)) for one in names
        ),
        levels=tuple(sorted({row.chance for row in rows if row.name in names and row.chance})),
        n_left_out=len({row.name for row in rows}) - len(names),
        file="development.csv",
        addresses=tuple(f"text/{development.run_id}@{point.step}" for point in points),
    )


def _checkpoints(development: Development) -> Iterator[Table]:
    """Yield a row for each checkpoint: the accuracies on whole batteries and the losses, with 95 % intervals."""
    shown = [row for row in development.curves if row.level in ("battery", "split")]
    curves = [*{(row.measure, row.name): None for row in shown}]
    cells = {(row.step, row.measure, row.name): Estimate(value=row.value, low=row.low, high=row.high) for row in shown}
    columns = [column("step", "count"), column("epoch", "count"), column("words", "count")]
    for measure, name in curves:
        title = note("{name}", name=name)
        if measure != "accuracy":
            title = note("{name}: {measure}", name=name, measure=_CURVES[measure][0])
        columns.append(Column(title=title, form=_CURVES[measure][1]))
    rows: list[tuple[Cell, ...]] = []
    for point in development.points:
        step = Link(text=point.step, address=f"text/{development.run_id}@{point.step}")
        rows.append((step, point.epoch, point.words, *(cells.get((point.step, *curve)) for curve in curves)))
    if shown:
        yield Table(
            name="curves",
            title=note("Checkpoints"),
            caption=note(
                "{intervals}",
                intervals=note("95 % intervals: of Wilson (1927) for accuracies, over the lines for losses."),
            ),
            columns=tuple(columns),
            rows=tuple(rows),
            file="development.csv",
            is_series=True,
        )


def _ages(development: Development) -> list[Part]:
    """Return the words that have an age, with the 95 % intervals of the ages, and the figure of their curves."""
    rows: list[tuple[Cell, ...]] = []
    for word in by_age(development):
        steps = Estimate(value=word.age_steps, low=word.age_steps_low, high=word.age_steps_high)
        words = Estimate(value=word.age_words, low=word.age_words_low, high=word.age_words_high)
        ends = (word.start_nats, word.end_nats, word.r_squared)
        rows.append((word.word, word.n_contexts, word.frequency_per_million, steps, words, *ends))
    if not rows:
        return []
    table = Table(
        name="words",
        title=note("Ages of words, the youngest first"),
        caption=note(
            "The age is the step at half way of a fitted sigmoid (Chang and Bergen 2022){intervals}.",
            intervals=note(", with its 95 % interval"),
        ),
        columns=(
            *(column("word"), column("contexts", "count"), column("per million", "tenths", is_detail=True)),
            *(column("age (steps)", "tenths"), column("age (words)", "count")),
            *(column("from {unit}", "surprisal", is_detail=True), column("to {unit}", "surprisal", is_detail=True)),
            column("R²", "hundredths"),
        ),
        rows=tuple(rows),
        file="acquisition.csv",
        is_series=True,
    )
    text = note(
        "Mean surprisals of words at the checkpoints, the fitted curves, and the ages as crosses with intervals."
    )
    return [table, Figure(name="words", title=note("Ages of words"), text=text)]


def _notes(development: Development) -> Iterator[Note]:
    """Yield how many words have an age, which have none, with reasons, and what of the texts was trained on."""
    ages = [word.age_steps for word in development.acquisitions if word.age_steps is not None]
    n_words = counted_note(len(development.acquisitions), "word")
    if ages:
        yield note(
            "{ages} of {words} have an age of acquisition, at the median at step {step}",
            ages=len(ages),
            words=n_words,
            step=median(ages),
        )
        yield note(_AGE_INTERVALS)
    elif development.acquisitions:
        yield note("{ages} of {words} have an age of acquisition", ages=0, words=n_words)
    for name, reason in _REASONS.items():
        words = [word.word for word in development.acquisitions if word.reason == name]
        if words:
            count = counted_note(len(words), "word")
            yield note("{words} without an age, {reason}: {names}", words=count, reason=reason, names=" ".join(words))
    if development.missing_words:
        yield note("Not in the text: {words}", words=", ".join(development.missing_words))
    yield from development.notes
    if development.n_unscored:
        count = counted_note(development.n_unscored, "occurrence")
        yield note("{occurrences} of words without a surprisal are left out", occurrences=count)
