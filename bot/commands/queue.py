"""`/mt queue`: running and waiting runs in the order in which they start."""

import asyncio
import math
import time
from collections.abc import Sequence
from heapq import heapify, heapreplace

import discord
from discord import app_commands

from bot.buttons import ButtonPress, button, button_row
from bot.client import Bot
from bot.commands.responses import Answer, ButtonAnswer, ButtonForm, CommandContext, respond
from bot.embeds.queue import QueueRow, queue_answer
from bot.language import _
from bot.run_index import RunEntry
from trainer.contracts.errors import AppError

_ALL = "all"


@app_commands.command(description="Show the running and waiting runs, with their positions.")
async def queue(interaction: discord.Interaction[Bot]) -> None:
    await respond(interaction, "queue", _queue)


async def _queue(context: CommandContext) -> Answer:
    bot = context.bot
    await bot.index.refresh()
    places = {run_id: place for place, run_id in enumerate(await bot.queue.order())}
    # the queue does not have a run that was accepted at this moment, or that Redis has lost
    runs: list[RunEntry] = [run for run in reversed(bot.index.runs) if run.is_unfinished]

    def place(run: RunEntry) -> tuple[bool, int]:
        return run.state != "running", places.get(run.run_id, len(places))

    runs.sort(key=place)
    seconds = await asyncio.to_thread(lambda: [_estimated_seconds(context, run) for run in runs])
    starts = expected_starts(runs, seconds, bot.settings.queue.training_slots, time.time())
    has_worker, is_paused = await bot.queue.has_worker(), await bot.queue.is_paused()
    rows = [
        QueueRow(
            run if bot.permissions.may_see(context.caller, run) else None,
            is_running=run.state == "running",
            starts_at=start if has_worker and not is_paused else None,
        )
        for run, start in zip(runs, starts, strict=True)
    ]
    embed = queue_answer(rows, has_worker=has_worker, is_paused=is_paused)
    return Answer(embed, view=button_row(button("queue", _ALL, _("Refresh"))))


def _estimated_seconds(context: CommandContext, run: RunEntry) -> float | None:
    """Return the estimated duration of a run that waits; None if it is not known."""
    if run.state == "running":
        return None
    try:
        cost = context.bot.queue.runs.get(run.run_id).record().cost
    except (AppError, OSError, ValueError):  # deleted or damaged
        return None
    return None if cost is None else cost.seconds


def expected_starts(
    runs: Sequence[RunEntry], seconds: Sequence[float | None], slots: int, now_seconds: float
) -> list[float | None]:
    """Return the expected start of each run of a queue in Unix time; None for a running run, or if it is not known.

    A run starts when the first of the slots is free. A slot whose run has no known end counts as never free.
    """
    ends = [run.ends_at or math.inf for run in runs if run.state == "running"]
    free = [max(end, now_seconds) for end in ends] + [now_seconds] * (slots - len(ends))
    heapify(free)
    starts: list[float | None] = []
    for run, duration in zip(runs, seconds, strict=True):
        if run.state == "running":
            starts.append(None)
            continue
        start = free[0]
        heapreplace(free, start + (math.inf if duration is None else duration))
        starts.append(start if math.isfinite(start) else None)
    return starts


async def _refresh(context: CommandContext, press: ButtonPress) -> Answer:
    return await _queue(context)


QUEUE_BUTTONS: dict[str, ButtonAnswer | ButtonForm] = {"queue": ButtonAnswer("queue", _refresh, lambda press: True)}
