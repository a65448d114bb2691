"""Discord's errors by meaning, typed here because discord.py does not type them strictly, and retries of calls."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol, TypeVar

import aiohttp
import discord
import structlog
from discord.http import Route

T = TypeVar("T")


class _HasBase(Protocol):
    """The part of discord.py's Route that is used here."""

    BASE: str


ROUTE: _HasBase = Route
HTTP_ERROR: type[discord.DiscordException] = discord.HTTPException
NOT_FOUND: type[discord.DiscordException] = discord.NotFound
CLOSED: tuple[type[discord.DiscordException], ...] = (discord.ConnectionClosed, discord.PrivilegedIntentsRequired)
"""Raised when Discord has closed the gateway connection permanently."""
CALL_ERRORS: tuple[type[Exception], ...] = (HTTP_ERROR, discord.RateLimited, aiohttp.ClientError, OSError)
"""Raised by a call to Discord: a refusal or a network failure."""

_CLOSED = (
    *(50007, 50278),  # "Cannot send messages to this user", "… due to having no mutual guilds"
    *(50033, 10013),  # "Invalid Recipient(s)", "Unknown User"
    *(10003, 50001, 50013),  # "Unknown Channel", "Missing Access", "Missing Permissions"
)

_TOO_FAST = 40003
""""You are opening direct messages too fast"."""
_TOKEN_ENDED = (50027, 10015)
""""Invalid Webhook Token", "Unknown Webhook": 15 minutes after the command."""
_EXPIRED = (*_TOKEN_ENDED, 10008)
"""The last one is "Unknown Message": the caller has dismissed the answer."""


def is_transient(error: BaseException) -> bool:
    """Return whether the same call may succeed later."""
    if isinstance(error, HTTP_ERROR):
        status: int = getattr(error, "status", 0)
        return status == 429 or status >= 500 or error_code(error) == _TOO_FAST
    return isinstance(error, CALL_ERRORS)


def is_closed(error: BaseException) -> bool:
    """Return whether a channel or a person's direct messages refuse messages of this bot."""
    return error_code(error) in _CLOSED


def is_expired(error: BaseException) -> bool:
    """Return whether an interaction can no longer be answered."""
    return error_code(error) in _EXPIRED


def has_token_ended(error: BaseException) -> bool:
    """Return whether an answer came more than 15 minutes after its command."""
    return error_code(error) in _TOKEN_ENDED


def error_code(error: BaseException) -> int:
    """Return Discord's error code, or 0."""
    code: int = getattr(error, "code", 0)
    return code if isinstance(error, HTTP_ERROR) else 0


def retry_after_seconds(error: BaseException) -> float:
    """Return the seconds that Discord demands before a retry, or 0."""
    if isinstance(error, discord.RateLimited):
        return error.retry_after
    response: object = getattr(error, "response", None)
    seconds = response.headers.get("Retry-After", "") if isinstance(response, aiohttp.ClientResponse) else ""
    return float(seconds) if seconds.isdecimal() else 0.0


async def retry(
    call: Callable[[], Awaitable[T]],
    waits: Iterator[float],
    log: structlog.stdlib.BoundLogger,
    *,
    is_wanted: Callable[[], bool] = lambda: True,
) -> T:
    """Call until Discord answers; raises a refusal at once, and any failure after the last wait or if unwanted."""
    while True:
        try:
            return await call()
        except CALL_ERRORS as error:
            seconds = next(waits, None)
            if seconds is None or not is_transient(error) or not is_wanted():
                raise
            is_plain = isinstance(error, discord.DiscordException)  # others can hold an address with its token
            log.warning("discord_retry", error=str(error) if is_plain else type(error).__name__)
            seconds = max(seconds, retry_after_seconds(error))
        await asyncio.sleep(seconds)
