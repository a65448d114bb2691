"""Attachments of commands: their names, and their content up to a limit, whatever size they declare."""

import asyncio
from pathlib import PurePosixPath
from typing import Protocol

import aiohttp
import discord
import structlog
import yarl

from bot.retries import back_off
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_CHUNK_BYTES = 1 << 16
_DOWNLOAD_SECONDS = 120.0
_SILENT_SECONDS = 20.0
_TRIES = 4
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.5, 4.0
_NAME_CHARACTERS = 200
_KINDS = {"file": ("a plain text", (".txt",)), "config": ("a YAML file", (".yaml", ".yml"))}
"""The kind of file and the name endings of each option."""


class Named(Protocol):
    """The names of an attachment."""

    @property
    def filename(self) -> str: ...

    @property
    def title(self) -> str | None: ...


def attachment_name(file: Named, option: str = "file") -> str:
    """Return the name that a file had before Discord changed it; raises AppError for the ending of another kind.

    Discord removes all but ASCII letters, digits, `_`, `-` and `.` from `filename`, and puts the original name without
    its ending into `title`: `мәтін.txt` arrives as `txt`. Where no ending is left, the content decides.
    """
    kind, endings = _KINDS[option]
    ending = PurePosixPath(file.filename).suffix.lower()
    if file.title and not ending:
        rest = f".{file.filename.removeprefix('.').lower()}"
        ending = rest if rest in endings else endings[0]
    if ending not in endings:
        raise AppError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"`{option}` must be {kind} whose name ends in {' or '.join(endings)}.",
        )
    return f"{file.title.removesuffix(ending)[:_NAME_CHARACTERS]}{ending}" if file.title else file.filename


async def read_attachment(file: discord.Attachment, settings: Settings, option: str = "file") -> bytes:
    """Read the file that was given for an option; raises AppError."""
    attachment_name(file, option)
    limit_bytes, base = settings.limits.attachment_bytes, settings.discord.cdn_base_url
    if file.size > limit_bytes:
        raise _too_large(limit_bytes, option)
    return await download(file.url if base is None else at_address(file.url, str(base)), limit_bytes, option)


def at_address(url: str, base: str) -> str:
    """The same file at another address: Discord's own file server is not reached then."""
    asked = yarl.URL(url, encoded=True)
    return f"{base.rstrip('/')}{asked.raw_path_qs}"


async def download(url: str, limit_bytes: int, option: str = "file") -> bytes:
    """Fetch an attachment of at most `limit_bytes`; raises AppError.

    Tries up to four times where the network or Discord's server fails.
    """
    waits, tries_left = back_off(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS), _TRIES
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SILENT_SECONDS, sock_read=_SILENT_SECONDS)
    try:
        async with asyncio.timeout(_DOWNLOAD_SECONDS), aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                tries_left -= 1
                try:
                    return await _fetch(session, url, limit_bytes, option)
                except (aiohttp.ClientError, OSError) as error:
                    if not tries_left:
                        raise
                    log.warning("download of an attachment failed, trying again", error=type(error).__name__)
                await asyncio.sleep(next(waits))
    except (aiohttp.ClientError, OSError):  # a TimeoutError is an OSError
        raise _not_sent(option) from None


async def _fetch(session: aiohttp.ClientSession, url: str, limit_bytes: int, option: str) -> bytes:
    data = bytearray()
    async with session.get(url) as response:
        if response.status >= 500 or response.status == 429:
            response.raise_for_status()
        if response.status != 200:
            raise _not_sent(option)
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            data += chunk
            if len(data) > limit_bytes:
                raise _too_large(limit_bytes, option)
    return bytes(data)


def _not_sent(option: str) -> AppError:
    return AppError(ErrorCode.SERVICE_UNAVAILABLE, f"Discord did not send `{option}`. Attach it again.")


def _too_large(limit_bytes: int, option: str) -> AppError:
    return AppError(ErrorCode.PAYLOAD_TOO_LARGE, f"`{option}` may have at most {limit_bytes:,} bytes.")
