"""A process that draws charts and reports for the bot: matplotlib stays out of the bot's memory."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeAlias, TypeVar
from weakref import WeakValueDictionary

import structlog

from trainer.contracts.experiments import ExperimentResult
from trainer.contracts.units import Unit
from trainer.reports.score_table import Curve
from trainer.reports.surprisal_report import HEATMAP_NAME, TABLE_NAME, ReportFiles, score_csv, summarize
from trainer.system.signals import outliving_terminal
from trainer.system.sockets import shorten_process_sockets

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_IDLE_SECONDS = 60.0

_Curve: TypeAlias = tuple[tuple[int, float], ...]


class _SharedChart:
    """A loss chart for all callers that wait for it at the same time."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.png: bytes | None = None


class ChartProcess:
    """Draws one chart at a time in a process that starts with the first chart and stops after `idle_seconds`."""

    def __init__(self, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._pool: ProcessPoolExecutor | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._waited_for: WeakValueDictionary[tuple[_Curve, _Curve, Unit, float | None, float | None], _SharedChart]
        self._waited_for = WeakValueDictionary()

    async def loss_chart(
        self,
        train: Curve,
        validation: Curve,
        unit: Unit,
        bits_per_nat: float | None = None,
        counted: float | None = None,
    ) -> bytes | None:
        """Return the loss chart as PNG; None without a curve, or, logged, if the process died.

        Callers that wait for the same chart share it: many people look at the same run.
        """
        if len(train) < 2:
            return None
        key = tuple(train), tuple(validation), unit, bits_per_nat, counted
        chart = self._waited_for.setdefault(key, _SharedChart())
        async with chart.lock:
            if chart.png is None:
                chart.png = await self._draw(partial(_loss_chart, *key))
            return chart.png

    async def group_chart(
        self, train: Sequence[Curve], validation: Sequence[Curve], unit: Unit, bits_per_nat: float | None = None
    ) -> bytes | None:
        """Return the chart of a group as PNG; None without a curve, or, logged, if the process died."""
        drawn: list[_Curve] = [tuple(curve) for curve in train if len(curve) > 1]  # a follower appends to its own
        validated: list[_Curve] = [tuple(curve) for curve in validation if curve]
        return await self._draw(partial(_group_chart, drawn, validated, unit, bits_per_nat)) if drawn else None

    async def comparison_chart(self, curves: Mapping[str, Curve], unit: str) -> bytes | None:
        """Return the chart of several runs as PNG; None without a curve, or, logged, if the process died."""
        if all(len(curve) < 2 for curve in curves.values()):
            return None
        return await self._draw(partial(_comparison_chart, curves, unit))

    async def experiment_figures(self, result: ExperimentResult, unit: Unit) -> Mapping[str, bytes]:
        """Return the pictures of an experiment by the names of its figures; none, logged, if the process died."""
        return await self._draw(partial(_experiment_figures, result, unit)) or {}

    async def report(self, scored: bytes, text: str, unit: Unit) -> ReportFiles | None:
        """Build the report of a stored score record; return None, logged, if the process died."""
        return await self._draw(partial(_report, scored, text, unit))

    async def _draw(self, draw: Callable[[], T]) -> T | None:
        async with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            loop = asyncio.get_running_loop()
            try:
                if self._pool is None:
                    self._pool = await asyncio.to_thread(_new_pool)
                return await loop.run_in_executor(self._pool, draw)
            except BrokenProcessPool:
                log.error("chart_process_died")
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
    shorten_process_sockets()
    with outliving_terminal():
        pool = ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_begin)
        try:
            pool.submit(int).result()  # starts the process, outside of the event loop
        except (EOFError, OSError) as error:
            raise BrokenProcessPool("The server process that forks it has died.") from error
    return pool


def _begin() -> None:
    """In the child: leave Ctrl-C to the bot, and exit with the bot even if the bot is killed.

    The pool's queue does not close then, since a pool's worker holds its write end open itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        parent.join()
    os._exit(0)


def _loss_chart(
    train: Curve, validation: Curve, unit: Unit, bits_per_nat: float | None, counted: float | None
) -> bytes:
    from trainer.reports.charts import loss_figure  # in the child only
    from trainer.reports.fonts import save_figure

    return save_figure(loss_figure(train, validation, unit, bits_per_nat, counted), "png")


def _group_chart(train: Sequence[Curve], validation: Sequence[Curve], unit: Unit, bits_per_nat: float | None) -> bytes:
    from trainer.reports.charts import group_figure  # in the child only
    from trainer.reports.fonts import save_figure

    return save_figure(group_figure(train, validation, unit, bits_per_nat), "png")


def _experiment_figures(result: ExperimentResult, unit: Unit) -> Mapping[str, bytes]:
    from trainer.reports.experiment_charts import batteries_figure, figure_bytes, heat_map_figure, tree_figure

    figures = {"heat_map": heat_map_figure(result, unit), "tree": tree_figure(result, unit)}
    if result.batteries:
        figures["batteries"] = batteries_figure(result)
    return {name: figure_bytes(figure, "png") for name, figure in figures.items()}


def _comparison_chart(curves: Mapping[str, Curve], unit: str) -> bytes:
    from trainer.reports.charts import comparison_chart  # in the child only

    return comparison_chart(curves, unit)


def _report(scored: bytes, text: str, unit: Unit) -> ReportFiles:
    from trainer.contracts.scores import ScoreRecord
    from trainer.reports.charts import heat_map
    from trainer.reports.heatmap_html import heatmap_html
    from trainer.reports.score_table import heatmap_rows, token_rows

    response = ScoreRecord.model_validate_json(scored).response
    rows = heatmap_rows(token_rows(response, text), text, unit)
    return ReportFiles(
        summary=summarize(response, text),
        shown_characters=sum(len(cells) for _, cells in rows),
        files={
            HEATMAP_NAME: heat_map(rows, unit),
            "surprisal.html": heatmap_html(response, text, unit).encode(),
            TABLE_NAME: score_csv(response, text),
            "surprisal.json": response.model_dump_json().encode(),
        },
    )
