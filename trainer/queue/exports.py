"""Exports of runs as single files, which workers write, and signed links under which the HTTP API serves them."""

import asyncio
import hmac
import os
import secrets
import shutil
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from trainer.artifacts.command_jobs import KEPT_SECONDS, ExportDirectory, ExportRecord, ExportStore
from trainer.artifacts.kinds import EXPORTS
from trainer.config.settings import Settings
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.exports import ExportedFile, ExportRequest, ExportStatus, ModelFormat
from trainer.contracts.inference_fields import cancelled_error
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.queue.queue import JobQueue
from trainer.system.files import BrokenFile, read_regular

LINK_SECONDS = KEPT_SECONDS
_EXPORT_SECONDS = 600.0
_POLL_SECONDS = 0.25
_KEY_BYTES = 32
_FAILED = "The export failed. Try again in a minute."


class Exports:
    """Exports of one installation."""

    def __init__(self, settings: Settings, queue: JobQueue, export_seconds: float = _EXPORT_SECONDS) -> None:
        self._settings = settings
        self._queue = queue
        self._export_seconds = export_seconds
        self._stored = ExportStore(settings.app.artifacts_root.resolve())

    async def export(self, model: str, to: ModelFormat) -> Path:
        """Export a model as one file, a tar or a zip, and wait for it; an export that takes too long is cancelled.

        Raises the error of the export, and SERVICE_UNAVAILABLE when the time is up.
        """
        export_id = secrets.token_hex(16)
        await self.start(export_id, model, ExportRequest(format=to))
        export = self._stored.directory(export_id)
        try:
            async with asyncio.timeout(self._export_seconds):
                while not (status := await self.status(export_id)).has_ended:
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            await self._cancel(export)
            message = _FAILED if await self._queue.workers.exist() else WAIT_MESSAGES["worker"]
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message) from None
        except asyncio.CancelledError:
            await self._cancel(export)
            raise
        if status.error is not None:
            await self.remove(export.result)
            raise AppError(status.error.code, status.error.message)
        return export.path / export.file().path

    async def start(self, export_id: str, model: str, request: ExportRequest) -> ExportStatus:
        """Start an export that is not awaited, and return its status; that of the earlier one if the id is known."""
        for old in await asyncio.to_thread(self._stored.remove_old):
            await self._queue.replication.delete(EXPORTS.name, old)
        record = ExportRecord(created_at=now(), model=model, request=request)
        await self._queue.jobs.accept(EXPORTS, lambda: self._stored.create(export_id, record), ())
        return await self.status(export_id)

    async def status(self, export_id: str) -> ExportStatus:
        """Return the status of a started export; raises DATA_NOT_FOUND for an unknown or deleted one."""
        return await asyncio.to_thread(self._status, export_id)

    async def take(self, file: Path) -> bytes:
        """Return the content of an exported file, and delete it."""
        data = await asyncio.to_thread(file.read_bytes)
        await self.remove(file)
        return data

    async def remove(self, file: Path) -> None:
        """Delete an ended export; with an object store, which may not have seen its end yet, it is left for a day."""
        if not self._queue.replication.is_on:
            await asyncio.to_thread(shutil.rmtree, file.parent, ignore_errors=True)

    async def link(self, file: Path, public_url: str, expires_at: int) -> str:
        """Return the address from which anybody can download an exported file until a Unix time."""
        return await asyncio.to_thread(self._link, file, public_url, expires_at)

    def find(self, path: str, expires: str, signature: str) -> Path:
        """Return the file of a link; raises FORBIDDEN for a wrong or expired link, NOT_FOUND for a deleted file."""
        is_right = hmac.compare_digest(_signature(self._key(), path, expires).encode(), signature.encode())
        if not is_right or int(expires) < time.time():
            raise AppError(ErrorCode.FORBIDDEN, "This link has expired, or a part of it is missing. Export again.")
        export_id, _, name = path.partition("/")
        file = self._stored.directory(export_id).path / name
        if not file.is_file():
            raise AppError(ErrorCode.NOT_FOUND, "This file has been deleted. Export again.")
        return file

    async def _cancel(self, export: ExportDirectory) -> None:
        await asyncio.to_thread(export.request_cancel)
        await self._queue.replication.request_cancel(EXPORTS.name, export.job_id)

    def _status(self, export_id: str) -> ExportStatus:
        export = self._stored.find(export_id)
        if export is None:
            message = "There is no such export; exports are deleted after a day. Export again."
            raise AppError(ErrorCode.DATA_NOT_FOUND, message)
        record, state, file = export.record(), export.state(), None
        error = export.failure()
        if state == "completed":
            error, file = None, self._exported(export)
        elif state == "cancelled":
            error = RunError.of(cancelled_error())
        return ExportStatus(
            export_id=export_id,
            run_id=record.model,
            format=record.request.format,
            license=record.request.license,
            status="completed" if file is not None else export.unfinished_state() if error is None else "failed",
            file=file,
            error=error,
        )

    def _exported(self, export: ExportDirectory) -> ExportedFile:
        file, expires_at = export.file(), int(export.result.stat().st_mtime) + LINK_SECONDS
        url, end_at = self._link(export.path / file.path, "", expires_at), datetime.fromtimestamp(expires_at, UTC)
        return ExportedFile(name=file.path, bytes=file.bytes, sha256=file.sha256, url=url, expires_at=end_at)

    def _link(self, file: Path, public_url: str, expires_at: int) -> str:
        path = f"{file.parent.name}/{file.name}"
        signature = _signature(self._key(), path, expires_at)
        return f"{public_url.rstrip('/')}/exports/{quote(path)}?expires={expires_at}&signature={signature}"

    def _key(self) -> bytes:
        """Return the key of the links; it is made at its first use."""
        path = self._settings.app.artifacts_root / "links.key"
        with suppress(FileNotFoundError, BrokenFile):
            key = read_regular(path)
            if len(key) == _KEY_BYTES:
                return key
        key = secrets.token_bytes(_KEY_BYTES)
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
        return key


def _signature(key: bytes, path: str, expires: int | str) -> str:
    return hmac.new(key, f"{path}\n{expires}".encode(), "sha256").hexdigest()
