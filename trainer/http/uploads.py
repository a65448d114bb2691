"""Portions of an upload over HTTP, written as they arrive."""

import asyncio

from aiohttp import web

from trainer.contracts.corpora import UploadStatus
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.parameters import NoBody, PortionQuery, UploadPath
from trainer.data.corpus_uploads import WrongOffset
from trainer.http.error_answers import HttpError
from trainer.http.operations import MALFORMED, ApiRequest, check_uncompressed, upload_offset
from trainer.http.waiting import reply
from trainer.lab.corpora import finished_upload

PORTION_TYPE = "application/octet-stream"
_WRITTEN_BYTES = 1 << 20
"""Bytes of a portion that are kept in memory before they are written."""


async def send_portion(call: ApiRequest[UploadPath, PortionQuery, NoBody]) -> web.StreamResponse:
    """Append a portion to an upload; after the last one, the corpus is checked and stored.

    Of a portion that breaks off or needs too long, the bytes that have arrived are kept.
    """
    check_uncompressed(call.request)
    if call.request.content_type != PORTION_TYPE:
        message = f"Send the bytes as they are: Content-Type: {PORTION_TYPE}."
        raise AppError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
    status = await _status(call)
    try:
        if call.query.offset != status.offset:
            raise WrongOffset(status.offset)
        with call.api.stream(call.client):
            await _receive(call, status)
    except WrongOffset as error:
        raise HttpError(error.code, error.message, upload_offset(error.offset)) from None
    status = await finished_upload(call.api.lab, call.client.caller, await _status(call))
    return reply(status, headers=upload_offset(status.offset))


async def _receive(call: ApiRequest[UploadPath, PortionQuery, NoBody], status: UploadStatus) -> None:
    """Append the body of a request, with at most a MiB of it in memory."""
    request, uploads, upload_id = call.request, call.api.lab.uploads, status.upload_id
    if status.offset + (request.content_length or 0) > status.bytes:
        raise _too_long(status)
    offset, waiting = status.offset, bytearray()
    end = asyncio.get_running_loop().time() + call.api.timeouts.body_seconds

    async def write() -> None:
        nonlocal offset
        data = bytes(waiting)
        waiting.clear()
        await asyncio.to_thread(uploads.append, upload_id, offset, data)
        offset += len(data)

    while chunk := await _chunk(request, end):
        waiting += chunk
        if offset + len(waiting) > status.bytes:
            raise _too_long(status)
        if len(waiting) >= _WRITTEN_BYTES:
            await write()
    await write()
    await asyncio.to_thread(uploads.sync, upload_id)


async def _chunk(request: web.Request, end: float) -> bytes:
    """Return the next bytes of a body; none at its end, after a time of the event loop, and if the client has left."""
    try:
        async with asyncio.timeout_at(end):
            return await request.content.readany()
    except (TimeoutError, MALFORMED, ConnectionError):
        return b""


def _too_long(status: UploadStatus) -> AppError:
    message = f"The upload has {status.bytes:,} bytes. Send no more than that."
    return AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)


async def _status(call: ApiRequest[UploadPath, PortionQuery, NoBody]) -> UploadStatus:
    return await asyncio.to_thread(call.api.lab.uploads.status, call.path.upload_id, call.client.name)
