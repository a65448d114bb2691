"""Words of a held-out text: those that are measured, the lines in which they stand, and their mean surprisals."""

import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import fsum
from typing import NamedTuple

from trainer.contracts.batteries import MAX_WORDS
from trainer.contracts.development import ModelWords, WordScores, WordTexts
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.scores import ScoreResponse
from trainer.contracts.tokenizers import DocumentMode
from trainer.data.text import plain_words
from trainer.reports.score_table import ScoredLine, words_of_line

MIN_OCCURRENCES = 10
MAX_CONTEXTS = 100
_PORTION_CHARACTERS = 20_000
_WORD = re.compile(r"\S+")


class Occurrence(NamedTuple):
    """A word of a line by its number among the words between white space, both from 0."""

    line: int
    word: int


class WordContexts(NamedTuple):
    """The words that are measured, in the order of the results."""

    lines: tuple[int, ...]
    """The lines to score, each once, in ascending order."""
    occurrences: Mapping[str, tuple[Occurrence, ...]]
    """Those of each word that are measured."""
    missing: tuple[str, ...] = ()
    """Wanted words that the text does not have."""


def choose_words(lines: Sequence[str], wanted: Sequence[str] | None = None) -> WordContexts:
    """Choose words of a text, and up to 100 occurrences of each, spread evenly over the text.

    Words are between white space, without case and without the punctuation at their ends. By default they are the 500
    most frequent ones that occur ten times or more, in this order, and equally frequent ones in that of the alphabet.
    Raises INVALID_INPUT for a wanted text that is not one word.
    """
    counts = Counter(word for line in lines for word in plain_words(line) if word)
    if wanted is None:
        frequent = sorted((-count, word) for word, count in counts.items() if count >= MIN_OCCURRENCES)
        chosen = [word for _, word in frequent[:MAX_WORDS]]
    else:
        chosen = [*{_one_word(text): None for text in wanted}]
    places = {word: _spread(counts[word]) for word in chosen}
    seen: Counter[str] = Counter()
    found: dict[str, list[Occurrence]] = {word: [] for word in chosen if word in counts}
    for number, line in enumerate(lines):
        for place, word in enumerate(plain_words(line)):
            if word in found:
                if seen[word] in places[word]:
                    found[word].append(Occurrence(number, place))
                seen[word] += 1
    return WordContexts(
        lines=tuple(sorted({one.line for of_word in found.values() for one in of_word})),
        occurrences={word: tuple(of_word) for word, of_word in found.items()},
        missing=tuple(word for word in chosen if word not in found),
    )


def _one_word(text: str) -> str:
    words = plain_words(text)
    if len(words) != 1 or not words[0]:
        raise AppError(ErrorCode.INVALID_INPUT, f"'{text}' is not one word: give each word by itself.")
    return words[0]


def _spread(count: int) -> set[int]:
    """Return which of the occurrences of a word are measured."""
    n_chosen = min(count, MAX_CONTEXTS)
    return {number * count // n_chosen for number in range(n_chosen)}


def texts_of(contexts: WordContexts, lines: Sequence[str], frequencies: Mapping[str, float]) -> WordTexts:
    """Return the record of chosen words, with the lines of the text in which they stand."""
    places = {line: place for place, line in enumerate(contexts.lines)}
    return WordTexts(
        lines=tuple(lines[line] for line in contexts.lines),
        occurrences={
            word: tuple((places[one.line], one.word) for one in of_word)
            for word, of_word in contexts.occurrences.items()
        },
        missing=contexts.missing,
        frequencies={**frequencies},
    )


def contexts_of(texts: WordTexts) -> WordContexts:
    """Return the words of a record; their lines are numbered by their places in it."""
    occurrences = {word: tuple(Occurrence(*one) for one in of_word) for word, of_word in texts.occurrences.items()}
    return WordContexts(tuple(range(len(texts.lines))), occurrences, texts.missing)


def line_portions(lines: Sequence[str], documents: DocumentMode) -> Iterator[str]:
    """Yield lines in texts to score; in a stream each is a text of its own, because it would be context of the next."""
    portion: list[str] = []
    characters = 0
    for line in lines:
        if portion and (documents == "stream" or characters + len(line) > _PORTION_CHARACTERS):
            yield "\n".join(portion)
            portion, characters = [], 0
        portion.append(line)
        characters += len(line)
    if portion:
        yield "\n".join(portion)


def scored_lines_of(text: str, score: ScoreResponse) -> Iterator[ScoredLine]:
    """Yield the lines of a normalized text with their words, whose spans count from the start of the line."""
    words, start = deque(score.words or ()), 0
    for number, line in enumerate(text.split("\n"), 1):
        end = start + len(line)
        yield ScoredLine(line=number, text=line, words=tuple(words_of_line(words, start, end)))
        start = end + 1


def mean_surprisals(step: int, contexts: WordContexts, scored: Iterable[ScoredLine]) -> ModelWords:
    """Return the mean surprisals of words from the scores of `contexts.lines`, per word, in this order.

    An occurrence has a surprisal where the model sees the same word: where its tokenizer knows the white space at both
    ends, and its first token is scored. A line that could not be scored has none. A word without any is left out.
    """
    nats_of: dict[Occurrence, float] = {}
    for number, line in zip(contexts.lines, scored, strict=True):
        by_span = {word.span: word.surprisal for word in line.words or ()}
        for place, found in enumerate(_WORD.finditer(line.text or "")):
            nats = by_span.get(found.span())
            if nats is not None:
                nats_of[Occurrence(number, place)] = nats
    scores: list[WordScores] = []
    n_unscored = 0
    for word, occurrences in contexts.occurrences.items():
        known = [nats_of[one] for one in occurrences if one in nats_of]
        n_unscored += len(occurrences) - len(known)
        if known:
            scores.append(WordScores(step=step, word=word, n_contexts=len(known), nats=fsum(known) / len(known)))
    return ModelWords(scores=tuple(scores), n_unscored=n_unscored)


def frequencies_per_million(blocks: Iterable[str], words: Collection[str]) -> dict[str, float]:
    """Return the occurrences of words in a million words of a text, which comes in blocks of lines.

    Empty for a text without words.
    """
    counts = dict.fromkeys(words, 0)
    n_words = 0
    for block in blocks:
        for word in plain_words(block):
            n_words += bool(word)
            if word in counts:
                counts[word] += 1
    return {word: 1e6 * count / n_words for word, count in counts.items() if n_words}
