"""Pictures of the figures of reports. The same numbers give the same bytes."""

from collections.abc import Iterable, Mapping, Sequence
from math import pow
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from trainer.contracts.reports import Axis, Figure, Report, Series
from trainer.reports.experiment_charts import (
    BACKGROUND,
    GRID,
    NOTE_SIZE,
    QUIET,
    TICK_SIZE,
    colour,
    figure_bytes,
    label_axes,
    marker,
)
from trainer.reports.fonts import drawable
from trainer.reports.report_text import ENGLISH

_WIDTH, _HEIGHT, _DOTS_PER_INCH = 7.2, 3.8, 120
_MAX_NAME_CHARACTERS, _MAX_LEVEL_CHARACTERS, _MAX_TITLE_CHARACTERS = 24, 70, 32
"""Characters of a name on an axis, of all of them up to which they fit beside each other, and of a line's name."""
_MANY_LINES = 4
_MAX_POWER = 16
_ZERO_DIVISOR = 3.0
"""On a logarithmic axis 0 stands so far before the first other number."""


class _Point(NamedTuple):
    x: float
    value: float
    low: float
    high: float


def pictures_of(report: Report) -> Mapping[str, bytes]:
    """Return the picture (PNG) of each figure that has lines, by its name."""
    return {figure.name: figure_bytes(_drawn(figure), "png") for figure in report.figures() if figure.series}


def new_drawing() -> tuple[Drawing, Axes]:
    """Return an empty picture."""
    drawing = Drawing(figsize=(_WIDTH, _HEIGHT), dpi=_DOTS_PER_INCH, facecolor=BACKGROUND, layout="constrained")
    axes = drawing.add_subplot()
    axes.grid(visible=True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return drawing, axes


def name_lines(drawing: Drawing, note: str = "") -> None:
    """Name the lines at the right of the axes, and what is not among them below."""
    drawing.legend(loc="outside right upper", frameon=False, fontsize=TICK_SIZE)
    drawing.supxlabel(note, color=QUIET, fontsize=NOTE_SIZE)


def short_names(names: Iterable[str], most: int = _MAX_TITLE_CHARACTERS) -> Mapping[str, str]:
    """Return names for a legend, with both of their ends where they are too long, and all different if they were."""
    different, half = {*names}, most // 2
    cut = {name: _short(name, half) for name in different}
    while len({*cut.values()}) < len(different):
        half += 1
        cut = {name: _short(name, half) for name in different}
    return {name: drawable(shown) for name, shown in cut.items()}


def _short(name: str, half: int) -> str:
    return name if len(name) <= 2 * half else f"{name[: half - 1]}…{name[-half:]}"


def _drawn(figure: Figure) -> Drawing:
    """Draw a line for each series, with the intervals of its values, and the levels to compare with."""
    drawing, axes = new_drawing()
    axis = figure.axes[0]
    places = [float(place) for place in range(len(axis.names))] or (
        [*axis.places] if axis.is_linear else _log_places(axis)
    )
    scale = 100.0 if figure.form == "share" else 1.0
    names = short_names(series.name for series in figure.series)
    for number, series in enumerate(figure.series):
        points = _points(figure, series, places, scale)
        (_draw_bars if axis.names else _draw_band)(axes, points, number, names[series.name], len(figure.series))
    for number, level in enumerate(figure.levels):
        label = "chance" if number == 0 else None
        axes.axhline(scale * level, color=QUIET, linestyle=":", linewidth=1.2, label=label)
    if axis.names:
        _name_places(axes, axis.names)
    elif not axis.is_linear:
        axes.set_xscale("log")
        if 0 in axis.places:
            _name_zero(axes, axis, min(places))
    unit = " (%)" if figure.form == "share" else ""
    label_axes(axes, ENGLISH.note(axis.title), f"{ENGLISH.note(figure.y)}{unit}")
    axes.set_title(drawable(ENGLISH.note(figure.title)) if axis.names else "", fontsize=TICK_SIZE)
    name_lines(drawing, f"{figure.n_left_out:,} more in {figure.file}" if figure.n_left_out else "")
    return drawing


def _points(figure: Figure, series: Series, places: Sequence[float], scale: float) -> list[_Point]:
    found: list[_Point] = []
    for x, one in zip(places, series.values, strict=True):
        if one is not None and one.value is not None:
            ends = [one.value if end is None else end for end in (one.value, one.low, one.high)]
            found.append(_Point(x, *(scale * ENGLISH.in_unit(end, figure.form) for end in ends)))
    return found


def _draw_bars(axes: Axes, points: Sequence[_Point], number: int, name: str, n_lines: int) -> None:
    """Draw values with the bars of their intervals."""
    errors = [[one.value - one.low for one in points], [one.high - one.value for one in points]]
    axes.errorbar(
        [one.x for one in points],
        [one.value for one in points],
        yerr=errors,
        color=colour(number),
        marker=marker(number),
        markersize=4.5,
        linewidth=1.2,
        capsize=2.5,
        label=name,
    )


def _draw_band(axes: Axes, points: Sequence[_Point], number: int, name: str, n_lines: int) -> None:
    """Draw values with the band of their intervals."""
    xs, lows, highs = [one.x for one in points], [one.low for one in points], [one.high for one in points]
    hue = colour(number)
    axes.fill_between(xs, lows, highs, color=hue, alpha=0.12 if n_lines < _MANY_LINES else 0.05, linewidth=0)
    if len(xs) == 1:  # a band of one place is invisible
        axes.vlines(xs, lows, highs, color=hue, linewidth=1.0)
    values = [one.value for one in points]
    axes.plot(xs, values, color=hue, marker=marker(number), markersize=4.0, linewidth=1.4, label=name)


def _name_places(axes: Axes, names: Sequence[str]) -> None:
    short = short_names(names, _MAX_NAME_CHARACTERS)
    shown = [short[name] for name in names]
    is_crowded = sum(map(len, shown)) > _MAX_LEVEL_CHARACTERS
    axes.set_xticks(range(len(shown)), shown, rotation=25 if is_crowded else 0)


def _log_places(axis: Axis) -> list[float]:
    """Return the places on a logarithmic axis, where 0 stands before the first other number."""
    first = min((place for place in axis.places if place > 0), default=1.0)
    return [place or first / _ZERO_DIVISOR for place in axis.places]


def _name_zero(axes: Axes, axis: Axis, zero: float) -> None:
    """Give an axis ticks at 0, whose place is given, and at powers of ten, or at the last place."""
    first, last = min((place for place in axis.places if place > 0), default=1.0), max(axis.places)
    powers = [power for power in range(_MAX_POWER) if first <= pow(10.0, power) <= last]
    ticks = {pow(10.0, power): f"$10^{{{power}}}$" for power in powers} or {last: f"{last:,.0f}"}
    axes.set_xticks([zero, *ticks], ["0", *ticks.values()])
    axes.minorticks_off()
