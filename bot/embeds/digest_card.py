"""The card of a user who watches many runs in one channel: a line per run."""

from collections.abc import Iterable

import discord

from bot.embeds.text import BLURPLE, GREY, clamp, count, display_name, make_embed, plain, relative_time, utf16_length
from trainer.contracts.runs import RunRecord, RunStatus

_MAX_NAME = 24
_MAX_CHARACTERS = 3900
"""Of the lines, which leaves space for two more."""
_RESULTS = "The result of each run comes in a message of its own."


def run_line(record: RunRecord, status: RunStatus) -> str:
    """Return a run's line: the sign of its state, its name, progress, loss and expected end."""
    sign = "⏳" if status.status == "queued" else "🏃" if status.reachable else "⚠"
    parts = [f"{sign} **{plain(clamp(display_name(record), _MAX_NAME))}**"]
    if status.status == "queued":
        parts.append("queued" if status.queue_position is None else f"position {count(status.queue_position)}")
    else:
        parts.append(f"{int(status.progress)} %" if status.reachable else "worker not responding")
    if status.train_loss is not None:
        bits = "" if status.train_bits_per_char is None else f" · {status.train_bits_per_char:.2f} bits/char"
        parts.append(f"loss {status.train_loss:.3f}{bits}")
    if status.reachable and status.eta_seconds is not None and status.last_heartbeat_ts is not None:
        parts.append(f"ETA {relative_time(status.last_heartbeat_ts + status.eta_seconds)}")
    return " · ".join(parts)


def digest_card(lines: Iterable[str], footer: str) -> discord.Embed:
    """Return the card with as many lines as it can hold."""
    known = list(lines)
    if not known:
        return make_embed(GREY, "📋 No unfinished runs", ["All of these runs have ended."], footer)
    shown: list[str] = []
    left = _MAX_CHARACTERS
    for line in known:
        left -= utf16_length(line) + 1
        if left < 0:
            shown.append(f"… and {count(len(known) - len(shown), 'more run')}: `/mt runs`")
            break
        shown.append(line)
    return make_embed(BLURPLE, f"📋 Watching {count(len(known), 'run')}", [*shown, _RESULTS], footer)
