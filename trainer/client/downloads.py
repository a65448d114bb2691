"""Downloads of files from a server, which continue where they broke off and are checked against their SHA-256."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from trainer.client.http_api import HttpApi, StreamLost, address
from trainer.contracts.base import FileRecord, KindName
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.http_answers import ArtifactFiles
from trainer.system.files import sha256_of, storage_errors

_PAUSE_SECONDS = 0.5
_PARTIAL_CONTENT = 206

Progress = Callable[[int, int], None]
"""Receives the bytes that have arrived, and all bytes, of a download or an upload."""


async def download_artifact(api: HttpApi, kind: KindName, item_id: str, folder: Path) -> tuple[FileRecord, ...]:
    """Download the files of a completed run or job to a folder, as `download_file` does; return their records."""
    path = address("artifacts", kind, item_id)
    files = (await api.get(ArtifactFiles, path)).files
    for file in files:
        await download_file(api, f"{path}/download", {"path": file.path}, file, _target(folder, file))
    return files


async def download_file(
    api: HttpApi,
    path: str,
    query: Mapping[str, str],
    file: FileRecord,
    target: Path,
    report: Progress = lambda done, size: None,
) -> None:
    """Download a file: a complete one stays as it is, and the `.part` file of an interrupted download is continued.

    Raises MODEL_LOAD_FAILED for a file that differs from its hash.
    """
    with storage_errors(f"`{target.name}` could not be written"):
        if _is_downloaded(target, file):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        while not await _is_complete(api, path, query, file, part, report):
            await asyncio.sleep(_PAUSE_SECONDS)
        if sha256_of(part) != file.sha256:
            part.unlink()
            where = f"'{file.path}' is damaged, here or on the server"
            raise AppError(ErrorCode.MODEL_LOAD_FAILED, f"{where}: download it again, or run `mt verify` there.")
        part.replace(target)


def _is_downloaded(target: Path, file: FileRecord) -> bool:
    return target.is_file() and sha256_of(target) == file.sha256


def _target(folder: Path, file: FileRecord) -> Path:
    """Return the path for a file; refuses a path that leads out of the folder."""
    parts = PurePosixPath(file.path).parts
    if not parts or ".." in parts or PurePosixPath(file.path).is_absolute():
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "The server names a file outside of the folder of its artifact.")
    return folder.joinpath(*parts)


async def _is_complete(
    api: HttpApi, path: str, query: Mapping[str, str], file: FileRecord, part: Path, report: Progress
) -> bool:
    """Add the missing bytes to a part of a file; return False if the connection broke off."""
    with part.open("ab") as out:
        has = out.tell()
        if has >= file.bytes:
            return True
        headers = {"Range": f"bytes={has}-", "If-Range": f'"{file.sha256}"'}
        async with api.stream(path, headers, **query) as response:
            if response.status_code != _PARTIAL_CONTENT:
                os.truncate(out.fileno(), 0)
                has = 0
            try:
                async for chunk in api.chunks(response):
                    out.write(chunk)
                    has += len(chunk)
                    report(has, file.bytes)
            except StreamLost:
                return False
    return True
