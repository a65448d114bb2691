"""`/mt train`: from an attached text or a corpus name to an accepted run."""

import asyncio
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import aiohttp
import discord
from discord import app_commands

from bot.commands.group import Answer, Call, respond
from bot.embeds import accepted_answer
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import TrainRequest
from trainer.contracts.validation import parse
from trainer.queue import splits_of_corpus

if TYPE_CHECKING:
    from bot.app import Bot

_LABEL_CHARACTERS = 64
_CHUNK_BYTES = 1 << 16
_DOWNLOAD_SECONDS = 120


@app_commands.command(description="Train a character model on a text; all settings have good defaults.")
@app_commands.describe(corpus="A corpus by its name", file="A text file (.txt, UTF-8), one sentence or verse a line")
async def train(
    interaction: discord.Interaction["Bot"], corpus: str | None = None, file: discord.Attachment | None = None
) -> None:
    await respond(interaction, "train", lambda call: _train(call, corpus, file))


async def _train(call: Call, corpus: str | None, file: discord.Attachment | None) -> Answer:
    queue = call.bot.queue
    request = await _request(call.bot, corpus, file)
    accepted = await queue.train(request, user_id=call.caller.user_id)
    call.bot.listener.follow(accepted.run_id)
    record = await asyncio.to_thread(queue.runs.get(accepted.run_id).record)
    return Answer(accepted_answer(record, request_id=call.request_id))


async def _request(bot: "Bot", corpus: str | None, file: discord.Attachment | None) -> TrainRequest:
    if (corpus is None) == (file is None):
        raise AppError(ErrorCode.INVALID_INPUT, "Give exactly one of `corpus` (a name) and `file` (a .txt file).")
    name = corpus if file is None else file.filename
    values: dict[str, object] = {"model_family": "char_lstm", "corpus": name}
    values["label"] = clean_label(PurePosixPath(name or "").stem)
    request = parse(TrainRequest, values)
    if file is None:
        return request
    data = await _read(file, bot.settings.limits.attachment_bytes)
    stored: dict[str, str] = {
        "corpus": await bot.queue.corpora.store_attachment(file.filename, data, minimum_lines=splits_of_corpus(request))
    }
    return request.model_copy(update=stored)


def clean_label(name: str) -> str | None:
    """A file's name as a run's label: letters, digits, spaces, - and . only; None where nothing is left."""
    kept = "".join(sign if sign.isalnum() or sign in "-." else " " for sign in name)
    return " ".join(kept.split())[:_LABEL_CHARACTERS].strip() or None


async def download(url: str, limit_bytes: int) -> bytes:
    """Fetch an attachment, never more than the limit whatever its declared size; raises AppError."""
    data = bytearray()
    timeout = aiohttp.ClientTimeout(total=_DOWNLOAD_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
        if response.status != 200:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "Discord did not hand over `file`: attach it once more.")
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            data += chunk
            if len(data) > limit_bytes:
                raise _too_large(limit_bytes)
    return bytes(data)


async def _read(file: discord.Attachment, limit_bytes: int) -> bytes:
    if PurePosixPath(file.filename).suffix.lower() != ".txt":
        raise AppError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "`file` must be a plain text whose name ends in .txt.")
    if file.size > limit_bytes:
        raise _too_large(limit_bytes)
    return await download(file.url, limit_bytes)


def _too_large(limit_bytes: int) -> AppError:
    return AppError(ErrorCode.PAYLOAD_TOO_LARGE, f"`file` may have at most {limit_bytes:,} bytes.")
