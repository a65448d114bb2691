"""Simulated finalists of a study: how often a winner is called clearly better than settings that are as good.

    python -m benchmarks.finalists [N]

Each of N studies (default: 200) of a row has finalists whose losses are drawn: a line of the text is harder or easier
for a setting, a seed is lucky or not for all lines, and a line has some noise for each training. The winner is the one
with the lowest mean, and its differences come from the function that a study uses. In further studies one setting is
better than the others by three standard deviations of the loss of a training.

Prints the table of docs/studies.md. Exits 1 if more than 5 % of all winners, or 7 % of those of a row, are called
clearly better than any setting that is as good.
"""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.config.winner_differences import winner_differences
from trainer.contracts.intervals import LineLosses

SEEDS, MORE_SEEDS, TOKENS = 3, 5, 20
MAX_WRONG, MAX_WRONG_OF_ROW = 0.05, 0.07
_EXPECTED, _LINE_NOISE, _OWN_NOISE, _BETTER = 2.0, 0.1, 0.05, 3.0
"""Mean loss in nats per token; standard deviations of a line for one setting and for one training; deviations."""


class Case(NamedTuple):
    """A row of the table."""

    finalists: int
    lines: int
    seed_noise: float = 0.01
    """Standard deviation over seeds, in nats per token."""
    first_noise: float = 0.01
    """That of the first setting."""

    @property
    def deviation(self) -> float:
        """The standard deviation of the loss of a training."""
        return math.sqrt(self.seed_noise**2 + (_LINE_NOISE**2 + _OWN_NOISE**2) / self.lines)


CASES = (
    *(Case(finalists, lines) for finalists in (2, 3, 5) for lines in (30, 100, 300)),
    Case(3, 100, 0.04, 0.04),
    Case(3, 100, 0.002, 0.002),
    Case(3, 100, 0.01, 0.06),
)


class Outcome(NamedTuple):
    """Than which settings the winner is called clearly better."""

    any: bool
    """Than one or more."""
    second: bool
    """Than the second, so than all."""
    has_first: bool
    """True if the first setting has won."""


def simulate(case: Case, seeds: int, better: float, rng: np.random.Generator) -> Outcome:
    """Draw the losses of finalists, of which the first is better by so many nats per token; choose and compare."""
    losses: dict[int, dict[int, LineLosses]] = {}
    for number in range(1, case.finalists + 1):
        of_lines = _LINE_NOISE * rng.standard_normal(case.lines)
        losses[number] = {}
        for seed in range(seeds):
            level = _EXPECTED + (case.first_noise if number == 1 else case.seed_noise) * rng.standard_normal()
            level -= better if number == 1 else 0.0
            losses[number][seed] = _line_losses(level + of_lines + _OWN_NOISE * rng.standard_normal(case.lines))
    means = {number: sum(sum(run.nats) for run in runs.values()) for number, runs in losses.items()}
    winner, second, *_ = sorted(means, key=means.__getitem__)
    found = winner_differences(losses, winner, per_char=False)
    return Outcome(any(one.is_clear for one in found.values()), found[second].is_clear, winner == 1)


def _line_losses(per_token: NDArray[np.float64]) -> LineLosses:
    nats: list[float] = (TOKENS * per_token).tolist()
    return LineLosses(nats=tuple(nats), tokens=(TOKENS,) * len(nats), chars=(TOKENS,) * len(nats))


class Row(NamedTuple):
    """Shares of the studies of a case."""

    any: float
    """Settings are equal: the winner is called clearly better than one or more."""
    second: float
    """Settings are equal: it is called clearly better than the second."""
    found: float
    """The first is better: it wins, and is called clearly better than all."""
    found_with_more: float
    """The same with more seeds."""


def row_of(case: Case, count: int, rng: np.random.Generator) -> Row:
    """Return the shares of so many studies each."""
    equal = [simulate(case, SEEDS, 0.0, rng) for _ in range(count)]
    better = [
        [simulate(case, seeds, _BETTER * case.deviation, rng) for _ in range(count)] for seeds in (SEEDS, MORE_SEEDS)
    ]
    found, found_with_more = (sum(one.has_first and one.second for one in group) / count for group in better)
    return Row(sum(one.any for one in equal) / count, sum(one.second for one in equal) / count, found, found_with_more)


def main(arguments: Sequence[str]) -> int:
    """Print the table; return 1 if too many winners are called clearly better than equal settings."""
    count = int(arguments[0]) if arguments else 200
    print(
        "| finalists | lines | deviation over seeds | equal: better than any | than the second | 3 SD better: found |"
        f" with {MORE_SEEDS} seeds |"
    )
    print("|---|---|---|---|---|---|---|")
    wrong: list[float] = []
    for number, case in enumerate(CASES):
        row = row_of(case, count, np.random.default_rng(number))
        wrong.append(row.any)
        noise = (
            f"{case.seed_noise}" if case.first_noise == case.seed_noise else f"{case.seed_noise}, {case.first_noise}"
        )
        shares = " | ".join(f"{share:.1%}" for share in row)
        print(f"| {case.finalists} | {case.lines} | {noise} | {shares} |", flush=True)
    mean = sum(wrong) / len(wrong)
    print(f"\n{len(wrong) * count:,} studies of equal settings: {mean:.1%} of their winners are called clearly better.")
    return 0 if mean <= MAX_WRONG and max(wrong) <= MAX_WRONG_OF_ROW else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
