"""The baseline of a run: what counts of its tokens reach on its splits, which a model must beat."""

from collections.abc import Mapping
from typing import Literal

from trainer.contracts.base import Frozen, describe_fields

MAX_COUNTED_TOKENS = 5_000_000
"""Tokens of a training split that are counted; more would take more than about ten seconds."""
Against = Literal["better", "no_clear_difference", "worse"]
_ADVICE = "a study tries other learning rates and dropouts; or train on more text, or the model `ngram`, which counts."
WARNINGS: Mapping[Against, str] = {
    "worse": f"This model is worse than counting: {_ADVICE}",
    "no_clear_difference": f"This model is not clearly better than counting: {_ADVICE}",
}


class Baseline(Frozen, json_schema_extra=describe_fields):
    """Losses of counts on a split: of unigrams, and of the n-gram whose order has the lowest validation loss."""

    order: int
    """Tokens of an n-gram; 1 if unigrams are the best, or alone were counted."""
    counted_tokens: int
    """Tokens of the training split that were counted, with all special ones: of a long split a sample."""
    train_tokens: int
    """All tokens of the training split."""
    unigram_loss: float
    """In nats per token, as `ngram_loss`."""
    unigram_bits_per_char: float
    ngram_loss: float
    ngram_bits_per_char: float
    bits_per_char: float
    """Bits per character of the model on this split."""
    margin: float | None = None
    """Half the width of the 95 % interval of the difference in bits per character, paired over the lines of the split;
    None if it was not computed, or with too few lines."""
    has_leak: bool = False
    """True if more than 1 % of the split stands in training text: the difference says nothing about unseen text."""

    @property
    def difference(self) -> float:
        """Bits per character of the model minus those of the n-gram; negative: the model is better."""
        return self.bits_per_char - self.ngram_bits_per_char

    @property
    def is_of_sample(self) -> bool:
        """True if only a part of the training split was counted."""
        return self.counted_tokens < self.train_tokens

    @property
    def against(self) -> Against:
        """Comparison of the model with the n-gram; clear where the interval of the difference excludes 0."""
        if self.difference < -(self.margin or 0.0):
            return "better"
        return "worse" if self.difference > (self.margin or 0.0) else "no_clear_difference"

    def warnings(self) -> tuple[str, ...]:
        """Return the warning about a model that is worse than counting, or not clearly better, with what to do.

        There is none about a split that was trained on.
        """
        return tuple(text for against, text in WARNINGS.items() if against == self.against and not self.has_leak)


Baselines = dict[Literal["validation", "test"], Baseline]
