"""Attachments of commands: names, and content up to a size limit."""

import asyncio
from itertools import islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import aiohttp
import discord
import structlog
import yarl

from bot.rest.errors import retry
from trainer.batteries.reading import SUFFIXES as BATTERY_SUFFIXES
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference_fields import MAX_TEXT_CHARACTERS
from trainer.data.input_text import GivenText, read_texts
from trainer.data.text import ARCHIVE_SUFFIXES, CONVERTED_SUFFIXES, clean_file_name
from trainer.lab.language import _
from trainer.reading.tables import SUFFIXES as TIMES_SUFFIXES
from trainer.system.retries import back_off

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_CHUNK_BYTES = 1 << 16
_DOWNLOAD_SECONDS = 120.0
_SOCKET_SECONDS = 20.0
_MAX_RETRIES = 3
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.5, 4.0
_NAME_CHARACTERS = 200


def attachment_name(filename: str, title: str | None, option: str = "file", *, is_corpus: bool = False) -> str:
    """Return a file's original name; raises UNSUPPORTED_MEDIA_TYPE for another ending than the option's.

    A corpus may be a table of texts, too.

    Discord removes all but ASCII letters, digits, `_`, `-` and `.` from `filename`, and puts the original name without
    its ending into `title`: `мәтін.txt` arrives as `txt`. Without any ending, the option's first one is assumed.
    """
    kind, endings = _kind(option)
    if is_corpus:
        kind, endings = _("a plain text or a table"), (*endings, *CONVERTED_SUFFIXES)
    ending = PurePosixPath(filename).suffix.lower()
    if title and not ending:
        rest = f".{filename.removeprefix('.').lower()}"
        ending = rest if rest in endings else endings[0]
    if ending in ARCHIVE_SUFFIXES:
        message = _(
            "`{option}` is an archive. Unpack it and attach a file whose name ends in {endings}.",
            option=option,
            endings=_(" or ").join(endings),
        )
        raise AppError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
    if ending not in endings:
        message = _(
            "`{option}` must be {kind} whose name ends in {endings}.",
            option=option,
            kind=kind,
            endings=_(" or ").join(endings),
        )
        if is_corpus:
            message += " " + _("Save the text of a document as plain text, and attach that file.")
        raise AppError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
    return f"{title.removesuffix(ending)[:_NAME_CHARACTERS]}{ending}" if title else filename


def _kind(option: str) -> tuple[str, tuple[str, ...]]:
    """Return the kind of file of an option, and its name endings."""
    match option:
        case "config":
            return _("a YAML file"), (".yaml", ".yml")
        case "items":
            return _("a file of items"), BATTERY_SUFFIXES
        case "data":
            return _("a table of reading times"), TIMES_SUFFIXES
        case _:
            return _("a plain text"), (".txt",)


async def download_to(file: discord.Attachment, settings: Settings, option: str, folder: str) -> Path:
    """Store the attachment of an option in a folder, under a safe form of its name; raises AppError."""
    is_corpus = option == "file"
    data = await read_attachment(file, settings, option, is_corpus=is_corpus)
    name = attachment_name(file.filename, file.title, option, is_corpus=is_corpus)
    path = Path(folder) / clean_file_name(str(PurePosixPath(name)))
    await asyncio.to_thread(path.write_bytes, data)
    return path


async def attached_text(file: discord.Attachment, settings: Settings) -> GivenText:
    """Download a text, or a table or a transcript with texts; raises AppError."""
    with TemporaryDirectory() as folder:
        path = await download_to(file, settings, "file", folder)
        return await asyncio.to_thread(read_texts, path, MAX_TEXT_CHARACTERS)


async def read_attachment(
    file: discord.Attachment, settings: Settings, option: str = "file", *, is_corpus: bool = False
) -> bytes:
    """Download the attachment of an option; raises AppError."""
    attachment_name(file.filename, file.title, option, is_corpus=is_corpus)
    limit_bytes, base = settings.limits.attachment_bytes, settings.discord.cdn_base_url
    if file.size > limit_bytes:
        raise _too_large(limit_bytes, option)
    url = file.url
    if base is not None:  # another file server than Discord's
        url = f"{str(base).rstrip('/')}{yarl.URL(url, encoded=True).raw_path_qs}"
    return await download(url, limit_bytes, option)


async def download(url: str, limit_bytes: int, option: str = "file") -> bytes:
    """Download an attachment of at most `limit_bytes`, with up to four tries; raises AppError."""
    waits = islice(back_off(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS), _MAX_RETRIES)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SOCKET_SECONDS, sock_read=_SOCKET_SECONDS)
    try:
        async with (
            asyncio.timeout(_DOWNLOAD_SECONDS),
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
        ):
            return await retry(lambda: _fetch(session, url, limit_bytes, option), waits, log)
    except (aiohttp.ClientError, OSError):  # a TimeoutError is an OSError
        raise _not_downloaded(option) from None


async def _fetch(session: aiohttp.ClientSession, url: str, limit_bytes: int, option: str) -> bytes:
    data = bytearray()
    async with session.get(url) as response:
        if response.status >= 500 or response.status == 429:
            response.raise_for_status()
        if response.status != 200:
            raise _not_downloaded(option)
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            data += chunk
            if len(data) > limit_bytes:
                raise _too_large(limit_bytes, option)
    return bytes(data)


def _not_downloaded(option: str) -> AppError:
    return AppError(
        ErrorCode.SERVICE_UNAVAILABLE,
        _("The attachment `{option}` could not be downloaded. Attach it again.", option=option),
    )


def _too_large(limit_bytes: int, option: str) -> AppError:
    return AppError(
        ErrorCode.PAYLOAD_TOO_LARGE,
        _("`{option}` is too large: at most {limit} bytes are allowed.", option=option, limit=f"{limit_bytes:,}"),
    )
