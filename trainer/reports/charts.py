"""Charts as PNG: the loss curves of runs, and the heat map of a text. No state outlives a call."""

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from math import log, nan
from pathlib import Path

from matplotlib import matplotlib_fname, rcdefaults
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from trainer.contracts.units import Unit, in_unit
from trainer.reports.bands import band_of
from trainer.reports.fonts import drawable, font_note, fonts_of, is_drawable, save_figure
from trainer.reports.heatmap_html import HEAT_COLOURS, LIGHT_SHARE, SCALE_END_NATS
from trainer.reports.letters import without_forms
from trainer.reports.score_table import Cell, CellRow, Curve


def leave_out_matplotlibrc() -> None:
    """Undo what matplotlib has read from a `matplotlibrc` of the working folder, which could start LaTeX."""
    if Path(matplotlib_fname()).absolute().parent == Path.cwd():
        rcdefaults()


leave_out_matplotlibrc()
_DOTS_PER_INCH = 100
_BACKGROUND, _TEXT, _GRID = "#2b2d31", "#dbdee1", "#44474d"  # Discord's dark theme
_TRAIN, _VALIDATION = "#56b4e9", "#e69f00"  # of the colour-blind safe set of Okabe and Ito
_MANY = ("#56b4e9", "#e69f00", "#2bb98b", "#f0e442", "#cc79a7", "#d55e00", "#dbdee1", "#7b8cff")
"""The same set of colours, the dark ones lighter."""
_LINE_STYLES = ("-", "--", ":", "-.")
_MAX_POINTS = 1600  # two for each pixel of width
_SMOOTHING_SHARE = 0.05  # of the curve is what one smoothed point averages over
_SPIKE_SHARE = 0.02  # of the losses may leave the picture at its top, so that the rest has room
_CELL_WIDTH, _CELL_HEIGHT, _GAP_POINTS = 30, 38, 1.7  # pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 84  # pixels around the cells
_NOTE_HEIGHT = 20
_MIN_COLUMNS = 24  # so that the legend has room
_SCALE_ENDS: dict[Unit, float] = {"bits": 8.0, "nats": SCALE_END_NATS}
_HEAT = LinearSegmentedColormap.from_list("heat", HEAT_COLOURS)
_UNKNOWN, _FAINT = "#56b4e9", "#949ba4"


def loss_figure(
    train: Curve,
    validation: Curve,
    unit: Unit,
    bits_per_nat: float | None = None,
    counted: float | None = None,
) -> Figure:
    """Draw training loss (thin, and smoothed thick) and validation loss (dots) over steps, 800 x 400 pixels.

    Losses are given in nats per token and drawn in `unit`. `bits_per_nat`: bits per character of the validation split
    for one nat per token; None draws no second axis. `counted`: the validation loss of the n-gram, a line.
    """
    figure, axes = _empty_chart()
    shown, validation = _in_unit(_thinned(train), unit), _in_unit(validation, unit)
    if shown:
        steps = [step for step, _ in shown]
        losses = [loss for _, loss in shown]
        marker = "o" if len(shown) == 1 else ""  # a line of one point is invisible
        axes.plot(steps, losses, color=_TRAIN, linewidth=0.8, alpha=0.45)
        axes.plot(steps, smoothed(losses), color=_TRAIN, linewidth=2.4, marker=marker, label="training (smoothed)")
    if validation:
        axes.plot(
            [step for step, _ in validation],
            [loss for _, loss in validation],
            color=_VALIDATION,
            linestyle=":",
            linewidth=1.2,
            marker="o",
            markersize=6,
            markeredgecolor=_BACKGROUND,
            label="validation",
            zorder=3,
        )
    lines = [] if counted is None else [in_unit(counted, unit)]
    for loss in lines:
        axes.axhline(loss, color=_TEXT, linestyle="--", linewidth=1.2, label="n-gram (validation)")
    _set_limits(axes, [loss for _, loss in shown], [*(loss for _, loss in validation), *lines])
    _style(axes, f"{unit} per token")
    _add_second_axis(axes, bits_per_nat, unit)
    return figure


def group_figure(
    train: Sequence[Curve], validation: Sequence[Curve], unit: Unit, bits_per_nat: float | None = None
) -> Figure:
    """Draw the losses of a group of runs over steps, as `loss_figure`: each run thin, their mean, and their range."""
    figure, axes = _empty_chart()
    shown = [_in_unit(_thinned(curve), unit) for curve in train]
    validation = [_in_unit(curve, unit) for curve in validation]
    for curve in shown:
        losses = smoothed([loss for _, loss in curve])
        axes.plot([step for step, _ in curve], losses, color=_TRAIN, linewidth=0.8, alpha=0.45)
    _draw_band(axes, shown, _TRAIN, "training")
    _draw_band(axes, validation, _VALIDATION, "validation", marker="o")
    trained = [loss for curve in shown for _, loss in curve]
    _set_limits(axes, trained, [loss for curve in validation for _, loss in curve])
    _style(axes, f"{unit} per token")
    _add_second_axis(axes, bits_per_nat, unit)
    return figure


def _draw_band(axes: Axes, curves: Sequence[Curve], colour: str, name: str, marker: str = "") -> None:
    """Draw mean and range of the curves; those without markers are smoothed."""
    band = band_of(curves)
    steps = [step for step, _ in band.mean]
    mean, low, high = ([loss for _, loss in curve] for curve in band)
    if not marker:
        mean, low, high = smoothed(mean), smoothed(low), smoothed(high)
    label = f"{name} (mean and range of {len(curves)})" if len(curves) > 1 else name
    axes.fill_between(steps, low, high, color=colour, alpha=0.3, linewidth=0)
    axes.plot(steps, mean, color=colour, linewidth=2.0, marker=marker, markersize=5, label=label)


def comparison_chart(curves: Mapping[str, Curve], unit: str) -> bytes:
    """Draw the training losses of up to four runs over steps, smoothed, in colours and line styles, as PNG.

    `unit` names the unit of the losses: "bits per character". A picture has 800 x 400 pixels.
    """
    figure, axes = _empty_chart()
    shown = {name: _thinned(curve) for name, curve in curves.items()}
    for (name, curve), colour, style in zip(shown.items(), _MANY, _LINE_STYLES, strict=False):
        losses = [loss for _, loss in curve]
        steps = [step for step, _ in curve]
        label = drawable(name)
        axes.plot(steps, smoothed(losses), color=colour, linewidth=2.2, linestyle=style, label=label)
    _set_limits(axes, [loss for curve in shown.values() for _, loss in curve], [])
    _style(axes, unit)
    return save_figure(figure, "png")


def heat_map(rows: Sequence[CellRow], unit: Unit) -> bytes:
    """Draw the characters of a text as coloured cells over a colour bar, as a PNG; unknown ones have a frame.

    A letter stands with its marks in the middle of the cells of its characters. Arabic letters have the forms of their
    words. A letter without a glyph is written as the code points of its characters, and the picture says so. A row of a
    right-to-left script begins at the right.
    """
    columns = max(_MIN_COLUMNS, *(len(cells) for _, cells in rows))
    width, height = columns * _CELL_WIDTH, len(rows) * _CELL_HEIGHT
    note = missing_fonts(rows)
    below = 0 if note is None else _NOTE_HEIGHT
    whole_width, whole_height = _LEFT + width + _RIGHT, _TOP + height + _BOTTOM + below
    size = whole_width / _DOTS_PER_INCH, whole_height / _DOTS_PER_INCH
    figure = Figure(figsize=size, dpi=_DOTS_PER_INCH, facecolor=_BACKGROUND)
    axes = _axes_at(figure, _LEFT, _BOTTOM + below, width, height)
    axes.set_axis_off()
    axes.set_xlim(0, columns)
    axes.set_ylim(len(rows), 0)
    values = [[nan] * columns for _ in rows]
    for y, (_, cells) in enumerate(rows):
        for x, (_, value, _) in zip(_columns(cells, columns), cells, strict=False):
            values[y][x] = value
    heat = axes.pcolormesh(
        values, cmap=_HEAT, vmin=0, vmax=_SCALE_ENDS[unit], edgecolors=_BACKGROUND, linewidth=_GAP_POINTS
    )
    for y, (first, cells) in enumerate(rows):
        axes.text(-0.3, y + 0.5, f"{first:,}", color=_FAINT, fontsize=9, ha="right", va="center")
        places = _columns(cells, columns)
        for first_cell, after in pairwise([at for at, (sign, _, _) in enumerate(cells) if sign] + [len(cells)]):
            spanned = places[first_cell:after]
            lights = [value > LIGHT_SHARE * _SCALE_ENDS[unit] for _, value, _ in cells[first_cell:after]]
            _write_letter(axes, spanned, y, cells[first_cell][0], lights)
        for x, (_, _, is_known) in zip(places, cells, strict=False):
            if not is_known:
                axes.add_patch(_frame(x + 0.05, y + 0.05, 0.9, 0.9))
    has_unknown = any(not is_known for _, cells in rows for _, _, is_known in cells)
    _draw_legend(figure, below, heat, unit, has_unknown=has_unknown)
    if note is not None:
        figure.text(_LEFT / whole_width, 7 / whole_height, note, color=_FAINT, fontsize=8)
    return save_figure(figure, "png")


def missing_fonts(rows: Sequence[CellRow]) -> str | None:
    """Return what a heat map says about signs without a font."""
    return font_note(sign for _, cells in rows for sign, _, _ in cells if sign)


def _columns(cells: Sequence[Cell], columns: int) -> Sequence[int]:
    """Return the columns of a row in reading order."""
    kinds = (unicodedata.bidirectional(char) for sign, _, _ in cells for char in sign)
    first = next((kind for kind in kinds if kind in ("L", "R", "AL")), "L")
    return range(columns) if first == "L" else range(columns - 1, -1, -1)


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the mean of each loss and its neighbours, equally many on both sides, so that the curve does not lag."""
    sums = [0.0, *accumulate(losses)]
    reach = round(len(losses) * _SMOOTHING_SHARE / 2)
    values = []
    for index in range(len(losses)):
        near = min(reach, index, len(losses) - 1 - index)
        values.append((sums[index + near + 1] - sums[index - near]) / (2 * near + 1))
    return values


def _empty_chart() -> tuple[Figure, Axes]:
    figure = Figure((8.0, 4.0), _DOTS_PER_INCH, facecolor=_BACKGROUND, layout="constrained")
    return figure, figure.add_subplot()


def _thinned(curve: Curve) -> Curve:
    """Return means of neighbouring points if there are more points than pixels; the last step stays the last."""
    if len(curve) <= _MAX_POINTS:
        return curve
    size = -(-len(curve) // _MAX_POINTS)
    groups = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]


def _set_limits(axes: Axes, train: Sequence[float], validation: Sequence[float]) -> None:
    """Fit the losses, but cut off the highest 2 %: the steep fall at the start."""
    if not train and not validation:
        return
    ordered = sorted(train) or sorted(validation)
    top = max([ordered[-1 - int(len(ordered) * _SPIKE_SHARE)], *validation])
    bottom = min([ordered[0], *validation])
    room = 0.08 * (top - bottom) or 0.1
    axes.set_ylim(bottom - room, top + room)


def _in_unit(curve: Curve, unit: Unit) -> Curve:
    return [(step, in_unit(loss, unit)) for step, loss in curve]


def _style(axes: Axes, unit: str) -> None:
    axes.set_facecolor(_BACKGROUND)
    axes.set_xlabel("step", color=_TEXT, fontsize=11)
    axes.set_ylabel(f"loss ({unit})", color=_TEXT, fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.grid(visible=True, color=_GRID, linewidth=0.7)
    axes.margins(x=0.015)
    axes.tick_params(colors=_TEXT, length=0, labelsize=10)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    if axes.lines:
        axes.legend(loc="upper right", frameon=False, labelcolor=_TEXT, fontsize=10)


def _add_second_axis(axes: Axes, bits_per_nat: float | None, unit: Unit) -> None:
    """Show the loss per character of the validation split, if it has one, on the right, in the unit of the left."""
    if bits_per_nat is None:
        return
    second = axes.twinx()
    bottom, top = axes.get_ylim()
    tokens_per_char = bits_per_nat * log(2)
    second.set_ylim(bottom * tokens_per_char, top * tokens_per_char)
    second.set_ylabel(f"{unit} per character (validation)", color=_TEXT, fontsize=11)
    second.tick_params(colors=_TEXT, length=0, labelsize=10)
    second.set_frame_on(False)


def _axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Return axes at a position in pixels."""
    whole_width, whole_height = figure.get_figwidth() * _DOTS_PER_INCH, figure.get_figheight() * _DOTS_PER_INCH
    return figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))


def _write_letter(axes: Axes, columns: Sequence[int], y: int, sign: str, lights: Sequence[bool]) -> None:
    """Write a letter in the middle of its columns, with an outline where dark and light cells meet."""
    colours = ["black" if is_light else "white" for is_light in lights]
    drawn = next((one for one in (sign, without_forms(sign)) if is_drawable(one)), None)
    if drawn is None:
        for x, char, colour in zip(columns, without_forms(sign).removeprefix("◌"), colours, strict=False):
            axes.text(x + 0.5, y + 0.72, _code_point(char), color=colour, fontsize=6.5, ha="center")
        return
    middle, colour = (min(columns) + max(columns) + 1) / 2, colours[0]
    written = axes.text(middle, y + 0.66, drawn, color=colour, fontsize=14, ha="center", fontfamily=fonts_of(drawn))
    if len({*lights}) > 1:
        outline = withStroke(linewidth=1.6, foreground="white" if colour == "black" else "black")
        written.set_path_effects([outline])


def _frame(x: float, y: float, width: float, height: float) -> Rectangle:
    """Return the frame around a character that the model does not know."""
    return Rectangle((x, y), width, height, fill=False, edgecolor=_UNKNOWN, linewidth=2)


def _code_point(char: str) -> str:
    """Return the code point of a character in hexadecimal digits, in two lines that fit into a cell."""
    digits = f"{ord(char):04X}"
    return f"{digits[:-3]}\n{digits[-3:]}" if len(digits) > 4 else f"{digits[:2]}\n{digits[2:]}"


def _draw_legend(figure: Figure, below: int, heat: QuadMesh, unit: Unit, *, has_unknown: bool) -> None:
    bar = figure.colorbar(
        heat, cax=_axes_at(figure, _LEFT, below + 46, 360, 14), orientation="horizontal", extend="max"
    )
    bar.set_label(f"surprisal ({unit})", color=_TEXT, fontsize=10)
    bar.ax.tick_params(colors=_TEXT, length=0, labelsize=9)
    bar.outline.set_visible(False)
    if has_unknown:
        axes = _axes_at(figure, _LEFT + 420, below + 42, 300, 22)
        axes.set_axis_off()
        axes.set_xlim(0, 300)
        axes.set_ylim(0, 22)
        axes.add_patch(_frame(2, 2, 18, 18))
        axes.text(32, 6, "unknown to the model", color=_TEXT, fontsize=10)
