"""Discord's errors by meaning, typed here because discord.py does not type them strictly, and retries of calls."""

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
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
"""Raised by a call to Discord: a refusal or a network failure. Other work raises OSError, too: see `is_transient`."""
_NETWORK_ERRORS: tuple[type[Exception], ...] = (
    *(discord.RateLimited, aiohttp.ClientError),
    *(ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError),
)
_NETWORK_ERRNOS = frozenset(
    (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.EADDRNOTAVAIL)
)

_CLOSED = (
    *(50007, 50278),  # "Cannot send messages to this user", "… due to having no mutual guilds"
    *(50033, 10013),  # "Invalid Recipient(s)", "Unknown User"
    *(10003, 50001, 50013),  # "Unknown Channel", "Missing Access", "Missing Permissions"
)

_LATER = (
    *(40003, 20016),  # "You are opening direct messages too fast", "… due to slowmode rate limit"
    *(20022, 20028, 20029),  # rate limits of announcements, and of writing to a channel and a server
    *(30046, 130000),  # "Maximum number of edits to messages older than 1 hour reached", "API resource is overloaded"
)
_UNKNOWN_MESSAGE = 10008
_TOKEN_ENDED = (50027, 10015)
""""Invalid Webhook Token", "Unknown Webhook": 15 minutes after the command."""
_EXPIRED = (*_TOKEN_ENDED, _UNKNOWN_MESSAGE)
"""With an unknown message, the caller has dismissed the answer."""


def is_transient(error: BaseException) -> bool:
    """Return whether the same call to Discord or a service may succeed later; an OSError of a file is none."""
    if isinstance(error, HTTP_ERROR):
        status: int = getattr(error, "status", 0)
        return status == 429 or status >= 500 or error_code(error) in _LATER
    has_errno = isinstance(error, OSError) and error.errno in _NETWORK_ERRNOS
    return has_errno or isinstance(error, _NETWORK_ERRORS)


def is_closed(error: BaseException) -> bool:
    """Return whether a channel or a person's direct messages refuse messages of this bot."""
    return error_code(error) in _CLOSED


def is_refusal(error: BaseException) -> bool:
    """Return whether Discord will refuse the same message each time, for a reason that it names.

    A wrong token (401) is none: the next token may be right. Nor is a page of a proxy, which has no code.
    """
    is_known = isinstance(error, HTTP_ERROR) and error_code(error) != 0
    status: int = getattr(error, "status", 0)
    return is_known and status != 401 and not is_transient(error)


def is_expired(error: BaseException) -> bool:
    """Return whether an interaction can no longer be answered."""
    return error_code(error) in _EXPIRED


def has_token_ended(error: BaseException) -> bool:
    """Return whether an answer came more than 15 minutes after its command."""
    return error_code(error) in _TOKEN_ENDED


_server_errors: ContextVar[list[int] | None] = ContextVar("server_errors", default=None)


@contextmanager
def server_errors() -> Iterator[list[int]]:
    """Yield a list that gets the status of each server error in the block: discord.py retries after them by itself."""
    statuses: list[int] = []
    token = _server_errors.set(statuses)
    try:
        yield statuses
    finally:
        _server_errors.reset(token)


def answer_trace(counts: Counter[int]) -> aiohttp.TraceConfig:
    """Return the trace that counts Discord's answers by status, 0 for none, and fills the list of `server_errors`."""

    async def count_answer(
        session: aiohttp.ClientSession, context: SimpleNamespace, answer: aiohttp.TraceRequestEndParams
    ) -> None:
        status = answer.response.status
        counts[status] += 1
        statuses = _server_errors.get()
        if statuses is not None and status >= 500:
            statuses.append(status)

    async def count_failure(
        session: aiohttp.ClientSession, context: SimpleNamespace, failure: aiohttp.TraceRequestExceptionParams
    ) -> None:
        counts[0] += 1

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(count_answer)
    trace.on_request_exception.append(count_failure)
    return trace


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
            seconds = seconds_before_retry(error, seconds, log)
        await asyncio.sleep(seconds)


def seconds_before_retry(error: BaseException, seconds: float, log: structlog.stdlib.BoundLogger) -> float:
    """Log a transient failure; return the seconds to wait, at least as many as Discord demands."""
    is_plain = isinstance(error, discord.DiscordException)  # others can hold an address with its token
    log.warning("discord_retry", error=str(error) if is_plain else type(error).__name__)
    return max(seconds, retry_after_seconds(error))
