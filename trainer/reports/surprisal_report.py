"""The surprisal report for Discord: a summary, a heat map as PNG and HTML, and the scores as CSV and JSON.

CSV and JSON are those of `mt score --format csv` and `--format json`, in nats; the heat map is in `unit`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from math import log
from statistics import median
from typing import NamedTuple

from trainer.contracts.reports import Note
from trainer.contracts.scores import Expected, ScoreResponse
from trainer.reports.score_table import (
    TokenRow,
    code_points,
    csv_lines,
    scored_lines,
    sign,
    table_rows,
    titles,
    token_rows,
)

MAX_REPORT_CHARACTERS = 10_000
"""Keeps the files far below Discord's 10 MiB; the bot needs 20 MB of memory to pass them on."""
HEATMAP_NAME, TABLE_NAME, HIGH_NATS = "surprisal.png", "surprisal.csv", 6 * log(2)
_MAX_MOST_SURPRISING = 8


class Summary(NamedTuple):
    """The part of a report that is shown as text; surprisals in nats."""

    mean: float
    median: float
    bits_per_char: float | None
    """Includes line ends, as does the perplexity; None for a masked model."""
    perplexity: float | None
    unknown_char_share: float | None
    n_tokens: int
    n_characters: int
    n_unknown: int
    n_high: int
    """Tokens above 6 bits, or 4.16 nats."""
    most_surprising: Sequence[TokenRow]
    """At most eight tokens, the most surprising first."""
    notes: tuple[Note, ...] = ()
    """Warnings about a text that the model was trained on."""


class ReportFiles(NamedTuple):
    """The summary of a report, and its files."""

    summary: Summary
    shown_characters: int
    """The number of characters in the heat map."""
    files: Mapping[str, bytes]
    """Content by name."""


def summarize(score: ScoreResponse, text: str) -> Summary:
    """Summarize the `per_char` score of a normalized text."""
    rows = [row for row in token_rows(score, text) if row.surprisal is not None]
    surprisals = [row.surprisal or 0.0 for row in rows]
    order = sorted(range(len(rows)), key=surprisals.__getitem__, reverse=True)
    return Summary(
        mean=score.mean_surprisal or 0.0,
        median=median(surprisals),
        bits_per_char=score.bits_per_char,
        perplexity=score.perplexity,
        unknown_char_share=score.unknown_char_share,
        n_tokens=len(rows),
        n_characters=sum(len(row.text) for row in rows),
        n_unknown=sum(not row.is_known for row in rows),
        n_high=sum(value > HIGH_NATS for value in surprisals),
        most_surprising=[rows[i] for i in order[:_MAX_MOST_SURPRISING]],
        notes=score.notes,
    )


def unknown_signs(score: ScoreResponse, text: str) -> Counter[str]:
    """Count the signs of a normalized text that the model does not know, by its `per_char` score."""
    return Counter(row.text for row in token_rows(score, text) if not row.is_known)


def expected_instead(row: TokenRow) -> Expected:
    """Return the likely tokens at a position without the one that the text has."""
    return tuple((token, probability) for token, probability in row.expected if token != row.token)


def score_csv(score: ScoreResponse, text: str) -> bytes:
    """Return one row per token of a normalized text, as `mt score --detail-level per_char --format csv` writes them."""
    rows: list[list[object]] = [[*titles("per_char", max(map(len, score.topk or ()), default=0))]]
    numbers = count(1)
    for line in scored_lines(score, text):
        rows += table_rows(line, "per_char", numbers)
    return f"{csv_lines(rows, ',')}\n".encode()


def visible(text: str) -> str:
    """Return a text as one line, with signs for spaces and code points for invisible characters."""
    return "".join(sign(char) if char.isprintable() else code_points(char) for char in text)
