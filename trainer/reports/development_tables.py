"""Tables of a run's development: its curves and the ages of words for people, and all rows as CSV, LaTeX and a page."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from io import StringIO
from itertools import zip_longest
from statistics import median
from typing import TypeVar

from pydantic import ValidationError

from trainer.contracts.base import Frozen
from trainer.contracts.development import (
    MIN_CHECKPOINTS,
    MIN_R_SQUARED,
    MIN_SHARE_SEEN,
    Acquisition,
    CheckpointPoint,
    CurveMeasure,
    Development,
    DevelopmentRow,
    Misfit,
    WordScores,
)
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.units import Unit, loss_number, per_char_number, surprisal_number
from trainer.contracts.wording import counted
from trainer.reports.battery_tables import Rows, interval_text, percent
from trainer.reports.experiment_html import PAGE, figure_html, section, table_of
from trainer.reports.experiment_tables import MISSING, csv_text, latex_rows, latex_text

MEASURE_TITLES: Mapping[CurveMeasure, str] = {
    "accuracy": "accuracy",
    "loss": "loss in {unit} per token",
    "bits_per_char": "{unit} per character",
}
REASONS: Mapping[Misfit, str] = {
    "too_few_checkpoints": f"fewer than {MIN_CHECKPOINTS} checkpoints after step 0",
    "no_fall": "the surprisal does not fall",
    "poor_fit": f"R² below {MIN_R_SQUARED}",
    "outside": "half way is before the first or after the last checkpoint",
    "no_plateau": f"less than {MIN_SHARE_SEEN:.0%} of the fall lies between the first and the last checkpoint",
}
ALT: Mapping[str, str] = {
    "accuracy": "Accuracy over the words that the model has read, with 95 % intervals.",
    "loss": "Loss over the words that the model has read, with 95 % intervals.",
    "words": "Mean surprisals of words at the checkpoints, the fitted curves, and the ages as crosses with intervals.",
}
"""Texts of the pictures by name."""
CURVES = "95 % intervals: of Wilson (1927) for accuracies, over the lines for losses."
AGES = "The age is the step at half way of a fitted sigmoid (Chang and Bergen 2022), with its 95 % interval."
AGE_INTERVALS = (
    "The 95 % intervals of ages cover how far the checkpoints are from the curve, not other seeds or contexts"
)
_MAX_LATEX_WORDS = 30
RowT = TypeVar("RowT", bound=Frozen)
SpreadT = TypeVar("SpreadT")


def read_csv(row_type: type[RowT], text: str) -> tuple[RowT, ...]:
    """Return the rows that `csv_text` has written exactly; raises INVALID_INPUT for a table of another form."""
    columns, found = [*row_type.model_fields], list[RowT]()
    for number, row in enumerate(csv.reader(StringIO(text))):
        cells = {name: cell for name, cell in zip_longest(columns, row, fillvalue="") if cell}
        try:
            if number:
                found.append(row_type.model_validate_strings(cells))
        except ValidationError:
            message = f"Row {number:,} of a table does not fit its columns, which are {', '.join(columns)}."
            raise AppError(ErrorCode.INVALID_INPUT, message) from None
    return tuple(found)


def curve_rows(development: Development, unit: Unit = "nats") -> Rows:
    """Return a row for each checkpoint: the accuracies on whole batteries and the losses, with 95 % intervals."""
    shown = [row for row in development.curves if row.level in ("battery", "split")]
    columns = [*{(row.measure, row.name): None for row in shown}]
    cells = {(row.step, row.measure, row.name): _value(row, unit) for row in shown}
    titles = [
        name if measure == "accuracy" else f"{name}: {MEASURE_TITLES[measure].format(unit=unit)}"
        for measure, name in columns
    ]
    rows = [["step", "epoch", "words", *titles]]
    for point in development.points:
        words = MISSING if point.words is None else f"{point.words:,}"
        of_point = [cells.get((point.step, *column), MISSING) for column in columns]
        rows.append([f"{point.step:,}", f"{point.epoch:,}", words, *of_point])
    return rows


def _value(row: DevelopmentRow, unit: Unit) -> str:
    """Return a value with its interval."""
    if row.measure == "accuracy":
        return f"{percent(row.value)} ({interval_text(row.low, row.high)})"
    number = loss_number if row.measure == "loss" else per_char_number
    has_ends = row.low is not None and row.high is not None
    ends = f" ({number(row.low or 0.0, unit)} to {number(row.high or 0.0, unit)})" if has_ends else ""
    return f"{number(row.value, unit)}{ends}"


def by_age(development: Development) -> list[Acquisition]:
    """Return the words that have an age, the youngest age first."""
    return sorted((word for word in development.acquisitions if word.fits), key=_age)


def _age(word: Acquisition) -> tuple[float, str]:
    return word.age_steps or 0.0, word.word


def spread(rows: Sequence[SpreadT], most: int) -> list[SpreadT]:
    """Return at most so many rows, evenly spread over their order, with the first and the last one."""
    if len(rows) <= most:
        return [*rows]
    return [rows[number * (len(rows) - 1) // (most - 1)] for number in range(most)]


def age_rows(words: Sequence[Acquisition], unit: Unit = "nats") -> Rows:
    """Return a row for each word that has an age, with the 95 % intervals of the ages."""
    rows = [["word", "contexts", "per million", "age (steps)", "age (words)", f"from {unit}", f"to {unit}", "R²"]]
    for word in words:
        ages = [
            _with_ends(word.age_steps, word.age_steps_low, word.age_steps_high, 1),
            _with_ends(word.age_words, word.age_words_low, word.age_words_high, 0),
        ]
        nats = (word.start_nats, word.end_nats)
        ends = [*(MISSING if one is None else surprisal_number(one, unit) for one in nats), _number(word.r_squared, 2)]
        rows.append([word.word, f"{word.n_contexts:,}", _number(word.frequency_per_million, 1), *ages, *ends])
    return rows


def _with_ends(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    """Return a number with its interval, as far as they are known."""
    ends = "" if low is None or high is None else f" ({low:,.{digits}f} to {high:,.{digits}f})"
    return f"{_number(value, digits)}{ends}"


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:z,.{digits}f}"


def notes(development: Development) -> Iterator[str]:
    """Yield what is to be known about the numbers: how many words have an age, and which have none, with reasons."""
    ages = [word.age_steps for word in development.acquisitions if word.age_steps is not None]
    if development.acquisitions:
        middle = f", at the median at step {median(ages):,.0f}" if ages else ""
        yield f"{len(ages):,} of {counted(len(development.acquisitions), 'word')} have an age of acquisition{middle}"
    if ages:
        yield AGE_INTERVALS
    for reason, text in REASONS.items():
        words = [word.word for word in development.acquisitions if word.reason == reason]
        if words:
            yield f"{counted(len(words), 'word')} without an age, {text}: {' '.join(words)}"
    if development.missing_words:
        yield f"Not in the text: {', '.join(development.missing_words)}"
    yield from (note.removesuffix(".") for note in development.notes)
    if development.n_unscored:
        yield f"{counted(development.n_unscored, 'occurrence')} of words without a surprisal are left out"


def report_files(
    development: Development, scores: Sequence[WordScores], images: Mapping[str, bytes]
) -> dict[str, str | bytes]:
    """Return the files of a report by name, given the scores of words and the pictures by their titles.

    The tables have all digits, so that the results can be computed from them again.
    """
    return {
        "checkpoints.csv": csv_text(CheckpointPoint, development.points, is_exact=True),
        "development.csv": csv_text(DevelopmentRow, development.curves, is_exact=True),
        "words.csv": csv_text(WordScores, scores, is_exact=True),
        "acquisition.csv": csv_text(Acquisition, development.acquisitions, is_exact=True),
        "table.tex": latex_tables(development),
        "report.html": html_page(development, images),
        **{f"{name}.png": image for name, image in images.items()},
    }


def latex_tables(development: Development) -> str:
    """Return the curves, and the ages of up to 30 words, as tables for a paper; they need booktabs."""
    tables: list[str] = []
    run_id, words = latex_text(development.run_id), by_age(development)
    if development.curves:
        header, *rows = curve_rows(development)
        caption = rf"Development of {run_id} over its checkpoints. In parentheses: 95\,\% intervals."
        tables.append(_latex(caption, f"{development.run_id}-curves", header, rows))
    if words:
        header, *rows = age_rows(spread(words, _MAX_LATEX_WORDS))
        part = f", evenly spread over the {len(words):,} that have one" if len(words) > _MAX_LATEX_WORDS else ""
        caption = rf"Ages at which {run_id} acquires words{part}. In parentheses: 95\,\% intervals."
        tables.append(_latex(caption, f"{development.run_id}-words", header, rows))
    return "\n".join(tables)


def _latex(caption: str, label: str, header: Sequence[str], rows: Rows) -> str:
    return latex_rows(caption, label, header, [[title, *map(latex_text, cells)] for title, *cells in rows])


def html_page(development: Development, images: Mapping[str, bytes]) -> str:
    """Return the results as one page without outside assets, with pictures by their names."""
    title = f"Development of {development.run_id}"
    parts = [section("To know", *(f"<p>{escape(note)}.</p>" for note in notes(development)))]
    if development.curves:
        header, *rows = curve_rows(development)
        figures = [figure_html(image, ALT[name]) for name, image in images.items() if name != "words"]
        parts.append(section("Over the checkpoints", *figures, table_of(header, rows, CURVES)))
    if development.acquisitions:
        parts.append(section("Ages of words", *_words(development, images)))
    return PAGE.format(title=escape(title), body="\n".join(parts))


def _words(development: Development, images: Mapping[str, bytes]) -> Iterator[str]:
    yield from (figure_html(images[name], ALT[name]) for name in ("words",) if name in images)
    header, *rows = age_rows(by_age(development))
    yield table_of(header, rows, AGES)
