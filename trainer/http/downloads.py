"""Downloads of the files of artifacts: a file, or a range of its bytes."""

import asyncio
import re
from collections.abc import Mapping
from io import FileIO
from typing import NamedTuple

from aiohttp import web

from trainer.contracts.errors import ErrorCode
from trainer.contracts.parameters import ArtifactPath, FileQuery, NoBody
from trainer.http.error_answers import HttpError
from trainer.http.operations import ApiRequest
from trainer.lab.artifacts import artifact, find_file, open_file
from trainer.system.files import BrokenFile

_CHUNK_BYTES = 1 << 18
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.IGNORECASE)


class ByteRange(NamedTuple):
    """The bytes from `start` to `end`, which is not included."""

    start: int
    end: int


async def download_file(call: ApiRequest[ArtifactPath, FileQuery, NoBody]) -> web.StreamResponse:
    """Download a file, or one range of its bytes; the ETag is its SHA-256."""
    folder, files = await artifact(call.api.lab, call.client.caller, call.path)
    if call.path.kind == "models":
        await call.api.lab.queue.replication.fetch("models", folder.name, with_weights=True)
    record = find_file(files, call.query.path)
    etag = f'"{record.sha256}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    name = record.path.rpartition("/")[2]
    headers["Content-Disposition"] = f'attachment; filename="{re.sub("[^A-Za-z0-9._-]", "_", name)}"'
    request = call.request
    if is_known_etag(request.headers, etag):
        return web.Response(status=304, headers={"ETag": etag})
    is_head = request.method == "HEAD"
    found = None if is_head else requested_range(request.headers, etag, record.bytes)
    wanted = found or ByteRange(0, record.bytes)
    if found is not None:
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.end - 1}/{record.bytes}"
    response = web.StreamResponse(status=200 if found is None else 206, headers=headers)
    response.content_length = wanted.end - wanted.start
    with call.api.stream(call.client):
        with await asyncio.to_thread(open_file, folder, record) as file:
            await response.prepare(request)
            if not is_head:
                await _send(file, wanted, response, call.api.timeouts.send_seconds)
    return response


async def _send(file: FileIO, wanted: ByteRange, response: web.StreamResponse, send_seconds: float) -> None:
    file.seek(wanted.start)
    left = wanted.end - wanted.start
    while left:
        chunk = await asyncio.to_thread(file.read, min(left, _CHUNK_BYTES))
        if not chunk:
            raise BrokenFile("A file became shorter during its download.")
        async with asyncio.timeout(send_seconds):
            await response.write(chunk)
        left -= len(chunk)


def requested_range(headers: Mapping[str, str], etag: str, size: int) -> ByteRange | None:
    """Return the range that a request wants (RFC 9110, section 14); None for the complete file.

    Several ranges, another unit than bytes, a malformed range and an If-Range with another ETag ask for the complete
    file. Raises RANGE_NOT_SATISFIABLE for a range outside of the file.
    """
    found = _RANGE.fullmatch(headers.get("Range", "").strip())
    if found is None or headers.get("If-Range", etag).strip() != etag:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        start, end = max(0, size - _position(last)), size
    else:
        start, end = _position(first), min(size, _position(last) + 1) if last else size
        if last and _position(last) < start:
            return None
    if start >= end:
        message = f"The file has {size:,} bytes. Ask for a range inside it."
        raise HttpError(ErrorCode.RANGE_NOT_SATISFIABLE, message, {"Content-Range": f"bytes */{size}"})
    return ByteRange(start, end)


def _position(digits: str) -> int:
    """Return a position in a file; one of more than 18 digits is behind the end of every file."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= 18 else 10**18


def is_known_etag(headers: Mapping[str, str], etag: str) -> bool:
    """Return True if If-None-Match names an ETag (weak comparison): the client has this content."""
    given = headers.get("If-None-Match", "")
    return given.strip() == "*" or etag in (one.strip().removeprefix("W/") for one in given.split(","))
