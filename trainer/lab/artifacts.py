"""Work on artifacts, such as runs and tokenizers: their folders and files."""

import asyncio
from pathlib import Path
from typing import assert_never

from trainer.contracts.base import FileRecord
from trainer.contracts.http_answers import ArtifactFiles, ArtifactKind
from trainer.contracts.operations import Role
from trainer.contracts.parameters import ArtifactPath, NoBody, NoQuery
from trainer.lab.lab import Asked, Lab
from trainer.lab.permissions import Caller

_FIELDS: dict[ArtifactKind, str] = {
    "models": "run_id",
    "tokenizers": "tokenizer_id",
    "experiments": "experiment_id",
    "batteries": "battery_id",
}
"""Which names an item of a kind has."""


async def list_files(lab: Lab, asked: Asked[ArtifactPath, NoQuery, NoBody]) -> ArtifactFiles:
    """List the files of a completed run, tokenizer, experiment or battery."""
    folder, files = await artifact(lab, asked.caller, asked.path)
    size = sum(file.bytes for file in files)
    return ArtifactFiles(kind=asked.path.kind, id=folder.name, files=files, result_bytes=size)


async def artifact(lab: Lab, caller: Caller, path: ArtifactPath) -> tuple[Path, tuple[FileRecord, ...]]:
    """Return the folder of an artifact and its files; those of a run are for its owner and admins."""
    item_id = await lab.full_id(caller, _FIELDS[path.kind], path.item_id)
    match path.kind:
        case "models":
            run = await lab.run(caller, item_id, Role.OWNER)
            return run.path, await asyncio.to_thread(run.result_files)
        case "tokenizers":
            tokenizer = await lab.tokenizer(caller, item_id, Role.OWNER)
            return tokenizer.path, await asyncio.to_thread(tokenizer.result_files)
        case "experiments":
            experiment = lab.stores.experiments.get(item_id)
            return experiment.path, await asyncio.to_thread(experiment.result_files)
        case "batteries":
            battery = await lab.battery(caller, item_id)
            return battery.path, await asyncio.to_thread(battery.result_files)
        case unknown:
            assert_never(unknown)
