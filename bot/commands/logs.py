"""`/mt logs` and the Logs button."""

import asyncio
from io import BytesIO

import discord
from discord import app_commands

from bot.buttons import ButtonPress
from bot.client import Bot
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import named_run, suggested_runs
from bot.embeds.answers import logs_answer
from bot.run_logs import last_lines

LINES = 20
_MAX_SHOWN_CHARACTERS = 1900


@app_commands.command(description="Show the last lines of a run's log.")
@app_commands.describe(run="Id of the run", lines=f"Number of lines; default: {LINES}")
@app_commands.autocomplete(run=suggested_runs("logs"))
async def logs(interaction: discord.Interaction[Bot], run: str, lines: app_commands.Range[int, 1, 200] = LINES) -> None:
    await respond(interaction, "logs", lambda context: _logs(context, run, lines))


async def logs_clicked(interaction: discord.Interaction[Bot], press: ButtonPress) -> None:
    await respond(interaction, "logs", lambda context: _logs(context, press.run_id, LINES))


async def _logs(context: CommandContext, run_id: str, count: int) -> Answer:
    run = await named_run(context, "logs", run_id)
    lines = await asyncio.to_thread(last_lines, run.directory, count)
    text = "\n".join(lines)
    is_attached = len(text) > _MAX_SHOWN_CHARACTERS
    embed = logs_answer(run.record, lines, is_attached=is_attached, request_id=context.request_id)
    files = [discord.File(BytesIO(text.encode()), f"{run.record.run_id}.log.txt")] if is_attached else []
    return Answer(embed, files)
