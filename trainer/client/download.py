"""Downloads of artifacts: each file once, continued where it broke off, with its hash checked."""

import asyncio
import os
from pathlib import Path, PurePosixPath

from trainer.client.http_api import HttpApi, StreamLost, address
from trainer.contracts.base import FileRecord
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.http_answers import ArtifactFiles, ArtifactKind
from trainer.system.files import sha256_of, storage_errors

_PAUSE_SECONDS = 0.5
_PARTIAL_CONTENT = 206


async def download(api: HttpApi, kind: ArtifactKind, item_id: str, folder: Path) -> list[Path]:
    """Download the files of an artifact to a folder; return their paths.

    Complete files in the folder stay as they are, and incomplete ones are continued. Raises MODEL_LOAD_FAILED for a
    file that differs from its hash.
    """
    listed = await api.get(ArtifactFiles, address("artifacts", kind, item_id))
    return [await _download_file(api, listed, file, _target(folder, file)) for file in listed.files]


def _target(folder: Path, file: FileRecord) -> Path:
    """Return the path for a file; refuses a path that leads out of the folder."""
    parts = PurePosixPath(file.path).parts
    if not parts or ".." in parts or PurePosixPath(file.path).is_absolute():
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "The server names a file outside of the folder of its artifact.")
    return folder.joinpath(*parts)


async def _download_file(api: HttpApi, listed: ArtifactFiles, file: FileRecord, target: Path) -> Path:
    with storage_errors(f"`{target.name}` could not be written"):
        if not _has(target, file):
            part = _part_of(target)
            while not await _is_complete(api, listed, file, part):
                await asyncio.sleep(_PAUSE_SECONDS)
            _finish(part, target, file)
    return target


def _has(target: Path, file: FileRecord) -> bool:
    return target.is_file() and sha256_of(target) == file.sha256


def _part_of(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f"{target.name}.part")


def _finish(part: Path, target: Path, file: FileRecord) -> None:
    """Give a complete download its name; deletes it and raises MODEL_LOAD_FAILED if its hash is wrong."""
    if sha256_of(part) != file.sha256:
        part.unlink()
        message = f"'{file.path}' is damaged, here or on the server: download it again, or run `mt verify` there."
        raise AppError(ErrorCode.MODEL_LOAD_FAILED, message)
    part.replace(target)


async def _is_complete(api: HttpApi, listed: ArtifactFiles, file: FileRecord, part: Path) -> bool:
    """Add the missing bytes to a part of a file; return False if the connection broke off."""
    with part.open("ab") as out:
        has = out.tell()
        if has >= file.bytes:
            return True
        headers = {"Range": f"bytes={has}-", "If-Range": f'"{file.sha256}"'}
        path = address("artifacts", listed.kind, listed.id, "download")
        async with api.stream(path, headers, path=file.path) as response:
            if response.status_code != _PARTIAL_CONTENT:
                os.truncate(out.fileno(), 0)
            try:
                async for chunk in api.chunks(response):
                    out.write(chunk)
            except StreamLost:
                return False
    return True
