"""`/mt queue`: running and waiting runs in the order in which they start."""

import discord
from discord import app_commands

from bot.commands.responses import Answer, ButtonAnswer, ButtonForm, CommandContext, respond
from bot.messages.buttons import ButtonPress, button, button_row
from bot.messages.queue import QueueRow, queue_answer
from bot.session.client import Bot
from trainer.people.language import _
from trainer.queue.run_index import RunEntry

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
    has_worker, is_paused = await bot.queue.has_worker(), await bot.queue.is_paused()
    rows = [
        QueueRow(
            run if bot.permissions.may_see(context.caller, run) else None,
            is_running=run.state == "running",
        )
        for run in runs
    ]
    embed = queue_answer(rows, has_worker=has_worker, is_paused=is_paused)
    return Answer(embed, view=button_row(button("queue", _ALL, _("Refresh"))))


async def _refresh(context: CommandContext, press: ButtonPress) -> Answer:
    return await _queue(context)


QUEUE_BUTTONS: dict[str, ButtonAnswer | ButtonForm] = {"queue": ButtonAnswer("queue", _refresh, lambda press: True)}
