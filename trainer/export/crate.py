"""A finished run as a Research Object Crate 1.1: its files, and the training that has written them, as JSON-LD."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from trainer.artifacts.archives import portable_files
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import FileRecord
from trainer.contracts.runs import RunManifest
from trainer.export.citation import PROGRAM, spdx_id, title_of
from trainer.export.verification import check_whole
from trainer.inference.model_files import WEIGHTS_FILE
from trainer.system.files import DISK

_CRATE = "https://w3id.org/ro/crate/1.1"
_CONTEXT = (f"{_CRATE}/context", {"sha256": "https://schema.org/sha256"})
_Fields = dict[str, object]


def write_run(folder: Path, run: RunDirectory) -> None:
    """Copy the files of a run; raises MODEL_LOAD_FAILED if they have changed."""
    with run.in_use():
        check_whole(run)
        for path in portable_files(run):
            target = folder / path.relative_to(run.path)
            DISK.make_folder(target.parent)
            shutil.copyfile(path, target)


def write_metadata(folder: Path, manifest: RunManifest, files: Sequence[FileRecord], licence: str | None) -> None:
    """Write `ro-crate-metadata.json`: the folder with its files, and the training with its corpora and weights."""
    program = _entity("#program", "SoftwareApplication", PROGRAM)
    if manifest.environment is not None and manifest.environment.git_commit is not None:
        program["version"] = manifest.environment.git_commit
    corpora = {corpus.sha256: corpus.name for corpus in manifest.effective.corpora}
    texts = [_entity(f"#{sha256}", "CreativeWork", name, sha256=sha256) for sha256, name in corpora.items()]
    data = [_entity(file.path, "File", file.path, contentSize=str(file.bytes), sha256=file.sha256) for file in files]
    times = manifest.timings
    training = _entity("#training", "CreateAction", "Training", instrument={"@id": "#program"}, object=_links(texts))
    training |= {"startTime": (times.started or times.created).isoformat(), "endTime": times.finished.isoformat()}
    training["result"] = {"@id": WEIGHTS_FILE}
    root = _entity("./", "Dataset", title_of(manifest), hasPart=_links(data), mentions={"@id": "#training"})
    root |= {"description": "A run of Model Trainer.", "datePublished": times.finished.date().isoformat()}
    spdx = spdx_id(licence)
    named = [_entity(f"https://spdx.org/licenses/{spdx}", "CreativeWork", spdx)] if spdx else []
    root["license"] = _links(named) if named else licence or "unknown"
    about: _Fields = {"about": {"@id": "./"}, "conformsTo": {"@id": _CRATE}}
    descriptor = _entity("ro-crate-metadata.json", "CreativeWork", "Metadata", **about)
    graph = {"@context": _CONTEXT, "@graph": [descriptor, root, training, program, *named, *texts, *data]}
    DISK.write(folder / "ro-crate-metadata.json", json.dumps(graph, indent=1, ensure_ascii=False).encode())


def _entity(name: str, kind: str, title: str, **fields: object) -> _Fields:
    return {"@id": name, "@type": kind, "name": title, **fields}


def _links(entities: Sequence[_Fields]) -> object:
    """Return references to entities, a single one without a list."""
    links = [{"@id": entity["@id"]} for entity in entities]
    return links if len(links) > 1 else links[0]
