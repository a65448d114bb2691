"""The search before a training: short trials of its learning rate and dropout, compared on validation."""

import math
from typing import Annotated

from pydantic import Field

from trainer.contracts.base import Count, Frozen, Positive, Probability, describe_fields
from trainer.contracts.units import Unit, loss_number


class Variant(Frozen, json_schema_extra=describe_fields):
    """Values that a search tries; the first variant has those that the training would have without a search."""

    number: Count
    learning_rate: Positive
    dropout: Probability | None = None
    """None in a search of the learning rate only."""

    def __str__(self) -> str:
        dropout = "" if self.dropout is None else f", dropout {self.dropout:g}"
        return f"learning rate {self.learning_rate:g}{dropout}"


class Trial(Variant):
    """A variant that was trained for some steps in a round of a search."""

    round: Count
    steps: Count
    val_loss: Annotated[float, Field(ge=0)] | None = None
    """Lowest validation loss in nats per predicted token; None if the trial diverged."""


class Search(Frozen, json_schema_extra=describe_fields):
    """The trials of a search, in the order in which they ended."""

    variants: Count
    trials: tuple[Trial, ...] = ()

    @property
    def best(self) -> Trial | None:
        """The best trial of the last round; None without trials, and if all of that round diverged."""
        ranked = self.ranked(max((trial.round for trial in self.trials), default=0))
        return ranked[0] if ranked and ranked[0].val_loss is not None else None

    def ranked(self, number: int) -> list[Trial]:
        """Return the trials of a round by their losses, of equal ones the first first; those that diverged are last."""
        return sorted((trial for trial in self.trials if trial.round == number), key=_rank)

    def described(self, unit: Unit) -> str:
        """Return the chosen values and what was compared, in a sentence."""
        best = self.best
        if best is None:
            return f"None of {self.variants} variants learned: the values of the rules were taken."
        first = next((one.val_loss for one in self.trials if (one.number, one.round) == (1, best.round)), None)
        against = "" if first is None or best.number == 1 else f"; by rule {loss_number(first, unit)}"
        loss = f"{loss_number(best.val_loss or 0.0, unit)} {unit}"
        return f"{best}: best of {self.variants} variants ({loss} after {best.steps:,} steps{against})"


def _rank(trial: Trial) -> tuple[float, int]:
    return (math.inf if trial.val_loss is None else trial.val_loss, trial.number)
