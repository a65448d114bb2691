"""`/mt export`: a run's model, settings or curves as a file."""

import asyncio
import time
from typing import Literal

import discord
from discord import app_commands

from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import Run, find_run, suggested_runs
from bot.messages.files import one_file
from bot.messages.text import BLURPLE, byte_size, make_embed, relative_time, shown_name
from bot.session.client import Bot
from trainer.artifacts.command_jobs import KEPT_SECONDS
from trainer.artifacts.export_links import export_link
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.exports import ModelFormat
from trainer.contracts.parameters import RunPath
from trainer.contracts.runs import RunRecord
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.lab import calls
from trainer.lab.exports import exported_file, remove_export
from trainer.lab.language import _
from trainer.reports.score_table import curves_csv

Format = Literal[ModelFormat, "curves_csv", "config"]


@app_commands.command(description="Export a run's model, settings or curves as a file.")
@app_commands.describe(
    run="Name or id of the run",
    format="hf: for transformers; archive: for another server; default: hf",
)
@app_commands.autocomplete(run=suggested_runs("export"))
async def export(interaction: discord.Interaction[Bot], run: str, format: Format = "hf") -> None:
    limit_bytes = interaction.filesize_limit
    await respond(interaction, "export", lambda context: _export(context, run, format, limit_bytes))


async def _export(context: CommandContext, run_id: str, to: Format, limit_bytes: int) -> Answer:
    run = await find_run(context, "export", run_id)
    record = run.record
    if to == "config":
        path = RunPath(run_id=record.run_id)
        config = await context.lab.call(calls.GET_CONFIG, context.caller, path)
        return _attached(record, to, f"{record.run_id}.yaml", config.encode())
    if to == "curves_csv":
        curves = await asyncio.to_thread(lambda: curves_csv(run.directory.reader().read_new()))
        if curves is None:
            raise AppError(
                ErrorCode.RUN_NOT_READY,
                _("`{run_id}` has no losses yet. Try again when it trains.", run_id=record.run_id),
            )
        return _attached(record, to, f"{record.run_id}-curves.csv", curves)
    return await _export_model(context, run, to, limit_bytes)


async def _export_model(context: CommandContext, run: Run, to: ModelFormat, limit_bytes: int) -> Answer:
    """Answer at once with a note, which the file replaces: an export takes seconds, and one runs at a time."""
    await asyncio.to_thread(run.directory.completed_manifest)
    note = exporting_answer(run.record, to)
    if (absence := await context.lab.queue.workers.absence()) is not None:
        note.description = f"{note.description}\n⚠ {_(WAIT_MESSAGES[absence])}"
    return Answer(note, later=lambda: _exported_model(context, run, to, limit_bytes))


async def _exported_model(context: CommandContext, run: Run, to: ModelFormat, limit_bytes: int) -> Answer:
    """Attach the file, or show a link to it if it is too large; raises PAYLOAD_TOO_LARGE if there are no links."""
    record, lab = run.record, context.lab
    file = await exported_file(lab, context.caller, run.model, to)
    size = file.stat().st_size
    if size <= limit_bytes:
        data = await asyncio.to_thread(file.read_bytes)
        await remove_export(lab, file)
        return _attached(record, to, file.name, data)
    public_url = context.bot.backend.public_url
    if public_url is None:
        await remove_export(lab, file)
        message = _(
            "The export has {size}, and Discord takes at most {limit} here. Write it on the server: {command}.",
            size=byte_size(size),
            limit=byte_size(limit_bytes),
            command=f"`mt export {run.model} --format {to} --out NAME`",
        )
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)
    expires_at = int(time.time()) + KEPT_SECONDS
    link = await asyncio.to_thread(export_link, file, public_url, expires_at)
    return Answer(export_link_answer(record, to, file.name, size, link, expires_at))


def _attached(record: RunRecord, to: Format, name: str, data: bytes) -> Answer:
    return Answer(export_answer(record, to, name, len(data)), one_file(name, data))


def exporting_answer(record: RunRecord, to: str) -> discord.Embed:
    """Return the answer while a model is exported."""
    note = _(
        "As {format}. The file replaces this message. After a restart of the bot, run the command again.",
        format=f"`{to}`",
    )
    return make_embed(BLURPLE, f"📦 {_('Exporting… {name}', name=shown_name(record))}", [note], record.run_id)


def export_answer(record: RunRecord, to: str, name: str, size: int) -> discord.Embed:
    """Return the note beside an attached export."""
    lines = [f"`{name}`, {byte_size(size)}"]
    lines += (
        [_("PyTorch has deprecated TorchScript: prefer `format:hf` or `format:pt2`.")] if to == "torchscript" else []
    )
    return make_embed(BLURPLE, f"📦 {_('Export: {name}', name=shown_name(record))}", lines, record.run_id)


def export_link_answer(record: RunRecord, to: str, name: str, size: int, link: str, expires_at: int) -> discord.Embed:
    """Return the link to an export that is too large to be attached."""
    embed = export_answer(record, to, name, size)
    lines = [
        embed.description or "",
        f"[{_('Download')}]({link})",
        _("The link ends {time}. Whoever has it can download the file.", time=relative_time(expires_at)),
    ]
    embed.description = "\n".join(lines)
    return embed
