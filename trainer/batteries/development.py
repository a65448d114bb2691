"""Curves of a run over its checkpoints: rows from the results of batteries and from evaluations."""

from collections.abc import Iterator, Mapping, Sequence
from math import log
from statistics import fmean

from trainer.batteries.acquisition import acquisitions
from trainer.batteries.summary import Items
from trainer.contracts.batteries import GroupResult, Measure
from trainer.contracts.development import (
    Acquisition,
    CheckpointPoint,
    CurveMeasure,
    Development,
    DevelopmentRow,
    WordScores,
)
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.intervals import margin
from trainer.reports.development_tables import read_csv


def accuracy_rows(step: int, items: Items, groups: Sequence[GroupResult], measure: Measure) -> Iterator[DevelopmentRow]:
    """Yield the accuracies of groups of items at a checkpoint, except of groups whose items are all ties."""
    for group in groups:
        found = group.by(measure)
        if found is not None and found.accuracy is not None:
            yield DevelopmentRow(
                step=step,
                measure="accuracy",
                level=group.level,
                name=group.battery if group.level == "battery" else f"{group.battery}: {group.name}",
                value=found.accuracy,
                low=found.low,
                high=found.high,
                n=found.n_right + found.n_wrong,
                chance=_chance(items, items.groups[group.battery, group.level, group.name]),
            )


def _chance(items: Items, places: Sequence[int]) -> float | None:
    """Return the accuracy of guessing; None where an item is of a suite without formulas."""
    chances = [items.chance(place) for place in places]
    known = [chance for chance in chances if chance is not None]
    return fmean(known) if len(known) == len(chances) else None


def loss_rows(step: int, metrics: EvalMetrics) -> Iterator[DevelopmentRow]:
    """Yield the loss of a split at a checkpoint, in nats per token and, for a causal model, in bits per character."""
    yield _loss(step, metrics, "loss", metrics.loss, metrics.n_tokens, 1.0)
    if metrics.bits_per_char is not None:
        yield _loss(step, metrics, "bits_per_char", metrics.bits_per_char, metrics.n_chars, log(2))


def _loss(
    step: int, metrics: EvalMetrics, measure: CurveMeasure, value: float, n: int, unit_nats: float
) -> DevelopmentRow:
    """Return a loss with the interval over its lines."""
    lines = metrics.lines
    half = margin((lines.nats, lines.tokens if measure == "loss" else lines.chars), is_drawn=lines.is_drawn)
    low, high = (None, None) if half is None else (max(0.0, value - half / unit_nats), value + half / unit_nats)
    return DevelopmentRow(
        step=step, measure=measure, level="split", name=metrics.split, value=value, low=low, high=high, n=n
    )


TABLES = ("checkpoints.csv", "development.csv", "words.csv", "acquisition.csv")
"""The tables from which a development can be computed again."""


def recomputed(run_id: str, files: Mapping[str, str]) -> Development:
    """Return the development of a run from its tables by name, with the ages of words computed again.

    Raises INVALID_INPUT for damaged tables.
    """
    points = read_csv(CheckpointPoint, files["checkpoints.csv"])
    known = [(one.word, one.frequency_per_million) for one in read_csv(Acquisition, files["acquisition.csv"])]
    frequencies = {word: frequency for word, frequency in known if frequency is not None} or None
    return Development(
        run_id=run_id,
        points=points,
        curves=read_csv(DevelopmentRow, files["development.csv"]),
        acquisitions=acquisitions(read_csv(WordScores, files["words.csv"]), points, frequencies),
    )
