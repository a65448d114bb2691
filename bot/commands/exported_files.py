"""Files of a job in an answer: one of them, or an archive."""

import asyncio
from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZipFile

import discord

from bot.commands.responses import Answer
from bot.messages.text import GREEN, byte_size, count, make_embed
from trainer.artifacts.batteries import BatteryDirectory
from trainer.artifacts.experiments import ExperimentDirectory
from trainer.contracts.errors import AppError, ErrorCode
from trainer.lab.language import _

_MAX_FILE_BYTES = 10 << 20  # Discord's limit


async def one_file(folder: Path, name: str, job_id: str, about: str) -> Answer:
    """Return a file of a job's folder."""
    data = await asyncio.to_thread((folder / name).read_bytes)
    return Answer(make_embed(GREEN, f"📄 {name}", [about], job_id), [discord.File(BytesIO(data), f"{job_id}-{name}")])


async def zipped_results(
    job: BatteryDirectory | ExperimentDirectory, suffixes: Collection[str], job_id: str, title: str
) -> Answer:
    """Return the results of a job in files of some types as an archive.

    Raises CONFLICT before the end of the job, and PAYLOAD_TOO_LARGE for an archive that Discord does not take.
    """
    files = await asyncio.to_thread(job.result_files)
    names = [file.path for file in files if PurePosixPath(file.path).suffix in suffixes]
    data = await asyncio.to_thread(_zipped, job.path, names)
    if len(data) > _MAX_FILE_BYTES:
        message = _("The report is larger than Discord accepts. Use the buttons below the results for its tables.")
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)
    lines = [f"{count(len(names), 'file')}, {byte_size(len(data))}. {_('`report.html` has all tables and figures.')}"]
    return Answer(make_embed(GREEN, f"📦 {title}", lines, job_id), [discord.File(BytesIO(data), f"{job_id}.zip")])


def _zipped(folder: Path, names: Sequence[str]) -> bytes:
    data = BytesIO()
    with ZipFile(data, "w", ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(folder / name, name)
    return data.getvalue()
