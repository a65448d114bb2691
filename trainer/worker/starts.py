"""Children that end before their first step: their jobs go to other workers, and three in a row break this worker."""

import asyncio
import re
import signal
from collections.abc import Sequence

import structlog

from trainer.artifacts.attempts import ChildEnd
from trainer.artifacts.kinds import JOB_KINDS
from trainer.artifacts.outcome import without_paths
from trainer.config.settings import Settings
from trainer.contracts.jobs import JobNeeds
from trainer.store.connection import STORE_ERRORS
from trainer.store.refusals import log_outage
from trainer.store.store import Store
from trainer.system.hardware import is_dead, process_name

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_MAX_DEATHS = 3
"""Children in a row that may end before their first step."""
_ELSEWHERE_SECONDS, _LATER_SECONDS = 60.0, 5.0
"""Time for which this worker leaves a job to workers that have not tried it, or to the jobs behind it."""
_MACHINE_ERROR = re.compile(
    r"(Fatal Python error|ImportError|ModuleNotFoundError|OSError|MemoryError|RuntimeError|torch\.\w+): .+"
)
"""A last line that has no text of a corpus: the errors of libraries, drivers and the system."""
_MAX_LINE_CHARS = 200


class Starts:
    """The children of one worker that ended before their first step, since the last one that reached it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._died: list[str] = []
        """The jobs of these children."""
        self.reason: str | None = None
        """Why this worker takes no more jobs; None while it works."""
        self.broke = asyncio.Event()

    @property
    def is_suspect(self) -> bool:
        """True if the last child of this worker ended before its first step."""
        return bool(self._died)

    def child_began(self) -> None:
        self._died.clear()

    def child_ended(self, job_id: str, end: ChildEnd) -> None:
        """Count a child that ended before its first step; three in a row, of two jobs or more, break the worker.

        One job alone may be at fault itself. So may a job for which memory ran out, which is not counted.
        """
        if not end.died_at_start:
            if end.exit_code == 0 and not end.has_begun:
                self.child_began()
            return
        log.warning("child_died_at_start", names=job_id, exit_code=end.exit_code, reason=end.cause)
        if end.cause == "starved":
            return
        self._died.append(job_id)
        if self.reason is None and len(self._died) >= _MAX_DEATHS and len({*self._died}) > 1:
            self.reason = (
                f"{len(self._died)} of its processes in a row ended before their first step, the last one"
                f" {_how(end)}. Mend the machine, then restart the worker or run `mt workers undrain {process_name()}`."
            )
            self.broke.set()

    def mend(self) -> None:
        """Take jobs again, by the order of an admin."""
        self._died.clear()
        self.reason = None

    async def leaves(self, job_id: str, store: Store, *, may_wait: bool = True) -> bool:
        """Leave a job whose child ended before its first step to others; return False if the end counts for the job.

        The job goes to the workers that take jobs, can take this one and have not tried it. Without such a worker it
        waits while this worker is broken, and once while other jobs wait, whose children show which of the two it is.
        A job that does not wait (`may_wait`) goes to other workers only.
        """
        try:
            tried = await store.workers_that_tried(job_id)
            if await self._others(job_id, store, tried):
                seconds = _ELSEWHERE_SECONDS
            elif may_wait and (
                self.reason is not None or (process_name() not in tried and await self._others_wait(job_id, store))
            ):
                seconds = _LATER_SECONDS
            else:
                return False
            await store.leave_job(job_id, process_name(), seconds=seconds)
        except STORE_ERRORS as error:  # the job is in the queue of a server that is away
            log_outage(error)
            return may_wait
        log.info("job_left_to_others", names=job_id, seconds=seconds)
        return True

    async def _others(self, job_id: str, store: Store, tried: set[str]) -> list[str]:
        needs = (await store.needs([job_id])).get(job_id, JobNeeds())
        return [
            worker.name
            for worker in await store.workers()
            if worker.state == "ready" and worker.can_take(needs)
            if worker.name not in {process_name(), *tried} and not is_dead(worker.name)
        ]

    async def _others_wait(self, job_id: str, store: Store) -> bool:
        waiting: list[str] = []
        for kind in JOB_KINDS:
            waiting += await store.queue_order(kind.queue(self._settings.queue))
        held = await store.holders(waiting)
        return any(other not in (job_id, *held) for other in waiting)


def _how(end: ChildEnd) -> str:
    """Return how a child ended, with its last line if that is an error of the machine."""
    code = end.exit_code
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    if end.cause == "stalled":
        how = "because it stalled"
    line = _machine_error(end.last_lines)
    return how if line is None else f"{how} ({line})"


def _machine_error(lines: Sequence[str]) -> str | None:
    found = [line.strip() for line in lines if _MACHINE_ERROR.fullmatch(line.strip())]
    return without_paths(found[-1])[:_MAX_LINE_CHARS] if found else None
