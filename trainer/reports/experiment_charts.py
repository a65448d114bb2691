"""Figures of an experiment's report for screen and paper: heat map, tree, and losses of the trainings.

The same numbers give the same bytes. No state outlives a call.
"""

from collections.abc import Mapping, Sequence, Set
from itertools import chain
from math import nan
from typing import Literal, NamedTuple

from matplotlib import rc, rc_context
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from trainer.contracts.base import changed
from trainer.contracts.experiments import CurveRow, ExperimentResult
from trainer.contracts.reports import Note, TreeJoin
from trainer.contracts.units import Unit, in_unit
from trainer.reports.charts import leave_out_matplotlibrc
from trainer.reports.experiment_report import covered, leaf_title, means_over_seeds
from trainer.reports.experiment_tables import (
    SCALE_COLOURS,
    HeatScale,
    battery_rows,
    excess_scale,
    headline_rows,
    pair_seeds,
)
from trainer.reports.fonts import drawable, save_figure
from trainer.reports.report_text import ENGLISH

leave_out_matplotlibrc()
_DOTS_PER_INCH = 200
BACKGROUND, TEXT, QUIET, GRID = "#ffffff", "#1b1f26", "#525b6a", "#d9dee6"
_OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b1f26")
"""Colour-blind safe on white; the yellow of the set is left out."""
_MARKERS = "osD^vPX"
_MANY_LANGUAGES = 12
_CELL, _SMALL_CELL = (0.68, 0.52, 10.0), (0.46, 0.36, 7.5)
"""Width and height of a heat map's cell in inches, and its font size; small with many languages."""
_MIN_WIDTH, _MIN_HEIGHT = 3.4, 2.8
"""Size of the smallest heat map in inches: the labels of its axes need the room."""
_MAX_NAME_CHARACTERS = 40
"""Characters of a battery's title above a heat map."""
LABEL_SIZE, TICK_SIZE, NOTE_SIZE = 9.5, 9.0, 8.0
_HEAT = LinearSegmentedColormap.from_list("experiment", SCALE_COLOURS)


def heat_map_figure(result: ExperimentResult, unit: Unit = "nats") -> Figure:
    """Draw the headline matrix: listeners as rows, texts as columns, values in the cells, the diagonal outlined."""
    rows, cells = headline_rows(result), dict[tuple[str, str], _HeatCell]()
    seeds = pair_seeds(result, *result.headline, result.modes[0])
    for (listener, text), row in rows.items():
        seed = seeds.get((listener, text))
        deviation = None if seed is None or listener == text else seed.excess_sd
        spread = "" if deviation is None else f"±{in_unit(deviation, unit):.2f}"
        excess = in_unit(row.excess_cross_entropy, unit)
        cells[listener, text] = _HeatCell(excess, f"{excess:z.2f}", spread)
    heat = _Heat(result.languages, result.languages, cells, {(one, one) for one in result.languages})
    figure, axes, bar = _draw_heat_map(result, heat, HeatScale(*(in_unit(end, unit) for end in excess_scale(rows))))
    figure.supxlabel(_with_spread(result, covered(result)), color=QUIET, fontsize=NOTE_SIZE)
    label_axes(axes, "language of the text", "listener: language of the model")
    bar.set_label(f"excess cross-entropy ({unit} per character)", color=TEXT, fontsize=LABEL_SIZE)
    return figure


def batteries_figure(result: ExperimentResult) -> Figure:
    """Draw the accuracies of the headline model: its languages as rows, batteries as columns, own ones outlined."""
    rows = battery_rows(result, result.headline[0])
    cells: dict[tuple[str, str], _HeatCell] = {}
    for place, row in rows.items():
        if row.accuracy is not None:
            spread = "" if row.deviation is None else f"±{100 * row.deviation:.1f}"
            cells[place] = _HeatCell(100 * row.accuracy, f"{100 * row.accuracy:.1f}", spread)
    own = {place for place, row in rows.items() if row.model_language == row.battery_language}
    heat = _Heat(result.languages, [*{title: None for _, title in rows}], cells, own)
    figure, axes, bar = _draw_heat_map(result, heat, HeatScale(0.0, 100.0))
    names = [drawable(title[:_MAX_NAME_CHARACTERS]) for title in heat.columns]
    axes.set_xticks([place + 0.5 for place in range(len(names))], names, rotation=30, ha="left")
    figure.supxlabel(_with_spread(result, means_over_seeds(result)), color=QUIET, fontsize=NOTE_SIZE)
    label_axes(axes, "battery, after its language", "language of the model")
    bar.set_label("accuracy (%)", color=TEXT, fontsize=LABEL_SIZE)
    return figure


def _with_spread(result: ExperimentResult, seeds: Note) -> str:
    """Return what the values are of, and what stands after ±."""
    return ENGLISH.note(seeds) + (" ±: standard deviation over seeds." if len(result.seeds) > 1 else "")


def tree_figure(result: ExperimentResult, unit: Unit = "nats") -> Figure:
    """Draw the average-linkage tree of the headline matrix; two clusters join at their mean distance."""
    joins = [changed(join, height=in_unit(join.height, unit)) for join in result.models[0].tree]
    leaves = leaf_order(result.languages, joins)
    figure = _figure(result, 6.4, 1.2 + 0.34 * len(leaves))
    axes = figure.add_subplot()
    places = {frozenset({leaf}): (float(number), 0.0) for number, leaf in enumerate(leaves)}
    for join in joins:
        (first, first_height), (second, second_height) = places[frozenset(join.left)], places[frozenset(join.right)]
        x = [first_height, join.height, join.height, second_height]
        axes.plot(x, [first, first, second, second], color=TEXT, linewidth=1.6, solid_joinstyle="miter")
        axes.annotate(
            f"{join.height:z.2f}",
            (join.height, (first + second) / 2),
            (-4, 0),  # inside the bracket, where no line is
            textcoords="offset points",
            ha="right",
            va="center",
            color=QUIET,
            fontsize=TICK_SIZE,
        )
        places[frozenset(join.left + join.right)] = (first + second) / 2, join.height
    heights = [0.0, *(join.height for join in joins)]
    axes.set_xlim(min(heights), max(heights) + 0.1 * (max(heights) - min(heights)))
    axes.set_ylim(len(leaves) - 0.5, -0.5)
    axes.set_yticks(range(len(leaves)), [drawable(leaf_title(result, leaf)) for leaf in leaves])
    axes.grid(visible=True, axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    label_axes(axes, f"mean symmetric distance at which clusters join ({unit} per character)", "")
    return figure


def leaf_order(languages: Sequence[str], joins: Sequence[TreeJoin]) -> tuple[str, ...]:
    """Return the languages in an order in which no lines of the tree cross."""
    orders: dict[frozenset[str], tuple[str, ...]] = {frozenset({language}): (language,) for language in languages}
    for join in joins:
        left, right = orders.pop(frozenset(join.left)), orders.pop(frozenset(join.right))
        orders[frozenset(left + right)] = left + right
    return tuple(chain.from_iterable(orders.values()))


def curves_figure(result: ExperimentResult) -> Figure:
    """Draw the best validation loss and the area under the training loss of each training, by language and model."""
    models = tuple({row.model: row for row in result.curves})
    figure = _figure(result, 7.6, 1.5 + max(1.2, len(result.languages) * (0.2 + 0.13 * len(models))))
    losses = figure.add_subplot(1, 2, 1)
    areas = figure.add_subplot(1, 2, 2, sharey=losses)
    _draw_dots(losses, result, [(row, row.best_val_loss) for row in result.curves], models)
    _draw_dots(areas, result, [(row, row.auc) for row in result.curves], models)
    losses.set_yticks(range(len(result.languages)), [*map(drawable, result.languages)])
    losses.set_ylim(len(result.languages) - 0.5, -0.5)
    label_axes(losses, "best validation loss (nats per token)", "language of the model")
    areas.tick_params(labelleft=False)
    label_axes(areas, "area under the training loss (nats · steps)", "")
    handles = [
        Line2D([], [], color=colour(number), marker=marker(number), linestyle="", label=drawable(model))
        for number, model in enumerate(models)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize=TICK_SIZE)
    return figure


def figure_bytes(figure: Figure, file_format: Literal["png", "pdf", "svg"]) -> bytes:
    """Return a figure as PNG, PDF or SVG, without dates and versions; texts of a PDF or an SVG stay texts."""
    unwanted = {"png": ("Software",), "pdf": ("CreationDate", "Producer"), "svg": ("Date", "Creator")}
    metadata: dict[str, str | None] = {name: None for name in unwanted[file_format]}
    with rc_context():
        rc("pdf", fonttype=42)  # TrueType, which journals ask for
        rc("svg", fonttype="none", hashsalt="")  # ids that are the same each time
        return save_figure(figure, file_format, metadata)


def _figure(result: ExperimentResult, width: float, height: float) -> Figure:
    """Return an empty figure; below its axes it says what intervals cover."""
    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, facecolor=BACKGROUND, layout="constrained")
    figure.supxlabel(ENGLISH.note(covered(result)), color=QUIET, fontsize=NOTE_SIZE)
    return figure


class _HeatCell(NamedTuple):
    """The number of a cell, and the texts that stand in it."""

    value: float
    text: str
    spread: str


class _Heat(NamedTuple):
    """The titles of a heat map, and its cells by the titles of row and column."""

    rows: Sequence[str]
    columns: Sequence[str]
    cells: Mapping[tuple[str, str], _HeatCell]
    own: Set[tuple[str, str]]
    """The cells with an outline."""


def _draw_heat_map(result: ExperimentResult, heat: _Heat, scale: HeatScale) -> tuple[Figure, Axes, Colorbar]:
    """Draw a heat map with values in its cells; its axes and its bar have no labels yet."""
    is_large = max(len(heat.rows), len(heat.columns)) > _MANY_LANGUAGES
    cell_width, cell_height, font_size = _SMALL_CELL if is_large else _CELL
    width, height = cell_width * len(heat.columns), cell_height * len(heat.rows)
    figure = _figure(result, 2.1 + max(_MIN_WIDTH, width), 1.2 + max(_MIN_HEIGHT, height))
    axes = figure.add_subplot()
    values = [[heat.cells[a, b].value if (a, b) in heat.cells else nan for b in heat.columns] for a in heat.rows]
    mesh = axes.pcolormesh(values, cmap=_HEAT, vmin=scale.low, vmax=scale.high, edgecolors=BACKGROUND, linewidth=1.2)
    for y, row in enumerate(heat.rows):
        for x, column in enumerate(heat.columns):
            cell, edge, (left, top) = heat.cells.get((row, column)), TEXT, (0.04, 0.05)
            if cell is not None:
                colour = scale.text_colour(cell.value)
                _write(axes, x + 0.5, y + 0.5 - 0.1 * bool(cell.spread), cell.text, colour, font_size)
                _write(axes, x + 0.5, y + 0.74, cell.spread, colour, font_size - 2.5)
                if colour == BACKGROUND:  # apart from the gap between cells
                    edge, left, top = BACKGROUND, 0.1, 0.1
            if (row, column) in heat.own:
                corner, size = (x + left, y + top), (1 - 2 * left, 1 - 2 * top)
                axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=edge, linewidth=1.6))
    axes.set_ylim(len(heat.rows), 0)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xticks([number + 0.5 for number in range(len(heat.columns))], [*map(drawable, heat.columns)])
    axes.set_yticks([number + 0.5 for number in range(len(heat.rows))], [*map(drawable, heat.rows)])
    bar = figure.colorbar(mesh, ax=axes, aspect=28, pad=0.02)
    bar.ax.tick_params(colors=TEXT, labelsize=TICK_SIZE)
    bar.outline.set_visible(False)
    return figure, axes, bar


def _write(axes: Axes, x: float, y: float, text: str, colour: str, font_size: float) -> None:
    axes.text(x, y, text, color=colour, fontsize=font_size, ha="center", va="center")


def _draw_dots(
    axes: Axes, result: ExperimentResult, values: Sequence[tuple[CurveRow, float | None]], models: Sequence[str]
) -> None:
    """Draw a row of dots per language and model, one for each seed, and a line at their mean if there are several."""
    places = {language: float(number) for number, language in enumerate(result.languages)}
    found: dict[tuple[str, str], list[float]] = {}
    for row, value in values:
        if value is not None:
            found.setdefault((row.model, row.language), []).append(value)
    for (model, language), of_seeds in found.items():
        number = models.index(model)
        y = places[language] + (number - (len(models) - 1) / 2) * 0.7 / len(models)
        ys = [y] * len(of_seeds)
        axes.plot(of_seeds, ys, color=colour(number), marker=marker(number), linestyle="", markersize=4.5, alpha=0.8)
        if len(of_seeds) > 1:
            mean = sum(of_seeds) / len(of_seeds)
            axes.plot([mean], [y], color=TEXT, marker="|", markersize=9, markeredgewidth=1.4)
    axes.grid(visible=True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def colour(number: int) -> str:
    """Return the colour of a line by its number."""
    return _OKABE_ITO[number % len(_OKABE_ITO)]


def marker(number: int) -> str:
    """Return a model's marker; models of the same colour have different ones."""
    return _MARKERS[(number + number // len(_OKABE_ITO)) % len(_MARKERS)]


def label_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Label axes without a frame."""
    axes.set_xlabel(x_label, color=TEXT, fontsize=LABEL_SIZE, labelpad=6)
    axes.set_ylabel(y_label, color=TEXT, fontsize=LABEL_SIZE, labelpad=6)
    axes.tick_params(which="both", colors=TEXT, length=0, labelsize=TICK_SIZE)
    axes.set_frame_on(False)
