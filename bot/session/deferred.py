"""Commands that show "thinking…", stored on disk until they are answered: a restarted bot answers them.

A record holds the interaction's token, with which anyone could answer as the bot: its file has mode 0600.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

import aiohttp
import discord
import structlog
from pydantic import BaseModel, Field

from bot.messages.answers import error_answer
from bot.rest.errors import CALL_ERRORS, ROUTE, retry
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.lab.language import Language, _, current_language, use_language
from trainer.system.files import read_regular
from trainer.system.retries import back_off

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_TOKEN_SECONDS = 15 * 60.0  # Discord's limit
_WRITE_SECONDS = 0.05
"""Timeout of the first answer for a slow disk."""
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS, _REQUEST_SECONDS = 0.5, 15.0, 30.0
_LOADING = 1 << 7
_STARTS_RUNS = ("train", "resume")


class Deferred(Frozen):
    """An interaction without an answer."""

    schema_version: Literal[1] = 1
    interaction_id: int
    application_id: int
    token: str = Field(repr=False)
    command: str
    request_id: str
    deferred_at: float
    """Seconds since 1970."""
    language: Language = "en"
    """Language of the answer."""

    @property
    def can_be_answered(self) -> bool:
        return time.time() < self.deferred_at + _TOKEN_SECONDS


class DeferredInteractions:
    """The unanswered commands of a bot, one file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answering: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def store(
        self, interaction: discord.Interaction[discord.Client], command: str, request_id: str
    ) -> AsyncIterator[None]:
        """Store an interaction until the block ends; a cancelled one is left to the next bot."""
        record = Deferred(
            interaction_id=interaction.id,
            application_id=interaction.application_id,
            token=interaction.token,
            command=command,
            request_id=request_id,
            deferred_at=time.time(),
            language=current_language(),
        )
        path, data = self._path(record), record.model_dump_json().encode()
        writing = asyncio.create_task(asyncio.to_thread(_write, path, data))
        await asyncio.wait((writing,), timeout=_WRITE_SECONDS)
        yield
        try:
            await writing
        except OSError as error:
            log.warning("interaction_not_stored", error=type(error).__name__)
        with suppress(OSError):
            await asyncio.to_thread(path.unlink)

    async def start(self, user_agent: str) -> None:
        """Start to answer the interactions of an earlier bot, in the background."""
        records = await asyncio.to_thread(self._read)
        if records:
            self._answering = {asyncio.create_task(self._answer_all(records, user_agent))}

    async def stop(self) -> None:
        for answering in self._answering:
            answering.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    def _path(self, record: Deferred) -> Path:
        return self._folder / f"{record.interaction_id}.json"

    def _read(self) -> list[Deferred]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        records: list[Deferred] = []
        for path in self._folder.iterdir():
            try:
                records.append(Deferred.model_validate_json(read_regular(path)))
            except (ValueError, OSError):  # the bot was killed while writing the record, before the first answer
                with suppress(OSError):
                    path.unlink()
        return records

    async def _answer_all(self, records: list[Deferred], user_agent: str) -> None:
        timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
        headers = {"User-Agent": user_agent}
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, trust_env=True) as session:
            await asyncio.gather(*(self._answer(session, record) for record in records))

    async def _answer(self, session: aiohttp.ClientSession, record: Deferred) -> None:
        """Answer an interaction, with retries until its token expires, unless the earlier bot has answered it."""
        bound = log.bind(request_id=record.request_id)
        waits = back_off(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS)
        if record.can_be_answered:
            with suppress(*CALL_ERRORS):
                await retry(
                    lambda: _answer_if_thinking(session, record), waits, bound, is_wanted=lambda: record.can_be_answered
                )
        await asyncio.to_thread(self._path(record).unlink, missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        file.write(data)
        os.fsync(descriptor)


class _Message(BaseModel):
    flags: int = 0


async def _answer_if_thinking(session: aiohttp.ClientSession, record: Deferred) -> None:
    """Answer if the message still shows "thinking…"; raises ClientError for a failure that a retry may solve."""
    address = f"{ROUTE.BASE}/webhooks/{record.application_id}/{record.token}/messages/@original"
    async with session.get(address) as response:
        _raise_if_transient(response)
        if not response.ok or not _Message.model_validate_json(await response.read()).flags & _LOADING:
            return
    use_language(record.language)
    advice = _("Run the command again.")
    if record.command in _STARTS_RUNS:
        advice = _("Check `/mt runs` for your run before you run the command again.")
    message = f"{_('The bot restarted before it could answer.')} {advice}"
    embed = error_answer(AppError(ErrorCode.SERVICE_UNAVAILABLE, message), record.request_id)
    body: dict[str, object] = {"embeds": [embed.to_dict()]}
    async with session.patch(address, json=body) as response:
        _raise_if_transient(response)
    log.info("interrupted_command_answered", request_id=record.request_id)


def _raise_if_transient(response: aiohttp.ClientResponse) -> None:
    if response.status == 429 or response.status >= 500:
        response.raise_for_status()
