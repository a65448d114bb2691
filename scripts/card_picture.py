"""Draws the last message of a run as Discord shows it: python -m scripts.card_picture RUN_FOLDER docs/card.svg."""

import re
import sys
from base64 import b64encode
from html import escape
from pathlib import Path
from textwrap import wrap

from bot.embeds.run_card import final_message
from bot.outcome import read_outcome
from trainer.artifacts.runs import RunDirectory
from trainer.reports.charts import loss_chart

WIDTH, MARGIN, LINE, CHARACTERS = 560, 24, 22, 64
CHART_WIDTH = WIDTH - 2 * MARGIN
BACKGROUND, CARD, TEXT, FAINT = "#313338", "#2b2d31", "#dbdee1", "#949ba4"


def main(run_folder: str, target: str) -> None:
    run = RunDirectory(Path(run_folder).resolve())
    follower = run.follow()
    status = follower.refresh()
    embed = final_message(follower.record, status, read_outcome(run))
    chart = loss_chart(follower.train_losses, follower.val_losses, status.bits_per_nat)
    text = (embed.description or "").replace("```\n", "").replace("\n```", "")
    parts_of_text = text.split("`")
    parts_of_text[1::2] = [code.replace(" ", "\u00a0") for code in parts_of_text[1::2]]  # code has no line breaks
    lines = [
        part for line in "`".join(parts_of_text).split("\n") for part in wrap(line, CHARACTERS, break_on_hyphens=False)
    ]
    chart_height = CHART_WIDTH * _height(chart) // _width(chart)
    chart_top = MARGIN + LINE * (len(lines) + 2)
    height = chart_top + chart_height + 2 * LINE + MARGIN
    colour = f"#{embed.colour.value if embed.colour else 0:06x}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif">',
        f'<rect width="100%" height="100%" fill="{BACKGROUND}"/>',
        f'<rect x="8" y="8" width="{WIDTH - 16}" height="{height - 16}" rx="6" fill="{CARD}"/>',
        f'<rect x="8" y="8" width="4" height="{height - 16}" rx="2" fill="{colour}"/>',
        _line(embed.title or "", MARGIN + LINE // 2, size=16, weight="bold"),
        *(_line(line, MARGIN + LINE * (number + 2) - 6) for number, line in enumerate(lines)),
        f'<image x="{MARGIN}" y="{chart_top}" width="{CHART_WIDTH}" height="{chart_height}"'
        f' href="data:image/png;base64,{b64encode(chart).decode()}"/>',
        _line(embed.footer.text or "", chart_top + chart_height + LINE, size=12, fill=FAINT),
        "</svg>",
    ]
    Path(target).write_text("\n".join(parts) + "\n", encoding="utf-8")


def _line(text: str, y: int, *, size: int = 14, fill: str = TEXT, weight: str = "normal") -> str:
    """A line of the message, with its bold parts and code as Discord shows them."""
    shown = re.sub(r"\*\*(.+?)\*\*", r'<tspan font-weight="bold">\1</tspan>', escape(text))
    shown = re.sub(r"`(.+?)`", r'<tspan font-family="monospace">\1</tspan>', shown)
    return f'<text x="{MARGIN}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{fill}">{shown}</text>'


def _width(png: bytes) -> int:
    return int.from_bytes(png[16:20])


def _height(png: bytes) -> int:
    return int.from_bytes(png[20:24])


if __name__ == "__main__":
    main(*sys.argv[1:])
