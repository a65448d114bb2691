"""An event loop in a thread, for methods that a notebook calls without `await`."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Iterator
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """An event loop that runs in a thread until `stop`. The thread does not keep the program from ending."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mt-client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[object, object, T]) -> T:
        """Run a coroutine to its end and return its result; Ctrl-C cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """Iterate over an asynchronous generator, which is closed with the iterator."""
        try:
            while (item := self.call(_next(items))) is not None:
                yield item
        finally:
            self.call(_close(items))

    def stop(self, last: Coroutine[object, object, None]) -> None:
        """Run a last coroutine and end the thread. It does not wait, because any thread may collect garbage."""

        async def end() -> None:
            await last
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self._loop)

    def _run(self) -> None:
        with closing(self._loop):
            self._loop.run_forever()


async def _next(items: AsyncGenerator[T, None]) -> T | None:
    """Return the next item; None after the last one."""
    async for item in items:
        return item
    return None


async def _close(items: AsyncGenerator[T, None]) -> None:
    closing: Awaitable[None] = items.aclose()
    await closing
