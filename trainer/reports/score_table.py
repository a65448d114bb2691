"""A detailed score as rows, one per token of the text, for tables and heat maps; needs no torch and no matplotlib."""

import unicodedata
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from math import log
from typing import Literal, NamedTuple, assert_never

from trainer.contracts.base import Frozen
from trainer.contracts.inference import DetailLevel, ScoreResponse, Span, WordScore
from trainer.contracts.tokenizers import UNKNOWN_NAMES

_COLUMNS, _MOST_ROWS = 40, 25
_LINE_COLUMNS = "line text n_tokens n_scored unk_count nats end_nats bits bits_per_char bits_per_byte".split()

Curve = Sequence[tuple[int, float]]
"""(step, mean loss in nats per token), oldest first."""
Cell = tuple[str, float, bool]
"""What is written in it, how surprising that was, and whether the model knows it."""
CellRow = tuple[int, Sequence[Cell]]
"""The number of its first cell, and at most 40 cells."""
Unit = Literal["bits", "nats"]


class Figures(NamedTuple):
    """How a token was predicted, in nats."""

    surprisal: float
    entropy: float
    rank: int


class TokenRow(NamedTuple):
    """One token of a text: where it is, what it is, and how it was predicted."""

    line: int
    """The number of its line in the text, from 1."""
    span: tuple[int, int]
    text: str
    token: str
    """Its name in the vocabulary."""
    code_points: str
    is_known: bool
    figures: Figures | None
    """None where it is not scored."""
    expected: tuple[tuple[str, float], ...]
    """What the model held likeliest here, with probabilities, likeliest first."""


def token_rows(score: ScoreResponse, text: str) -> Iterator[TokenRow]:
    """Yield the tokens of a text, given as the model reads it, from its detailed score."""
    tokens, line_starts = score.tokens or (), [0, *(place + 1 for place, char in enumerate(text) if char == "\n")]
    expected: tuple[tuple[tuple[str, float], ...], ...] = score.topk or ((),) * len(tokens)
    unknown_names = UNKNOWN_NAMES if score.unknown_token is None else (score.unknown_token,)  # None in older answers
    figures = zip(score.surprisal or (), score.entropy or (), score.rank or (), strict=True)
    places = zip(tokens, score.char_spans or (), figures, expected, strict=True)
    for token, (start, end), (surprisal, entropy, rank), likeliest in places:
        scored = None
        if surprisal is not None and entropy is not None and rank is not None:
            scored = Figures(surprisal, entropy, rank)
        yield TokenRow(
            line=bisect_right(line_starts, start),
            span=(start, end),
            text=text[start:end],
            token=token,
            code_points=" ".join(map(code_point, text[start:end])),
            is_known=token not in unknown_names or text[start:end] == token,
            figures=scored,
            expected=likeliest,
        )


def picture_of(tokens: Iterable[tuple[int, str, float, bool]], text: str) -> list[tuple[int, list[Cell]]]:
    """The rows of a heat map of tokens (start, text, surprisal, known), as many as are shown.

    Every line of the text begins a new one; each has the number of its first character, from 1.
    """
    rows: list[tuple[int, list[Cell]]] = []
    end = 0
    for start, token, surprisal, is_known in tokens:
        for place, char in enumerate(token, start + 1):
            if not rows or len(rows[-1][1]) == _COLUMNS or "\n" in text[end : place - 1]:
                if len(rows) == _MOST_ROWS:
                    return rows
                rows.append((place, []))
            rows[-1][1].append((sign(char), surprisal, is_known))
            end = place
    return rows


def sign(char: str) -> str:
    """A character as it is drawn: a space by its sign, a combining mark on a dotted circle."""
    if char == " ":
        return "␣"
    return f"◌{char}" if unicodedata.category(char).startswith("M") else char


def code_point(char: str) -> str:
    return f"U+{ord(char):04X}"


class ScoredLine(Frozen):
    """One line of a text with its score, as one JSON object; ranges are of the line."""

    line: int
    """Its number, from 1."""
    text: str | None = None
    """As the model reads it."""
    n_tokens: int | None = None
    n_scored: int | None = None
    unk_count: int | None = None
    nats: float | None = None
    end_nats: float | None = None
    bits: float | None = None
    """Of `nats`."""
    bits_per_char: float | None = None
    """With the line's [EOS]; None with a masked model, and where no token of the line is scored."""
    bits_per_byte: float | None = None
    words: tuple[WordScore, ...] | None = None
    tokens: tuple[str, ...] | None = None
    char_spans: tuple[Span, ...] | None = None
    surprisal: tuple[float | None, ...] | None = None
    entropy: tuple[float | None, ...] | None = None
    rank: tuple[int | None, ...] | None = None
    topk: tuple[tuple[tuple[str, float], ...], ...] | None = None
    error: str | None = None
    """Why the line has no score."""

    def as_json(self) -> str:
        """One line of JSON: what was not asked for is left out, what has no value is null."""
        if self.error is not None:
            return self.model_dump_json(exclude_none=True)
        told: dict[str, object] = {
            **{"words": self.words, "tokens": self.tokens, "char_spans": self.char_spans, "topk": self.topk},
            **{"surprisal": self.surprisal, "entropy": self.entropy, "rank": self.rank, "error": None},
        }
        return self.model_dump_json(exclude={name for name, value in told.items() if value is None})


def scored_lines(score: ScoreResponse, text: str, first_line: int) -> Iterator[ScoredLine]:
    """Yield the lines of a text, given as the model reads it, from its score; its first line has that number."""
    words, token = deque(score.words or ()), 0
    for line in score.lines or ():
        start, end = line.span
        is_whole = line.end_nats is not None and line.n_scored > 0
        whole_bits = (line.nats + (line.end_nats or 0.0)) / log(2) if is_whole else None
        of_line: list[WordScore] = []
        while words and words[0].span[1] <= end:
            of_line.append(_moved(words.popleft(), start))
        first, token = token, token + line.n_tokens
        yield ScoredLine(
            line=first_line + line.number - 1,
            text=text[start:end],
            n_tokens=line.n_tokens,
            n_scored=line.n_scored,
            unk_count=line.unk_count,
            nats=line.nats,
            end_nats=line.end_nats,
            bits=line.nats / log(2),
            bits_per_char=None if whole_bits is None else whole_bits / line.n_chars,
            bits_per_byte=None if whole_bits is None else whole_bits / line.n_bytes,
            words=None if score.words is None else tuple(of_line),
            tokens=score.tokens and score.tokens[first:token],
            char_spans=score.char_spans and tuple((a - start, b - start) for a, b in score.char_spans[first:token]),
            surprisal=score.surprisal and score.surprisal[first:token],
            entropy=score.entropy and score.entropy[first:token],
            rank=score.rank and score.rank[first:token],
            topk=score.topk and score.topk[first:token],
        )


def _moved(word: WordScore, by: int) -> WordScore:
    moved: dict[str, object] = {"span": (word.span[0] - by, word.span[1] - by)}
    return word.model_copy(update=moved)


def titles(level: DetailLevel, top_k: int) -> list[str]:
    """The names of the columns of a table."""
    match level:
        case "summary" | "per_line":
            return _LINE_COLUMNS
        case "per_word":
            return ["index", "line", "word", "start", "end", "surprisal_nats"]
        case "per_char":
            names = ["index", "line", "unit", "start", "end", "code_points", "surprisal_nats", "entropy_nats", "rank"]
            return names + [f"{name}_{k + 1}" for k in range(top_k) for name in ("expected", "probability")]
        case _:
            assert_never(level)


def table_rows(line: ScoredLine, level: DetailLevel, first_index: int) -> list[list[object]]:
    """The rows of a line; the first word or token has that index."""
    if level in ("summary", "per_line"):
        values: dict[str, object] = line.model_dump()
        return [[values[name] for name in _LINE_COLUMNS]]
    if level == "per_word":
        words = enumerate(line.words or (), first_index)
        return [[index, line.line, word.text, *word.span, word.surprisal] for index, word in words]
    text, tokens = line.text or "", line.tokens or ()
    expected: tuple[tuple[tuple[str, float], ...], ...] = line.topk or ((),) * len(tokens)
    figures = zip(line.surprisal or (), line.entropy or (), line.rank or (), strict=True)
    places = enumerate(zip(tokens, line.char_spans or (), figures, expected, strict=True), first_index)
    return [
        [
            *(index, line.line, token, *span, " ".join(map(code_point, text[span[0] : span[1]])), *scores),
            *(part for pair in likeliest for part in pair),
        ]
        for index, (token, span, scores, likeliest) in places
    ]
