"""Exports of a server's runs: it writes a file, which is downloaded to this machine."""

import asyncio
from pathlib import Path
from urllib.parse import parse_qsl

from trainer.artifacts.archives import restore_archive
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.client.downloads import Progress, download_file
from trainer.client.remote import Remote
from trainer.contracts.base import FileRecord, narrowed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.exports import ExportedFile, ExportRequest, ExportStatus
from trainer.contracts.parameters import ExportPath, ModelPath, RunPath
from trainer.lab.calls import EXPORT_RUN, EXPORTS, GET_MANIFEST
from trainer.system.destination import RECORD_FILE, appearing_at, check_free, unpack


async def export_run(
    server: Remote, name: str, request: ExportRequest, out: Path, report: Progress, *, force: bool = False
) -> str:
    """Export a run, or a checkpoint as RUN@1200, to a new folder, an archive to a new file; return the model's name.

    With `force` it replaces an earlier export. Raises CONFLICT if the path exists, and as `_download` does.
    """
    is_archive = request.format == "archive"
    earlier = out if is_archive else out / RECORD_FILE
    check_free(out, is_earlier=force and earlier.is_file(), for_folder=not is_archive)
    file = out.with_name(f".{out.name}.download")
    status = await _download(server, name, request, file, report)
    with appearing_at(out) as temporary:
        if is_archive:
            file.rename(temporary)
        else:
            await asyncio.to_thread(unpack, file, temporary)
            file.unlink()
    return status.run_id


async def pull_run(server: Remote, run_id: str, artifacts_root: Path, report: Progress) -> tuple[RunDirectory, bool]:
    """Bring a completed run with its checkpoints to an artifacts folder; return it, and False if it is there already.

    Raises RUN_NOT_READY, and CONFLICT if the folder has another run of this id.
    """
    manifest = await server.call(GET_MANIFEST, RunPath(run_id=run_id))
    known = RunStore(artifacts_root).find(run_id)
    if known is not None:
        if known.manifest() != manifest:
            raise AppError(ErrorCode.CONFLICT, f"This machine has another run '{run_id}', which stays as it is.")
        return known, False
    archive = artifacts_root / f".pull-{run_id}.tar"
    await _download(server, run_id, ExportRequest(format="archive"), archive, report)
    run = await asyncio.to_thread(restore_archive, archive, artifacts_root)
    archive.unlink()
    return run, True


async def _download(server: Remote, name: str, request: ExportRequest, target: Path, report: Progress) -> ExportStatus:
    """Export a model and download the file; the same call continues a download that was interrupted.

    Raises the error of the export, and MODEL_LOAD_FAILED for a file that differs from its hash.
    """
    accepted = await server.call(EXPORT_RUN, ModelPath(run_id=name), body=request)
    status = await server.ended(EXPORTS.get, ExportPath(export_id=accepted.export_id))
    if status.error is not None:
        raise AppError(status.error.code, status.error.message)
    file = narrowed(ExportedFile, status.file)
    path, _, query = file.url.partition("?")
    record = FileRecord(path=file.name, bytes=file.bytes, sha256=file.sha256)
    await download_file(server.api, path, dict(parse_qsl(query)), record, target, report)
    return status
