"""Simulated cues of word boundaries: how often intervals cover the F1 of a rule, and its differences.

    python -m benchmarks.segmentation [N]

Each of N tables (default: 600) for each case has lines of 2 to about 45 places, 27 on average. A cue of noise is
independent of the boundaries. An informative cue is normal, and higher at boundaries by 1.2 standard deviations in the
median line; lines differ in how much higher, and in their mean. The n-gram's cue is higher by 0.8 of that, and shares
half of the noise. The scores come from the function of `mt segment`. The true F1 and the true differences are the means
of all tables, with their choices of thresholds; the true difference of noise from chance is 0.

Prints the table of docs/segmentation.md; each cell has the shares of covered tables where 10, 15 and 25 % of the places
are boundaries. Exits 1 if the intervals of a case cover less than 93 % or more than 97 % of the true values, beyond two
standard errors of so many tables.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from math import exp, sqrt
from statistics import fmean
from typing import NamedTuple

import numpy as np

from trainer.contracts.segmentation import BoundaryRule, Share
from trainer.reading.segmentation import Flags, Floats, LineCues, UnspacedLine, segmentation

PLACES, SEPARATION, NGRAM = 25.0, 1.2, 0.8
LINE_SEPARATION, LINE_MEAN = 0.5, 0.4
"""Standard deviations over lines: of the logarithm of the separation, and of the mean."""
MIN_COVERED, MAX_COVERED = 0.93, 0.97


class Case(NamedTuple):
    is_noise: bool
    lines: int
    rate: float
    """The share of the places that are boundaries."""

    def title(self) -> str:
        return f"{'noise' if self.is_noise else 'informative'}, {self.lines} lines"


CASES = tuple(
    Case(is_noise, lines, rate)
    for is_noise in (True, False)
    for lines in (12, 25, 60, 200)
    for rate in (0.10, 0.15, 0.25)
)


def draw(case: Case, seed: int) -> tuple[list[UnspacedLine], dict[str, list[LineCues]]]:
    """Return the lines of a table, with the cues of a run and of its n-gram."""
    rng = np.random.default_rng((CASES.index(case), seed))
    lines: list[UnspacedLine] = []
    cues: dict[str, list[LineCues]] = {"run": [], "n-gram": []}
    for _ in range(case.lines):
        count = 3 + int(rng.poisson(PLACES))
        is_boundary: Flags = rng.random(count - 1) < case.rate
        lines.append(UnspacedLine("", np.arange(count), is_boundary))
        separation = 0.0 if case.is_noise else SEPARATION * exp(LINE_SEPARATION * rng.standard_normal())
        mean, shared = LINE_MEAN * rng.standard_normal(), rng.standard_normal(count)
        for name, share in zip(cues, (1.0, NGRAM), strict=True):
            values: Floats = mean + sqrt(0.5) * (shared + rng.standard_normal(count))
            values[1:] += np.where(is_boundary, share * separation, 0.0)
            cues[name].append(LineCues(values, None))
    return lines, cues


NUMBERS = ("F1", "minus chance", "minus n-gram")


class Table(NamedTuple):
    """The numbers of the run by rule."""

    shares: Mapping[str, Share]
    """The F1, and its differences."""
    is_chance: Mapping[str, bool]
    """Whether the F1 is in the range of chance."""


def analyse(case: Case, seed: int) -> Table:
    """Draw a table, and score it as `mt segment` does."""
    lines, cues = draw(case, seed)
    shares: dict[str, Share] = {}
    is_chance: dict[str, bool] = {}
    for score in segmentation(lines, cues, seed).scores:
        if score.model == "run" and score.rule is not None and score.chance is not None:
            found = zip(NUMBERS, (score.f1, score.f1_minus_chance, score.f1_minus_ngram), strict=True)
            shares |= {f"{score.rule}: {name}": share for name, share in found if share is not None}
            is_chance[score.rule] = score.chance.low <= score.f1.value <= score.chance.high
    return Table(shares, is_chance)


class Coverage(NamedTuple):
    """The true values, and the shares of tables whose intervals hold them, by number."""

    truth: Mapping[str, float]
    covered: Mapping[str, float]
    is_chance: Mapping[str, float]
    """The share of tables whose F1 is in the range of chance, by rule."""

    def faults(self, case: Case, count: int) -> list[str]:
        """Say what is covered too rarely or too often in so many tables."""
        covered = dict(self.covered)
        if case.is_noise:
            covered |= {f"{rule}: range of chance": share for rule, share in self.is_chance.items()}
        by_chance = 2 * sqrt(MIN_COVERED * (1 - MIN_COVERED) / count)
        return [
            f"{case.title()}, boundaries at {case.rate:.0%}, {name}: {share:.1%} covered"
            for name, share in covered.items()
            if not MIN_COVERED - by_chance <= share <= MAX_COVERED + by_chance
        ]


def coverage(case: Case, tables: Sequence[Table]) -> Coverage:
    """Return the coverage of each number."""
    truth: dict[str, float] = {}
    covered: dict[str, float] = {}
    for name in tables[0].shares:
        shares = [table.shares[name] for table in tables]
        truth[name] = 0.0 if case.is_noise and "minus" in name else fmean(share.value for share in shares)
        covered[name] = fmean(share.low <= truth[name] <= share.high for share in shares)
    return Coverage(truth, covered, {rule: fmean(table.is_chance[rule] for table in tables) for rule in RULES})


RULES: Mapping[BoundaryRule, str] = {"threshold": "above a threshold", "peak": "peaks"}


def rows(title: str, found: Sequence[Coverage]) -> list[str]:
    """Return a row for each rule, with the shares of covered tables at each rate of boundaries."""
    shown: list[str] = []
    for rule, name in RULES.items():
        numbers = [[one.covered[f"{rule}: {number}"] for one in found] for number in NUMBERS]
        numbers.append([one.is_chance[rule] for one in found])
        cells = [", ".join(f"{share:.1%}" for share in shares) for shares in numbers]
        shown.append(f"| {title} | {name} | {' | '.join(cells)} |")
    return shown


def main(arguments: Sequence[str]) -> int:
    """Print the table; return 1 if intervals cover too little or too much."""
    count = int(arguments[0]) if arguments else 600
    print("| case | rule | F1 | minus chance | minus n-gram | F1 in the range of chance |\n|---|---|---|---|---|---|")
    faults: list[str] = []
    for title, cases in groupby(CASES, Case.title):
        found: list[Coverage] = []
        for case in cases:
            found.append(coverage(case, [analyse(case, seed) for seed in range(count)]))
            faults += found[-1].faults(case, count)
        print("\n".join(rows(title, found)), flush=True)
    print("\n" + ("\n".join(faults) or "All intervals cover what they should."))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
