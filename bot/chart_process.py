"""One process that draws charts and makes reports for the bot, so that it stays small, and ends when idle (DEC D49)."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

import structlog

from bot.report import ReportFiles
from trainer.reports.score_table import Curve, Unit

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_IDLE_SECONDS = 60.0
_KEPT_CHARTS = 8


class ChartProcess:
    """Draws one chart at a time; started by the first one, ended after `idle_seconds` without one."""

    def __init__(self, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._pool: ProcessPoolExecutor | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._charts: OrderedDict[tuple[Curve, Curve, float | None], asyncio.Task[bytes | None]] = OrderedDict()
        """The last ones: many ask for the same at once."""

    async def loss_chart(self, train: Curve, validation: Curve, bits_per_nat: float | None = None) -> bytes | None:
        """The loss chart as PNG; None where there is no curve yet, or, logged, where the process died in drawing it."""
        if len(train) < 2:
            return None
        asked = (tuple(train), tuple(validation), bits_per_nat)
        chart = self._charts.get(asked)
        if chart is None:
            chart = asyncio.create_task(self._drawn(partial(_loss_chart, *asked)))
            self._charts[asked] = chart
            if len(self._charts) > _KEPT_CHARTS:
                self._charts.popitem(last=False)
        png = await asyncio.shield(chart)
        if png is None:
            self._charts.pop(asked, None)
        return png

    async def report(self, scored: bytes, text: str, unit: Unit) -> "ReportFiles | None":
        """All of a report, from the record of a score as it is stored: what it takes in memory stays out of the bot.

        None, logged, where the process died of it.
        """
        return await self._drawn(partial(_report, scored, text, unit))

    async def _drawn(self, draw: Callable[[], T]) -> T | None:
        async with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            loop = asyncio.get_running_loop()
            try:
                if self._pool is None:
                    self._pool = await asyncio.to_thread(_new_pool)
                return await loop.run_in_executor(self._pool, draw)
            except BrokenProcessPool:
                log.error("chart process died")
                self._end()
                return None
            finally:
                self._idle = loop.call_later(self._idle_seconds, self._end)

    def close(self) -> None:
        for chart in self._charts.values():
            chart.cancel()
        if self._idle is not None:
            self._idle.cancel()
        self._end()

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _new_pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_begin)
    pool.submit(int).result()  # which starts the process: a quarter of a second that is not the event loop's
    return pool


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


def _loss_chart(train: Curve, validation: Curve, bits_per_nat: float | None) -> bytes:
    from trainer.reports.charts import loss_chart  # in the child only

    return loss_chart(train, validation, bits_per_nat)


def _report(scored: bytes, text: str, unit: Unit) -> "ReportFiles":
    from bot.report import score_csv, summarize
    from trainer.contracts.inference import ScoreRecord
    from trainer.reports.charts import heat_map
    from trainer.reports.heatmap_html import heatmap_html
    from trainer.reports.score_table import heatmap_rows, token_rows

    response = ScoreRecord.model_validate_json(scored).response
    rows = heatmap_rows(token_rows(response, text), text, unit)
    return ReportFiles(
        summary=summarize(response, text, unit),
        shown_characters=sum(len(cells) for _, cells in rows),
        png=heat_map(rows, unit),
        html=heatmap_html(response, text).encode(),
        csv=score_csv(response, text),
        json=response.model_dump_json().encode(),
    )
