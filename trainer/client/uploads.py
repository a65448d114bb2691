"""Uploads of corpora to a server, in portions that continue after any cut, also of an earlier process."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from trainer.client.downloads import Progress
from trainer.client.http_api import address
from trainer.client.remote import Remote
from trainer.config.validation import parse, unreadable
from trainer.contracts.base import changed
from trainer.contracts.corpora import CorpusOverview, UploadRequest, UploadStatus
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.parameters import UploadPath
from trainer.contracts.wording import distinct
from trainer.data.corpora import require_lines
from trainer.data.folders import folder_notes
from trainer.data.text import check_plain, check_text_name, clean_file_name, count_lines, is_converted, text_files
from trainer.lab.calls import GET_UPLOAD, START_UPLOAD
from trainer.system.files import sha256_of

_PORTION_BYTES = 1 << 20
_MIN_PORTION_BYTES, _MAX_PORTION_BYTES = 1 << 16, 16 << 20
_LEAST_PORTION_BYTES = 1 << 10
"""A proxy that refuses even this many bytes takes no upload."""
_SHORT_SECONDS, _LONG_SECONDS = 1.0, 10.0
"""Times of a portion below which the next one is larger, and above which it is smaller."""


class _Described(NamedTuple):
    files: Sequence[Path]
    request: UploadRequest


async def upload_corpus(
    server: Remote,
    path: Path,
    name: str | None,
    *,
    language: str | None = None,
    is_ipa: bool | None = None,
    progress: Progress,
) -> CorpusOverview:
    """Upload a file, or the text files of a folder; return the corpus that the server has stored.

    An upload of the same content that broke off is continued. Raises AppError as the server does, and before anything
    is sent for a file that is no text.
    """
    corpus: _Described = await asyncio.to_thread(_described, path, name, language, is_ipa)
    files, request = corpus
    status = await server.call(START_UPLOAD, body=request)
    size, most = _PORTION_BYTES, _MAX_PORTION_BYTES
    while status.corpus is None:
        progress(status.offset, status.bytes)
        portion = await asyncio.to_thread(_read, files, status.offset, size)
        started = monotonic()
        try:
            status = await _sent(server, request, status, portion)
        except AppError as error:  # a proxy takes smaller bodies than the server
            if error.code is not ErrorCode.PAYLOAD_TOO_LARGE or len(portion) <= _LEAST_PORTION_BYTES:
                raise
            size = most = len(portion) // 2
            continue
        seconds = monotonic() - started
        if seconds < _SHORT_SECONDS:
            size = min(2 * size, most)
        elif seconds > _LONG_SECONDS:
            size = min(most, max(size // 2, _MIN_PORTION_BYTES))
        if status.corpus is not None:
            progress(status.offset, status.bytes)
    notes = distinct((*folder_notes(path, name or path.name), *status.corpus.notes))  # only here, all files are known
    return changed(status.corpus, notes=notes)


async def _sent(server: Remote, request: UploadRequest, status: UploadStatus, portion: bytes) -> UploadStatus:
    """Send a portion and return the new state, also where the server has other bytes than expected."""
    if status.offset == status.bytes:  # the server was stopped before it had stored the corpus
        return await server.call(START_UPLOAD, body=request)
    if not portion:
        raise AppError(ErrorCode.INVALID_INPUT, "The corpus has become shorter while it was sent. Upload it again.")
    path = address("corpora", "uploads", status.upload_id)
    try:
        return await server.api.patch(UploadStatus, path, portion, offset=status.offset)
    except AppError as error:
        if error.code is not ErrorCode.CONFLICT:
            raise
        try:  # the answer to an earlier portion was lost, or another process sends the same corpus
            return await server.call(GET_UPLOAD, UploadPath(upload_id=status.upload_id))
        except AppError:  # the conflict is about the name of the corpus
            raise error from None


def _described(path: Path, name: str | None, language: str | None, is_ipa: bool | None) -> _Described:
    """Check a corpus and return its files and the request for its upload."""
    if not path.exists():
        raise AppError(ErrorCode.DATA_NOT_FOUND, unreadable(path, FileNotFoundError()))
    files = text_files(path)
    for file in files:
        check_text_name(file.name)
    if not is_converted(path):
        for file in files:
            check_plain(file)
        require_lines(path.name, count_lines(path))
    described = [
        {
            "name": clean_file_name(file.name) if len(files) == 1 else file.name,
            "bytes": file.stat().st_size,
            "sha256": sha256_of(file.resolve()),
        }
        for file in files
    ]
    fields: dict[str, object] = {"name": name, "files": described, "language": language, "is_ipa": is_ipa}
    return _Described(files, parse(UploadRequest, fields))


def _read(files: Sequence[Path], offset: int, size: int) -> bytes:
    """Return bytes of the files, one behind the other, from a position on."""
    data = bytearray()
    for file in files:
        length = file.stat().st_size
        if offset < length:
            with file.open("rb") as stream:
                stream.seek(offset)
                data += stream.read(size - len(data))
        offset = max(0, offset - length)
        if len(data) == size:
            break
    return bytes(data)
