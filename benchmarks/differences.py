"""Simulated losses of lines: how often intervals cover the true difference of two settings, or the true loss.

    python -m benchmarks.differences [N]

Each of N tables (default: 2,000) has the losses of two settings on the same lines of 20 tokens. Lines differ in their
difficulty, which both settings share, by 0.5 nats per token. The settings differ by 0.02 nats on average, on each line
by a deviation of its own, and in each pair of trainings by another. The intervals come from `loss_difference`, which
`mt compare` calls.

In the second table the loss of each line depends on that of the line before, as in an AR(1) process with coefficient
0.6. The intervals are those of neighbouring lines, and of the same lines taken as drawn by lot.

Prints the tables of docs/evaluation.md. Exits 1 if the intervals of a row cover less than 93 % or more than 97 %,
of two seeds less than 91 %.
"""

import sys
from collections.abc import Iterator, Sequence
from math import sqrt
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.intervals import MAX_LINE_GROUPS, LineLosses, loss_difference
from trainer.reading.mixed import Floats

TOKENS, MEAN, DIFFICULTY_SD, DIFFERENCE, DEPENDENCE = 20, 2.3, 0.5, 0.02, 0.6
LINES, SEEDS = (30, 100, 300), (2, 3, 5)
DEVIATIONS = ((0.10, 0.005), (0.10, 0.02), (0.03, 0.02))
"""Standard deviations in nats of the difference of two settings: over lines, and over pairs of trainings."""
NEIGHBOURS = (8, 20, 59, 60, 100, 200)
MIN_COVERED, MAX_COVERED, MIN_COVERED_OF_TWO = 0.93, 0.97, 0.91


class Row(NamedTuple):
    """A row of a table: its titles, and the shares of tables in which intervals cover the true number."""

    titles: tuple[str, ...]
    covered: float | None
    """None without an interval."""
    other: float
    """By the interval that is too narrow: over seeds only, or over single lines."""

    @property
    def is_right(self) -> bool:
        least = MIN_COVERED_OF_TWO if self.titles[0] == "2" else MIN_COVERED
        return self.covered is None or least <= self.covered <= MAX_COVERED

    def __str__(self) -> str:
        shown = "no interval" if self.covered is None else f"{100 * self.covered:.1f} %"
        return f"| {' | '.join(self.titles)} | {shown} | {100 * self.other:.1f} % |"


def line_losses(losses: Floats, *, is_drawn: bool = True) -> LineLosses:
    """Return mean losses of lines (lines,) in groups, as an evaluation stores them."""
    groups = min(len(losses), MAX_LINE_GROUPS)
    bounds: NDArray[np.int64] = np.arange(groups + 1) * len(losses) // groups
    sums: list[float] = np.add.reduceat(TOKENS * losses, bounds[:-1]).tolist()
    lengths: NDArray[np.int64] = np.diff(bounds)
    tokens: list[int] = (TOKENS * lengths).tolist()
    return LineLosses(nats=tuple(sums), tokens=tuple(tokens), chars=tuple(tokens), is_drawn=is_drawn)


def trainings(losses: Floats, seeds: int, seed_sd: float, rng: np.random.Generator) -> Iterator[LineLosses]:
    """Yield the losses of trainings of a setting, given those expected of lines."""
    shifts: list[float] = rng.normal(0, seed_sd, seeds).tolist()
    yield from (line_losses(losses + shift) for shift in shifts)


def of_difference(seeds: int, lines: int, line_sd: float, seed_sd: float, count: int) -> Row:
    """Simulate comparisons of two groups of trainings with common seeds; a row depends on its values and count only."""
    rng = np.random.default_rng((seeds, lines, round(1000 * line_sd), round(1000 * seed_sd)))
    covered = over_seeds = 0
    for _ in range(count):
        shared: Floats = rng.normal(MEAN, DIFFICULTY_SD, lines)
        gains: Floats = rng.normal(DIFFERENCE, line_sd, lines)
        first, second = (
            dict(enumerate(trainings(losses, seeds, seed_sd / sqrt(2), rng))) for losses in (shared + gains, shared)
        )
        found = loss_difference(first, second, per_char=False)
        errors = found.error, None if found.seeds is None else found.seeds.error
        of_both, of_seeds_alone = (0.0 if error is None else error.margin for error in errors)
        covered += abs(found.value - DIFFERENCE) <= of_both
        over_seeds += abs(found.value - DIFFERENCE) <= of_seeds_alone
    return Row((f"{seeds}", f"{lines}", f"{line_sd:.2f}", f"{seed_sd}"), covered / count, over_seeds / count)


def of_neighbours(lines: int, count: int) -> Row:
    """Simulate the losses of texts whose lines depend on the line before."""
    rng = np.random.default_rng(lines)
    covered, single, n_intervals = 0, 0, 0
    for _ in range(count):
        steps: list[float] = rng.normal(0, 1, lines).tolist()
        states = [steps[0]]
        for step in steps[1:]:
            states.append(DEPENDENCE * states[-1] + sqrt(1 - DEPENDENCE**2) * step)
        error = DIFFICULTY_SD * abs(fmean(states))
        losses: Floats = MEAN + DIFFICULTY_SD * np.array(states, dtype=np.float64)
        of_blocks, of_lines = (line_losses(losses, is_drawn=drawn).margin_nats for drawn in (False, True))
        n_intervals += of_blocks is not None
        covered += of_blocks is not None and error <= of_blocks
        single += of_lines is not None and error <= of_lines
    return Row((f"{lines}",), covered / n_intervals if n_intervals else None, single / count)


def differences(count: int) -> Iterator[Row]:
    """Yield the rows of the table of groups."""
    for seeds in SEEDS:
        for lines in LINES:
            yield from (of_difference(seeds, lines, *deviations, count) for deviations in DEVIATIONS)


def main(arguments: Sequence[str]) -> int:
    """Print the tables; return 1 if intervals cover too little or too much."""
    count = int(arguments[0]) if arguments else 2000
    wrong = list[Row]()
    print("| seeds | lines | deviation over lines | over pairs | covered | by the seeds alone |")
    print("|---|---|---|---|---|---|")
    for row in differences(count):
        print(row, flush=True)
        wrong += [] if row.is_right else [row]
    print("\n| neighbouring lines | covered | by single lines |\n|---|---|---|")
    for row in (of_neighbours(lines, count) for lines in NEIGHBOURS):
        print(row, flush=True)
        wrong += [] if row.is_right else [row]
    print("\n" + ("\n".join(f"wrong: {row}" for row in wrong) or "All intervals cover what they should."))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
