"""Exports of runs as single files, and signed links under which the HTTP API serves them for a day."""

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
from zipfile import ZIP_DEFLATED, ZipFile

from trainer.artifacts.outcome import without_paths
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.exports import ExportedFile, ExportFormat, ExportRequest, ExportStatus, ModelFormat
from trainer.services.child_commands import run_command
from trainer.system.files import BrokenFile, file_records, read_record, read_regular, write_atomically

LINK_SECONDS = 24 * 3600
_EXPORT_SECONDS = 600.0
_KEY_BYTES = 32
_FAILED = "The export failed. Try again in a minute."
_STATUS = "export.json"


class Exports:
    """Files of exported runs, in a folder of the artifacts root; torch is imported in a child process only."""

    def __init__(self, settings: Settings, export_seconds: float = _EXPORT_SECONDS) -> None:
        self._settings = settings
        self._export_seconds = export_seconds
        self._folder = settings.app.artifacts_root.resolve() / "exports"
        self._lock = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._running: dict[str, asyncio.Task[None]] = {}
        """The exports that this process has started and not ended, by their id."""

    async def export(self, run_id: str, to: ModelFormat) -> Path:
        """Export a run's model as one file, a tar or a zip; one export runs at a time. Raises AppError."""
        folder = self._folder / secrets.token_hex(16)
        try:
            return await self._write(folder, run_id, to)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise

    async def start(self, export_id: str, run_id: str, request: ExportRequest) -> ExportStatus:
        """Start an export that is not awaited, and return its status; that of the earlier one if the id is known."""
        folder = self._folder / export_id
        async with self._starting:
            if await asyncio.to_thread((folder / _STATUS).exists):
                return await self.status(export_id)
            status = ExportStatus(
                export_id=export_id, run_id=run_id, format=request.format, license=request.license, status="running"
            )
            await asyncio.to_thread(_write_status, folder, status)
            self._running[export_id] = asyncio.create_task(self._finish(folder, status))
        return status

    async def status(self, export_id: str) -> ExportStatus:
        """Return the status of a started export; raises DATA_NOT_FOUND for an unknown or deleted one."""
        is_running = export_id in self._running
        try:
            status = await asyncio.to_thread(read_record, self._folder / export_id / _STATUS, ExportStatus)
        except (FileNotFoundError, BrokenFile):
            message = "There is no such export; exports are deleted after a day. Export again."
            raise AppError(ErrorCode.DATA_NOT_FOUND, message) from None
        if is_running or status.has_ended:
            return status
        return _failed(status, AppError(ErrorCode.SERVICE_UNAVAILABLE, "The server was restarted. Export again."))

    async def stop(self) -> None:
        """End the exports that were started."""
        tasks = [*self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def take(self, file: Path) -> bytes:
        """Return the content of an exported file, and delete it."""
        data = await asyncio.to_thread(file.read_bytes)
        await self.remove(file)
        return data

    async def remove(self, file: Path) -> None:
        await asyncio.to_thread(shutil.rmtree, file.parent, ignore_errors=True)

    async def link(self, file: Path, public_url: str, expires_at: int) -> str:
        """Return the address from which anybody can download an exported file until a Unix time."""
        path = f"{file.parent.name}/{file.name}"
        signature = _signature(await asyncio.to_thread(self._key), path, expires_at)
        return f"{public_url.rstrip('/')}/exports/{quote(path)}?expires={expires_at}&signature={signature}"

    def find(self, path: str, expires: str, signature: str) -> Path:
        """Return the file of a link; raises FORBIDDEN for a wrong or expired link, NOT_FOUND for a deleted file."""
        is_right = hmac.compare_digest(_signature(self._key(), path, expires).encode(), signature.encode())
        if not is_right or int(expires) < time.time():
            raise AppError(ErrorCode.FORBIDDEN, "This link has expired, or a part of it is missing. Export again.")
        file = self._folder / path
        if not file.is_file():
            raise AppError(ErrorCode.NOT_FOUND, "This file has been deleted. Export again.")
        return file

    async def _finish(self, folder: Path, status: ExportStatus) -> None:
        """Write the file of a started export, and its status at the end."""
        try:
            try:
                file = await self._write(folder, status.run_id, status.format, status.license)
                ended = changed(status, status="completed", file=await self._exported(file))
            except AppError as error:
                ended = _failed(status, error)
            await asyncio.to_thread(_write_status, folder, ended)
        finally:
            del self._running[status.export_id]

    async def _exported(self, file: Path) -> ExportedFile:
        expires_at = int(time.time()) + LINK_SECONDS
        [record] = await asyncio.to_thread(file_records, file.parent, [file])
        url, end_at = await self.link(file, "", expires_at), datetime.fromtimestamp(expires_at, UTC)
        return ExportedFile(name=file.name, bytes=record.bytes, sha256=record.sha256, url=url, expires_at=end_at)

    async def _write(self, folder: Path, run_id: str, to: ExportFormat, licence: str | None = None) -> Path:
        """Write the file of an export into a folder; one export runs at a time."""
        async with self._lock:
            await asyncio.to_thread(self._remove_old)
            await asyncio.to_thread(lambda: folder.mkdir(mode=0o700, parents=True, exist_ok=True))
            target = folder / (f"{run_id}.tar" if to == "archive" else f"{run_id}-{to}")
            await self._run_child(run_id, to, target, licence)
            return target if to == "archive" else await asyncio.to_thread(_zip, target)

    async def _run_child(self, run_id: str, to: ExportFormat, target: Path, licence: str | None) -> None:
        """Run `mt export`; raises its error."""
        words = ["export", run_id, "--format", to, "--out", str(target)]
        words += [] if licence is None else ["--license", licence]
        result = await run_command(words, self._settings, self._export_seconds, _FAILED)
        if result.exit_code:
            raise result.error(_FAILED)

    def _remove_old(self) -> None:
        """Delete the files whose links have expired."""
        with suppress(FileNotFoundError):
            for folder in self._folder.iterdir():
                if folder.stat().st_mtime < time.time() - LINK_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)

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


def _write_status(folder: Path, status: ExportStatus) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / _STATUS, status.model_dump_json(by_alias=True).encode())


def _failed(status: ExportStatus, error: AppError) -> ExportStatus:
    shown = AppError(error.code, without_paths(error.message))
    return changed(status, status="failed", error=RunError.of(shown))


def _zip(folder: Path) -> Path:
    """Pack a folder into a file beside it, and delete the folder."""
    packed = folder.with_name(f"{folder.name}.zip")
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")
    shutil.rmtree(folder)
    return packed
