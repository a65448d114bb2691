"""Verifications of runs for the HTTP API, which workers do, because they load the model."""

import asyncio

from trainer.artifacts.command_jobs import VerificationRecord, VerificationStore
from trainer.artifacts.kinds import VERIFICATIONS
from trainer.config.settings import Settings
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.verification import VerificationStatus
from trainer.contracts.wording import SAME_KEY
from trainer.queue.queue import JobQueue


class Verifications:
    """Verifications of one installation."""

    def __init__(self, settings: Settings, queue: JobQueue) -> None:
        self._queue = queue
        self._stored = VerificationStore(settings.app.artifacts_root)

    async def is_started(self, verification_id: str, run_id: str) -> bool:
        """Return whether the verification of a run has been started; raises CONFLICT for the id of another run's."""
        job = await asyncio.to_thread(self._stored.find, verification_id)
        if job is not None and job.record().run_id != run_id:
            raise AppError(ErrorCode.CONFLICT, SAME_KEY)
        return job is not None

    async def start(self, verification_id: str, run_id: str) -> None:
        """Start the verification of a run, under a new id."""
        for old in await asyncio.to_thread(self._stored.remove_old):
            await self._queue.replication.delete(VERIFICATIONS.name, old)
        record = VerificationRecord(created_at=now(), run_id=run_id)
        await self._queue.jobs.accept(VERIFICATIONS, lambda: self._stored.create(verification_id, record), ())

    async def status(self, verification_id: str) -> VerificationStatus:
        """Return the status of a started verification."""
        return await asyncio.to_thread(self._status, verification_id)

    def _status(self, verification_id: str) -> VerificationStatus:
        job = self._stored.get(verification_id)
        run_id = job.record().run_id
        if job.has_completed():
            return VerificationStatus(run_id=run_id, status="completed", verification=job.verification())
        error = job.failure()
        return VerificationStatus(
            run_id=run_id, status=job.unfinished_state() if error is None else "failed", error=error
        )
