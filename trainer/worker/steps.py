"""Jobs that a worker does in steps: children, and requests to models. All that has been done is read from the disk."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from arq import Retry

from trainer.artifacts.attempts import ChildEnd
from trainer.artifacts.job_folder import AnyStatusJob
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.queue.queue import JobQueue
from trainer.store import keys
from trainer.store.connection import tolerate_no_redis
from trainer.store.store import Store
from trainer.worker.child_process import Job
from trainer.worker.starts import Starts
from trainer.worker.supervisor import supervise_child

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

POLL_SECONDS = 0.25
_TRANSIENT_SECONDS = 10.0
T = TypeVar("T")


class Cancelled(Exception):
    """The job was cancelled."""


async def postponed(store: Store, job_id: str, error: AppError, seconds: float) -> Retry:
    """Return the exception that puts a job back into the queue, with the reason in the log and in its status."""
    log.warning("job_postponed", names=job_id, reason=error.message)
    async with tolerate_no_redis("reason_unpublished", names=job_id):
        await store.put(keys.postponed(job_id), error.message, ttl_seconds=math.ceil(3 * seconds))
    return Retry(defer=seconds)


class Steps:
    """The calls that the steps of a job make: a child, a request to a model, a look at its cancellation."""

    def __init__(
        self, job: AnyStatusJob, queue: JobQueue, settings: Settings, store: Store, starts: Starts | None = None
    ) -> None:
        self.job = job
        self.settings = settings
        self.queue = queue
        self.log = log.bind(**job.log_id)
        self._store = store
        self.starts = starts or Starts(settings)

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do a job until it ends or is cancelled; an error ends it.

        Raises Retry while another process does it, if the disk is full, or if another worker is to try it.
        """
        lock = self.job.lock()
        if lock is None:
            raise Retry(defer=self.settings.queue.retry_seconds)
        with lock, self.job.running():
            try:
                await work()
            except Cancelled:
                self.log.info(f"{self.job.word}_cancelled")
            except AppError as error:
                if error.code.error_class is ErrorClass.TRANSIENT:
                    self.log.warning(f"{self.job.word}_waits", error_code=error.code)
                    raise await postponed(self._store, self.job.job_id, error, _TRANSIENT_SECONDS) from None
                self.log.error(f"{self.job.word}_failed", error_code=error.code)
                self.job.fail(error)

    async def run_child(self, name: Job) -> None:
        """Run the child for the next step. A child that crashes restarts."""
        attempts = self.settings.queue.max_attempts
        for _ in range(attempts):
            child = supervise_child(name, self.job.job_id, self.settings, self._store, self.starts, self.log)
            end = await self.wait_for(asyncio.create_task(child))
            if end.exit_code == 0:
                return
            self.log.error(f"{self.job.word}_child_failed", **end.description())
            await self.leave_if_others_try(end)
        message = f"A step of the {self.job.word} crashed {attempts} times. See the worker's log for its last lines."
        raise AppError(self.job.crash_code, message)

    async def leave_if_others_try(self, end: ChildEnd) -> None:
        """Raise Retry if a process of the job ended before its first step, and another worker is to try the job."""
        if end.died_at_start and await self.starts.leaves(self.job.job_id, self._store):
            raise Retry(defer=0)

    async def ask(self, run_id: str, request: Asks[ResponseT], who: str, *, is_kept: bool = True) -> ResponseT:
        """Return the answer of a run, also after the store or a worker was away.

        An answer that fails while Redis is there, some times in a row, fails the job; raises Retry where other workers
        are to try the job, because processes of this one end before their first step.
        """
        failures = 0
        while True:
            try:
                return await self.queue.inference.ask_for_job(run_id, request, is_kept=is_kept)
            except AppError as error:
                is_final = error.code is not ErrorCode.SERVICE_UNAVAILABLE
                if not is_final and self.starts.is_suspect and await self.starts.leaves(self.job.job_id, self._store):
                    raise Retry(defer=0) from None
                failures += is_final or (await self.queue.workers.load()).is_reachable
                if is_final or failures == self.settings.queue.max_attempts:
                    code = error.code if is_final else ErrorCode.INTERNAL_ERROR
                    raise AppError(code, f"The scores of {who} failed: {error.message}") from error
            await asyncio.sleep(self.settings.queue.retry_seconds)

    async def wait_for(self, task: asyncio.Task[T]) -> T:
        """Return the result of a task; cancels the task and raises Cancelled if the job is cancelled before."""
        try:
            while not task.done():
                await asyncio.wait([task], timeout=POLL_SECONDS)
                self.check_cancelled()
        finally:
            task.cancel()
            await asyncio.wait([task])
        return task.result()

    def check_cancelled(self) -> None:
        if self.job.cancel_requested():
            raise Cancelled
