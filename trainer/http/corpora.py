"""Operations on corpora: list them, and upload one in portions that continue after any cut."""

import asyncio
from typing import Annotated

from aiohttp import web
from pydantic import Field

from trainer.contracts.base import Identifier
from trainer.contracts.corpora import CorpusList, UploadRequest, UploadStatus
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.corpus_overview import corpus_overviews
from trainer.data.corpus_uploads import WrongOffset
from trainer.http.error_answers import HttpError
from trainer.http.operations import (
    MALFORMED,
    WHOLE,
    ApiRequest,
    BodyT,
    Link,
    NoBody,
    NoQuery,
    Operation,
    PathT,
    Query,
    QueryT,
    ResponseSpec,
    check_uncompressed,
    located,
    operation,
    reply,
)

PORTION_TYPE = "application/octet-stream"
_WRITTEN_BYTES = 1 << 20
"""Bytes of a portion that are kept in memory before they are written."""


class UploadPath(Query):
    upload_id: Identifier


class PortionQuery(Query):
    offset: Annotated[int, Field(ge=0), WHOLE]
    """Position of the first byte of the portion: the `offset` of the upload."""


async def list_corpora(call: ApiRequest[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """List the corpora by name, without attached texts and uploads without a name."""
    call.api.permissions.check_command("corpus list", call.client.caller)
    corpora = call.api.queue.corpora
    found = await asyncio.to_thread(lambda: corpus_overviews(corpora, corpora.names()))
    return reply(CorpusList(corpora=found))


async def start_upload(call: ApiRequest[NoQuery, NoQuery, UploadRequest]) -> web.StreamResponse:
    """Start the upload of a corpus; an equal request continues it, and nothing is sent twice."""
    call.api.permissions.check_command("corpus add", call.client.caller)
    uploads, client = call.api.uploads, call.client
    status = await asyncio.to_thread(uploads.start, call.body, client.name, is_limited=not client.is_admin)
    status = await _stored(call, status)
    address = f"/corpora/uploads/{status.upload_id}"
    return reply(
        status, 201 if status.corpus is None else 200, {**located(call.request, address), **_offset(status.offset)}
    )


async def get_upload(call: ApiRequest[UploadPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the state of an upload of this client, whose next portion begins at `offset`."""
    return _reply(await _status(call))


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
        raise HttpError(error.code, error.message, _offset(error.offset)) from None
    return _reply(await _stored(call, await _status(call)))


async def delete_upload(call: ApiRequest[UploadPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Delete an upload of this client with what has arrived; a corpus that it has become stays."""
    await asyncio.to_thread(call.api.uploads.delete, call.path.upload_id, call.client.name)
    return web.Response(status=204)


async def _receive(call: ApiRequest[UploadPath, PortionQuery, NoBody], status: UploadStatus) -> None:
    """Append the body of a request, with at most a MiB of it in memory."""
    request, uploads, upload_id = call.request, call.api.uploads, status.upload_id
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


async def _stored(call: ApiRequest[PathT, QueryT, BodyT], status: UploadStatus) -> UploadStatus:
    """Return the status of an upload, stored as a corpus if it is complete."""
    if status.corpus is not None or status.offset < status.bytes:
        return status
    async with call.api.storing_upload:
        return await asyncio.to_thread(call.api.uploads.finish, status.upload_id, call.client.name)


async def _status(call: ApiRequest[UploadPath, QueryT, NoBody]) -> UploadStatus:
    return await asyncio.to_thread(call.api.uploads.status, call.path.upload_id, call.client.name)


def _reply(status: UploadStatus) -> web.Response:
    return reply(status, headers=_offset(status.offset))


def _offset(offset: int) -> dict[str, str]:
    return {"Upload-Offset": f"{offset}"}


def _too_long(status: UploadStatus) -> AppError:
    message = f"The upload has {status.bytes:,} bytes. Send no more than that."
    return AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)


_ID = {"upload_id": "$response.body#/upload_id"}
_PORTION = Link("send_portion", {**_ID, "offset": "$response.body#/offset"})
_EXAMPLE_SHA256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
OPERATIONS: tuple[Operation, ...] = (
    operation("GET /corpora", list_corpora, {200: ResponseSpec("The corpora", CorpusList)}, tag="corpora"),
    operation(
        "POST /corpora",
        start_upload,
        {
            201: ResponseSpec(
                "The upload: send its bytes from `offset` on to the address in Location",
                UploadStatus,
                (Link("get_upload", _ID), _PORTION),
            ),
            200: ResponseSpec("The corpus is stored already, and nothing is to be sent", UploadStatus),
        },
        tag="corpora",
        example={"name": "hello", "files": [{"name": "hello.txt", "bytes": 6, "sha256": _EXAMPLE_SHA256}]},
    ),
    operation(
        "GET /corpora/uploads/{upload_id}",
        get_upload,
        {200: ResponseSpec("The state of the upload", UploadStatus, (_PORTION,))},
        tag="corpora",
    ),
    operation(
        "PATCH /corpora/uploads/{upload_id}",
        send_portion,
        {200: ResponseSpec("The state of the upload after the portion", UploadStatus, (_PORTION,))},
        tag="corpora",
        body_type=PORTION_TYPE,
        query_example={"offset": "0"},
    ),
    operation(
        "DELETE /corpora/uploads/{upload_id}",
        delete_upload,
        {204: ResponseSpec("The upload is deleted")},
        tag="corpora",
    ),
)
