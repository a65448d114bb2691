"""Records of word segmentation: boundaries that cues predict in texts without spaces, against the true ones."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from trainer.contracts.base import CountOptions, Frozen, describe_fields
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference_fields import (
    MAX_TEXT_CHARACTERS,
    NO_RESULT,
    InferenceRecord,
    InferenceRequest,
    Response,
    limited,
)
from trainer.contracts.runs import Leak

Cue = Literal["surprisal", "entropy"]
"""The surprisal of the character after a place, or the entropy of the model before it (branching entropy)."""
BoundaryRule = Literal["peak", "threshold"]
"""A boundary is where the cue rises and does not rise further, or where it is above a threshold."""


class Share(Frozen):
    """A share, or a difference of two, with its 95 % interval over lines and over the choice of thresholds."""

    value: float
    low: float
    high: float


class BoundaryScore(Frozen, json_schema_extra=describe_fields):
    """The boundaries that a model predicts by a cue and a rule; line ends do not count."""

    model: str
    """A run or its n-gram; `random` in earlier results."""
    cue: Cue | None
    """None for the random boundaries of earlier results, as the rule."""
    rule: BoundaryRule | None
    threshold_nats: float | None
    """The best one on all lines; each fifth is scored with that of the other four. None for another rule."""
    n_predicted: int
    n_right: int
    precision: Share | None
    """The share of the predicted boundaries that are true; None without any."""
    recall: Share
    """The share of the true boundaries that are predicted."""
    f1: Share
    """The harmonic mean of precision and recall."""
    chance: Share | None = None
    """The F1 of the same rule on cues without information: the values shuffled among the places of each line.

    The mean of 199 shuffled cues (39 for long texts), each with thresholds of its own, and the range of 95 % of
    them. None in earlier results.
    """
    f1_minus_chance: Share | None = None
    """Above chance if its interval is above 0; None in earlier results."""
    f1_minus_ngram: Share | None = None
    """For a run with an n-gram beside it: the difference of the F1 by the same cue and rule."""


class SegmentationResult(Frozen, json_schema_extra=describe_fields):
    """Predicted word boundaries of a text."""

    n_lines: int
    """Lines on which boundaries are scored."""
    n_places: int
    """Places between two letters with their marks (grapheme clusters) of a scored line."""
    n_boundaries: int
    scores: tuple[BoundaryScore, ...]
    n_tuning_lines: int = 0
    """In earlier results: other lines, on which thresholds and the rate of random boundaries were chosen."""
    n_inside: int = 0
    """Boundaries inside a letter with its marks, which do not count."""
    n_cut: int = 0
    """Lines beyond the run's context, so that they are scored by windows."""
    n_unknown: int = 0
    """Characters that the run does not know."""
    has_ngram: bool = True
    """False if the training text is deleted, has changed or is not yours, so that there is no n-gram of it."""
    is_ngram: bool = False
    """True for a run of n-grams that is this n-gram itself."""
    is_trained_with_spaces: bool = False
    """The training text has words between spaces, which the run expects in this text too."""
    leak: Leak | None = None
    """How much of the text, with its spaces or without them, the run and its ancestors have trained on.

    None without their texts, and in results of earlier versions.
    """
    bound_nats: float | None = None
    """For subwords: how much lower the surprisal of a character can be, given the continued tokenizations before it."""


class SegmentRequest(CountOptions, InferenceRequest):
    """A request to find the word boundaries of a text with spaces, which are removed before the model reads it."""

    text: Annotated[str, Field(min_length=1), limited("text", MAX_TEXT_CHARACTERS)]
    """Lines of words between white space; each line is scored by itself."""
    seed: NonNegativeInt = 0
    """Draws the fifths of the lines, the shuffled cues, and the resamples of the intervals."""

    @classmethod
    def response_type(cls) -> "type[SegmentResponse]":
        return SegmentResponse


class SegmentResponse(Response):
    segmentation: SegmentationResult | None = None

    def result(self) -> SegmentationResult:
        """Return the predicted boundaries; raises SERVICE_UNAVAILABLE if it has none."""
        if self.segmentation is None:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, NO_RESULT)
        return self.segmentation


class SegmentRecord(InferenceRecord):
    kind: Literal["segment"] = "segment"
    request: SegmentRequest
    response: SegmentResponse
