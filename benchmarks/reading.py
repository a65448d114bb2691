"""Simulated reading times: how often intervals cover the coefficients and the difference that were put in.

    python -m benchmarks.reading [N]

Each of N tables (default: 400) for each case has the times of 20 persons for 20 texts of 40 units, with noise of the
size that self-paced reading has: standard deviations of 80 ms between persons, 20 ms between units, and 120 ms within
both. Length, log frequency and surprisal act on the time of their unit and of the next ones. The coefficients and the
difference of held-out log-likelihoods come from the functions of `mt reading`. The true difference is the mean of the
differences of all tables.

Prints the table of docs/reading.md. Exits 1 if the intervals of a case cover less than 93 % or more than 97 % of the
coefficients or of the true difference, or if those of surprisal without any effect exclude 0 in less than 3 % or more
than 7 %.
"""

import sys
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from trainer.contracts.readings import DeltaLogLikelihood
from trainer.reading.differences import delta
from trainer.reading.mixed import Floats, Levels
from trainer.reading.regression import (
    Estimate,
    Kind,
    Predictors,
    Sample,
    assign_folds,
    fit,
    held_out,
    training_cost,
)

PERSONS, TEXTS, UNITS, FOLDS = 20, 20, 40, 10
INTERCEPT, PERSON_SD, UNIT_SD, RESIDUAL_SD = 350.0, 80.0, 20.0, 120.0
COEFFICIENTS: Mapping[str, tuple[float, ...]] = {
    "length": (6.0, 2.0, 0.0),
    "log_frequency": (-4.0, -2.0, 0.0),
    "position": (-0.5,),
    "surprisal": (2.0, 1.0, 0.5),
}
"""In ms per character, nat, unit of the text, and bit: of the unit itself, and of the one and two units before."""
MIN_COVERED, MAX_COVERED, MIN_EXCLUDED, MAX_EXCLUDED = 0.93, 0.97, 0.03, 0.07


class Case(NamedTuple):
    name: str
    kind: Kind
    effect: float
    """By which the coefficients of surprisal are multiplied."""


CASES = (
    Case("mixed model", "mixed", 1.0),
    Case("mixed model, no effect of surprisal", "mixed", 0.0),
    Case("means of units", "means", 1.0),
    Case("means of units, no effect of surprisal", "means", 0.0),
)


class Outcome(NamedTuple):
    """The numbers of one table."""

    estimates: tuple[Estimate, ...]
    """Without the intercept, which means of units share with their readers."""
    delta: DeltaLogLikelihood


def true_coefficients(case: Case) -> dict[str, float]:
    """Return the coefficients by their names in the tidy table."""
    return {
        f"{name}_{before}" if before else name: coefficient * (case.effect if name == "surprisal" else 1.0)
        for name, coefficients in COEFFICIENTS.items()
        for before, coefficient in enumerate(coefficients)
    }


def draw(case: Case, rng: np.random.Generator) -> Sample:
    """Return the times of a table, without the first two units of each text, which have nothing before them."""
    count = TEXTS * UNITS
    length: Floats = 1 + rng.poisson(3.5, count).astype(np.float64)
    frequency: Floats = -6 - 0.8 * (length - 4.5) + 2 * rng.standard_normal(count)
    surprisal: Floats = np.maximum(0.1, 8 - 0.8 * (frequency + 6) + 3 * rng.standard_normal(count))
    position: Levels = np.arange(count) % UNITS
    place = position.astype(np.float64)
    parts: dict[str, Floats] = {"length": length, "log_frequency": frequency, "position": place, "surprisal": surprisal}
    columns: dict[str, Floats] = {}
    for name, part in parts.items():
        for before in range(len(COEFFICIENTS[name])):
            columns[f"{name}_{before}" if before else name] = np.roll(part, before)
    expected: Floats = INTERCEPT + UNIT_SD * rng.standard_normal(count)
    for name, coefficient in true_coefficients(case).items():
        expected += coefficient * columns[name]
    of_persons: Floats = PERSON_SD * rng.standard_normal((PERSONS, 1))
    times: Floats = expected + of_persons + RESIDUAL_SD * rng.standard_normal((PERSONS, count))
    units: Levels = np.flatnonzero(position >= 2)
    times = times[:, units]
    if case.kind == "means":
        sums: Floats = np.sum(times, axis=0)
        return _sample(sums / PERSONS, units, None, columns)
    persons: Levels = np.repeat(np.arange(PERSONS), len(units))
    return _sample(times.ravel(), np.tile(units, PERSONS), persons, columns)


def _sample(times: Floats, units: Levels, persons: "Levels | None", columns: Mapping[str, Floats]) -> Sample:
    surprisal = tuple(name for name in columns if name.startswith("surprisal"))
    baseline = tuple(name for name in columns if name not in surprisal)
    parts = {names: Predictors(names, _columns(columns, names)) for names in (baseline, surprisal)}
    return Sample(times, units // UNITS, units, persons, parts[baseline], parts[surprisal])


def _columns(columns: Mapping[str, Floats], names: Sequence[str]) -> Floats:
    return np.column_stack([columns[name] for name in names])


def analyse(case: Case, seed: int) -> Outcome:
    """Draw a table, and analyse it as a job does."""
    sample = draw(case, np.random.default_rng((CASES.index(case), seed)))
    folds = assign_folds(sample.texts, FOLDS, "text", seed)
    model = fit(sample, case.kind, "linear")
    differences = held_out(sample, folds, case.kind, "linear") - held_out(sample, folds, case.kind, None)
    return Outcome(model.estimates[1:], delta(differences, sample.texts, training_cost(sample, model), seed))


class Coverage(NamedTuple):
    """Shares of tables."""

    coefficients: tuple[float, ...]
    """In which each coefficient is in its interval."""
    difference: float
    """In which the true difference is in its interval."""
    surprisal_excludes_0: float
    """Of the coefficients of surprisal."""
    difference_above_0: float
    """In which the interval is above 0."""
    difference_below_0: float
    true_difference: float

    @property
    def faults(self) -> list[str]:
        """Say what is covered too rarely or too often."""
        shares = {"coefficients": fmean(self.coefficients), "true difference": self.difference}
        wrong = {name: share for name, share in shares.items() if not MIN_COVERED <= share <= MAX_COVERED}
        return [f"{name}: {share:.1%} covered" for name, share in wrong.items()]


def coverage(case: Case, outcomes: Sequence[Outcome]) -> Coverage:
    truth = true_coefficients(case)
    true_difference = fmean(one.delta.estimate for one in outcomes)
    of_surprisal = [one for each in outcomes for one in each.estimates if one.name.startswith("surprisal")]
    bounds = [(one.delta.low or 0.0, one.delta.high or 0.0) for one in outcomes]
    return Coverage(
        tuple(
            fmean(one.low <= value <= one.high for each in outcomes for one in each.estimates if one.name == name)
            for name, value in truth.items()
        ),
        fmean(low <= true_difference <= high for low, high in bounds),
        fmean(one.low > 0 or one.high < 0 for one in of_surprisal),
        fmean(low > 0 for low, _ in bounds),
        fmean(high < 0 for _, high in bounds),
        true_difference,
    )


def row(case: Case, found: Coverage) -> str:
    """Return a row of the table."""
    lowest, highest = min(found.coefficients), max(found.coefficients)
    return (
        f"| {case.name} | {fmean(found.coefficients):.1%} ({lowest:.1%} to {highest:.1%}) "
        f"| {found.surprisal_excludes_0:.1%} | {found.true_difference:+.5f} | {found.difference:.1%} "
        f"| {found.difference_above_0:.1%} | {found.difference_below_0:.1%} |"
    )


def main(arguments: Sequence[str]) -> int:
    """Print the table; return 1 if intervals cover too little or too much."""
    count = int(arguments[0]) if arguments else 400
    print("| case | coefficients covered (each) | surprisal ≠ 0 | true difference | covered | above 0 | below 0 |")
    print("|---|---|---|---|---|---|---|")
    faults: list[str] = []
    for case in CASES:
        found = coverage(case, [analyse(case, seed) for seed in range(count)])
        print(row(case, found), flush=True)
        faults += [f"{case.name}: {fault}" for fault in found.faults]
        if not case.effect and not MIN_EXCLUDED <= found.surprisal_excludes_0 <= MAX_EXCLUDED:
            faults.append(f"{case.name}: {found.surprisal_excludes_0:.1%} of surprisal's intervals exclude 0")
    print("\n" + ("\n".join(faults) or "All intervals cover what they should."))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
