"""The picture of the surprisals of words over a run's checkpoints. The same numbers give the same bytes."""

from collections.abc import Mapping, Sequence
from math import log10, pow, tanh

from matplotlib.figure import Figure as Drawing

from trainer.contracts.development import Acquisition, Development, WordScores
from trainer.contracts.wording import counted
from trainer.reports.development_report import by_age
from trainer.reports.experiment_charts import BACKGROUND, TEXT, colour, figure_bytes, label_axes, marker
from trainer.reports.report_figures import name_lines, new_drawing, short_names
from trainer.reports.report_text import spread

_MAX_LINES = 8
_CURVE_POINTS = 200
_LEFT_TO_RIGHT = "\u200e"
"""Keeps a number at the right of a word of a right-to-left script."""


def words_picture(development: Development, scores: Sequence[WordScores]) -> Mapping[str, bytes]:
    """Return the picture (PNG) of the words that have an age by its name; nothing without one."""
    words = by_age(development)
    if not words:
        return {}
    drawing = _words(spread(words, _MAX_LINES), len(words), scores)
    return {"words": figure_bytes(drawing, "png")}


def _words(words: Sequence[Acquisition], n_words: int, scores: Sequence[WordScores]) -> Drawing:
    """Draw the surprisals of words, the curves that fit them, and their ages."""
    drawing, axes = new_drawing()
    titles = short_names(word.word for word in words)
    for number, word in enumerate(words):
        of_word = sorted((score for score in scores if score.word == word.word and score.step > 0), key=_step)
        steps, nats = [score.step for score in of_word], [score.nats for score in of_word]
        figures = word.age_steps, word.start_nats, word.end_nats, word.slope
        age, start, end, slope = (one for one in figures if one is not None)
        hue, title = colour(number), f"{_LEFT_TO_RIGHT}{titles[word.word]}{_LEFT_TO_RIGHT}: {age:,.0f}"
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
    name_lines(drawing, f"{counted(n_left_out, 'word')} more in acquisition.csv" if n_left_out else "")
    return drawing


def _step(score: WordScores) -> int:
    return score.step
