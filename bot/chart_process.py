"""One process beside the bot that draws charts and ends when it is idle (DEC D49): matplotlib stays out of the bot."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import structlog

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Curve = Sequence[tuple[int, float]]

_IDLE_SECONDS = 60.0


class ChartProcess:
    """Draws one chart at a time; started by the first one, ended after `idle_seconds` without one."""

    def __init__(self, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._pool: ProcessPoolExecutor | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    async def loss_chart(self, train: Curve, validation: Curve) -> bytes | None:
        """The loss chart as PNG; None where there is no curve yet, or, logged, where the process died in drawing it."""
        if len(train) < 2:
            return None
        async with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            if self._pool is None:
                self._pool = await asyncio.to_thread(_new_pool)
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(self._pool, _draw, tuple(train), tuple(validation))
            except BrokenProcessPool:
                log.exception("chart process died")
                self._end()
                return None
            finally:
                self._idle = loop.call_later(self._idle_seconds, self._end)

    def close(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._end()

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _new_pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_begin)


def _begin() -> None:
    """In the child: leave Ctrl-C to the bot, and end with it even when it is killed.

    The end of the queue would not tell: a pool's worker holds the queue's write end open itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        parent.join()
    os._exit(0)


def _draw(train: Curve, validation: Curve) -> bytes:
    from trainer.charts import loss_chart  # in the child only

    return loss_chart(train, validation)
