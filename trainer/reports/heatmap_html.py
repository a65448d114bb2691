"""A detailed score as one page of HTML that needs nothing else: every token in the colour of its surprisal."""

from collections.abc import Iterable, Sequence
from html import escape
from math import log

from trainer.contracts.inference import ScoreResponse
from trainer.reports.score_table import TokenRow, token_rows

HEAT_COLOURS = ("#3a3d44", "#4f3f78", "#8c2f74", "#d14a4f", "#f39a3d", "#fcf3a4")
"""From expected to surprising, ever lighter."""
SCALE_END_NATS = 5.5
LIGHT_SHARE = 0.66
"""Of the scale; from there on, black is read better than white."""

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
<div class="scale"></div><div class="ends"><span>0</span><span>surprisal in nats (bits)</span><span>{end}</span></div>
<div><span class="unknown">unknown to the model</span> · <span class="unscored">not scored</span> · point at a token for
its surprisal, its rank among all tokens, the entropy of what was expected, and the likeliest.</div>
</body></html>
"""


def heat_page(score: ScoreResponse, text: str) -> str:
    """Draw a text, given as the model reads it, with its detailed score."""
    lines: dict[int, list[TokenRow]] = {}
    for row in token_rows(score, text):
        lines.setdefault(row.line, []).append(row)
    return _PAGE.format(
        title=escape(f"Surprisal under {score.run_id}"),
        figures=_figures(score),
        lines="\n".join(map(_line, lines.values())),
        colours=", ".join(HEAT_COLOURS),
        end=f"{SCALE_END_NATS} ({SCALE_END_NATS / log(2):.1f})",
    )


def _figures(score: ScoreResponse) -> str:
    totals = score.totals
    mean = totals.nats / max(1, totals.n_scored)
    figures = [f"{totals.nats:.2f} nats in all, {mean:.3f} per token of {totals.n_scored:,}"]
    if score.bits_per_char is not None and score.bits_per_byte is not None:
        bits = f"{score.bits_per_char:.3f} bits per character, {score.bits_per_byte:.3f} per byte"
        figures.append(f"{bits}, with line ends")
    return " · ".join([*figures, f"{totals.unk_count:,} unknown"])


def _line(rows: Sequence[TokenRow]) -> str:
    """A line in its own direction; letters that join do so over the borders of tokens, which take no room."""
    return f'<p dir="auto">{"".join(map(_token, rows))}</p>'


def _token(row: TokenRow) -> str:
    shown = escape(row.text)
    if row.figures is None:
        return f'<span class="unscored" title="{row.code_points}: not scored">{shown}</span>'
    nats = row.figures.surprisal
    told = [
        f"{row.code_points}{'' if row.is_known else ', unknown'}",
        f"surprisal {nats:.3f} nats ({nats / log(2):.3f} bits)",
        f"rank {row.figures.rank:,}",
        f"entropy {row.figures.entropy:.3f} nats",
        *(f"{token} {probability:.3f}" for token, probability in row.expected),
    ]
    kind = "" if row.is_known else ' class="unknown"'
    return f'<span{kind} style="{_style(nats)}" title="{escape(chr(10).join(told))}">{shown}</span>'


def _style(nats: float) -> str:
    share = min(nats / SCALE_END_NATS, 1.0)
    place = share * (len(HEAT_COLOURS) - 1)
    low = min(int(place), len(HEAT_COLOURS) - 2)
    mixed = _mixed(HEAT_COLOURS[low], HEAT_COLOURS[low + 1], place - low)
    return f"background:{mixed};color:{'#000' if share > LIGHT_SHARE else '#fff'}"


def _mixed(first: str, second: str, share: float) -> str:
    parts = zip(bytes.fromhex(first[1:]), bytes.fromhex(second[1:]), strict=True)
    return _hex(round(a + (b - a) * share) for a, b in parts)


def _hex(parts: Iterable[int]) -> str:
    return f"#{bytes(parts).hex()}"
