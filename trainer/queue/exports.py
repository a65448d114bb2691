"""Exports of models that a person waits for, which workers write."""

import asyncio
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from trainer.artifacts.command_jobs import ExportRecord, ExportStore
from trainer.artifacts.kinds import EXPORTS
from trainer.config.settings import Settings
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.exports import ExportRequest, ModelFormat
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.queue.queue import JobQueue

_EXPORT_SECONDS = 600.0
_POLL_SECONDS = 0.25
_FAILED = "The export failed. Try again in a minute."


class Exports:
    """Exports of one installation."""

    def __init__(self, settings: Settings, queue: JobQueue, export_seconds: float = _EXPORT_SECONDS) -> None:
        self._queue = queue
        self._export_seconds = export_seconds
        self._stored = ExportStore(settings.app.artifacts_root.resolve())

    async def export(self, model: str, to: ModelFormat, *, user_id: int | None = None) -> Path:
        """Export a model as one file, a tar or a zip, and wait for it; an export that takes too long is cancelled.

        Raises the error of the export, and SERVICE_UNAVAILABLE when the time is up.
        """
        record = ExportRecord(created_at=now(), user_id=user_id, model=model, request=ExportRequest(format=to))
        job_id = secrets.token_hex(16)
        export = await self._queue.jobs.accept(EXPORTS, lambda: self._stored.create(job_id, record))
        try:
            async with asyncio.timeout(self._export_seconds):
                while not (status := await asyncio.to_thread(export.status)).has_ended:
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            await self._cancel(job_id)
            message = _FAILED if await self._queue.workers.exist() else WAIT_MESSAGES["worker"]
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message) from None
        except asyncio.CancelledError:
            await self._cancel(job_id)
            raise
        if status.status == "cancelled":
            raise AppError(ErrorCode.CANCELLED, "The export was cancelled.")
        if status.error is not None:
            await self.remove(export.result)
            raise AppError(status.error.code, status.error.message)
        return export.path / export.file().path

    async def _cancel(self, job_id: str) -> None:
        with suppress(AppError):  # it has just ended
            await self._queue.jobs.cancel(EXPORTS, job_id)

    async def take(self, file: Path) -> bytes:
        """Return the content of an exported file, and delete it."""
        data = await asyncio.to_thread(file.read_bytes)
        await self.remove(file)
        return data

    async def remove(self, file: Path) -> None:
        """Delete an ended export; with an object store, which may not have seen its end yet, it is left for a day."""
        if not self._queue.replication.is_on:
            await asyncio.to_thread(shutil.rmtree, file.parent, ignore_errors=True)
