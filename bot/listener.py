"""Who is to be told of which run: one supervised delivery per unsettled run, woken by the stream's bell."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Protocol

import discord
import structlog

from bot.chart_process import ChartProcess
from bot.delivery import Delivery, read_ledger
from trainer.contracts.errors import AppError
from trainer.runs import RunStore

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Work = Callable[[], Coroutine[None, None, None]]

_LISTENING = "listening"
_LONGEST_RETRY_SECONDS = 600.0


class Bell(Protocol):
    """Names the runs whose event log has grown; the job queue is one."""

    def rings(self) -> AsyncIterator[str]: ...


class Listener:
    """Keeps the deliveries going: what fails is logged and begun again, and nothing else is touched by it."""

    def __init__(
        self,
        runs: RunStore,
        bell: Bell,
        client: discord.Client,
        charts: ChartProcess,
        *,
        edit_interval_seconds: float,
        look_interval_seconds: float = 3.0,
        retry_seconds: float = 5.0,
    ) -> None:
        self._runs = runs
        self._bell = bell
        self._client = client
        self._charts = charts
        self._edit_interval_seconds = edit_interval_seconds
        self._look_interval_seconds = look_interval_seconds
        self._retry_seconds = retry_seconds
        self._deliveries: dict[str, Delivery] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[str, asyncio.TimerHandle] = {}
        self._failures: Counter[str] = Counter()

    async def start(self) -> None:
        """Take up every run that somebody has not been told the end of, and listen for more."""
        for run_id in await asyncio.to_thread(self._unsettled):
            self.follow(run_id)
        self._supervise(_LISTENING, self._listen)

    async def stop(self) -> None:
        """End all deliveries where they stand; their ledgers say how to go on."""
        for retry in self._retries.values():
            retry.cancel()
        tasks = [*self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def follow(self, run_id: str) -> None:
        """Deliver what there is of a run and will be; a run that is followed already is looked at."""
        if run_id in self._deliveries:
            self._deliveries[run_id].bell.set()
            return
        try:
            run = self._runs.get(run_id)
        except AppError:
            log.warning("bell of an unknown run", run_id=run_id)
            return
        delivery = Delivery(
            run,
            self._client,
            self._charts,
            edit_interval_seconds=self._edit_interval_seconds,
            look_interval_seconds=self._look_interval_seconds,
        )
        self._deliveries[run_id] = delivery
        self._supervise(run_id, delivery.deliver)

    async def _listen(self) -> None:
        async for run_id in self._bell.rings():
            self.follow(run_id)

    def _unsettled(self) -> list[str]:
        return [
            run.run_id
            for run in self._runs.all()
            if run.record().user_id is not None and not read_ledger(run).is_settled
        ]

    def _supervise(self, name: str, work: Work) -> None:
        self._retries.pop(name, None)
        task = asyncio.create_task(work())
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, work, done))

    def _ended(self, name: str, work: Work, task: asyncio.Task[None]) -> None:
        if self._tasks.pop(name, None) is None:
            return  # stopped
        error = None if task.cancelled() else task.exception()
        if error is None:
            self._deliveries.pop(name, None)
            return
        self._failures[name] += 1
        seconds = min(_LONGEST_RETRY_SECONDS, self._retry_seconds * 2.0 ** (self._failures[name] - 1))
        log.error("task failed, beginning it again", task=name, seconds=seconds, exc_info=error)
        self._retries[name] = asyncio.get_running_loop().call_later(seconds, self._supervise, name, work)
