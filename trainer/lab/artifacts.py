"""Work on artifacts, such as runs and tokenizers: their folders and files."""

import asyncio
from pathlib import Path

from trainer.artifacts.job_folder import AnyStatusJob
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import FileRecord
from trainer.contracts.http_answers import ArtifactFiles
from trainer.contracts.operations import JOB_ROWS, Role
from trainer.contracts.parameters import ArtifactPath, NoBody, NoQuery
from trainer.lab.lab import Asked, Lab
from trainer.lab.permissions import Caller


async def list_files(lab: Lab, asked: Asked[ArtifactPath, NoQuery, NoBody]) -> ArtifactFiles:
    """List the files of a completed run or other job."""
    folder, files = await artifact(lab, asked.caller, asked.path)
    size = sum(file.bytes for file in files)
    return ArtifactFiles(kind=asked.path.kind, id=folder.name, files=files, result_bytes=size)


async def artifact(lab: Lab, caller: Caller, path: ArtifactPath) -> tuple[Path, tuple[FileRecord, ...]]:
    """Return the folder of an artifact and its files; those of a run are for its owner and admins."""
    row = JOB_ROWS.get(path.kind)
    item_id = await lab.full_id(caller, "run_id" if row is None else row.id_field, path.item_id)
    job: RunDirectory | AnyStatusJob
    if row is None:
        job = await lab.run(caller, item_id, Role.OWNER)
    elif row.kind == "tokenizers":
        job = await lab.tokenizer(caller, item_id, Role.OWNER)
    else:
        job = await lab.job(caller, row, item_id, row.reads)
    return job.path, await asyncio.to_thread(job.result_files)
