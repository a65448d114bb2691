"""Word segmentation of texts without spaces, by cues of a language model.

A character inside a word is easier to predict than the first one of the next word, so that surprisal and entropy rise
at word boundaries (Harris 1955, From phoneme to morpheme; Saffran, Newport and Aslin 1996, Word segmentation: the role
of distributional cues; Tanaka-Ishii 2005, https://aclanthology.org/I05-1009; Çöltekin 2017, Using predictability for
lexical segmentation).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from math import sqrt
from statistics import fmean
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.intervals import t_quantile
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
from trainer.data.words import split_words
from trainer.reports.letters import clusters

Floats: TypeAlias = "NDArray[np.float64]"
Flags: TypeAlias = "NDArray[np.bool_]"
_Ints: TypeAlias = "NDArray[np.int64]"

MIN_LINES = 10
"""Fewest lines, so that each fifth has two."""
MAX_SUBWORD_CHARACTERS = 20_000
"""Most characters for a run with subwords, which reads a few hundred in a second."""
_FOLDS = 5
_RESAMPLES = 200
_SHUFFLES, _FEWER_SHUFFLES, _LONG_TEXT = 199, 39, 100_000
"""Shuffled cues, whose F1s are those of chance; fewer for texts of more letters.

One more has 200 (40) places among them, of which 190 (38) are in the range.
"""
_RESAMPLED_SHUFFLES = 20
"""Shuffled cues with the F1 without each group, and by the thresholds of resamples."""
_LEVELS, _RESAMPLED_LEVELS = 10_000, 100
"""Most thresholds from which one is chosen, for the text itself and for each resample."""
_MAX_GROUPS = 500
"""More lines are resampled in so many groups, drawn by lot."""


class UnspacedLine(NamedTuple):
    """A line without what separates its words, in letters with their marks: grapheme clusters (UAX 29)."""

    text: str
    starts: _Ints
    """The first character of each letter (n,)."""
    is_boundary: Flags
    """For each place between two letters, whether words were separated there (n - 1,)."""
    n_inside: int = 0
    """Boundaries inside a letter with its marks, which are no places: after the virama of a word, for instance."""


class LineCues(NamedTuple):
    """The cues of a model in a line of n letters or characters, in nats."""

    surprisal: Floats
    """The surprisal of each (n,)."""
    entropy: "Floats | None"
    """The entropy before each (n,); None for subwords, which have no entropy of the next character."""

    def of_letters(self, starts: _Ints) -> "LineCues":
        """Return the cues of letters by those of characters: sums of surprisals, and the entropy before the first."""
        surprisal: Floats = np.add.reduceat(self.surprisal, starts)
        return LineCues(surprisal, None if self.entropy is None else self.entropy[starts])


def lines_of(request: SegmentRequest, method: TokenizerMethod, normalization: Normalization) -> list[UnspacedLine]:
    """Return the lines of a text without what separates their words, for a run with this tokenizer.

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
        if line.text:
            lines.append(line)
    n_characters = sum(len(line.text) for line in lines)
    if method not in ("char", "byte") and n_characters > MAX_SUBWORD_CHARACTERS:
        message = (
            f"The text has {counted(n_characters, 'character')}. Give at most {MAX_SUBWORD_CHARACTERS:,} to a run with"
            " subwords, as it reads many tokenizations of each line."
        )
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)
    _groups(lines, request.seed)
    return lines


def unspaced(line: str) -> UnspacedLine:
    """Remove white space and zero-width spaces from a line."""
    words = split_words(line)
    text = "".join(words)
    word_starts = {*accumulate(map(len, words))}
    starts = [*accumulate(map(len, clusters(text)), initial=0)][:-1]
    is_boundary = [start in word_starts for start in starts[1:]]
    return UnspacedLine(
        text,
        np.array(starts, dtype=np.int64),
        np.array(is_boundary, dtype=np.bool_),
        max(0, len(words) - 1) - sum(is_boundary),
    )


def peaks(values: Floats, is_first: Flags) -> Flags:
    """Return whether each value (n,) is a peak: higher than the value before, with no rise after it.

    `is_first` (n,) marks the first value of each line, which is no peak.
    """
    rises: Flags = np.diff(values, prepend=np.inf) > 0
    rises &= ~is_first
    is_followed: Flags = np.append(rises[1:], False)
    return rises & ~is_followed


def best_threshold(values: Floats, is_boundary: Flags) -> float:
    """Return the threshold above which values (N,) are boundaries with the highest F1; the highest of several."""
    falling: Floats = -np.unique(-values)
    rising: Floats = np.sort(values)
    true: Floats = np.sort(values[is_boundary])
    n_below: _Ints = np.searchsorted(rising, falling)
    n_missed: _Ints = np.searchsorted(true, falling)
    f1: Floats = 2 * (len(true) - n_missed) / (len(values) - n_below + len(true))
    best = int(np.argmax(f1))
    lowest = falling.item(-1)
    below: Floats = np.append(falling, 0.0 if lowest > 0 else lowest - 1)  # no entropy or surprisal is below 0
    return (falling.item(best) + below.item(best + 1)) / 2


def segmentation(
    lines: Sequence[UnspacedLine], cues: Mapping[str, Sequence[LineCues]], seed: int = 0
) -> SegmentationResult:
    """Score the boundaries that the cues of models predict, and those that the cues predict by chance.

    `cues` are those of the run for all lines, and those of its n-gram. Each fifth of the lines is scored with the
    threshold that is best on the other four. Chance is the F1 of the same rule on the values of the cue shuffled among
    the places of each line. Raises INVALID_INPUT for too few lines or boundaries.
    """
    text = _Text.of(lines, seed)
    rules = [rule for model, of_lines in cues.items() for rule in _rules(text, model, of_lines)]
    f1s = _f1s(text, rules, seed)
    run, ngram = [*cues, "", ""][:2]
    of_ngram = {(rule.cue, rule.rule): f1 for rule, f1 in zip(rules, f1s, strict=True) if rule.model == ngram}
    return SegmentationResult(
        n_lines=len(text.lines),
        n_places=int(np.count_nonzero(~text.is_first)),
        n_boundaries=int(np.count_nonzero(text.is_boundary)),
        n_inside=sum(line.n_inside for line in lines),
        scores=tuple(
            _score(text, rule, f1, of_ngram.get((rule.cue, rule.rule)) if rule.model == run else None)
            for rule, f1 in zip(rules, f1s, strict=True)
        ),
    )


def _groups(lines: Sequence[UnspacedLine], seed: int) -> dict[int, int]:
    """Return the group of each line with places, drawn by lot; raises INVALID_INPUT for too few lines or boundaries."""
    long = [number for number, line in enumerate(lines) if len(line.is_boundary)]
    if len(long) < MIN_LINES:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"The text has {counted(len(long), 'line')} of two characters or more. Give {MIN_LINES} or more.",
        )
    order: list[int] = np.random.Generator(np.random.PCG64(seed)).permutation(len(long)).tolist()
    n_groups = min(len(long), _MAX_GROUPS)
    groups = {long[line]: place * n_groups // len(long) for place, line in enumerate(order)}
    if len({groups[number] * _FOLDS // n_groups for number in long if lines[number].is_boundary.any()}) < 2:
        raise AppError(ErrorCode.INVALID_INPUT, "The text has too few spaces between words. Give text with spaces.")
    return groups


class _Text(NamedTuple):
    """The M letters of the lines with places, one line after the other, in G groups of lines."""

    lines: list[int]
    """The numbers of the lines."""
    line: _Ints
    """The line of each letter (M,)."""
    is_first: Flags
    """Whether a letter is the first of its line (M,): it follows no place."""
    is_boundary: Flags
    """Whether a word begins with a letter (M,); False for the first of a line."""
    group: _Ints
    """The group of each letter (M,)."""
    fold: _Ints
    """The fifth of each letter (M,)."""
    fold_of_group: _Ints
    """The fifth of each group (G,)."""
    times: Floats
    """How often each group is in each of R resamples (R, G)."""

    @classmethod
    def of(cls, lines: Sequence[UnspacedLine], seed: int) -> "_Text":
        groups = _groups(lines, seed)
        numbers = sorted(groups)
        n_groups = 1 + max(groups.values())
        sizes = [len(lines[number].starts) for number in numbers]
        line: _Ints = np.repeat(np.arange(len(numbers)), sizes)
        is_first: Flags = np.diff(line, prepend=-1) > 0
        is_boundary: Flags = np.zeros(len(line), dtype=np.bool_)
        is_boundary[~is_first] = np.concatenate([lines[number].is_boundary for number in numbers])
        group: _Ints = np.repeat([groups[number] for number in numbers], sizes)
        fold_of_group: _Ints = np.arange(n_groups) * _FOLDS // n_groups
        equal: Floats = np.full(n_groups, 1 / n_groups)
        draws = np.random.Generator(np.random.PCG64((seed, 1)))
        times: Floats = draws.multinomial(n_groups, equal, size=_RESAMPLES).astype(np.float64)
        return cls(numbers, line, is_first, is_boundary, group, fold_of_group[group], fold_of_group, times)

    @property
    def as_it_is(self) -> _Ints:
        """The order of the letters in the text (M,)."""
        return np.arange(len(self.line))

    def orders(self, seed: int) -> Iterator[_Ints]:
        """Yield the order of the letters (M,), then others in which those of each line are mixed, but for its first."""
        yield self.as_it_is
        draws = np.random.Generator(np.random.PCG64((seed, 2)))
        for _ in range(_SHUFFLES if len(self.line) <= _LONG_TEXT else _FEWER_SHUFFLES):
            places: Floats = np.where(self.is_first, 0.0, (1 + draws.random(len(self.line))) / 2)
            order: _Ints = np.argsort(self.line + places)
            yield order

    def f1(self, is_predicted: Flags) -> float:
        """Return the F1 of predicted letters (M,)."""
        n_right = int(np.count_nonzero(is_predicted & self.is_boundary))
        return 2 * n_right / int(np.count_nonzero(is_predicted) + np.count_nonzero(self.is_boundary))

    def counts(self, is_predicted: Flags) -> "_Counts":
        """Return the numbers of predicted letters (M,) by group."""
        n_groups = len(self.fold_of_group)
        right: _Ints = np.bincount(self.group[is_predicted & self.is_boundary], minlength=n_groups)
        predicted: _Ints = np.bincount(self.group[is_predicted], minlength=n_groups)
        true: _Ints = np.bincount(self.group[self.is_boundary], minlength=n_groups)
        return _Counts(right.astype(np.float64), predicted.astype(np.float64), true.astype(np.float64))

    def resampled(self, counts: Floats) -> Floats:
        """Return the sums of counts of groups (G, K) over each fifth of each resample (5, R, K)."""
        of_folds: list[Floats] = []
        for fold in range(_FOLDS):
            is_inside: Flags = self.fold_of_group == fold
            sums: Floats = np.matmul(self.times[:, is_inside], counts[is_inside])
            of_folds.append(sums)
        return np.stack(of_folds)


class _Counts(NamedTuple):
    """Numbers of predicted boundaries by group (G,) or, for R choices of thresholds, (R, G); or sums of these."""

    right: Floats
    predicted: Floats
    true: Floats

    @property
    def f1(self) -> Floats:
        """The harmonic means of precision and recall."""
        return 2 * self.right / np.maximum(self.predicted + self.true, 1)

    def sums(self, weights: Floats) -> "_Counts":
        """Return the sums over groups, each with a weight (R, G)."""
        right: Floats = np.sum(weights * self.right, axis=1)
        predicted: Floats = np.sum(weights * self.predicted, axis=1)
        true: Floats = np.sum(weights * self.true, axis=1)
        return _Counts(right, predicted, true)


class _Levels(NamedTuple):
    """The values of a cue by K levels, between which thresholds are chosen."""

    of_letters: _Ints
    """The level of each letter (M,): lower for a higher value, and equal for equal values."""
    n_levels: int

    @classmethod
    def of(cls, values: Floats, is_place: Flags, most: int) -> "_Levels":
        among: Floats = np.unique(values[is_place])
        if len(among) > most:
            quantiles: Floats = np.quantile(values[is_place], np.linspace(0, 1, most, endpoint=False))
            among = np.unique(quantiles)
        levels: _Ints = len(among) - np.searchsorted(among, values, side="right")
        return cls(levels, 1 + len(among))

    def above(self, order: _Ints, flags: Flags, part: _Ints) -> Floats:
        """Return how many letters of each part with a flag have each level or a lower one (P, K), in an order (M,)."""
        n_parts = 1 + int(np.max(part))
        cells: _Ints = part[flags] * self.n_levels + self.of_letters[order[flags]]
        counts: _Ints = np.bincount(cells, minlength=n_parts * self.n_levels)
        above: Floats = np.cumsum(counts.reshape(n_parts, self.n_levels), axis=1, dtype=np.float64)
        return above


def _best(right: Floats, predicted: Floats) -> _Ints:
    """Return for each fifth the level with the highest F1 on the others by numbers above levels (5, ..., K)."""
    all_right: Floats = np.sum(right, axis=0)
    all_predicted: Floats = np.sum(predicted, axis=0)
    of_others = all_right - right
    f1: Floats = of_others / np.maximum(all_predicted - predicted + of_others[..., -1:], 1)
    best: _Ints = np.argmax(f1, axis=-1)  # the lowest of several
    return best


class _Choices(NamedTuple):
    """The levels of a cue from which resamples choose."""

    levels: _Levels
    predicted: Floats
    """The places of each group above each level (G, K), which shuffles keep."""
    of_resamples: Floats
    """Those of each fifth of each resample (5, R, K)."""

    @classmethod
    def of(cls, text: _Text, values: Floats) -> "_Choices":
        levels = _Levels.of(values, ~text.is_first, _RESAMPLED_LEVELS)
        predicted = levels.above(text.as_it_is, ~text.is_first, text.group)
        return cls(levels, predicted, text.resampled(predicted))

    def counts(self, text: _Text, order: _Ints) -> _Counts:
        """Return the counts of the text above the levels that are best on the other fifths of each resample (R, G)."""
        right = self.levels.above(order, text.is_boundary, text.group)
        best = _best(text.resampled(right), self.of_resamples)[text.fold_of_group].T
        groups: _Ints = np.arange(len(right))
        return _Counts(right[groups, best], self.predicted[groups, best], right[:, -1])


class _Rule(NamedTuple):
    """A rule by which a cue of a model predicts boundaries."""

    model: str
    cue: Cue
    rule: BoundaryRule
    threshold_nats: float | None
    predicted: Callable[[_Ints], Flags]
    """Returns the predicted letters (M,) for the values of the cue in an order (M,)."""
    choices: _Choices | None
    """None for a rule without a threshold."""


def _rules(text: _Text, model: str, of_lines: Sequence[LineCues]) -> Iterator[_Rule]:
    """Yield the rules of each cue of a model."""
    surprisal = [of_lines[number].surprisal for number in text.lines]
    entropy = [one for number in text.lines if (one := of_lines[number].entropy) is not None]
    cues: list[tuple[Cue, list[Floats]]] = [("surprisal", surprisal), ("entropy", entropy)]
    is_place: Flags = ~text.is_first
    for cue, of_cue in cues:
        if of_cue:
            values: Floats = np.concatenate(of_cue)
            yield _Rule(model, cue, "peak", None, partial(_peaks, text, values), None)
            threshold = best_threshold(values[is_place], text.is_boundary[is_place])
            levels = _Levels.of(values, is_place, _LEVELS)
            places = levels.above(text.as_it_is, is_place, text.fold)
            above = partial(_above_threshold, text, levels, places)
            yield _Rule(model, cue, "threshold", threshold, above, _Choices.of(text, values))


def _peaks(text: _Text, values: Floats, order: _Ints) -> Flags:
    return peaks(values[order], text.is_first)


def _above_threshold(text: _Text, levels: _Levels, places: Floats, order: _Ints) -> Flags:
    """Return whether each letter (M,) is above the threshold that is best on the other fifths of the lines.

    `places` are those of each fifth above each level (5, K), which shuffles keep.
    """
    best = _best(levels.above(order, text.is_boundary, text.fold), places)
    return ~text.is_first & (levels.of_letters[order] <= best[text.fold])


class _F1s(NamedTuple):
    """The F1s of a rule, or the differences of two: in the first row of the text, in the others of shuffled cues."""

    values: Floats
    """(1 + S,)."""
    left_out: Floats
    """Without each group of lines, of some of these (1 + B, G)."""
    chosen: Floats
    """With the thresholds that resamples choose, of the same (1 + B, R)."""

    def minus(self, other: "_F1s") -> "_F1s":
        return _F1s(self.values - other.values, self.left_out - other.left_out, self.chosen - other.chosen)

    def share(self, lowest: float = 0.0) -> Share:
        left_out: Floats = self.left_out[0]
        return self._around(self.values.item(0), left_out, lowest)

    def minus_chance(self) -> Share:
        chance: Floats = np.mean(self.values[1:], keepdims=True)
        left_out: Floats = self.left_out[0]
        without_information: Floats = np.mean(self.left_out[1:], axis=0)
        return self._around(self.values.item(0) - chance.item(0), left_out - without_information, -1.0)

    def _around(self, value: float, left_out: Floats, lowest: float) -> Share:
        """Return a number with its interval, by the jackknife over groups of lines, and the choice of thresholds.

        Resamples overstate the variance by choice: their F1s differ by the noise of the lines too, which the jackknife
        has already. By how much is known of shuffled cues, whose F1s differ by chance alone.
        """
        degrees = len(left_out) - 1
        mean: Floats = np.mean(self.left_out[1:], axis=0)
        by_lines = degrees * sum(_variances(self.left_out[1:] - mean)) / (len(self.left_out) - 2)
        by_choice, *of_shuffled = _variances(self.chosen)
        [of_f1s] = _variances(self.values[np.newaxis, 1:])
        overstated = fmean(of_shuffled) - max(0.0, of_f1s - by_lines)
        [of_lines] = _variances(left_out[np.newaxis])
        return _interval(value, degrees * of_lines + max(0.0, by_choice - max(0.0, overstated)), degrees, lowest)


def _variances(rows: Floats) -> list[float]:
    """Return the variance of each row (N, K)."""
    variances: Floats = np.var(rows, axis=1)
    found: list[float] = variances.tolist()
    return found


def _interval(value: float, variance: float, degrees: int, lowest: float = 0.0) -> Share:
    half = t_quantile(degrees) * sqrt(variance)
    return Share(value=value, low=max(lowest, value - half), high=min(1.0, value + half))


def _f1s(text: _Text, rules: Sequence[_Rule], seed: int) -> list[_F1s]:
    """Return the F1s of rules."""
    all_groups: Floats = np.ones((1, len(text.fold_of_group)))
    without_each: Floats = 1 - np.eye(len(text.fold_of_group))
    values = [list[float]() for _ in rules]
    left_out, chosen = ([list[Floats]() for _ in rules] for _ in range(2))
    for shuffle, order in enumerate(text.orders(seed)):
        for number, rule in enumerate(rules):
            is_predicted = rule.predicted(order)
            values[number].append(text.f1(is_predicted))
            if shuffle <= _RESAMPLED_SHUFFLES:
                counts = text.counts(is_predicted)
                left_out[number].append(counts.sums(without_each).f1)
                of_choices = counts if rule.choices is None else rule.choices.counts(text, order)
                chosen[number].append(of_choices.sums(all_groups).f1)
    return [
        _F1s(np.array(values[number], dtype=np.float64), np.stack(left_out[number]), np.stack(chosen[number]))
        for number in range(len(rules))
    ]


def _score(text: _Text, rule: _Rule, f1s: _F1s, of_ngram: _F1s | None) -> BoundaryScore:
    """Return the scores of a rule, given the F1s of the n-gram by the same cue and rule.

    The intervals of precision and recall are those of resamples with thresholds of their own.
    """
    counts = text.counts(rule.predicted(text.as_it_is))
    n_right, n_predicted, n_true = (int(np.sum(one)) for one in counts)
    of_choices = counts if rule.choices is None else rule.choices.counts(text, text.as_it_is)
    right, predicted, true = of_choices.sums(text.times)
    chances: Floats = f1s.values[1:]
    mean: Floats = np.mean(chances, keepdims=True)
    ends: Floats = np.quantile(chances, (0.025, 0.975), method="weibull")
    return BoundaryScore(
        model=rule.model,
        cue=rule.cue,
        rule=rule.rule,
        threshold_nats=rule.threshold_nats,
        n_predicted=n_predicted,
        n_right=n_right,
        precision=_resampled(n_right / n_predicted, right, predicted, text) if n_predicted else None,
        recall=_resampled(n_right / n_true, right, true, text),
        f1=f1s.share(),
        chance=Share(value=mean.item(0), low=ends.item(0), high=ends.item(1)),
        f1_minus_chance=f1s.minus_chance(),
        f1_minus_ngram=None if of_ngram is None else f1s.minus(of_ngram).share(-1.0),
    )


def _resampled(value: float, some: Floats, of: Floats, text: _Text) -> Share:
    """Return a share with its interval over the shares of resamples, without those of nothing."""
    degrees = len(text.fold_of_group) - 1
    shares: Floats = some[of > 0] / of[of > 0]
    [variance] = _variances(shares[np.newaxis])
    return _interval(value, variance * (degrees + 1) / degrees, degrees)
