"""The baseline of a run: what counts of its tokens and characters reach on its splits, which a model must beat."""

from collections.abc import Mapping, Sequence
from math import hypot
from statistics import fmean
from typing import Literal

from trainer.contracts.base import Frozen, changed, describe_fields
from trainer.contracts.intervals import margin_of_mean

MAX_COUNTED_TOKENS = 5_000_000
"""Tokens of a training split that are counted, and characters; more would take more than about ten seconds each."""
Against = Literal["better", "no_clear_difference", "worse"]
Shortfall = Literal["time", "size", "settings", "tokens", "order"]
_ROUNDING_BITS = 1e-6
"""The largest difference in bits per character between equal models, of which one is in single precision."""
_ADVICE: Mapping[Shortfall, str] = {
    "time": "give it more time first, then a larger size or more text.",
    "size": "train a larger size first, then longer or on more text.",
    "settings": (
        "a study tries other learning rates and dropouts; or train on more text, or the model `ngram`, which counts."
    ),
    "tokens": "n-grams of characters predict this text better than n-grams of these tokens: choose `tokenizer: char`.",
    "order": "train on more text, or give a smaller `model.max_order`.",
}
_VERDICTS: Mapping[Against, str] = {
    "worse": "This model is worse than counting",
    "no_clear_difference": "This model is not clearly better than counting",
}
WARNINGS: Mapping[tuple[Against, Shortfall], str] = {
    (against, lack): f"{verdict}: {advice}"
    for against, verdict in _VERDICTS.items()
    for lack, advice in _ADVICE.items()
}


class CharacterCounts(Frozen):
    """The n-gram of characters that predicts a split best, counted in the same text as the n-gram of tokens."""

    order: int
    """Characters of an n-gram."""
    bits_per_char: float
    counted_characters: int
    """Characters of the training text that were counted, with line ends: of a long text a sample."""
    train_characters: int
    """All characters of the training text, with line ends."""


class Baseline(Frozen, json_schema_extra=describe_fields):
    """Losses of counts on a split: of unigrams, and of the n-grams whose order has the lowest validation loss."""

    order: int
    """Tokens of an n-gram; 1 if unigrams are the best, or alone were counted."""
    counted_tokens: int
    """Tokens of the training text that were counted, with all special ones: of a long text a sample."""
    train_tokens: int
    """All tokens of the training text: of the training split, and of the ancestors if they were counted too."""
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
    """True if much of the split stands in training text: the difference says nothing about unseen text."""
    shortfall: Shortfall = "settings"
    """What a training lacked first: time, where its request limits it; size, where it asks for the smallest; tokens:
    the model counts n-grams of tokens itself, and those of characters are stronger; order: it counts others itself."""
    characters: CharacterCounts | None = None
    """The n-gram of characters; None where the tokens are characters, where some of the text is unknown, and in
    baselines of earlier versions."""
    ancestors: tuple[str, ...] = ()
    """Runs that the training started from, directly or not, whose training text was counted too."""
    uncounted: tuple[str, ...] = ()
    """Such runs whose training text is deleted, has changed or was never here."""
    unknown_char_share: float = 0.0
    """Share of unknown characters of the split; above 0.001, figures are too low to compare with other tokenizers."""
    known_loss: float | None = None
    """Nats per token of the model over the tokens of the split that are not unknown; None where all are known."""
    known_ngram_loss: float | None = None
    """The same of the n-gram of tokens."""

    @property
    def is_of_characters(self) -> bool:
        """True if the n-gram of characters is the stronger one, with which the model is compared."""
        return self.characters is not None and self.characters.bits_per_char < self.ngram_bits_per_char

    @property
    def counted_bits_per_char(self) -> float:
        """Bits per character of the stronger n-gram: of that of tokens, or of that of characters."""
        if self.characters is None:
            return self.ngram_bits_per_char
        return min(self.ngram_bits_per_char, self.characters.bits_per_char)

    @property
    def is_of_sample(self) -> bool:
        """True if only a part of the training text was counted for the stronger n-gram."""
        if self.characters is not None and self.is_of_characters:
            return self.characters.counted_characters < self.characters.train_characters
        return self.counted_tokens < self.train_tokens

    @property
    def difference(self) -> float:
        """Bits per character of the model minus those of the stronger n-gram; negative: the model is better."""
        return self.bits_per_char - self.counted_bits_per_char

    @property
    def against(self) -> Against:
        """Comparison of the model with the stronger n-gram; clear where the interval of the difference excludes 0."""
        margin = max(self.margin or 0.0, _ROUNDING_BITS)
        if self.difference < -margin:
            return "better"
        return "worse" if self.difference > margin else "no_clear_difference"

    def warnings(self) -> tuple[str, ...]:
        """Return the warning about a model that is worse than counting, or not clearly better, with what to do.

        There is none about a split that was trained on.
        """
        found = None if self.has_leak else WARNINGS.get((self.against, self.shortfall))
        return () if found is None else (found,)


def mean_baseline(baselines: Sequence[Baseline]) -> Baseline:
    """Return the baseline of several models that differ in their seeds, with the mean of their bits per character.

    The interval of the difference has both uncertainties: that of the lines, which is at most the mean of those of the
    models, and that of the seeds.
    """
    bits = [one.bits_per_char for one in baselines]
    of_lines = [one.margin for one in baselines if one.margin is not None]
    is_known = len(of_lines) == len(bits)
    margin = hypot(fmean(of_lines), margin_of_mean(bits) or 0.0) if is_known else None
    known = [one.known_loss for one in baselines if one.known_loss is not None]
    known_loss = fmean(known) if len(known) == len(bits) else None
    return changed(baselines[0], bits_per_char=fmean(bits), margin=margin, known_loss=known_loss)


Baselines = dict[Literal["validation", "test"], Baseline]
