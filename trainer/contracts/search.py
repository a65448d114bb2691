"""The search before a training: short trials of its learning rate and dropout, compared on validation."""

import math
from typing import Annotated

from pydantic import Field

from trainer.contracts.base import Count, Frozen, Positive, Probability, describe_fields


class Variant(Frozen, json_schema_extra=describe_fields):
    """Values that a search tries; the first variant has those that the training would have without a search."""

    number: Count
    learning_rate: Positive
    dropout: Probability | None = None
    """None in a search of the learning rate only."""


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


def _rank(trial: Trial) -> tuple[float, int]:
    return (math.inf if trial.val_loss is None else trial.val_loss, trial.number)
