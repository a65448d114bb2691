"""The difference of two groups of runs over lines and seeds, with its 95 % interval and its effect size."""

from typing import Literal

from trainer.contracts.base import Frozen, describe_fields
from trainer.contracts.intervals import LossDifference, Method, SeedError, hedges_correction
from trainer.contracts.reports import Form, Note, Quantity, counted_note, note

Basis = Literal["loss", "bits_per_char"]
"""A metric of which runs are compared."""


class SeedDifference(Frozen, json_schema_extra=describe_fields):
    """Difference of the mean of one group from that of another, in the unit of the compared metric."""

    method: Method
    """Over seeds. paired: over common seeds, by Student's t; welch: by Welch's t; single: one run against several."""
    n_first: int
    """Number of runs that count, as the next one."""
    n_second: int
    difference: float
    low: float | None
    """Lower end of the 95 % interval over lines and seeds; None without an interval."""
    high: float | None
    p: float | None
    """Two-sided, by the same t as the interval."""
    degrees: float | None
    """Degrees of freedom of that t, by Satterthwaite."""
    lines_error: float | None = None
    """Standard error over lines of text like this; None with too few lines, or where the lines are not known."""
    seeds_error: float | None = None
    """Standard error over seeds."""
    effect: Literal["d_z", "g"]
    """d_z: mean of the paired differences by their deviation; g: Cohen's d by the pooled one. Hedges corrects both."""
    effect_size: float | None
    """None without any deviation, and where it cannot be corrected: of two pairs, or of one run against two."""


def seed_difference(found: LossDifference, seeds: SeedError) -> SeedDifference:
    """Return the difference of the means of two groups of trainings, of which one has several."""
    method, of_seeds, deviation = seeds
    error, degrees = found.error, of_seeds.degrees if method == "paired" else found.n_first + found.n_second - 2
    has_effect = found.depends_on_seeds and degrees > 1
    return SeedDifference(
        method=method,
        n_first=found.n_first,
        n_second=found.n_second,
        difference=found.value,
        low=None if error is None else found.value - error.margin,
        high=None if error is None else found.value + error.margin,
        p=None if error is None else error.p(found.value),
        degrees=None if error is None else error.degrees,
        lines_error=None if found.lines is None else found.lines.value,
        seeds_error=of_seeds.value,
        effect="d_z" if method == "paired" else "g",
        effect_size=hedges_correction(degrees) * found.value / deviation if has_effect else None,
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
    parts: list[Note] = []
    if found.low is not None and found.high is not None:
        low, high = (Quantity(value=end, form=form) for end in (found.low, found.high))
        parts.append(note(" (95 % interval {low} to {high})", low=low, high=high))
    if found.effect_size is not None:
        number = Quantity(value=found.effect_size, form="effect")
        of_pairs, of_groups = (
            note(", corrected d_z {number}", number=number),
            note(", Hedges' g {number}", number=number),
        )
        parts.append(of_pairs if found.effect == "d_z" else of_groups)
    interval, size = [*parts, note(""), note("")][:2]
    numbers: dict[str, Quantity | Note] = {
        "how": how,
        "difference": Quantity(value=found.difference, form=form),
        "interval": interval,
        "size": size,
    }
    if basis == "loss":
        return note("{how}: {difference} {unit} per token{interval}{size}.", **numbers)
    return note("{how}: {difference} {unit} per character{interval}{size}.", **numbers)
