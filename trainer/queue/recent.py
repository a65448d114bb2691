"""A value that many callers share, read again when reading it has become a small part of the time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_SHARE = 0.05


class Recent(Generic[T]):
    """Reads a value for all callers; reading takes at most a twentieth of the time, however many callers there are."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._held: list[T] = []
        self._fresh_until = 0.0
        self._reading = asyncio.Lock()

    async def get(self) -> T:
        """Return the value of the last reading, or read it again; raises what the reading raises."""
        async with self._reading:
            begin = time.monotonic()
            if begin >= self._fresh_until:
                self._held = [await self._read()]
                end = time.monotonic()
                self._fresh_until = end + (end - begin) / _SHARE
            return self._held[0]
