"""Calling Discord again and again until it answers: each wait is longer than the one before, up to a limit."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import structlog

from bot.discord_errors import CALL_ERRORS, is_transient, retry_after_seconds

T = TypeVar("T")


def back_off(first_seconds: float, longest_seconds: float) -> Iterator[float]:
    """Seconds to wait before each new try: twice as many each time, by chance up to half less, so that not all who
    were interrupted come back in the same moment.
    """
    seconds = first_seconds
    while True:
        yield seconds * random.uniform(0.5, 1)  # noqa: S311
        seconds = min(longest_seconds, seconds * 2)


async def until_answered(
    call: Callable[[], Awaitable[T]],
    waits: Iterator[float],
    log: structlog.stdlib.BoundLogger,
    *,
    is_wanted: Callable[[], bool] = lambda: True,
) -> T:
    """Call until Discord answers; what it refuses is raised at once, and any failure when no answer is wanted more."""
    while True:
        try:
            return await call()
        except CALL_ERRORS as error:
            if not is_transient(error) or not is_wanted():
                raise
            log.warning("Discord did not answer, trying again", error=str(error))
            seconds = max(next(waits), retry_after_seconds(error))
        await asyncio.sleep(seconds)
