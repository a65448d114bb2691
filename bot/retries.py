"""Retries of calls to Discord, with exponential back-off."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import discord
import structlog

from bot.discord_errors import CALL_ERRORS, is_transient, retry_after_seconds

T = TypeVar("T")


def back_off(first_seconds: float, max_seconds: float) -> Iterator[float]:
    """Yield seconds to wait before each retry: doubled each time, with up to half less at random."""
    seconds = first_seconds
    while True:
        yield seconds * random.uniform(0.5, 1)  # noqa: S311
        seconds = min(max_seconds, seconds * 2)


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
