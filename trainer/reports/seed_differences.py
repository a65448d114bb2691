"""The difference of the means of two groups of runs over seeds, with its 95 % interval and its effect size."""

from collections.abc import Mapping
from statistics import fmean
from typing import Literal

from trainer.contracts.base import Frozen, describe_fields
from trainer.contracts.intervals import Method, seed_error
from trainer.contracts.reports import Form, Note, Quantity, counted_note, note

Basis = Literal["loss", "bits_per_char"]
"""A metric of which runs are compared."""


class SeedDifference(Frozen, json_schema_extra=describe_fields):
    """Difference of the mean of one group from that of another, in the unit of the compared metric."""

    method: Method
    """paired: over common seeds, by Student's t; welch: by Welch's t; single: one run against a group of several."""
    n_first: int
    """Number of runs that count, as the next one."""
    n_second: int
    difference: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    p: float
    """Two-sided, by the same t as the interval."""
    degrees: float | None
    """Degrees of freedom, by Welch and Satterthwaite where the method is welch; None without any deviation."""
    effect: Literal["d_z", "g"]
    """d_z: mean of the paired differences by their deviation; g: Cohen's d by the pooled one, corrected by Hedges."""
    effect_size: float | None
    """None without any deviation."""


def difference_over_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> SeedDifference:
    """Return the difference of the mean of a number by seed from that of another; one of them has two seeds or more."""
    n_mine, n_its, difference = len(first), len(second), fmean(first.values()) - fmean(second.values())
    method, error, deviation = seed_error(first, second)
    correction = 1.0 if method == "paired" else 1 - 3 / (4 * (n_mine + n_its - 2) - 1)
    return SeedDifference(
        method=method,
        n_first=n_mine,
        n_second=n_its,
        difference=difference,
        low=difference - error.margin,
        high=difference + error.margin,
        p=error.p(difference),
        degrees=error.degrees if deviation else None,
        effect="d_z" if method == "paired" else "g",
        effect_size=correction * difference / deviation if deviation else None,
    )


def described(found: SeedDifference, basis: Basis) -> Note:
    """Return the difference, its interval and its effect size in a sentence."""
    form: Form = "loss_change" if basis == "loss" else "per_char_change"
    runs = counted_note(found.n_first, "run")
    how = {
        "paired": note("Paired over {seeds}", seeds=counted_note(found.n_first, "seed")),
        "welch": note(
            "{runs} against {others}, fewer than two common seeds (Welch's t)", runs=runs, others=found.n_second
        ),
        "single": note(
            "{runs} against {others} (interval of one more run of the group)", runs=runs, others=found.n_second
        ),
    }[found.method]
    size = note("")
    if found.effect_size is not None:
        number = Quantity(value=found.effect_size, form="effect")
        size = (
            note(", Cohen's d_z {number}", number=number)
            if found.effect == "d_z"
            else note(", Hedges' g {number}", number=number)
        )
    numbers: dict[str, Quantity | Note] = {
        "how": how,
        "difference": Quantity(value=found.difference, form=form),
        "low": Quantity(value=found.low, form=form),
        "high": Quantity(value=found.high, form=form),
        "size": size,
    }
    if basis == "loss":
        return note("{how}: {difference} {unit} per token (95 % interval {low} to {high}){size}.", **numbers)
    return note("{how}: {difference} {unit} per character (95 % interval {low} to {high}){size}.", **numbers)
