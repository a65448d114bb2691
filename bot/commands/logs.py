"""`/mt logs` and the Logs button: what a run has written of itself, without anything of the machine it runs on."""

import asyncio
import json
import re
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot.buttons import Pressed
from bot.commands.group import Answer, Call, respond
from bot.commands.selection import named_run, suggested_runs
from bot.embeds import logs_answer
from trainer.logs import LogReader

if TYPE_CHECKING:
    from bot.app import Bot

LINES = 20
_MOST_CHARACTERS = 1900
_HIDDEN = {"timestamp", "level", "message", "exception", "logger", "service", "instance_id", "run_id", "user_id"}
_ADDRESS = re.compile(r"\w+://[^\s\"']+")
_PATH = re.compile(r"(?<![\w.<>/\\])(?:[A-Za-z]:)?[/\\]+(?:[^\s\"'<>:/\\]+[/\\]+)*([^\s\"'<>:/\\]+)")


@app_commands.command(description="The last lines of a run's log.")
@app_commands.describe(run="The run's id", lines=f"How many; {LINES} without it")
@app_commands.autocomplete(run=suggested_runs("logs"))
async def logs(
    interaction: discord.Interaction["Bot"], run: str, lines: app_commands.Range[int, 1, 200] = LINES
) -> None:
    await respond(interaction, "logs", lambda call: _logs(call, run, lines))


async def logs_clicked(interaction: discord.Interaction["Bot"], button: Pressed) -> None:
    await respond(interaction, "logs", lambda call: _logs(call, button.run_id, LINES))


async def _logs(call: Call, run_id: str, count: int) -> Answer:
    chosen = await named_run(call, "logs", run_id)
    found = await asyncio.to_thread(LogReader(chosen.directory.logs).last, count)
    lines = [readable(line) for line in found]
    text = "\n".join(lines)
    is_attached = len(text) > _MOST_CHARACTERS
    embed = logs_answer(chosen.record, lines, is_attached=is_attached, request_id=call.request_id)
    files = [discord.File(BytesIO(text.encode()), f"{chosen.record.run_id}.log.txt")] if is_attached else []
    return Answer(embed, files)


def readable(line: str) -> str:
    """A line of a log as a person reads it: when, how grave, what, and the values."""
    try:
        parsed: object = json.loads(line)
    except ValueError:
        parsed = line
    if not isinstance(parsed, dict):
        return without_places(line)
    values: Mapping[str, object] = parsed
    when = str(values.get("timestamp", ""))[:19].replace("T", " ")
    shown = [f"{name}={value}" for name, value in values.items() if name not in _HIDDEN and value is not None]
    text = " ".join([when, str(values.get("level", "")).upper(), str(values.get("message", "")), *shown])
    exception = values.get("exception")
    return without_places(f"{text}\n{exception}" if exception else text)


def without_places(text: str) -> str:
    """The same without addresses, and with no more of a path than the name of its file."""
    return _PATH.sub(_shortened, _ADDRESS.sub("…", text))


def _shortened(path: re.Match[str]) -> str:
    last: str = path[1]
    return f"…/{last}" if "." in last else "…"
