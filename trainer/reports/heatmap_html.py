"""The heat map of a text as one HTML page without external files: each token in the colour of its surprisal."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import accumulate, groupby

from trainer.contracts.runs import has_unknown_text
from trainer.contracts.scores import ScoreResponse
from trainer.contracts.units import Unit, in_unit, loss_number, per_char_number, surprisal_number
from trainer.contracts.wording import counted
from trainer.reports.experiment_tables import mixed_colour
from trainer.reports.letters import clusters
from trainer.reports.score_table import TokenRow, code_points, token_rows

HEAT_COLOURS = ("#3a3d44", "#4f3f78", "#8c2f74", "#d14a4f", "#f39a3d", "#fcf3a4")
"""From expected to surprising, from dark to light."""
SCALE_END_NATS = 5.5
LIGHT_SHARE = 0.66
"""Share of the scale from which on the text is black instead of white."""

_PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ background: #2b2d31; color: #dbdee1; font-family: sans-serif; margin: 2em }}
p {{ font-size: 1.4em; line-height: 1.7; margin: 0.3em 0; white-space: pre-wrap; overflow-wrap: anywhere }}
.unknown {{ text-decoration: underline dotted #56b4e9 }}
.unscored {{ text-decoration: underline dashed #949ba4 }}
.scale {{ background: linear-gradient(to right, {colours}); height: 1em; width: 24em }}
.ends {{ display: flex; justify-content: space-between; width: 24em }}
</style></head><body>
<h1>{title}</h1>
<div>{figures}</div>
{lines}
<div class="scale"></div><div class="ends"><span>0</span><span>surprisal in {unit}</span><span>{end}</span></div>
<div><span class="unknown">unknown to the model</span> · <span class="unscored">not scored</span> · point at a token
for its surprisal, its rank, the entropy of the prediction, and the likeliest tokens.</div>
</body></html>
"""


def heatmap_html(score: ScoreResponse, text: str, unit: Unit = "bits") -> str:
    """Return the page for a normalized text and its `per_char` score, with surprisals in `unit`."""
    lines = groupby(token_rows(score, text), key=_line_of)
    shown = ("".join(_letter(letter, unit) for letter in _joined(rows)) for _, rows in lines)
    return _PAGE.format(
        title=escape(f"Surprisal under {score.run_id}"),
        figures=_figures(score, unit),
        lines="\n".join(f'<p dir="auto">{line}</p>' for line in shown),
        colours=", ".join(HEAT_COLOURS),
        unit=unit,
        end=f"{in_unit(SCALE_END_NATS, unit):.1f}",
    )


def _line_of(row: TokenRow) -> int:
    return row.line


def _figures(score: ScoreResponse, unit: Unit) -> str:
    totals = score.totals
    mean = totals.nats / max(1, totals.n_scored)
    in_total = f"{surprisal_number(totals.nats, unit)} {unit} in total"
    figures = [f"{in_total}, {loss_number(mean, unit)} per token of {totals.n_scored:,}"]
    if score.bits_per_char is not None and score.bits_per_byte is not None:
        per_char, per_byte = (per_char_number(bits, unit) for bits in (score.bits_per_char, score.bits_per_byte))
        mark = " (!)" if has_unknown_text(score.unknown_char_share) else ""
        figures.append(f"{per_char} {unit} per character{mark}, {per_byte} per byte{mark}, with line ends")
    figures.append(counted(totals.unknown_chars, "unknown character"))
    if has_unknown_text(score.unknown_char_share):
        figures.append("⚠ figures are too low to compare")
    return " · ".join(figures)


def _joined(rows: Iterable[TokenRow]) -> list[list[TokenRow]]:
    """Group the tokens of a line into letters: a token that begins inside a letter belongs to the token before it."""
    tokens = list(rows)
    starts = frozenset(accumulate(map(len, clusters("".join(row.text for row in tokens))), initial=0))
    letters, at, after = list[list[TokenRow]](), 0, 0
    for row in tokens:
        if letters and row.text and at not in starts and row.start == after:
            letters[-1].append(row)
        else:
            letters.append([row])
        at, after = at + len(row.text), row.start + len(row.text)
    return letters


def _letter(rows: Sequence[TokenRow], unit: Unit) -> str:
    """Show tokens as one text in the colour of the sum of their surprisals; each has its own lines of details."""
    shown = escape("".join(row.text for row in rows))
    details = escape("\n".join(line for row in rows for line in _details(row, unit)))
    scored = [row.surprisal for row in rows if row.surprisal is not None]
    kinds = [*(["unknown"] if not all(row.is_known for row in rows) else []), *([] if scored else ["unscored"])]
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    style = f' style="{_style(sum(scored))}"' if scored else ""
    return f'<span{kind}{style} title="{details}">{shown}</span>'


def _details(row: TokenRow, unit: Unit) -> list[str]:
    name = code_points(row.text)
    if row.surprisal is None:
        return [f"{name}: not scored"]
    return [
        f"{name}{'' if row.is_known else ', unknown'}",
        f"surprisal {surprisal_number(row.surprisal, unit)} {unit}",
        f"rank {row.rank or 0:,}",
        f"entropy {surprisal_number(row.entropy or 0.0, unit)} {unit}",
        *(f"{token} {probability:.3f}" for token, probability in row.expected),
    ]


def _style(nats: float) -> str:
    share = min(nats / SCALE_END_NATS, 1.0)
    return f"background:{mixed_colour(HEAT_COLOURS, share)};color:{'#000' if share > LIGHT_SHARE else '#fff'}"
