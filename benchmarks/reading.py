"""Simulated reading times: how often intervals cover the coefficients and the difference that were put in.

    python -m benchmarks.reading [N]

Each of N tables (default: 400) for each case has the times of 20 persons for 20 texts of 40 units, with noise of the
size that self-paced reading has: standard deviations of 80 ms between persons, 20 ms between units, and 120 ms within
both. Length, log frequency and surprisal act on the time of their unit and of the next ones. The coefficients and the
difference of held-out log-likelihoods come from the functions of `mt reading`. The true difference is the mean of the
differences of all tables.

The cases of a second table have 12 or 40 persons, 5 or 12 texts of 30 units, and what the models do not have: persons
who differ in the effect of surprisal (with a deviation of 2 ms per bit), and texts that are slow as a whole (25 ms),
whose surprisals differ, too (3 bits). For these it is counted how often the intervals of effects cover them, and how
often those of the errors of the models would.

Table number n of case number c, of both tables, is drawn with the seed (c, n). Prints the tables of docs/reading.md.
Exits 1 if the intervals of a case cover less than 93 % or more than 97 % of the coefficients or of the true difference,
or if those of surprisal without any effect exclude 0 in less than 3 % or more than 7 %.
"""

import sys
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from trainer.contracts.intervals import t_quantile
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

FOLDS = 10
INTERCEPT, PERSON_SD, UNIT_SD, RESIDUAL_SD = 350.0, 80.0, 20.0, 120.0
COEFFICIENTS: Mapping[str, tuple[float, ...]] = {
    "length": (6.0, 2.0, 0.0),
    "log_frequency": (-4.0, -2.0, 0.0),
    "position": (-0.5,),
    "surprisal": (2.0, 1.0, 0.5),
}
"""In ms per character, nat, unit of the text, and bit: of the unit itself, and of the one and two units before."""
NORMAL = 1.959963984540054
MIN_COVERED, MAX_COVERED, MIN_EXCLUDED, MAX_EXCLUDED = 0.93, 0.97, 0.03, 0.07


class Case(NamedTuple):
    name: str
    kind: Kind
    effect: float
    """By which the coefficients of surprisal are multiplied."""
    persons: int = 20
    texts: int = 20
    units: int = 40
    """Of each text."""
    slope_sd: float = 0.0
    """Standard deviation of the effect of surprisal between persons, in ms per bit."""
    text_sd: float = 0.0
    """Of the times of texts, in ms."""
    text_bits: float = 0.0
    """Of the surprisals of texts."""


CASES = (
    Case("mixed model", "mixed", 1.0),
    Case("mixed model, no effect of surprisal", "mixed", 0.0),
    Case("means of units", "means", 1.0),
    Case("means of units, no effect of surprisal", "means", 0.0),
)
EFFECT_CASES = (
    Case("mixed, 12 persons", "mixed", 1.0, 12, 12, 30),
    Case("mixed, 12 persons who differ", "mixed", 1.0, 12, 12, 30, 2.0),
    Case("mixed, 40 persons", "mixed", 1.0, 40, 12, 30),
    Case("mixed, 40 persons who differ", "mixed", 1.0, 40, 12, 30, 2.0),
    Case("mixed, 12 persons, texts that differ", "mixed", 1.0, 12, 12, 30, 0.0, 25.0, 3.0),
    Case("means, 12 texts", "means", 1.0, 20, 12, 30),
    Case("means, 12 texts that differ", "means", 1.0, 20, 12, 30, 0.0, 25.0, 3.0),
    Case("means, 5 texts", "means", 1.0, 20, 5, 30),
    Case("means, 5 texts that differ", "means", 1.0, 20, 5, 30, 0.0, 25.0, 3.0),
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
    count = case.texts * case.units
    length: Floats = 1 + rng.poisson(3.5, count).astype(np.float64)
    frequency: Floats = -6 - 0.8 * (length - 4.5) + 2 * rng.standard_normal(count)
    bits: Floats = 8 - 0.8 * (frequency + 6) + 3 * rng.standard_normal(count)
    position: Levels = np.arange(count) % case.units
    place = position.astype(np.float64)
    expected: Floats = INTERCEPT + UNIT_SD * rng.standard_normal(count)
    of_persons: Floats = PERSON_SD * rng.standard_normal((case.persons, 1))
    noise: Floats = RESIDUAL_SD * rng.standard_normal((case.persons, count))
    if case.text_sd:
        bits += np.repeat(case.text_bits * rng.standard_normal(case.texts), case.units)
        expected += np.repeat(case.text_sd * rng.standard_normal(case.texts), case.units)
    surprisal: Floats = np.maximum(0.1, bits)
    parts: dict[str, Floats] = {"length": length, "log_frequency": frequency, "position": place, "surprisal": surprisal}
    columns: dict[str, Floats] = {}
    for name, part in parts.items():
        for before in range(len(COEFFICIENTS[name])):
            columns[f"{name}_{before}" if before else name] = np.roll(part, before)
    for name, coefficient in true_coefficients(case).items():
        expected += coefficient * columns[name]
    times: Floats = expected + of_persons + noise
    if case.slope_sd:
        times += case.slope_sd * rng.standard_normal((case.persons, 1)) * (surprisal - 8)
    units: Levels = np.flatnonzero(position >= 2)
    times = times[:, units]
    if case.kind == "means":
        sums: Floats = np.sum(times, axis=0)
        return _sample(sums / case.persons, units // case.units, units, None, columns)
    persons: Levels = np.repeat(np.arange(case.persons), len(units))
    units = np.tile(units, case.persons)
    return _sample(times.ravel(), units // case.units, units, persons, columns)


def _sample(
    times: Floats, texts: Levels, units: Levels, persons: "Levels | None", columns: Mapping[str, Floats]
) -> Sample:
    surprisal = tuple(name for name in columns if name.startswith("surprisal"))
    baseline = tuple(name for name in columns if name not in surprisal)
    parts = {names: Predictors(names, _columns(columns, names)) for names in (baseline, surprisal)}
    return Sample(times, texts, units, persons, parts[baseline], parts[surprisal])


def _columns(columns: Mapping[str, Floats], names: Sequence[str]) -> Floats:
    return np.column_stack([columns[name] for name in names])


def analyse(case: Case, seed: int) -> Outcome:
    """Draw a table, and analyse it as a job does."""
    sample = draw(case, np.random.default_rng((CASES.index(case), seed)))
    folds = assign_folds(sample.texts, FOLDS, "text", seed)
    model = fit(sample, case.kind, "linear")
    differences = held_out(sample, folds, case.kind, "linear") - held_out(sample, folds, case.kind, None)
    return Outcome(
        model.estimates(model.clustered(sample))[1:],
        delta(differences, sample.texts, training_cost(sample, model), seed),
    )


def analyse_effects(case: Case, seed: int) -> tuple[Estimate, ...]:
    """Draw a table of a case of effects, and return its effects, without the intercept."""
    sample = draw(case, np.random.default_rng((len(CASES) + EFFECT_CASES.index(case), seed)))
    model = fit(sample, case.kind, "linear")
    return model.estimates(model.clustered(sample))[1:]


class Effects(NamedTuple):
    """Shares of tables in which the effect of surprisal and the mean coefficient are in their intervals."""

    surprisal: float
    """That of the unit itself."""
    coefficients: float
    surprisal_by_model: float
    """By the errors of the model, with which it is in fewer where persons or texts differ."""


def effects(case: Case, tables: Sequence[Sequence[Estimate]]) -> Effects:
    truth = true_coefficients(case)
    of_model = t_quantile(case.texts * (case.units - 2) - len(truth) - 1) if case.kind == "means" else NORMAL
    own = [one for table in tables for one in table if one.name == "surprisal"]
    return Effects(
        fmean(one.low <= truth[one.name] <= one.high for one in own),
        fmean(one.low <= truth[one.name] <= one.high for table in tables for one in table),
        fmean(abs(one.value - truth[one.name]) <= of_model * one.standard_error for one in own),
    )


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


def effects_row(case: Case, found: Effects) -> str:
    """Return a row of the table of effects."""
    return f"| {case.name} | {found.surprisal:.1%} | {found.coefficients:.1%} | {found.surprisal_by_model:.1%} |"


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
    print("\n| case | surprisal covered | coefficients covered | surprisal, by the errors of the model |")
    print("|---|---|---|---|")
    for case in EFFECT_CASES:
        of_effects = effects(case, [analyse_effects(case, seed) for seed in range(count)])
        print(effects_row(case, of_effects), flush=True)
        if not MIN_COVERED <= of_effects.coefficients <= MAX_COVERED:
            faults.append(f"{case.name}: coefficients: {of_effects.coefficients:.1%} covered")
    print("\n" + ("\n".join(faults) or "All intervals cover what they should."))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
