"""Figures of batteries: the mean surprisal of each region by condition. The same numbers give the same bytes."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from trainer.contracts.batteries import BatterySummary, Effect, Suite
from trainer.reports.battery_tables import run_titles
from trainer.reports.experiment_charts import (
    BACKGROUND,
    GRID,
    TICK_SIZE,
    colour,
    figure_bytes,
    label_axes,
    marker,
)
from trainer.reports.fonts import drawable

_WIDTH, _HEIGHT, _DOTS_PER_INCH = 6.5, 3.6, 120
_MAX_NAME_CHARACTERS, _MAX_LEVEL_CHARACTERS = 24, 70
"""Characters of the name of a region, and of all of them up to which they fit beside each other."""


def region_figures(summary: BatterySummary) -> Mapping[str, bytes]:
    """Return a picture (PNG) for each run and suite, by a title that names both."""
    titles, figures = run_titles(summary), dict[str, bytes]()
    for result in summary.runs:
        for battery in summary.batteries:
            for paradigm, suite in battery.suites.items():
                effects = [
                    one
                    for one in result.effects
                    if (one.battery, one.paradigm) == (battery.name, paradigm) and one.region is not None
                ]
                title = f"{titles[result.run.name]}: {paradigm}"
                figures[title] = figure_bytes(_figure(title, suite, effects), "png")
    return figures


def _figure(title: str, suite: Suite, effects: list[Effect]) -> Figure:
    """Draw a line for each condition, with the intervals of its regions."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DOTS_PER_INCH, facecolor=BACKGROUND, layout="constrained")
    axes = figure.add_subplot()
    regions = sorted({one.region or 0 for one in effects})
    by_condition: dict[str, list[Effect]] = {}
    for effect in sorted(effects, key=_region):
        by_condition.setdefault(effect.what, []).append(effect)
    for number, (condition, of_condition) in enumerate(by_condition.items()):
        places = [regions.index(one.region or 0) for one in of_condition]
        means = [one.nats for one in of_condition]
        margins = [0.0 if one.high is None else one.high - one.nats for one in of_condition]
        axes.errorbar(
            places,
            means,
            yerr=margins,
            color=colour(number),
            marker=marker(number),
            markersize=4.5,
            linewidth=1.2,
            capsize=2.5,
            label=drawable(condition),
        )
    names = [f"{region} {suite.regions.get(region, '')}".strip()[:_MAX_NAME_CHARACTERS] for region in regions]
    is_crowded = sum(map(len, names)) > _MAX_LEVEL_CHARACTERS
    axes.set_xticks(range(len(regions)), [*map(drawable, names)], rotation=25 if is_crowded else 0)
    axes.grid(visible=True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    label_axes(axes, "region", "surprisal (nats)")
    axes.set_title(drawable(title), fontsize=TICK_SIZE)
    axes.legend(frameon=False, fontsize=TICK_SIZE)
    return figure


def _region(effect: Effect) -> int:
    return effect.region or 0
