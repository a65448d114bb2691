"""Differences of held-out log-likelihoods per observation: intervals by a bootstrap, and a permutation, over texts.

Observations of one text depend on each other, so texts are drawn again, not observations. Two more things make the
intervals cover the true difference in 93 to 97 of 100 tables (`benchmarks/reading.py`), where the quantiles of the
bootstrap cover it in 87 to 95:

- The same texts, drawn again, do not show how a model differs from one set of training texts to the next. Training
  costs k / 2 nats on average for k coefficients, with a variance of k / 2 (Sivula, Magnusson, Matamoros and Vehtari
  2020, https://arxiv.org/abs/2008.10296), which is added to that over texts.
- The gain in log-likelihood grows with the square of an effect, and its standard error with the effect. So the interval
  is symmetric for the square root of the gain, unless the gain is near 0.
"""

from itertools import product
from math import sqrt
from statistics import stdev
from typing import NamedTuple

import numpy as np

from trainer.contracts.intervals import t_quantile
from trainer.contracts.readings import DeltaLogLikelihood
from trainer.reading.mixed import Floats, Levels
from trainer.reading.regression import TrainingCost

_DRAWS = 9_999
_EXACT_TEXTS = 13
"""Most texts for which all changes of signs are tried."""
_ROUNDING = 1e-12


class TextSums(NamedTuple):
    """Sums of numbers over the observations of each text, and their number."""

    sums: Floats
    counts: Floats

    @classmethod
    def of(cls, values: Floats, texts: Levels) -> "TextSums":
        numbers = _numbers(texts)
        sums: Floats = np.bincount(numbers, values).astype(np.float64)
        counts: Floats = np.bincount(numbers).astype(np.float64)
        return cls(sums, counts)

    @property
    def mean(self) -> float:
        """Mean over observations."""
        return float(np.sum(self.sums)) / float(np.sum(self.counts))


def _numbers(texts: Levels) -> Levels:
    found: tuple[Levels, Levels] = np.unique(texts, return_inverse=True)
    return found[1]


def delta(differences: Floats, texts: Levels, cost: TrainingCost, seed: int) -> DeltaLogLikelihood:
    """Return the mean difference per observation with its 95 % interval.

    `differences` (n,) are log densities with surprisal minus those without, in nats. The standard error over texts is
    that of a bootstrap. The quantile is that of Student's t for the effective number of texts (Kish 1965), (Σn)² / Σn²
    for texts of n observations: a table of one long text and short ones says little more than that of the long one.
    """
    table = TextSums.of(differences, texts)
    n_texts, n = len(table.sums), float(np.sum(table.counts))
    shares: Floats = np.full(n_texts, 1 / n_texts)
    drawn: Floats = np.random.default_rng(seed).multinomial(n_texts, shares, _DRAWS).astype(np.float64)
    counts: Floats = drawn @ table.counts
    totals: list[float] = (n * (drawn @ table.sums) / counts).tolist()
    variance = stdev(totals) ** 2 * n_texts / (n_texts - 1) + cost.variance
    n_effective = n**2 / float(table.counts @ table.counts)
    total, half = n * table.mean, t_quantile(max(1.0, n_effective - 1)) * sqrt(variance)
    low, high = total - half, total + half
    gain = total + cost.mean  # what the true coefficients would gain
    if 2 * gain > half:
        root, half_of_root = sqrt(gain), half / (2 * sqrt(gain))
        low, high = (root - half_of_root) ** 2 - cost.mean, (root + half_of_root) ** 2 - cost.mean
    return DeltaLogLikelihood(estimate=table.mean, low=low / n, high=high / n)


def paired_p(first: Floats, second: Floats, texts: Levels, seed: int) -> float:
    """Return the two-sided p of two models' log densities of the same observations, by changing the signs of texts.

    All changes are tried for up to 13 texts, and else 9,999 by lot.
    """
    sums = TextSums.of(first - second, texts).sums
    observed = abs(float(np.sum(sums)))
    if len(sums) <= _EXACT_TEXTS:
        every: list[tuple[float, ...]] = [*product((-1.0, 1.0), repeat=len(sums))]
        signs: Floats = np.array(every)
        return _count_as_large(signs @ sums, observed) / len(every)
    is_plus: Floats = np.random.default_rng(seed).integers(0, 2, (_DRAWS, len(sums))).astype(np.float64)
    return (1 + _count_as_large(2 * (is_plus @ sums) - np.sum(sums), observed)) / (1 + _DRAWS)


def smallest_p(n_texts: int) -> float:
    """Return the smallest p of `paired_p`: all signs, or none, are changed."""
    return 2.0 ** (1 - n_texts) if n_texts <= _EXACT_TEXTS else 1 / (1 + _DRAWS)


def _count_as_large(totals: Floats, observed: float) -> int:
    sizes: Floats = np.abs(totals)
    return int(np.count_nonzero(sizes >= observed * (1 - _ROUNDING)))
