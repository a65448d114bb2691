"""Numbers of an experiment for its report: its rows as CSV, and those of a model on a text by languages."""

from collections.abc import Iterable, Mapping, Sequence
from math import pow
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from pydantic import TypeAdapter

from trainer.contracts.base import Frozen
from trainer.contracts.batteries import BatteryOptions, BatteryRow
from trainer.contracts.experiments import (
    ExperimentResult,
    MatrixRow,
    ModelTables,
    PerplexityRow,
    ScoringMode,
    SeedRow,
    TextKind,
)
from trainer.reports.score_table import csv_lines

SCALE_COLOURS = ("#fdfdf0", "#e3f4c1", "#b4e0ba", "#6fc5bf", "#35a1c3", "#2279b5", "#25509c", "#1f2f7a", "#0b1a4f")
"""From low to high. Their lightness falls evenly, so that the order is seen without colours too."""
_DARK, _LIGHT = "#000000", "#ffffff"


class HeatScale(NamedTuple):
    """A range of numbers that is drawn in colours."""

    low: float
    high: float

    def colour(self, value: float) -> str:
        """Return the colour of a number; numbers outside the range have the colour of its end."""
        return mixed_colour(SCALE_COLOURS, min(max(self._share(value), 0.0), 1.0))

    def text_colour(self, value: float) -> str:
        """Return black or white, whichever has the higher contrast on the number's colour."""
        behind = luminance(self.colour(value))
        is_dark_better = contrast(behind, luminance(_DARK)) >= contrast(behind, luminance(_LIGHT))
        return _DARK if is_dark_better else _LIGHT

    def _share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0


def mixed_colour(colours: Sequence[str], share: float) -> str:
    """Return the colour at a share of a scale of colours, `#rrggbb` each: 0 is the first one, 1 the last one."""
    position = share * (len(colours) - 1)
    lower = min(int(position), len(colours) - 2)
    first, second = (bytes.fromhex(colour[1:]) for colour in colours[lower : lower + 2])
    return f"#{bytes(round(a + (b - a) * (position - lower)) for a, b in zip(first, second, strict=True)).hex()}"


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`, as the Web Content Accessibility Guidelines define it."""
    parts = [part / 255 for part in bytes.fromhex(colour[1:])]
    red, green, blue = (part / 12.92 if part <= 0.04045 else pow((part + 0.055) / 1.055, 2.4) for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: float, second: float) -> float:
    """Return the contrast ratio of two luminances, from 1 to 21."""
    lighter, darker = max(first, second), min(first, second)
    return (lighter + 0.05) / (darker + 0.05)


_MEASURE = BatteryOptions().measure
_texts: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])

PairRows = Mapping[tuple[str, str], MatrixRow]
"""Rows of one mode by listener and language of the text."""
PairSeeds = Mapping[tuple[str, str], SeedRow]


class ListenerFigures(NamedTuple):
    """The models of one language, one per seed: their perplexity on each text, and their training."""

    language: str
    phase: Literal["first", "second"] | None
    """None for models that are not trained in two phases."""
    perplexities: Mapping[str, PerplexityRow]
    """By language of the text."""
    area: float | None
    """The mean over seeds of the area under the training loss; None for the baseline and without a training loss."""
    area_sd: float | None
    """None for fewer than two seeds."""
    n_seeds: int = 1
    n_of_parent: int = 0
    """The number of seeds whose training lowered no validation loss, so that the model has its parent's weights."""


def csv_text(row_type: type[Frozen], rows: Iterable[Frozen], *, is_exact: bool = False) -> str:
    """Return rows as CSV under the names of their fields, as `csv_table` does."""
    return csv_table([*row_type.model_fields], map(values_of, rows), is_exact=is_exact)


def csv_table(columns: Sequence[str], rows: Iterable[Iterable[object]], *, is_exact: bool = False) -> str:
    """Return rows as CSV: numbers with six decimals, or with all digits if it is exact; None as an empty cell."""
    cells = ([_csv_cell(value, is_exact=is_exact) for value in row] for row in rows)
    return csv_lines([columns, *cells], ",") + "\n"


def pair_rows(tables: ModelTables, mode: ScoringMode) -> PairRows:
    rows = (row for row in tables.tables.matrix if row.scoring_mode == mode)
    return {(row.listener_language, row.text_language): row for row in rows}


def pair_seeds(result: ExperimentResult, model: str, kind: TextKind, mode: ScoringMode) -> PairSeeds:
    """Return the means and standard deviations over seeds; empty if there is one seed."""
    rows = (row for row in result.seed_rows if row.n_seeds > 1)
    chosen = (row for row in rows if (row.model, row.kind, row.scoring_mode) == (model, kind, mode))
    return {(row.listener_language, row.text_language): row for row in chosen}


def headline_rows(result: ExperimentResult) -> PairRows:
    return pair_rows(result.models[0], result.modes[0])


def listener_figures(result: ExperimentResult, model: str, kind: TextKind, mode: ScoringMode) -> list[ListenerFigures]:
    """Return the figures of each listener of a model on a kind of text in a mode."""
    wanted = model, kind, mode
    rows = [row for row in result.perplexities if (row.model, row.kind, row.scoring_mode) == wanted]
    found: list[ListenerFigures] = []
    for language in result.languages:
        curves = [curve for curve in result.curves if (curve.model, curve.language) == (model, language)]
        phases = [curve.phase for curve in curves if curve.phase != "single"]
        areas = [curve.auc for curve in curves if curve.auc is not None]
        found.append(
            ListenerFigures(
                language=language,
                phase=phases[0] if phases else None,
                perplexities={row.text_language: row for row in rows if row.listener_language == language},
                area=fmean(areas) if areas else None,
                area_sd=stdev(areas) if len(areas) > 1 else None,
                n_seeds=len(curves),
                n_of_parent=sum(one.has_parents_weights for one in curves),
            )
        )
    return found


def battery_rows(result: ExperimentResult, model: str) -> dict[tuple[str, str], BatteryRow]:
    """Return the accuracies of a model on whole batteries, by language of the model and title of the battery."""
    wanted = model, "battery", _MEASURE
    rows = [row for row in result.batteries if (row.model, row.level, row.measure) == wanted]
    return {(row.model_language, f"{row.battery_language}: {row.battery}"): row for row in rows}


def excess_scale(rows: PairRows) -> HeatScale:
    """Return the scale of a matrix: from 0, or from the lowest excess below it, to the highest."""
    values = [row.excess_cross_entropy for row in rows.values()]
    return HeatScale(min([0.0, *values]), max([0.0, *values]))


def values_of(row: Frozen) -> list[object]:
    """Return the values of a record's fields."""
    values: dict[str, object] = row.model_dump()
    return list(values.values())


def _csv_cell(value: object, *, is_exact: bool) -> object:
    """Return a value as a cell of CSV: a number, true or false, or texts with spaces between them."""
    match value:
        case bool():
            return str(value).lower()
        case float() if not is_exact:
            return f"{value:z.6f}"
        case tuple():
            return " ".join(_texts.validate_python(value))
        case _:
            return value
