"""The development of a run over its checkpoints: accuracies, losses, and the ages at which it acquires words."""

from typing import Literal

from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.batteries import Level
from trainer.contracts.reports import Note

CurveMeasure = Literal["accuracy", "loss", "bits_per_char"]
"""The accuracy on items of a battery; the loss of a split in nats per token, or in bits per character."""
Misfit = Literal["too_few_checkpoints", "no_fall", "poor_fit", "outside", "no_plateau"]
"""Reasons why a word has no age of acquisition."""
CURVE_PARAMETERS = 4
MIN_CHECKPOINTS = CURVE_PARAMETERS + 1
"""Fewest checkpoints of a word's curve; step 0 does not count."""
MIN_R_SQUARED = 0.5
MIN_SHARE_SEEN = 0.8
"""The share of the height of a word's curve that must lie between the first and the last checkpoint."""


class CheckpointPoint(Frozen):
    """A checkpoint, and what the model had read."""

    step: int
    epoch: int
    """Complete epochs."""
    words: int | None = None
    tokens: int | None = None


class WordScores(Frozen):
    """A line of `words.jsonl`: the mean surprisal of a word at a checkpoint."""

    step: int
    word: str
    n_contexts: int
    nats: float


class ModelWords(Frozen):
    """The mean surprisals of words at a checkpoint."""

    scores: tuple[WordScores, ...]
    n_unscored: int
    """Occurrences without a surprisal, which are left out."""


class WordTexts(Frozen):
    """`lines.json`: the words that are measured, and the lines of the held-out text in which they stand."""

    lines: tuple[str, ...]
    """Each once, in the order of the text."""
    occurrences: dict[str, tuple[tuple[int, int], ...]]
    """Those of each word: the place of the line here, and the number of the word in it between white space."""
    missing: tuple[str, ...] = ()
    """Wanted words that the text does not have."""
    frequencies: dict[str, float]
    """Occurrences in a million words of the training text; empty if that is no longer there."""


class Acquisition(Frozen):
    """The falling curve that fits the surprisals of a word, and the age at its half way."""

    word: str
    n_contexts: int
    frequency_per_million: float | None = None
    """Occurrences in a million words of the training text; None where it is unknown."""
    age_steps: float | None = None
    """The step at which the curve is half way between its two ends; None for a word that does not fit."""
    age_words: float | None = None
    """The words that were read up to this step, interpolated between checkpoints; None where they are unknown."""
    start_nats: float | None = None
    """The surprisal before the fall, to which the curve tends; None without a curve, as the other figures of it."""
    end_nats: float | None = None
    """The surprisal after the fall."""
    slope: float | None = None
    """Per factor of ten in steps; at half way the curve falls by slope / 4 of its height for each."""
    r_squared: float | None = None
    """The share of the variance that the curve explains."""
    fits: bool
    reason: Misfit | None = None
    """Why the word does not fit; None if it fits."""
    age_steps_low: float | None = None
    """The lower end of the 95 % interval of `age_steps`; None without an age, as the other ends."""
    age_steps_high: float | None = None
    age_words_low: float | None = None
    """The words that were read up to `age_steps_low`."""
    age_words_high: float | None = None


class DevelopmentRow(Frozen):
    """A point of a curve: the accuracy on a group of items, or the loss of a split, at a checkpoint."""

    step: int
    measure: CurveMeasure
    level: Level | Literal["split"]
    name: str
    """A battery; a part of one after it, as in `blimp: agreement`; or a split."""
    value: float
    low: float | None = None
    """The lower end of the 95 % interval: of Wilson (1927) for an accuracy, over the lines for a loss."""
    high: float | None = None
    n: int
    """Items without ties, tokens or characters."""
    chance: float | None = None
    """The accuracy of guessing; None where it is unknown."""


class Development(Frozen):
    """`result.json`: the curves of a run over its checkpoints, and the ages of words."""

    schema_version: Literal[2] = 2
    run_id: Identifier
    points: tuple[CheckpointPoint, ...]
    curves: tuple[DevelopmentRow, ...] = ()
    acquisitions: tuple[Acquisition, ...] = ()
    missing_words: tuple[str, ...] = ()
    """Wanted words that the text does not have."""
    notes: tuple[Note, ...] = ()
    """How much of the items and of the split the run and its ancestors have trained on."""
    n_unscored: int = 0
    """Occurrences of words without a surprisal at the last checkpoint."""
