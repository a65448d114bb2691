"""Files that come with a command, never larger than allowed, whatever is said of them."""

from pathlib import PurePosixPath

import aiohttp
import discord
import yarl

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.settings import Settings

_CHUNK_BYTES = 1 << 16
_DOWNLOAD_SECONDS = 120
_KINDS = {"file": ("a plain text", (".txt",)), "config": ("a YAML file", (".yaml", ".yml"))}
"""What each option takes, and how its names end."""


async def read_attachment(file: discord.Attachment, settings: Settings, option: str = "file") -> bytes:
    """Read the file that was given for an option; raises AppError."""
    kind, suffixes = _KINDS[option]
    if PurePosixPath(file.filename).suffix.lower() not in suffixes:
        ends = " or ".join(suffixes)
        raise AppError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, f"`{option}` must be {kind} whose name ends in {ends}.")
    limit_bytes, base = settings.limits.attachment_bytes, settings.discord.cdn_base_url
    if file.size > limit_bytes:
        raise _too_large(limit_bytes, option)
    return await download(file.url if base is None else at_address(file.url, str(base)), limit_bytes, option)


def at_address(url: str, base: str) -> str:
    """The same file at another address: Discord's own file server is not reached then."""
    asked = yarl.URL(url, encoded=True)
    return f"{base.rstrip('/')}{asked.raw_path_qs}"


async def download(url: str, limit_bytes: int, option: str = "file") -> bytes:
    """Fetch an attachment, never more than the limit whatever its declared size; raises AppError."""
    data = bytearray()
    timeout = aiohttp.ClientTimeout(total=_DOWNLOAD_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
        if response.status != 200:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, f"Discord did not hand over `{option}`: attach it once more.")
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            data += chunk
            if len(data) > limit_bytes:
                raise _too_large(limit_bytes, option)
    return bytes(data)


def _too_large(limit_bytes: int, option: str) -> AppError:
    return AppError(ErrorCode.PAYLOAD_TOO_LARGE, f"`{option}` may have at most {limit_bytes:,} bytes.")
