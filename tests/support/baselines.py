"""Baselines of a model with 1.5 bits per character on its test split, as a measurement leaves them."""

from trainer.contracts.base import changed
from trainer.contracts.baselines import Baseline

BETTER = Baseline(
    order=5,
    counted_tokens=90_000,
    train_tokens=90_000,
    unigram_loss=3.0,
    unigram_bits_per_char=4.5,
    ngram_loss=1.25,
    ngram_bits_per_char=1.8128,
    bits_per_char=1.5,
    margin=0.0625,
)
"""The model is better than its 5-gram."""
WORSE = changed(BETTER, ngram_bits_per_char=1.25, margin=None)
"""The model is worse than its 5-gram, on too few lines for an interval."""
UNCLEAR = changed(BETTER, order=1, ngram_bits_per_char=1.53125, counted_tokens=40_000)
"""The difference from unigrams, of which a part was counted, is within its interval."""

BETTER_LINE = "5-gram: 1.813 bits per character; this model 1.500 (-0.313), 95 % interval -0.375 to -0.250"
WORSE_LINE = "5-gram: 1.250 bits per character; this model 1.500 (+0.250)"
UNCLEAR_LINE = (
    "unigram: 1.531 bits per character; this model 1.500 (-0.031), 95 % interval -0.094 to +0.031; counted in"
    " 40,000 of 90,000 tokens"
)
WORSE_WARNING = (
    "This model is worse than counting: a study tries other learning rates and dropouts; or train on more text, or the"
    " model `ngram`, which counts."
)
