"""Tables of simulated times, and the tidy table that the script for R reads."""

import numpy as np

from trainer.reading.mixed import Floats, Levels
from trainer.reading.regression import Kind, Predictors, Sample


def simulated(kind: Kind, *, n_persons: int = 6, n_texts: int = 6, n_units: int = 15, seed: int = 1) -> Sample:
    """Return times, or answers of 0 and 1, on length and surprisal with a spillover; some are missing."""
    rng = np.random.default_rng(seed)
    count = n_texts * n_units
    length: Floats = 1 + rng.poisson(4.0, count).astype(np.float64)
    surprisal: Floats = 8.0 + length / 2 + 3 * rng.standard_normal(count)
    before: Floats = np.roll(surprisal, 1)
    means: Floats = 350 + 6 * length + 4 * surprisal + 2 * before + 20 * rng.standard_normal(count)
    cells: Levels = np.arange(count * (1 if kind == "means" else n_persons))
    if kind != "means":
        cells = cells[rng.random(len(cells)) < 0.9]
    units, persons = cells % count, cells // count
    of_persons: Floats = 60 * rng.standard_normal(n_persons)
    y: Floats = means[units] + of_persons[persons] + 50 * rng.standard_normal(len(cells))
    if kind == "logistic":
        odds: Floats = np.exp((420 - y) / 60)
        y = (rng.random(len(cells)) * (1 + odds) < odds).astype(np.float64)
    return Sample(
        y,
        units // n_units,
        units,
        None if kind == "means" else persons,
        Predictors(("length",), length[:, np.newaxis]),
        Predictors(("surprisal", "surprisal_1"), np.column_stack((surprisal, before))),
    )
