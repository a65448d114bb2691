"""Operations on exports: start one, and follow it to its file, which a signed link serves."""

import asyncio
import secrets

from aiohttp import web

from trainer.artifacts.checkpoints import named_model
from trainer.contracts.base import Identifier
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.exports import CHECKPOINT_FORMATS, CURVE_FORMATS, ExportRequest, ExportStatus
from trainer.http.operations import (
    ApiRequest,
    Link,
    ModelPath,
    NoBody,
    Operation,
    Query,
    ResponseSpec,
    WaitQuery,
    job_answers,
    operation,
)
from trainer.http.waiting import reply_accepted, reply_at_end
from trainer.queue.inference_client import SAME_KEY


class ExportPath(Query):
    export_id: Identifier


async def export_run(call: ApiRequest[ModelPath, WaitQuery, ExportRequest]) -> web.StreamResponse:
    """Export a run or a checkpoint of it as one file for other programs, which is kept for a day."""
    exports, request, name = call.api.exports, call.body, call.path.run_id
    run = await call.api.run(call.client, name, "export")
    if "@" in name and request.format not in CHECKPOINT_FORMATS:
        message = f"has the whole run with {request.format!r}: name the run itself, `{run.run_id}`"
        raise field_error(ErrorCode.INVALID_INPUT, "format", message)
    if request.format not in CURVE_FORMATS:
        name = (await asyncio.to_thread(named_model, call.api.queue.runs, name)).name
    with call.api.limits.request(call.client.caller):
        status = await exports.start(call.request_id or secrets.token_hex(16), name, request)
    if (status.run_id, status.format, status.license) != (name, request.format, request.license):
        raise AppError(ErrorCode.CONFLICT, SAME_KEY)
    address = f"/exports/{status.export_id}"
    return await reply_accepted(call, status, address, lambda: exports.status(status.export_id))


async def get_export(call: ApiRequest[ExportPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read the status of an export; with `wait`, after its end or after this time."""
    exports, export_id = call.api.exports, call.path.export_id
    status = await exports.status(export_id)
    await call.api.run(call.client, status.run_id, "export")
    return await reply_at_end(call, lambda: exports.status(export_id))


_LINKS = (Link("get_export", {"export_id": "$response.body#/export_id"}),)
OPERATIONS: tuple[Operation, ...] = (
    operation(
        "POST /runs/{run_id}/export",
        export_run,
        job_answers(ExportStatus, ExportStatus, _LINKS),
        tag="exports",
        example={"format": "csv"},
    ),
    operation(
        "GET /exports/{export_id}",
        get_export,
        {200: ResponseSpec("The status of the export", ExportStatus)},
        tag="exports",
    ),
)
