"""The worker process: two arq workers, one for training and one for short jobs, until it is told to end."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

import structlog
from arq.worker import Function, Worker, func

from trainer.contracts import keys
from trainer.contracts.settings import Settings
from trainer.contracts.store import STORE_ERRORS, Store, connect, dumps, loads, redis_settings
from trainer.worker.inference_child import InferenceChild
from trainer.worker.jobs import Jobs
from trainer.worker.reconciler import reconcile

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_STDIN = 0
_POLL_SECONDS = 0.5
_RECONCILE_SECONDS = 5.0
_FOR_EVER_SECONDS = 10 * 365 * 24 * 3600
_INTERACTIVE_SLOTS = 10


class WakingWorker(Worker):
    """An arq worker that looks for jobs when it is woken, and at least every half second.

    `heart_beat` is the last call of each of arq's polls; with a poll delay of 0 it is the one place to wait.
    """

    wake: asyncio.Event

    async def heart_beat(self) -> None:
        await super().heart_beat()
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                await self.wake.wait()
        except TimeoutError:
            pass
        self.wake.clear()


async def run_worker(settings: Settings, redis_url: str, *, embedded: bool) -> int:
    """Work until SIGTERM, SIGINT or (embedded) the end of standard input; return the exit code.

    A loop that ends by itself, as when the store is away for longer than its connections try again, means exit 1 at
    once (R14): whoever supervises the worker starts it again, and its runs go on from their checkpoints.
    """
    stopping = asyncio.create_task(_stop_event(embedded=embedded).wait())
    working = asyncio.create_task(_work(settings, redis_url))
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        await working
        return 1
    working.cancel()
    await asyncio.wait([working])
    log.info("worker ended")
    return 0


async def _work(settings: Settings, redis_url: str) -> None:
    """Work until cancelled; returns when one of the loops has ended by itself."""
    async with contextlib.AsyncExitStack() as undo:
        store = await connect(redis_url)
        undo.push_async_callback(store.close)
        child = InferenceChild(settings)
        undo.push_async_callback(child.stop)
        jobs = Jobs(settings, store, child)
        workers = [_training_worker(settings, redis_url, jobs), _interactive_worker(settings, redis_url, jobs)]
        for worker in workers:
            undo.push_async_callback(_close, worker)
        tasks = [
            *(asyncio.create_task(worker.async_run()) for worker in workers),
            asyncio.create_task(_listen(store, workers)),
            asyncio.create_task(_reconcile_for_ever(settings, store)),
        ]
        undo.push_async_callback(_cancel, tasks)
        log.info("worker ready", slots=settings.queue.training_slots, pid=os.getpid())
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            log.error("worker loop ended by itself", exc_info=task.exception())


async def _close(worker: WakingWorker) -> None:
    try:
        await worker.close()
    except STORE_ERRORS as error:
        log.warning("worker closed while the queue is away", error=type(error).__name__)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _training_worker(settings: Settings, redis_url: str, jobs: Jobs) -> WakingWorker:
    return _worker(
        redis_url,
        functions=[func(jobs.train, name="train", timeout=_FOR_EVER_SECONDS, max_tries=_FOR_EVER_SECONDS)],
        queue=settings.queue.name,
        slots=settings.queue.training_slots,
    )


def _interactive_worker(settings: Settings, redis_url: str, jobs: Jobs) -> WakingWorker:
    timeout_seconds = settings.queue.interactive_timeout_seconds
    return _worker(
        redis_url,
        functions=[func(jobs.infer, name="infer", timeout=timeout_seconds + 10, max_tries=2)],
        queue=keys.INTERACTIVE_QUEUE,
        slots=_INTERACTIVE_SLOTS,
    )


def _worker(redis_url: str, *, functions: list[Function], queue: str, slots: int) -> WakingWorker:
    worker = WakingWorker(
        functions=functions,
        queue_name=queue,
        redis_settings=redis_settings(redis_url),
        max_jobs=slots,
        poll_delay=0,
        keep_result=0,  # results are records of our own, and a kept one would refuse the id for a later attempt
        handle_signals=False,
        job_serializer=dumps,
        job_deserializer=loads,
        log_results=False,
    )
    worker.wake = asyncio.Event()

    async def wake_after_job(ctx: dict[str, object]) -> None:
        worker.wake.set()

    worker.after_job_end = wake_after_job
    return worker


async def _listen(store: Store, workers: Sequence[WakingWorker]) -> None:
    """Wake the workers whenever something is enqueued."""
    position = "0-0"
    while True:
        position = await store.wait_for_job(position, wait_seconds=5)
        for worker in workers:
            worker.wake.set()


async def _reconcile_for_ever(settings: Settings, store: Store) -> None:
    while True:
        await reconcile(settings, store)
        await asyncio.sleep(_RECONCILE_SECONDS)


def _stop_event(*, embedded: bool) -> asyncio.Event:
    """Set by SIGTERM or SIGINT, and for an embedded worker when its starter's end of the pipe closes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if embedded:

        def pipe_closed() -> None:
            loop.remove_reader(_STDIN)
            stop.set()

        loop.add_reader(_STDIN, pipe_closed)
    return stop
