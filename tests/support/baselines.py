"""Baselines of a model with 1.5 bits per character on its test split, as a measurement leaves them."""

from math import log

from trainer.contracts.base import changed
from trainer.contracts.baselines import Baseline, CharacterCounts

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

BEHIND_CHARACTERS = changed(
    BETTER,
    characters=CharacterCounts(order=7, bits_per_char=1.375, counted_characters=8_000, train_characters=9_000),
    uncounted=("lstm-1", "lstm-2"),
)
"""The model is better than the 5-gram of its tokens, and worse than the 7-gram of characters."""
AHEAD_OF_CHARACTERS = changed(
    BETTER,
    characters=CharacterCounts(order=1, bits_per_char=1.875, counted_characters=9_000, train_characters=9_000),
    ancestors=("lstm-1",),
)
"""The model is better than the 5-gram of its tokens, which is better than the unigrams of characters."""
MOSTLY_UNKNOWN = changed(WORSE, unknown_char_share=0.5, known_loss=log(16.0), known_ngram_loss=log(8.0))
"""Of the text half is unknown, and over the other half the model is worse than its 5-gram too."""

BETTER_LINE = "5-gram: 1.813 bits per character; this model 1.500 (-0.313), 95 % interval -0.375 to -0.250"
WORSE_LINE = "5-gram: 1.250 bits per character; this model 1.500 (+0.250)"
UNCLEAR_LINE = (
    "unigram: 1.531 bits per character; this model 1.500 (-0.031), 95 % interval -0.094 to +0.031; counted in"
    " 40,000 of 90,000 tokens"
)
BEHIND_LINE = (
    "7-gram of characters: 1.375 bits per character, 5-gram of tokens 1.813; this model 1.500 (+0.125), 95 % interval"
    " +0.062 to +0.188; counted in 8,000 of 9,000 characters; counted without the training text of `lstm-1`, `lstm-2`"
)
AHEAD_LINE = (
    "5-gram of tokens: 1.813 bits per character, unigram of characters 1.875; this model 1.500 (-0.313), 95 % interval"
    " -0.375 to -0.250; counted with the training text of `lstm-1`"
)
MOSTLY_UNKNOWN_LINE = (
    "5-gram: 1.250 (!) bits per character; this model 1.500 (!) (+0.250); over known tokens: 5-gram perplexity 8.00,"
    " this model 16.00"
)
WORSE_WARNING = (
    "This model is worse than counting: a study tries other learning rates and dropouts; or train on more text, or the"
    " model `ngram`, which counts."
)
