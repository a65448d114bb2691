"""Word segmentation of texts without spaces, by cues of a language model.

A character inside a word is easier to predict than the first one of the next word, so that surprisal and entropy rise
at word boundaries (Harris 1955, From phoneme to morpheme; Saffran, Newport and Aslin 1996, Word segmentation: the role
of distributional cues; Tanaka-Ishii 2005, https://aclanthology.org/I05-1009; Çöltekin 2017, Using predictability for
lexical segmentation).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.segmentation import (
    BoundaryRule,
    BoundaryScore,
    Cue,
    SegmentationResult,
    SegmentRequest,
    Share,
)
from trainer.contracts.tokenizers import Normalization, TokenizerMethod
from trainer.contracts.wording import counted
from trainer.data.normalization import documents, normalized

Floats: TypeAlias = "NDArray[np.float64]"
Flags: TypeAlias = "NDArray[np.bool_]"
_Counts: TypeAlias = "NDArray[np.int64]"

MIN_LINES = 10
"""Fewest lines: thresholds are chosen on a fifth of them."""
MAX_SUBWORD_CHARACTERS = 20_000
"""Most characters for a run with subwords, which reads a few hundred in a second."""
_TUNING_LINES = 5
"""One line of so many is for tuning."""
_RESAMPLES = 2000


class UnspacedLine(NamedTuple):
    """A line without its white space."""

    text: str
    is_boundary: Flags
    """For each place between two characters, whether white space stood there (n - 1 for n characters)."""


class LineCues(NamedTuple):
    """The cues of a model in a line of n characters, in nats."""

    surprisal: Floats
    """The surprisal of each character (n,)."""
    entropy: "Floats | None"
    """The entropy before each character (n,); None for subwords, which have no entropy of the next character."""


class LineSplit(NamedTuple):
    """The numbers of lines, in ascending order."""

    tuning: list[int]
    """Lines on which thresholds are chosen."""
    scored: list[int]


def lines_of(request: SegmentRequest, method: TokenizerMethod, normalization: Normalization) -> list[UnspacedLine]:
    """Return the lines of a text without their white space, for a run with this tokenizer.

    Raises MODEL_INCOMPATIBLE for words as tokens, PAYLOAD_TOO_LARGE, and INVALID_INPUT for a text without boundaries.
    """
    if method == "word":
        message = "This run's tokens are words. Word segmentation needs a run with characters, bytes or subwords."
        raise AppError(ErrorCode.MODEL_INCOMPATIBLE, message)
    lines: list[UnspacedLine] = []
    for document in documents(normalized(request.text, normalization)):
        line = unspaced(document.text)
        if normalized(line.text, normalization) != line.text:
            message = (
                f"Line {document.number:,} has a word that begins with a combining character: join it to a letter."
            )
            raise AppError(ErrorCode.INVALID_INPUT, message)
        lines.append(line)
    n_characters = sum(len(line.text) for line in lines)
    if method not in ("char", "byte") and n_characters > MAX_SUBWORD_CHARACTERS:
        message = (
            f"The text has {counted(n_characters, 'character')}. Give at most {MAX_SUBWORD_CHARACTERS:,} to a run with"
            " subwords, as it reads many tokenizations of each line."
        )
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)
    split_lines(lines, request.seed)
    return lines


def unspaced(line: str) -> UnspacedLine:
    """Remove the white space from a line."""
    words = line.split()
    is_first = [place == 0 for word in words for place in range(len(word))]
    return UnspacedLine("".join(words), np.array(is_first[1:], dtype=np.bool_))


def peaks(values: Floats) -> Flags:
    """Return for each place between two characters whether the value (n,) of the second is a peak.

    It is higher than that of the character before, and that of the character after is not higher still.
    """
    rises: Flags = np.diff(values) > 0
    is_peak = rises.copy()
    is_peak[:-1] &= ~rises[1:]
    return is_peak


def best_threshold(values: Floats, is_boundary: Flags) -> float:
    """Return the threshold above which values (N,) are boundaries with the highest F1; the highest of several."""
    order: _Counts = np.argsort(-values, kind="stable")
    falling: Floats = values[order]
    ordered: Flags = is_boundary[order]
    n_right: _Counts = np.cumsum(ordered, dtype=np.int64)
    n_predicted: _Counts = np.arange(1, len(values) + 1)
    f1: Floats = 2 * n_right / (n_predicted + n_right.item(-1))
    lowest = falling.item(-1)
    below: Floats = np.append(falling[1:], 0.0 if lowest > 0 else lowest - 1)  # no entropy or surprisal is below 0
    is_tied: Flags = falling == below
    f1[is_tied] = -1  # equal values are all above a threshold, or none is
    best = int(np.argmax(f1))
    return (falling.item(best) + below.item(best)) / 2


def split_lines(lines: Sequence[UnspacedLine], seed: int) -> LineSplit:
    """Draw a fifth of the lines for thresholds; raises INVALID_INPUT for too few lines or boundaries."""
    long = [number for number, line in enumerate(lines) if len(line.is_boundary)]
    if len(long) < MIN_LINES:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"The text has {counted(len(long), 'line')} of two characters or more. Give {MIN_LINES} or more.",
        )
    order: list[int] = np.random.Generator(np.random.PCG64(seed)).permutation(len(long)).tolist()
    mixed = [long[place] for place in order]
    n_tuning = len(long) // _TUNING_LINES
    split = LineSplit(sorted(mixed[:n_tuning]), sorted(mixed[n_tuning:]))
    if not all(any(np.any(lines[number].is_boundary) for number in numbers) for numbers in split):
        raise AppError(ErrorCode.INVALID_INPUT, "The text has too few spaces between words. Give text with spaces.")
    return split


def segmentation(
    lines: Sequence[UnspacedLine], cues: Mapping[str, Sequence[LineCues]], seed: int = 0
) -> SegmentationResult:
    """Score the boundaries that the cues of models predict, and random ones that are as many as the true ones.

    `cues` are those of the run for all lines, and those of its n-gram. Raises INVALID_INPUT as `split_lines` does.
    """
    tuning, scored = split_lines(lines, seed)
    known, truth = (
        _all(lines[number].is_boundary for number in tuning),
        [lines[number].is_boundary for number in scored],
    )
    draws = np.random.Generator(np.random.PCG64((seed, 1)))
    rate = np.count_nonzero(known) / len(known)
    random = [draws.random(len(flags)) < rate for flags in truth]
    found = [
        _Predicted(model, cue, rule, threshold, _counts(predicted, truth))
        for model, of_lines in cues.items()
        for cue, rule, threshold, predicted in _predictions(of_lines, tuning, scored, known)
    ]
    found.append(_Predicted("random", None, None, None, _counts(random, truth)))
    columns: Floats = np.concatenate([one.counts for one in found], axis=1)  # (L, 3 M)
    equal: Floats = np.full(len(scored), 1 / len(scored))
    sums: Floats = np.empty((1 + _RESAMPLES, len(columns.T)), dtype=np.float64)
    sums[:1] = np.ones((1, len(scored))) @ columns
    for resample in range(_RESAMPLES):
        times: Floats = draws.multinomial(len(scored), equal).astype(np.float64)
        sums[1 + resample] = times @ columns
    sums_of = {(one.model, one.cue, one.rule): sums[:, 3 * place :][:, :3] for place, one in enumerate(found)}
    run, ngram = [*cues, "", ""][:2]
    return SegmentationResult(
        n_lines=len(scored),
        n_tuning_lines=len(tuning),
        n_places=sum(map(len, truth)),
        n_boundaries=int(np.count_nonzero(_all(truth))),
        scores=tuple(
            one.score(of_one, sums_of.get((ngram, one.cue, one.rule)) if one.model == run else None)
            for one, of_one in zip(found, sums_of.values(), strict=True)
        ),
    )


class _Predicted(NamedTuple):
    """Predicted boundaries."""

    model: str
    cue: Cue | None
    rule: BoundaryRule | None
    threshold_nats: float | None
    counts: Floats
    """For each line the numbers of boundaries (L, 3) that are right, predicted, and true."""

    def score(self, sums: Floats, of_ngram: "Floats | None") -> BoundaryScore:
        """Return the score by the counts of all lines and of resamples (1 + R, 3), and by those of the n-gram."""
        right: Floats = sums[:, 0]
        predicted: Floats = sums[:, 1]
        true: Floats = sums[:, 2]
        return BoundaryScore(
            model=self.model,
            cue=self.cue,
            rule=self.rule,
            threshold_nats=self.threshold_nats,
            n_predicted=int(predicted.item(0)),
            n_right=int(right.item(0)),
            precision=_with_interval(_shares(right, predicted)) if predicted.item(0) else None,
            recall=_with_interval(_shares(right, true)),
            f1=_with_interval(_f1(sums)),
            f1_minus_ngram=None if of_ngram is None else _with_interval(_f1(sums) - _f1(of_ngram)),
        )


def _predictions(
    of_lines: Sequence[LineCues], tuning: Sequence[int], scored: Sequence[int], known: Flags
) -> Iterator[tuple[Cue, BoundaryRule, float | None, list[Flags]]]:
    """Yield the cues of a model and rules with the boundaries that they predict in each scored line."""
    cues: list[tuple[Cue, list[Floats]]] = [
        ("surprisal", [line.surprisal for line in of_lines]),
        ("entropy", [line.entropy for line in of_lines if line.entropy is not None]),
    ]
    for cue, values in cues:
        if not values:
            continue
        yield cue, "peak", None, [peaks(values[number]) for number in scored]
        threshold = best_threshold(np.concatenate([values[number][1:] for number in tuning]), known)
        yield cue, "threshold", threshold, [values[number][1:] > threshold for number in scored]


def _counts(predicted: Iterable[Flags], truth: Iterable[Flags]) -> Floats:
    """Return for each line the numbers of boundaries (3,) that are right, predicted, and true."""
    rows = [
        [np.count_nonzero(flags & true), np.count_nonzero(flags), np.count_nonzero(true)]
        for flags, true in zip(predicted, truth, strict=True)
    ]
    return np.array(rows, dtype=np.float64)


def _f1(sums: Floats) -> Floats:
    """Return the F1 by the numbers of boundaries (R, 3) that are right, predicted, and true."""
    return _shares(2 * sums[:, 0], sums[:, 1] + sums[:, 2])


def _shares(some: Floats, of: Floats) -> Floats:
    """Return shares; NaN for those of nothing."""
    shares: Floats = np.full(len(of), np.nan)
    is_something: Flags = of > 0
    shares[is_something] = some[is_something] / of[is_something]
    return shares


def _with_interval(shares: Floats) -> Share:
    """Return the first share, with the interval of the others that are of something."""
    ends: Floats = np.nanquantile(shares[1:], (0.025, 0.975))
    return Share(value=shares.item(0), low=ends.item(0), high=ends.item(1))


def _all(lines: Iterable[Flags]) -> Flags:
    return np.concatenate(list(lines))
