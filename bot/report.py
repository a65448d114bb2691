"""A score in detail, as admins read it: its characters one by one, the hardest of them, a CSV, a JSON and a picture."""

import csv
from collections.abc import Sequence
from io import StringIO
from math import log
from statistics import median
from typing import NamedTuple

from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.inference import ScoreResponse
from trainer.reports.score_table import CellRow, Unit, code_point, picture_of, sign, token_rows

REPORT_CHARACTERS = 10_000
"""The longest text of a report: its files stay far under Discord's 10 MiB, and passing them on takes the bot 20 MB."""
HIGH_BITS = 6
_HARDEST = 8


class Row(Frozen):
    """One token of the text: where it is, what it is, and how it was predicted."""

    index: int
    """The place of its first character in the text as the model reads it, from 1."""
    char: str
    token: str
    """As its tokenizer names it: an unknown one is not as the text has it."""
    code_point: str
    surprisal: float
    entropy: float
    rank: int
    unknown: bool
    expected: tuple[tuple[str, float], ...]
    """What the model held likeliest here, with probabilities, likeliest first."""


class Report(Frozen):
    """`surprisal.json`: surprisals and entropies in `unit`."""

    run_id: Identifier
    request_id: Identifier
    unit: Unit
    mean: float
    """Of the rows."""
    bits_per_char: float | None
    """With line ends, as is the perplexity; None with a masked model."""
    perplexity: float | None
    rows: tuple[Row, ...]


class Summary(NamedTuple):
    """What of a report is told in words."""

    unit: Unit
    mean: float
    median: float
    bits_per_char: float | None
    perplexity: float | None
    rows: int
    characters: int
    unknown: int
    high: int
    """Rows above 6 bits."""
    hardest: Sequence[Row]
    """At most eight, the most surprising first."""


class ReportFiles(NamedTuple):
    """A report as it is sent."""

    summary: Summary
    shown_characters: int
    """How many the picture shows."""
    png: bytes
    html: bytes
    csv: bytes
    json: bytes


def in_units(nats: float, unit: Unit) -> float:
    return nats / log(2) if unit == "bits" else nats


def report_of(score: ScoreResponse, text: str, unit: Unit) -> Report:
    """Read a detailed score of a text, given as the model reads it."""
    return Report(
        run_id=score.run_id,
        request_id=score.request_id,
        unit=unit,
        mean=in_units(score.mean_surprisal or 0.0, unit),
        bits_per_char=score.bits_per_char,
        perplexity=score.perplexity,
        rows=tuple(
            Row(
                index=token.span[0] + 1,
                char=token.text,
                token=token.token,
                code_point=token.code_points,
                surprisal=round(in_units(token.figures.surprisal, unit), 6),
                entropy=round(in_units(token.figures.entropy, unit), 6),
                rank=token.figures.rank,
                unknown=not token.is_known,
                expected=tuple((other, round(probability, 6)) for other, probability in token.expected),
            )
            for token in token_rows(score, text)
            if token.figures is not None
        ),
    )


def summary_of(report: Report) -> Summary:
    surprisals = [row.surprisal for row in report.rows]
    return Summary(
        unit=report.unit,
        mean=report.mean,
        median=median(surprisals),
        bits_per_char=report.bits_per_char,
        perplexity=report.perplexity,
        rows=len(report.rows),
        characters=sum(len(row.char) for row in report.rows),
        unknown=sum(row.unknown for row in report.rows),
        high=sum(value > in_units(HIGH_BITS * log(2), report.unit) for value in surprisals),
        hardest=sorted(report.rows, key=_by_surprisal)[:_HARDEST],
    )


def _by_surprisal(row: Row) -> tuple[float, int]:
    return -row.surprisal, row.index


def expected_instead(row: Row) -> list[tuple[str, float]]:
    """What the model held likely in the place of what came."""
    return [(token, probability) for token, probability in row.expected if token != row.token]


def as_csv(report: Report) -> bytes:
    """One line per token; the names of the columns say the unit."""
    most = max((len(row.expected) for row in report.rows), default=0)
    titles = ["index", "char", "code_point", f"surprisal_{report.unit}", f"entropy_{report.unit}", "rank", "unknown"]
    titles += [f"{name}_{k + 1}" for k in range(most) for name in ("expected", "probability")]
    file = StringIO()
    writer = csv.writer(file)
    writer.writerow(titles)
    for row in report.rows:
        values: list[object] = [row.index, row.char, row.code_point, row.surprisal, row.entropy, row.rank]
        values += [int(row.unknown), *(part for pair in row.expected for part in pair)]
        writer.writerow(values)
    return file.getvalue().encode()


def as_json(report: Report) -> bytes:
    return report.model_dump_json().encode()


def heat_map_rows(report: Report, text: str) -> Sequence[CellRow]:
    """The rows of the heat map, as many as are shown."""
    return picture_of(((row.index - 1, row.char, row.surprisal, not row.unknown) for row in report.rows), text)


def visible(text: str) -> str:
    """Show a text on one line, with signs for spaces and code points for what cannot be seen."""
    return "".join(sign(char) if char.isprintable() else code_point(char) for char in text)
