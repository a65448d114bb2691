"""`/mt queue`: running and waiting runs in the order in which they start."""

from collections.abc import Sequence
from typing import NamedTuple

import discord
from discord import app_commands

from bot.commands.responses import Answer, ButtonAnswer, CommandContext, Reactions, respond
from bot.messages.answers import STATE_SIGNS, owner_name
from bot.messages.buttons import button, button_row
from bot.messages.text import BLURPLE, clamp, make_embed, plain
from bot.session.client import Bot
from trainer.contracts.base import WaitReason
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.lab.language import _, numeral, plural
from trainer.queue.run_index import RunEntry

_ALL = "all"

_MAX_ROWS, _MAX_NAME = 20, 64


class QueueRow(NamedTuple):
    """A run in the queue."""

    run: RunEntry | None
    """None for a private run of somebody else."""
    is_running: bool


@app_commands.command(description="Show the running and waiting runs, with their positions.")
async def queue(interaction: discord.Interaction[Bot]) -> None:
    await respond(interaction, "queue", _queue)


async def _queue(context: CommandContext) -> Answer:
    lab = context.lab
    await lab.index.refresh()
    places = {run_id: place for place, run_id in enumerate(await lab.queue.states.order())}
    # the queue does not have a run that was accepted at this moment, or that Redis has lost
    runs = lab.index.unfinished[::-1]

    def place(run: RunEntry) -> tuple[bool, int]:
        return run.state != "running", places.get(run.run_id, len(places))

    runs.sort(key=place)
    absence, is_paused = await lab.queue.workers.absence(), await lab.queue.workers.are_paused()
    rows = [
        QueueRow(run if lab.permissions.may_see(context.caller, run) else None, is_running=run.state == "running")
        for run in runs
    ]
    embed = queue_answer(rows, absence=absence, is_paused=is_paused)
    return Answer(embed, view=button_row(button("queue", _ALL, _("Refresh"))))


BUTTONS: Reactions = {"queue": ButtonAnswer("queue", lambda context, press: _queue(context), lambda press: True)}


def queue_answer(rows: Sequence[QueueRow], *, absence: WaitReason | None, is_paused: bool) -> discord.Embed:
    """Return the running runs, then the waiting ones with their positions."""
    running = sum(row.is_running for row in rows)
    lines = [_line(row, position) for position, row in enumerate(rows[:_MAX_ROWS], 1)] or [_("No run waits.")]
    if len(rows) > _MAX_ROWS:
        lines.append(plural("… and {count} more run", "… and {count} more runs", len(rows) - _MAX_ROWS))
    if is_paused:
        lines.append(_("⏸ An admin has paused the queue: no further run starts."))
    elif absence == "broken":
        lines.append(f"⚠ {_(WAIT_MESSAGES[absence])}")
    elif absence is not None:
        lines.append(_("⚠ No worker is running. Runs start when one does."))
    runs = plural("{count} run is training", "{count} runs are training", running)
    waiting = plural("{count} run waits", "{count} runs wait", len(rows) - running)
    return make_embed(BLURPLE, f"🚦 {runs} · {waiting}", [*lines, _("Users take turns: one run of each at a time.")])


def _line(row: QueueRow, position: int) -> str:
    sign = STATE_SIGNS["running" if row.is_running else "queued"]
    if row.run is None:
        name, owner = _("a private run"), ""
    else:
        name = f"**{plain(clamp(row.run.name, _MAX_NAME))}**"
        owner = f" · {owner_name(row.run.user_id)}"
    progress = f" · {numeral(row.run.progress, '.0f')} %" if row.is_running and row.run is not None else ""
    return f"{numeral(position)}. {sign} {name}{owner}{progress}"
