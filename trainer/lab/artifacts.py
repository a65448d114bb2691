"""Work on artifacts, such as runs and tokenizers: their folders and files."""

import asyncio
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from io import FileIO
from pathlib import Path

from trainer.artifacts.job_folder import AnyStatusJob
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import FileRecord
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.http_answers import ArtifactFiles
from trainer.contracts.operations import JOB_ROWS, Role
from trainer.contracts.parameters import ArtifactPath, NoBody, NoQuery
from trainer.lab.lab import Asked, Lab
from trainer.lab.permissions import Caller
from trainer.system.files import BrokenFile, open_regular

MODEL_FILES = ("model.safetensors", "config.json", "tokenizer/*")
"""Patterns of the files of a run that are its model; the others have samples and messages."""


async def list_files(lab: Lab, asked: Asked[ArtifactPath, NoQuery, NoBody]) -> ArtifactFiles:
    """List the files of a completed run or other job."""
    folder, files = await artifact(lab, asked.caller, asked.path)
    size = sum(file.bytes for file in files)
    return ArtifactFiles(kind=asked.path.kind, id=folder.name, files=files, result_bytes=size)


async def artifact(lab: Lab, caller: Caller, path: ArtifactPath) -> tuple[Path, tuple[FileRecord, ...]]:
    """Return the folder of an artifact and those of its files that are for the caller."""
    row = JOB_ROWS.get(path.kind)
    item_id = await lab.full_id(caller, "run_id" if row is None else row.id_field, path.item_id)
    job: RunDirectory | AnyStatusJob
    shared: Sequence[str] = ()
    if row is None:
        job, shared = await lab.run(caller, item_id, Role.WEIGHTS), MODEL_FILES
        has_all = lab.permissions.owns(caller, await asyncio.to_thread(job.record))
    elif row.kind == "tokenizers":
        job, has_all = await lab.tokenizer(caller, item_id), True
    else:
        job, shared = await lab.job(caller, row, item_id, row.reads), row.shared
        record = await asyncio.to_thread(job.record)
        has_all = lab.permissions.permits(row.copies or row.reads, caller, record)
    files = await asyncio.to_thread(job.result_files)
    return job.path, tuple(file for file in files if has_all or any(fnmatch(file.path, one) for one in shared))


def find_file(files: Sequence[FileRecord], path: str) -> FileRecord:
    """Return the record of a file; raises NOT_FOUND for a path that is not in the list of files."""
    record = next((file for file in files if file.path == path), None)
    if record is None:
        raise AppError(ErrorCode.NOT_FOUND, "There is no such file. Take a path from the list of files.")
    return record


def open_file(folder: Path, record: FileRecord) -> FileIO:
    """Open a file inside a folder; raises MODEL_LOAD_FAILED if it is not the recorded one."""
    path = folder / record.path
    try:
        if path.resolve().is_relative_to(folder.resolve()):
            file = open_regular(path)
            if os.fstat(file.fileno()).st_size == record.bytes:
                return file
            file.close()
    except (FileNotFoundError, BrokenFile):
        pass
    raise AppError(ErrorCode.MODEL_LOAD_FAILED, "The file is damaged. Check the run with `mt verify`.")
