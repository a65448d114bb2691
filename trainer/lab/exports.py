"""Work on exports: start one, and wait for its file."""

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

from trainer.artifacts.checkpoints import named_model
from trainer.artifacts.command_jobs import ExportRecord, ExportStore
from trainer.artifacts.kinds import EXPORTS
from trainer.contracts.base import now, run_of
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.exports import CHECKPOINT_FORMATS, CURVE_FORMATS, ExportRequest, ExportStatus, ModelFormat
from trainer.contracts.operations import Role
from trainer.contracts.parameters import ModelPath, WaitQuery
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.lab.calls import EXPORT_RUN
from trainer.lab.lab import Asked, Lab
from trainer.lab.permissions import Caller
from trainer.lab.waits import accept_keyed

_EXPORT_SECONDS = 600.0
_POLL_SECONDS = 0.25
_FAILED = "The export failed. Try again in a minute."


async def export_run(lab: Lab, asked: Asked[ModelPath, WaitQuery, ExportRequest]) -> ExportStatus:
    """Export a run or a checkpoint of it as one file for other programs, which is kept for a day."""
    request, name = asked.body, asked.path.run_id
    if request.format == "archive":  # it has the samples and the log of the run, too
        await lab.run(asked.caller, name, Role.OWNER)
    if "@" in name and request.format not in CHECKPOINT_FORMATS:
        message = f"has the whole run with {request.format!r}: name the run itself, `{run_of(name)}`"
        raise field_error(ErrorCode.INVALID_INPUT, "format", message)
    if request.format not in CURVE_FORMATS:
        name = (await asyncio.to_thread(named_model, lab.stores.runs, name)).name
    record = ExportRecord(created_at=now(), model=name, request=request)
    job = await accept_keyed(lab, asked, EXPORTS, ExportStore(lab.settings.app.artifacts_root), record)
    return await asyncio.to_thread(job.status)


async def exported_file(lab: Lab, caller: Caller, model: str, to: ModelFormat) -> Path:
    """Export a model as one file, a tar or a zip, and wait for it; an export that takes too long is cancelled.

    Raises the error of the export, and SERVICE_UNAVAILABLE when the time is up.
    """
    accepted = await lab.call(EXPORT_RUN, caller, ModelPath(run_id=model), body=ExportRequest(format=to))
    export = ExportStore(lab.settings.app.artifacts_root.resolve()).get(accepted.export_id)
    try:
        async with asyncio.timeout(_EXPORT_SECONDS):
            while not (status := await asyncio.to_thread(export.status)).has_ended:
                await asyncio.sleep(_POLL_SECONDS)
    except (TimeoutError, asyncio.CancelledError) as end:
        with suppress(AppError):  # it has just ended
            await lab.queue.jobs.cancel(EXPORTS, export.job_id)
        if isinstance(end, asyncio.CancelledError):
            raise
        absence = await lab.queue.workers.absence()
        message = _FAILED if absence is None else WAIT_MESSAGES[absence]
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message) from None
    if status.status == "cancelled":
        raise AppError(ErrorCode.CANCELLED, "The export was cancelled.")
    if status.error is not None:
        await remove_export(lab, export.result)
        raise AppError(status.error.code, status.error.message)
    return export.path / export.file().path


async def remove_export(lab: Lab, file: Path) -> None:
    """Delete an ended export; with an object store, which may not have seen its end yet, it is left for a day."""
    if not lab.queue.replication.is_on:
        await asyncio.to_thread(shutil.rmtree, file.parent, ignore_errors=True)
