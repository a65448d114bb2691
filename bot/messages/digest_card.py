"""The card of a user who watches many runs in one channel: a line per run."""

from collections.abc import Iterable

import discord

from bot.messages.answers import STATE_SIGNS
from bot.messages.text import (
    BLURPLE,
    GREY,
    clamp,
    count,
    display_name,
    figure,
    make_embed,
    plain,
    relative_time,
    utf16_length,
    with_unit,
)
from trainer.contracts.runs import RunRecord, RunStatus
from trainer.lab.language import _, plural

_MAX_NAME = 24
_MAX_CHARACTERS = 3900
"""Longest text of the lines about runs; a line about further runs and one about results follow it."""


def run_line(record: RunRecord, status: RunStatus) -> str:
    """Return a run's line: the sign of its state, its name, progress, loss and expected end."""
    sign = "⚠" if status.status == "running" and not status.reachable else STATE_SIGNS[status.status]
    parts = [f"{sign} **{plain(clamp(display_name(record), _MAX_NAME))}**"]
    if status.status == "queued":
        parts.append(
            _("queued")
            if status.queue_position is None
            else _("position {position}", position=count(status.queue_position))
        )
    elif status.status == "paused":
        parts.append(_("paused"))
    else:
        parts.append(f"{int(status.progress)} %" if status.reachable else _("worker not responding"))
    if status.train_loss is not None:
        loss = figure(status.train_loss)
        bits, share = status.train_bits_per_char, status.unknown_char_share
        parts.append(_("loss {loss}", loss=with_unit(loss, status.objective, bits, share)))
    if status.reachable and status.eta_seconds is not None and status.last_heartbeat_ts is not None:
        parts.append(_("ETA {time}", time=relative_time(status.last_heartbeat_ts + status.eta_seconds)))
    return " · ".join(parts)


def digest_card(lines: Iterable[str], footer: str) -> discord.Embed:
    """Return the card with as many lines as it can hold."""
    known = list(lines)
    if not known:
        return make_embed(GREY, f"📋 {_('No unfinished runs')}", [_("All of these runs have ended.")], footer)
    shown: list[str] = []
    left = _MAX_CHARACTERS
    for line in known:
        left -= utf16_length(line) + 1
        if left < 0:
            shown.append(
                plural("… and {count} more run", "… and {count} more runs", len(known) - len(shown)) + ": `/mt runs`"
            )
            break
        shown.append(line)
    return make_embed(
        BLURPLE,
        f"📋 {plural('Watching {count} run', 'Watching {count} runs', len(known))}",
        [*shown, _("The result of each run comes in a message of its own.")],
        footer,
    )
