"""Answers to commands that start, watch, cancel or show one run, and errors."""

from collections.abc import Sequence
from typing import Literal

import discord

from bot.embeds.run_card import recipe, run_card
from bot.embeds.text import (
    AMBER,
    BLURPLE,
    GREY,
    MAX_DESCRIPTION,
    RED,
    clamp,
    code_block,
    count,
    make_embed,
    relative_time,
    shown_name,
    without_links,
)
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode
from trainer.contracts.runs import RunRecord, RunStatus, describe_unused

_MAX_UNDELIVERED = 300
_SAVED = "Saved checkpoints remain."


def accepted_answer(record: RunRecord, note: str | None = None) -> discord.Embed:
    """Return the answer to `/mt train`, with the run's estimated cost, or to `/mt resume`."""
    lines = [
        *recipe(record),
        *([] if record.cost is None else record.cost.lines()),
        *describe_unused(record.unused_settings),
        *([] if note is None else [f"⚠ {note}"]),
        "A card in your direct messages shows the progress.",
    ]
    return make_embed(GREY, f"⏳ Queued: {shown_name(record)}", lines, record.run_id)


def status_answer(
    record: RunRecord, status: RunStatus, losses: Sequence[float], *, closed: Literal["dm", "channel"] | None
) -> discord.Embed:
    """Return a run's card with its last heartbeat, and a hint if the caller's channel refuses messages."""
    embed = run_card(record, status, losses)
    lines = [embed.description or ""]
    if status.status == "running" and status.reachable and status.last_heartbeat_ts is not None:
        lines.append(f"Last heartbeat {relative_time(status.last_heartbeat_ts)}")
    if closed is not None:
        lines.append(_closed_hint(closed, has_ended=status.status not in ("queued", "running")))
    embed.description = clamp("\n".join(lines), MAX_DESCRIPTION)
    return embed


def cancel_answer(record: RunRecord, *, has_ended: bool, has_started: bool) -> discord.Embed:
    """Return the answer to `/mt cancel` and to the Cancel button."""
    title = f"⏹ {'Cancelled' if has_ended else 'Cancelling'}: {shown_name(record)}"
    text = f"The run stops after the current step. {_SAVED}"
    if has_ended:
        text = f"The run was not training. {_SAVED}" if has_started else "The run had not started."
    return make_embed(GREY, title, [text], record.run_id)


def cancel_question(record: RunRecord) -> discord.Embed:
    """Return the question before an older run is cancelled."""
    lines = [f"The run was requested {relative_time(record.created_at.timestamp())}. {_SAVED}"]
    return make_embed(AMBER, f"⏹ Cancel {shown_name(record)}?", lines, record.run_id)


def watch_answer(
    record: RunRecord, place: str, *, has_ended: bool, has_final: bool, closed: Literal["dm", "channel"] | None
) -> discord.Embed:
    """Return the answer to `/mt watch` and its button; `place` is the channel of the messages."""
    colour, title = BLURPLE, f"👁 Watching: {shown_name(record)}"
    if closed is not None:
        colour, title = AMBER, f"📪 Cannot send messages: {shown_name(record)}"
        text = _closed_hint(closed, has_ended=has_ended)
    elif has_ended:
        text = f"The run has ended. Its result {'was' if has_final else 'is'} sent {place}."
    else:
        text = f"A card with the progress and a final message are sent {place}."
    return make_embed(colour, title, [text], record.run_id)


def logs_answer(record: RunRecord, lines: Sequence[str], *, is_attached: bool) -> discord.Embed:
    """Return the last lines of a run's log, unless they are attached as a file."""
    if not lines:
        text = "No log yet. The log starts when a worker starts the run."
    else:
        text = "See the attached file." if is_attached else code_block("\n".join(lines), MAX_DESCRIPTION)
    title = f"📜 Last {count(len(lines), 'line')} of the log of {shown_name(record)}"
    return make_embed(BLURPLE, title, [text], record.run_id)


def undelivered_note(results: Sequence[tuple[RunRecord, RunStatus]]) -> discord.Embed:
    """Return the results that could not be sent to the caller, to add to the answer of a command."""
    lines = ["The final messages of these runs could not be sent to you. `/mt status` shows each run."]
    for record, status in results:
        card = run_card(record, status, ())
        first = (card.description or "").split("\n")[0]
        lines.append(clamp(f"**{card.title}**\n{first} · `{status.run_id}`", _MAX_UNDELIVERED))
    footer = "Shown once. Allow direct messages from this bot to receive results."
    return make_embed(AMBER, "📪 Undelivered results", lines, footer)


def error_answer(error: AppError, request_id: str) -> discord.Embed:
    """Return an error: amber for the caller's mistakes, grey for temporary failures, red for internal errors."""
    footer, lines = f"request {request_id}", [without_links(error.message)]
    title = error.code.replace("_", " ").capitalize()
    if error.code.error_class is ErrorClass.TRANSIENT:
        return make_embed(GREY, f"⏳ {title}", lines, footer)
    if error.code.error_class is ErrorClass.FATAL:
        return make_embed(RED, f"❌ {title}", [*lines, "When you ask for help, include the request id below."], footer)
    if len(error.details) > 1:
        lines = [f"• {without_links(problem.message)}" for problem in error.details]
    sign = "🔒" if error.code is ErrorCode.FORBIDDEN else "✋"
    return make_embed(AMBER, f"{sign} {title}", lines, footer)


def _closed_hint(closed: Literal["dm", "channel"], *, has_ended: bool) -> str:
    """Explain why no messages arrive, and how to receive them."""
    if closed == "dm":
        problem, solution = "This bot cannot send you direct messages.", "allow direct messages"
    else:
        problem, solution = "This bot cannot post in the channel of your messages.", "let the bot post there"
    if has_ended:
        return f"{problem} `/mt status` shows the result."
    return f"{problem} Use `/mt status` here, or {solution} and run `/mt watch`."
