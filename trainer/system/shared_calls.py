"""Calls that many callers share: those who come during a call share the next one."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedCalls(Generic[T]):
    """Runs one piece of work at a time. Its caller gets a result that was read after the caller asked for it."""

    def __init__(self) -> None:
        self._next: asyncio.Task[T] | None = None
        self._turn = asyncio.Lock()
        self._unfinished: set[asyncio.Task[T]] = set()

    def start(self, work: Callable[[], Coroutine[None, None, T]]) -> asyncio.Task[T]:
        """Return the task of the next call, which starts its work after the one in progress."""
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._call(work))
            self._unfinished.add(self._next)
            self._next.add_done_callback(self._unfinished.discard)
        return self._next

    async def result(self, work: Callable[[], Coroutine[None, None, T]]) -> T:
        """Return the result of the next call. A caller that is cancelled leaves the call to the others."""
        return await asyncio.shield(self.start(work))

    async def stop(self) -> None:
        """Cancel all calls and wait for their ends."""
        for call in self._unfinished:
            call.cancel()
        await asyncio.gather(*self._unfinished, return_exceptions=True)

    async def _call(self, work: Callable[[], Coroutine[None, None, T]]) -> T:
        async with self._turn:
            self._next = None
            return await work()
