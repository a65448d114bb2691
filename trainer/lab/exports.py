"""Work on exports: start one."""

import asyncio

from trainer.artifacts.checkpoints import named_model
from trainer.artifacts.command_jobs import ExportRecord, ExportStore
from trainer.artifacts.kinds import EXPORTS
from trainer.contracts.base import now, run_of
from trainer.contracts.errors import ErrorCode, field_error
from trainer.contracts.exports import CHECKPOINT_FORMATS, CURVE_FORMATS, ExportRequest, ExportStatus
from trainer.contracts.parameters import ModelPath, WaitQuery
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import accept_keyed


async def export_run(lab: Lab, asked: Asked[ModelPath, WaitQuery, ExportRequest]) -> ExportStatus:
    """Export a run or a checkpoint of it as one file for other programs, which is kept for a day."""
    request, name = asked.body, asked.path.run_id
    if "@" in name and request.format not in CHECKPOINT_FORMATS:
        message = f"has the whole run with {request.format!r}: name the run itself, `{run_of(name)}`"
        raise field_error(ErrorCode.INVALID_INPUT, "format", message)
    if request.format not in CURVE_FORMATS:
        name = (await asyncio.to_thread(named_model, lab.stores.runs, name)).name
    record = ExportRecord(created_at=now(), model=name, request=request)
    job = await accept_keyed(lab, asked, EXPORTS, ExportStore(lab.settings.app.artifacts_root), record)
    return await asyncio.to_thread(job.status)
