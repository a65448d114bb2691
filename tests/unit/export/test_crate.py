"""Research Object Crates of runs: complete, with references that resolve, and readable as a run."""

from hashlib import sha256
from pathlib import Path

import pytest

import trainer
from local_discord.wire import Json, decode, items, mapping, rows, text
from tests.support.refusals import refused
from tests.support.run_shell import contents
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.export.crate import write_metadata
from trainer.export.folders import export_folder

METADATA = "ro-crate-metadata.json"


def entities_in(folder: Path) -> dict[str, Json]:
    """The entities of a crate by their ids."""
    return {text(one["@id"]): one for one in rows(mapping(decode((folder / METADATA).read_bytes()))["@graph"])}


def links_of(entity: Json) -> list[str]:
    """The entities to which an entity refers."""
    values = [one for value in entity.values() for one in (items(value) or [value])]
    return [text(link["@id"]) for link in map(mapping, values) if "@id" in link]


def test_crate__describes_every_file_and_the_training(run: RunDirectory, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_folder(run, "ro-crate", out, "cc0-1.0")
    graph = entities_in(out)
    about, root, training = (graph[name] for name in (METADATA, "./", "#training"))
    assert (about["about"], about["conformsTo"]) == ({"@id": "./"}, {"@id": "https://w3id.org/ro/crate/1.1"})
    unlisted = {METADATA, "README.md", "CITATION.cff", "export.json"}
    written = {str(path.relative_to(out)): data for path, data in contents(out).items()}
    described = {name: data for name, data in written.items() if name not in unlisted}
    files = {name: entity for name, entity in graph.items() if entity["@type"] == "File"}
    assert unlisted < written.keys() and {text(link["@id"]) for link in rows(root["hasPart"])} == files.keys()
    assert {name: (entity["sha256"], entity["contentSize"]) for name, entity in files.items()} == {
        name: (sha256(data).hexdigest(), str(len(data))) for name, data in described.items()
    }
    manifest = run.completed_manifest()
    assert (training["@type"], training["result"]) == ("CreateAction", {"@id": "model.safetensors"})
    assert graph[links_of(training)[0]]["version"] == "24a6dc097c4e02ca409e5d41591a8c0d70d5a04e"
    assert training["object"] == {"@id": f"#{manifest.effective.corpus.sha256}"}
    assert root["license"] == {"@id": "https://spdx.org/licenses/CC0-1.0"}
    outside = {link for entity in graph.values() for link in links_of(entity)} - graph.keys()
    assert outside == {"https://w3id.org/ro/crate/1.1"}


def test_crate__is_the_run_without_its_log(run: RunDirectory, tmp_path: Path) -> None:
    export_folder(run, "ro-crate", tmp_path / "out")
    before = {path.relative_to(run.path): data for path, data in contents(run.path).items()}
    copied = {path.relative_to(tmp_path / "out"): data for path, data in contents(tmp_path / "out").items()}
    assert before.keys() - copied.keys() == {Path("logs.jsonl")}
    assert all(copied[path] == data for path, data in before.items() if path in copied)
    assert trainer.load(tmp_path / "out").surprisal("abc") == trainer.load(run.path).surprisal("abc")
    (run.path / "eval" / "samples.jsonl").write_text("", encoding="utf-8")
    with refused(ErrorCode.MODEL_LOAD_FAILED, "failed its check of eval/samples.jsonl"):
        export_folder(run, "ro-crate", tmp_path / "other")


@pytest.mark.parametrize(("licence", "shown"), [(None, "unknown"), ("openrail", "openrail")])
def test_crate__of_an_unknown_program_or_licence_says_so(
    run: RunDirectory, tmp_path: Path, licence: str | None, shown: str
) -> None:
    unknown = changed(run.completed_manifest(), environment=None)
    write_metadata(tmp_path, unknown, unknown.files, licence)
    graph = entities_in(tmp_path)
    assert graph["./"]["license"] == shown and "version" not in graph["#program"]
