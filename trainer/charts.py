"""Numbers to PNG: the loss chart of a run, drawn without any state that outlives the call."""

from collections.abc import Sequence
from io import BytesIO
from itertools import accumulate
from math import log

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Curve = Sequence[tuple[int, float]]
"""(step, mean loss in nats per token), oldest first."""

_WIDTH_INCHES, _HEIGHT_INCHES, _DOTS_PER_INCH = 8.0, 4.0, 100  # 800 x 400 pixels
_BACKGROUND, _TEXT, _GRID = "#2b2d31", "#dbdee1", "#44474d"  # Discord's dark theme
_TRAIN, _VALIDATION = "#56b4e9", "#e69f00"  # of the colour-blind safe set of Okabe and Ito
_MAX_POINTS = 1600  # two for each pixel of width
_SMOOTHING_SHARE = 0.05  # of the curve is what one smoothed point averages over
_SPIKE_QUANTILE = 0.02  # of the first losses may leave the picture, so that the rest has room


def loss_chart(train: Curve, validation: Curve) -> bytes:
    """Draw training loss (thin, and smoothed thick) and validation loss (dots) over steps as a PNG of 800 x 400."""
    figure = Figure(
        figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), dpi=_DOTS_PER_INCH, facecolor=_BACKGROUND, layout="constrained"
    )
    axes = figure.add_subplot()
    shown = _thinned(train)
    if shown:
        steps = [step for step, _ in shown]
        losses = [loss for _, loss in shown]
        axes.plot(steps, losses, color=_TRAIN, linewidth=0.8, alpha=0.45)
        axes.plot(steps, smoothed(losses), color=_TRAIN, linewidth=2.4, label="training (smoothed)")
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
    _set_limits(axes, [loss for _, loss in shown], [loss for _, loss in validation])
    _style(axes)
    image = BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def smoothed(losses: Sequence[float]) -> list[float]:
    """Mean of each loss and its neighbours, as many on either side, so that the curve neither lags nor shrinks."""
    sums = [0.0, *accumulate(losses)]
    reach = round(len(losses) * _SMOOTHING_SHARE / 2)
    values = []
    for index in range(len(losses)):
        near = min(reach, index, len(losses) - 1 - index)
        values.append((sums[index + near + 1] - sums[index - near]) / (2 * near + 1))
    return values


def _thinned(curve: Curve) -> Curve:
    """Means of neighbours where there are more points than pixels; the last step stays the last."""
    if len(curve) <= _MAX_POINTS:
        return curve
    size = -(-len(curve) // _MAX_POINTS)
    groups = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]


def _set_limits(axes: Axes, train: Sequence[float], validation: Sequence[float]) -> None:
    """Fit the losses, but let the first steep fall run out of the picture."""
    if not train and not validation:
        return
    ordered = sorted(train) or sorted(validation)
    top = max([ordered[int((len(ordered) - 1) * (1 - _SPIKE_QUANTILE))], *validation])
    bottom = min([ordered[0], *validation])
    room = 0.08 * (top - bottom) or 0.1
    axes.set_ylim(bottom - room, top + room)


def _style(axes: Axes) -> None:
    axes.set_facecolor(_BACKGROUND)
    axes.set_xlabel("step", color=_TEXT, fontsize=11)
    axes.set_ylabel("loss (nats per token)", color=_TEXT, fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.grid(visible=True, color=_GRID, linewidth=0.7)
    axes.margins(x=0.015)
    axes.tick_params(colors=_TEXT, length=0, labelsize=10)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    bits = axes.twinx()
    bottom, top = axes.get_ylim()
    bits.set_ylim(bottom / log(2), top / log(2))
    bits.set_ylabel("bits per token", color=_TEXT, fontsize=11)
    bits.tick_params(colors=_TEXT, length=0, labelsize=10)
    bits.set_frame_on(False)
    if axes.lines:
        axes.legend(loc="upper right", frameon=False, labelcolor=_TEXT, fontsize=10)
