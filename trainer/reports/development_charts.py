"""Figures of a run's development: accuracies and losses over its checkpoints, and the curves of words.

The same numbers give the same bytes.
"""

from collections.abc import Mapping, Sequence
from math import log10, pow, tanh

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.contracts.batteries import LEVELS
from trainer.contracts.development import Acquisition, Development, DevelopmentRow, WordScores
from trainer.contracts.units import bits_in_unit
from trainer.contracts.wording import counted
from trainer.reports.development_tables import MEASURE_TITLES, by_age, spread
from trainer.reports.experiment_charts import (
    BACKGROUND,
    GRID,
    NOTE_SIZE,
    QUIET,
    TEXT,
    TICK_SIZE,
    colour,
    figure_bytes,
    label_axes,
    marker,
)
from trainer.reports.fonts import drawable

_WIDTH, _HEIGHT, _DOTS_PER_INCH = 7.2, 3.8, 120
_MAX_LINES, _MANY_LINES = 8, 4
_MAX_NAME_CHARACTERS = 32
_MAX_POWER = 16
_ZERO_DIVISOR = 3.0
"""On a logarithmic axis 0 stands so far before the first other number."""
_CURVE_POINTS = 200
_LEFT_TO_RIGHT = "\u200e"
"""Keeps a number at the right of a word of a right-to-left script."""


def development_figures(development: Development, scores: Sequence[WordScores]) -> Mapping[str, bytes]:
    """Return the pictures (PNG) by name: `accuracy`, `loss` and `words`, those that there are numbers for."""
    accuracies = [row for row in development.curves if row.measure == "accuracy"]
    losses = [row for row in development.curves if row.measure == "bits_per_char"] or [
        row for row in development.curves if row.measure == "loss"
    ]
    figures: dict[str, bytes] = {}
    if accuracies:
        names = _shown(accuracies)
        n_left_out = len({row.name for row in accuracies}) - len(names)
        figures["accuracy"] = figure_bytes(_curves(development, accuracies, names, n_left_out), "png")
    if losses:
        names = [*{row.name: None for row in losses}]
        figures["loss"] = figure_bytes(_curves(development, losses, names, 0), "png")
    words = by_age(development)
    if words:
        figures["words"] = figure_bytes(_words(spread(words, _MAX_LINES), len(words), scores), "png")
    return figures


def _shown(rows: Sequence[DevelopmentRow]) -> list[str]:
    """Return the names of the batteries, and of their largest parts where there is room for a line of each."""
    by_level = [[*{row.name: None for row in rows if row.level == level}] for level in LEVELS]
    whole, *parts = by_level
    several = next((names for names in parts if len(names) > 1), [])
    return [*whole, *several][:_MAX_LINES]


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DOTS_PER_INCH, facecolor=BACKGROUND, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _curves(development: Development, rows: Sequence[DevelopmentRow], names: Sequence[str], n_left_out: int) -> Figure:
    """Draw a line for each name, with its intervals as a band, and the accuracy of guessing."""
    figure, axes = _figure()
    words = {point.step: point.words for point in development.points if point.words is not None}
    has_words = len(words) == len(development.points)
    read = words if has_words else {point.step: point.step for point in development.points}
    first = min((place for place in read.values() if place > 0), default=1)
    places = {step: place or first / _ZERO_DIVISOR for step, place in read.items()}
    factor = {"accuracy": 100.0, "loss": 1.0, "bits_per_char": bits_in_unit(1.0, "nats")}[rows[0].measure]
    for number, name in enumerate(names):
        of_name = sorted((row for row in rows if row.name == name), key=_step)
        xs = [places[row.step] for row in of_name]
        values = [factor * row.value for row in of_name]
        lows = [factor * (row.value if row.low is None else row.low) for row in of_name]
        highs = [factor * (row.value if row.high is None else row.high) for row in of_name]
        hue, title = colour(number), _title(name)
        axes.fill_between(xs, lows, highs, color=hue, alpha=0.12 if len(names) < _MANY_LINES else 0.05, linewidth=0)
        if len(xs) == 1:  # a band of one checkpoint is invisible
            axes.vlines(xs, lows, highs, color=hue, linewidth=1.0)
        axes.plot(xs, values, color=hue, marker=marker(number), markersize=4.0, linewidth=1.4, label=title)
    for number, chance in enumerate(sorted({row.chance for row in rows if row.name in names and row.chance})):
        label = "chance" if number == 0 else None
        axes.axhline(factor * chance, color=QUIET, linestyle=":", linewidth=1.2, label=label)
    axes.set_xscale("log")
    if 0 in read.values():
        _name_zero(axes, [*places.values()], first)
    unit = "accuracy (%)" if rows[0].measure == "accuracy" else MEASURE_TITLES[rows[0].measure].format(unit="nats")
    label_axes(axes, "words that the model has read" if has_words else "step", unit)
    _legend(figure, f"{n_left_out:,} more in development.csv" if n_left_out else "")
    return figure


def _step(row: DevelopmentRow | WordScores) -> int:
    return row.step


def _name_zero(axes: Axes, places: Sequence[float], first: float) -> None:
    """Give an axis ticks at 0, which stands before the first other number, and at powers of ten, or at the last one."""
    last = max(places)
    powers = [power for power in range(_MAX_POWER) if first <= pow(10.0, power) <= last]
    ticks = {pow(10.0, power): f"$10^{{{power}}}$" for power in powers} or {last: f"{last:,.0f}"}
    ticks[first / _ZERO_DIVISOR] = "0"
    axes.set_xticks([*ticks], [*ticks.values()])
    axes.minorticks_off()


def _words(words: Sequence[Acquisition], n_words: int, scores: Sequence[WordScores]) -> Figure:
    """Draw the surprisals of words, the curves that fit them, and their ages."""
    figure, axes = _figure()
    for number, word in enumerate(words):
        of_word = sorted((score for score in scores if score.word == word.word and score.step > 0), key=_step)
        steps, nats = [score.step for score in of_word], [score.nats for score in of_word]
        figures = word.age_steps, word.start_nats, word.end_nats, word.slope
        age, start, end, slope = (one for one in figures if one is not None)
        hue, title = colour(number), f"{_LEFT_TO_RIGHT}{_title(word.word)}{_LEFT_TO_RIGHT}: {age:,.0f}"
        axes.plot(steps, nats, color=hue, marker=marker(number), markersize=3.5, linestyle="", alpha=0.7, label=title)
        first, last = log10(steps[0]), log10(steps[-1])
        logs = [first + place * (last - first) / _CURVE_POINTS for place in range(_CURVE_POINTS + 1)]
        falls = [0.5 - 0.5 * tanh(slope * (one - log10(age)) / 2) for one in logs]  # unlike exp, without an overflow
        curve = [end + fall * (start - end) for fall in falls]
        axes.plot([pow(10.0, one) for one in logs], curve, color=hue, linewidth=1.4)
        half_way = [(start + end) / 2]
        if word.age_steps_low is not None and word.age_steps_high is not None:
            axes.hlines(half_way, word.age_steps_low, word.age_steps_high, color=TEXT, linewidth=1.0, zorder=2)
        axes.plot([age], half_way, color=TEXT, marker="X", markersize=7.5, markeredgecolor=BACKGROUND, zorder=3)
    axes.set_xscale("log")
    label_axes(axes, "step", "mean surprisal (nats)")
    n_left_out = n_words - len(words)
    _legend(figure, f"{counted(n_left_out, 'word')} more in acquisition.csv" if n_left_out else "")
    return figure


def _legend(figure: Figure, note: str) -> None:
    """Name the lines at the right of the axes, and what is not among them below."""
    figure.legend(loc="outside right upper", frameon=False, fontsize=TICK_SIZE)
    figure.supxlabel(note, color=QUIET, fontsize=NOTE_SIZE)


def _title(name: str) -> str:
    """Return a name for a legend, with both of its ends where it is too long."""
    half = _MAX_NAME_CHARACTERS // 2
    return drawable(name if len(name) <= _MAX_NAME_CHARACTERS else f"{name[: half - 1]}…{name[-half:]}")
