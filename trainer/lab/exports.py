"""Work on exports: start one, and follow it to its file, which a signed link serves."""

import asyncio
import secrets

from trainer.artifacts.checkpoints import named_model
from trainer.contracts.base import run_of
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.exports import CHECKPOINT_FORMATS, CURVE_FORMATS, ExportRequest, ExportStatus
from trainer.contracts.parameters import ExportPath, ModelPath, NoBody, WaitQuery
from trainer.contracts.wording import SAME_KEY
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import at_end


async def export_run(lab: Lab, asked: Asked[ModelPath, WaitQuery, ExportRequest]) -> ExportStatus:
    """Export a run or a checkpoint of it as one file for other programs, which is kept for a day."""
    request, name = asked.body, asked.path.run_id
    if "@" in name and request.format not in CHECKPOINT_FORMATS:
        message = f"has the whole run with {request.format!r}: name the run itself, `{run_of(name)}`"
        raise field_error(ErrorCode.INVALID_INPUT, "format", message)
    if request.format not in CURVE_FORMATS:
        name = (await asyncio.to_thread(named_model, lab.stores.runs, name)).name
    status = await lab.exports.start(asked.request_id or secrets.token_hex(16), name, request)
    if (status.run_id, status.format, status.license) != (name, request.format, request.license):
        raise AppError(ErrorCode.CONFLICT, SAME_KEY)
    return status


async def get_export(lab: Lab, asked: Asked[ExportPath, WaitQuery, NoBody]) -> ExportStatus:
    """Read the status of an export; with `wait`, after its end or after this time."""
    return await at_end(lambda: lab.exports.status(asked.path.export_id), asked.query.wait)
