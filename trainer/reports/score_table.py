"""Scores as tables and as rows of a heat map, and the curves of a run as CSV. Imports neither torch nor matplotlib.

Every CSV, TSV and JSON file of scores has the same columns and keys, from the command line and from the bot. Surprisals
and entropies are in nats.
"""

import csv
import unicodedata
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from math import log
from typing import NamedTuple

from trainer.contracts.base import Frozen, changed
from trainer.contracts.events import Event, MetricsProgress
from trainer.contracts.scores import DetailLevel, Expected, ScoreResponse, Span, WordScore
from trainer.contracts.tokenizers import UNKNOWN_NAMES
from trainer.contracts.units import Unit, in_unit
from trainer.reports.letters import clusters, joined

_MAX_COLUMNS, _MAX_ROWS = 40, 25
_LINE_COLUMNS = (
    "line text n_tokens n_scored unk_count unknown_chars nats end_nats bits bits_per_char bits_per_byte".split()
)
_WORD_COLUMNS = "index line unit start end surprisal_nats".split()
_TOKEN_COLUMNS = "index line unit start end code_points surprisal_nats entropy_nats rank".split()
_LOSS_COLUMNS = "train_loss train_bits_per_char val_loss val_bits_per_char".split()
_CURVE_COLUMNS = ["step", "epoch", *_LOSS_COLUMNS, "learning_rate", "grad_norm", "tokens_per_second"]

Curve = Sequence[tuple[int, float]]
"""(step, mean loss in nats per token), oldest first."""
Cell = tuple[str, float, bool]
"""A character: the letter as it is drawn, "" but for its first character; its surprisal; and if the model knows it."""
CellRow = tuple[int, Sequence[Cell]]
"""The number of the first cell, and at most 40 cells."""


class TokenRow(NamedTuple):
    """One token of a text and its scores in nats; the scores are None if the token is not scored."""

    line: int
    """The number of its line in the text, from 1."""
    start: int
    text: str
    token: str
    """Its name in the vocabulary."""
    is_known: bool
    surprisal: float | None
    entropy: float | None
    rank: int | None
    expected: Expected
    """The likeliest tokens at this position with their probabilities, likeliest first."""


class ScoredLine(Frozen):
    """The scores of one line of a text, as one JSON object; spans count from the start of the line."""

    line: int
    """Its number, from 1."""
    text: str | None = None
    """The normalized text."""
    n_tokens: int | None = None
    n_scored: int | None = None
    unk_count: int | None = None
    unknown_chars: int | None = None
    nats: float | None = None
    end_nats: float | None = None
    bits: float | None = None
    """`nats` in bits."""
    bits_per_char: float | None = None
    """Includes [EOS]; None for a masked model, and for a line without scored tokens."""
    bits_per_byte: float | None = None
    words: tuple[WordScore, ...] | None = None
    tokens: tuple[str, ...] | None = None
    char_spans: tuple[Span, ...] | None = None
    surprisal: tuple[float | None, ...] | None = None
    entropy: tuple[float | None, ...] | None = None
    rank: tuple[int | None, ...] | None = None
    topk: tuple[Expected, ...] | None = None
    error: str | None = None
    """The reason why the line has no score."""

    def as_json(self) -> str:
        """Return one line of JSON, without the lists that the request did not ask for."""
        if self.error is not None:
            return self.model_dump_json(exclude_none=True)
        optional = ("words", "tokens", "char_spans", "topk", "surprisal", "entropy", "rank", "error")
        values: dict[str, object] = self.model_dump(include=set(optional))
        return self.model_dump_json(exclude={name for name in optional if values[name] is None})


_TokenScores = tuple[str, Span, tuple[float | None, float | None, int | None], Expected]


def token_scores(scores: ScoreResponse | ScoredLine) -> Iterator[_TokenScores]:
    """Yield name, range, scores and expected tokens of each token, with the bytes of a character as one."""
    tokens = scores.tokens or ()
    expected: tuple[Expected, ...] = scores.topk or ((),) * len(tokens)
    figures = zip(scores.surprisal or (), scores.entropy or (), scores.rank or (), strict=True)
    return _join_bytes(zip(tokens, scores.char_spans or (), figures, expected, strict=True))


def _join_bytes(tokens: Iterable[_TokenScores]) -> Iterator[_TokenScores]:
    """Join the bytes of a character, of which only the last one has a range: surprisals add up.

    Entropy and rank are not those of a character, so it has none; the expected tokens are those of its first byte.
    """
    bytes_before: list[_TokenScores] = []
    for token in tokens:
        name, (start, end), (surprisal, _, _), _ = token
        if start == end and name.startswith("<0x"):
            bytes_before.append(token)
            continue
        if bytes_before:
            of_bytes = [nats for _, _, (nats, _, _), _ in bytes_before] + [surprisal]
            known = [nats for nats in of_bytes if nats is not None]
            total = sum(known) if len(known) == len(of_bytes) else None
            names = "".join([*(before for before, _, _, _ in bytes_before), name])
            yield names, (start, end), (total, None, None), bytes_before[0][3]
        else:
            yield token
        bytes_before = []


def token_rows(score: ScoreResponse, text: str) -> Iterator[TokenRow]:
    """Yield the tokens of a normalized text from its `per_char` score."""
    line_starts = [0, *(position + 1 for position, char in enumerate(text) if char == "\n")]
    unknown_names = UNKNOWN_NAMES if score.unknown_token is None else (score.unknown_token,)
    for token, (start, end), (surprisal, entropy, rank), expected in token_scores(score):
        shown = text[start:end]
        is_known = token not in unknown_names or shown == token
        line = bisect_right(line_starts, start)
        yield TokenRow(line, start, shown, token, is_known, surprisal, entropy, rank, expected)


def words_of_line(words: deque[WordScore], start: int, end: int) -> Iterator[WordScore]:
    """Take the words of a line off the words of a text; their spans count from the start of the line."""
    while words and words[0].span[1] <= end:
        word = words.popleft()
        yield changed(word, span=(word.span[0] - start, word.span[1] - start))


def scored_lines(score: ScoreResponse, text: str, first_line: int = 1) -> Iterator[ScoredLine]:
    """Yield the lines of a normalized text from its score; `first_line` is the number of the first one."""
    words, after = deque(score.words or ()), 0
    for line in score.lines or ():
        start, end = line.span
        has_bits = score.method == "causal" and line.n_scored > 0
        bits = (line.nats + (line.end_nats or 0.0)) / log(2) if has_bits else None
        line_words = tuple(words_of_line(words, start, end))
        first, after = after, after + line.n_tokens
        yield ScoredLine(
            line=first_line + line.number - 1,
            text=text[start:end],
            n_tokens=line.n_tokens,
            n_scored=line.n_scored,
            unk_count=line.unk_count,
            unknown_chars=line.unknown_chars,
            nats=line.nats,
            end_nats=line.end_nats,
            bits=line.nats / log(2),
            bits_per_char=None if bits is None else bits / line.n_chars,
            bits_per_byte=None if bits is None else bits / line.n_bytes,
            words=None if score.words is None else line_words,
            tokens=score.tokens and score.tokens[first:after],
            char_spans=score.char_spans and tuple((a - start, b - start) for a, b in score.char_spans[first:after]),
            surprisal=score.surprisal and score.surprisal[first:after],
            entropy=score.entropy and score.entropy[first:after],
            rank=score.rank and score.rank[first:after],
            topk=score.topk and score.topk[first:after],
        )


def titles(level: DetailLevel, top_k: int) -> list[str]:
    """Return the names of the columns of a table."""
    if level == "per_char":
        return _TOKEN_COLUMNS + [f"{name}_{k + 1}" for k in range(top_k) for name in ("expected", "probability")]
    return _WORD_COLUMNS if level == "per_word" else _LINE_COLUMNS


def table_rows(line: ScoredLine, level: DetailLevel, numbers: Iterator[int]) -> list[list[object]]:
    """Return the rows of a line; its words or tokens take their indices off `numbers`."""
    if level in ("summary", "per_line"):
        values: dict[str, object] = line.model_dump()
        return [[values[name] for name in _LINE_COLUMNS]]
    if level == "per_word":
        words = line.words or ()
        return [[next(numbers), line.line, word.text, *word.span, word.surprisal] for word in words]
    text = line.text or ""
    return [
        [
            *(next(numbers), line.line, token, start, end, code_points(text[start:end])),
            *(*figures, *chain.from_iterable(expected)),
        ]
        for token, (start, end), figures, expected in token_scores(line)
    ]


class _Lines(list[str]):
    """The lines that a CSV writer writes."""

    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n"))


def csv_lines(rows: Iterable[Sequence[object]], delimiter: str) -> str:
    """Return rows as lines of CSV or TSV without the last line end; None is an empty cell.

    Cells with a carriage return or a newline are quoted.
    """
    lines = _Lines()
    csv.writer(lines, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    return "\n".join(lines)


def heatmap_rows(tokens: Iterable[TokenRow], text: str, unit: Unit) -> list[tuple[int, list[Cell]]]:
    """Return the first 25 rows of a heat map; each has the number of its first character in the text, from 1.

    Every line of the text begins a new row, and a letter that does not fit with its marks. Tokens without a score are
    left out.
    """
    rows: list[tuple[int, list[Cell]]] = []
    end = 0
    for number, cells in _letters(tokens, text, unit):
        if not rows or len(rows[-1][1]) + len(cells) > _MAX_COLUMNS or "\n" in text[end : number - 1]:
            if len(rows) == _MAX_ROWS:
                return rows
            rows.append((number, []))
        rows[-1][1].extend(cells)
        end = number
    return rows


def _letters(tokens: Iterable[TokenRow], text: str, unit: Unit) -> Iterator[tuple[int, list[Cell]]]:
    """Yield the letters of a text, each with the number of its first character and the cells of all."""
    starts = frozenset(accumulate(map(len, clusters(text)), initial=0))
    forms, number, letter, cells = joined(text), 0, "", list[Cell]()
    for token in tokens:
        for at in range(token.start, token.start + len(token.text)) if token.surprisal is not None else ():
            if at in starts or at != number + len(cells) - 1 or len(cells) == _MAX_COLUMNS:
                if cells:
                    yield number, cells
                number, letter, cells = at + 1, "", []
            letter += forms[at]
            cells.append(("", in_unit(token.surprisal, unit), token.is_known))
            _, nats, is_known = cells[0]
            cells[0] = sign(letter), nats, is_known
    if cells:
        yield number, cells


def sign(letter: str) -> str:
    """Return a letter as it is drawn: ␣ for a space, a dotted circle below a mark that has no letter."""
    if letter.startswith(" "):
        return letter.replace(" ", "␣", 1)
    return f"◌{letter}" if unicodedata.category(letter[0]).startswith("M") else letter


def code_points(text: str) -> str:
    return " ".join(f"U+{ord(char):04X}" for char in text)


def curves_csv(events: Iterable[Event]) -> bytes | None:
    """Return one row per measured step, losses in nats per token; None if no step was measured."""
    rows: list[list[object]] = [[*_CURVE_COLUMNS]]
    for event in events:
        if isinstance(event, MetricsProgress):
            values: dict[str, object] = event.model_dump(include=set(_CURVE_COLUMNS))
            rows.append([values[name] for name in _CURVE_COLUMNS])
    return f"{csv_lines(rows, ',')}\n".encode() if len(rows) > 1 else None
