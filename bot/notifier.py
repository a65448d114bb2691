"""Who is to be told of which run: one supervised delivery per run and watcher, woken by the stream's bell."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

import discord
import structlog

from bot.chart_process import ChartProcess
from bot.delivery import Delivery, ToldRun
from bot.ledger import Watcher, read_ledger
from bot.pacing import Pace
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.errors import AppError
from trainer.contracts.runs import RunRecord, RunStatus

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Work = Callable[[], Coroutine[None, None, None]]

_LISTENING = "listening"
_LONGEST_RETRY_SECONDS = 600.0
_STEADY_SECONDS = 60.0
"""What has gone on for so long is begun again as soon as at the first time."""
_TOLD_AT_ONCE = 4
_FIRST_MESSAGE_SECONDS = 5.0


class Bell(Protocol):
    """Names the runs whose event log has grown, and knows how they stand; the job queue is one."""

    def next_run_ids(self) -> AsyncIterator[str]: ...

    async def steady_status(self, status: RunStatus) -> RunStatus: ...


class Untold(NamedTuple):
    """The end of a run that somebody could not be sent."""

    run: ToldRun
    watcher: Watcher
    status: RunStatus


class Listener:
    """Keeps the deliveries going: what fails is logged and begun again, and nothing else is touched by it."""

    def __init__(
        self,
        runs: RunStore,
        bell: Bell,
        client: discord.Client,
        charts: ChartProcess,
        may_be_told: Callable[[int, RunRecord], bool],
        *,
        edit_interval_seconds: float,
        look_interval_seconds: float = 3.0,
        retry_seconds: float = 5.0,
        steady_seconds: float = _STEADY_SECONDS,
    ) -> None:
        self._runs = runs
        self._bell = bell
        self._client = client
        self._charts = charts
        self._may_be_told = may_be_told
        self._edit_interval_seconds = edit_interval_seconds
        self._look_interval_seconds = look_interval_seconds
        self._retry_seconds = retry_seconds
        self._steady_seconds = steady_seconds
        self._pace = Pace(edit_interval_seconds)
        # a run's deliveries share one ledger, for as long as one of them has it
        self._told: WeakValueDictionary[str, ToldRun] = WeakValueDictionary()
        self._deliveries: dict[str, Delivery] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[str, asyncio.TimerHandle] = {}
        self._failures: Counter[str] = Counter()
        self._untold: defaultdict[int, set[str]] = defaultdict(set)

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
        """Deliver what there is of a run, and will be, to all its watchers; who is told already is looked at."""
        try:
            told = self._told_run(self._runs.get(run_id))
        except AppError:
            log.warning("bell of an unknown run", run_id=run_id)
        except ValueError:
            log.error("run whose records cannot be read", run_id=run_id)
        else:
            self._tell(told)

    async def watch(self, run: RunDirectory, user_id: int, channel_id: int | None) -> Watcher:
        """Tell somebody of a run from now on, in a channel or (None) by direct message; durable when this returns.

        The answer waits a few seconds for the first message, so that it says whether the channel takes messages.
        """
        told, name = self._told_run(run), _name(run.run_id, user_id)
        self._drop(name)
        watcher = await told.ledger.watch(user_id, channel_id)
        self._tell(told)
        if name in self._deliveries:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_MESSAGE_SECONDS):
                    await self._deliveries[name].tried.wait()
        return told.ledger.newest.of(user_id) or watcher

    async def unwatch(self, run: RunDirectory, user_id: int) -> None:
        """Tell somebody no more of a run; durable when this returns."""
        told = self._told_run(run)
        self._drop(_name(run.run_id, user_id))
        watcher = told.ledger.newest.of(user_id)
        if watcher is not None:
            await told.ledger.note(watcher, watches=False)

    @asynccontextmanager
    async def telling_untold(self, user_id: int) -> AsyncIterator[Sequence[Untold]]:
        """The ends that somebody could not be sent, a few at a time; told, on disk, once the block has ended well."""
        waiting = self._untold.pop(user_id, set())
        try:
            untold = await self._ends(user_id, sorted(waiting))
            yield untold
            for one in untold:
                await one.run.ledger.note(one.watcher, is_told=True)
                waiting.discard(one.run.run_id)
        finally:
            self._untold[user_id] |= waiting

    async def _ends(self, user_id: int, run_ids: Sequence[str]) -> list[Untold]:
        ends: list[Untold] = []
        for run_id in run_ids:
            try:
                told = self._told_run(self._runs.get(run_id))
                status = await told.logged_status()
            except (AppError, ValueError, OSError):  # removed or broken, which is said where it is listened for
                continue
            watcher = told.ledger.newest.of(user_id)
            is_his = watcher is not None and watcher.is_untold and self._may_be_told(user_id, told.record)
            if watcher is not None and is_his and status.status not in ("queued", "running"):
                ends.append(Untold(told, watcher, status))
        return ends[:_TOLD_AT_ONCE]

    def watched_by(self, user_id: int) -> list[str]:
        """The runs that somebody is still to be told of."""
        return sorted(delivery.run.run_id for delivery in self._deliveries.values() if delivery.user_id == user_id)

    def _told_run(self, run: RunDirectory) -> ToldRun:
        told = self._told.get(run.run_id)
        if told is None:
            told = ToldRun(run, self._charts, self._bell.steady_status, interval_seconds=self._edit_interval_seconds)
            self._told[run.run_id] = told
        return told

    def _tell(self, told: ToldRun) -> None:
        """Begin the deliveries that are not under way, wake the others; a run that has become private stays so."""
        self._note_untold(told)
        for watcher in told.ledger.newest.unsettled:
            name = _name(told.run_id, watcher.user_id)
            if name in self._deliveries:
                self._deliveries[name].bell.set()
            elif self._may_be_told(watcher.user_id, told.record):
                delivery = Delivery(
                    told,
                    watcher,
                    self._client,
                    self._pace,
                    look_interval_seconds=self._look_interval_seconds,
                )
                self._deliveries[name] = delivery
                self._supervise(name, partial(self._deliver, delivery))

    async def _deliver(self, delivery: Delivery) -> None:
        await delivery.deliver()
        self._note_untold(delivery.run)

    def _note_untold(self, told: ToldRun) -> None:
        for watcher in told.ledger.newest.watchers:
            if watcher.is_untold:
                self._untold[watcher.user_id].add(told.run_id)

    async def _listen(self) -> None:
        async for run_id in self._bell.next_run_ids():
            self.follow(run_id)

    def _unsettled(self) -> list[str]:
        return [run.run_id for run in self._runs.all() if _is_unsettled(run)]

    def _supervise(self, name: str, work: Work) -> None:
        self._retries.pop(name, None)
        task, begun = asyncio.create_task(work()), time.monotonic()
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, work, done, time.monotonic() - begun))

    def _ended(self, name: str, work: Work, task: asyncio.Task[None], lasted_seconds: float) -> None:
        if self._tasks.get(name) is not task:
            return  # stopped, or dropped
        del self._tasks[name]
        error = None if task.cancelled() else task.exception()
        if error is None:
            self._deliveries.pop(name, None)
            return
        self._failures[name] = 1 if lasted_seconds > self._steady_seconds else self._failures[name] + 1
        seconds = min(_LONGEST_RETRY_SECONDS, self._retry_seconds * 2.0 ** (self._failures[name] - 1))
        log.error("task failed, beginning it again", task=name, seconds=seconds, exc_info=error)
        self._retries[name] = asyncio.get_running_loop().call_later(seconds, self._supervise, name, work)

    def _drop(self, name: str) -> None:
        """End a delivery, and all that is to come of it."""
        self._deliveries.pop(name, None)
        self._failures.pop(name, None)
        for planned in (self._tasks.pop(name, None), self._retries.pop(name, None)):
            if planned is not None:
                planned.cancel()


def _name(run_id: str, user_id: int) -> str:
    return f"{run_id} for {user_id}"


def _is_unsettled(run: RunDirectory) -> bool:
    try:
        ledger = read_ledger(run)
        return bool(ledger.unsettled) or any(watcher.is_untold for watcher in ledger.watchers)
    except ValueError:
        log.error("run whose records cannot be read", run_id=run.run_id)
        return False
