"""`/mt logs` and the Logs button: what a run has written of itself."""

import asyncio
from io import BytesIO

import discord
from discord import app_commands

from bot.buttons import Pressed
from bot.client import Bot
from bot.commands.responses import Answer, Call, respond
from bot.commands.run_options import named_run, suggested_runs
from bot.embeds import logs_answer
from bot.run_logs import last_lines

LINES = 20
_MOST_CHARACTERS = 1900


@app_commands.command(description="The last lines of a run's log.")
@app_commands.describe(run="The run's id", lines=f"How many; {LINES} without it")
@app_commands.autocomplete(run=suggested_runs("logs"))
async def logs(interaction: discord.Interaction[Bot], run: str, lines: app_commands.Range[int, 1, 200] = LINES) -> None:
    await respond(interaction, "logs", lambda call: _logs(call, run, lines))


async def logs_clicked(interaction: discord.Interaction[Bot], button: Pressed) -> None:
    await respond(interaction, "logs", lambda call: _logs(call, button.run_id, LINES))


async def _logs(call: Call, run_id: str, count: int) -> Answer:
    chosen = await named_run(call, "logs", run_id)
    lines = await asyncio.to_thread(last_lines, chosen.directory, count)
    text = "\n".join(lines)
    is_attached = len(text) > _MOST_CHARACTERS
    embed = logs_answer(chosen.record, lines, is_attached=is_attached, request_id=call.request_id)
    files = [discord.File(BytesIO(text.encode()), f"{chosen.record.run_id}.log.txt")] if is_attached else []
    return Answer(embed, files)
