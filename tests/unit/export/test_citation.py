"""Citations of exported models, read by the schema that the Citation File Format publishes."""

import json
from hashlib import sha256
from importlib.resources import files

import jsonschema_rs
import pytest
from pydantic import JsonValue
from ruamel.yaml import YAML

from local_discord.wire import Json, decode, mapping, rows
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import changed
from trainer.contracts.runs import CorpusRef, RunManifest
from trainer.contracts.training_options import Provenance
from trainer.export.citation import bibtex, citation_file

SCHEMA = jsonschema_rs.validator_for(
    (files("check_jsonschema") / "builtin_schemas" / "vendor" / "citation-file-format.json").read_text("utf-8")
)


def cited(manifest: RunManifest, licence: str | None = None) -> Json:
    """The fields of a valid citation."""
    fields: object = YAML(typ="safe", pure=True).load(citation_file(manifest, licence))
    assert [error.message for error in SCHEMA.iter_errors(fields)] == []
    return mapping(decode(json.dumps(fields)))


def hashes(fields: Json) -> list[JsonValue]:
    return [identifier["value"] for identifier in rows(fields["identifiers"])]


def test_citation__names_the_run_its_program_and_its_corpora(run: RunDirectory) -> None:
    manifest = run.completed_manifest()
    assert manifest.environment is not None
    libraries = {**manifest.environment.libraries, "model-trainer": "1.2.3"}
    manifest = changed(manifest, environment=changed(manifest.environment, libraries=libraries))
    fields = cited(manifest)
    assert fields["title"] == f"{run.run_id}, a language model (char_lstm, causal_lm)"
    assert fields["date-released"] == "2026-11-22"
    weights = sha256((run.path / "model.safetensors").read_bytes()).hexdigest()
    assert hashes(fields) == [f"sha256:{manifest.request_hash}", f"sha256:{weights}"]
    program, corpus = rows(fields["references"])
    assert (program["title"], program["version"]) == ("Model Trainer", "1.2.3")
    assert program["commit"] == "24a6dc097c4e02ca409e5d41591a8c0d70d5a04e"
    assert (corpus["title"], hashes(corpus)) == ("text", [f"sha256:{manifest.effective.corpus.sha256}"])


def test_citation__of_any_corpora_and_of_an_unknown_program_is_valid(run: RunDirectory) -> None:
    manifest = run.completed_manifest()
    other = CorpusRef(name="тіл: 'a'\n# b", sha256="f" * 64, bytes=1)
    update: dict[str, object] = {"validation_corpus": manifest.effective.corpus, "test_corpus": other}
    update["provenance"] = Provenance(source_corpus="A fairy tale: &b *c")
    known = changed(manifest, effective=changed(manifest.effective, **update), environment=None, files=())
    fields = cited(known)
    program, corpus, held_out = rows(fields["references"])
    assert "commit" not in program and hashes(fields) == [f"sha256:{manifest.request_hash}"]
    assert (corpus["notes"], held_out["title"], "notes" in held_out) == ("A fairy tale: &b *c", other.name, False)


@pytest.mark.parametrize(("given", "written"), [("cc0-1.0", "CC0-1.0"), ("mit", "MIT"), ("mine", None), (None, None)])
def test_citation__has_a_licence_that_spdx_knows(run: RunDirectory, given: str | None, written: str | None) -> None:
    assert cited(run.completed_manifest(), given).get("license") == written


def test_bibtex__escapes_what_latex_reads_as_a_mark(run: RunDirectory) -> None:
    name = "char_lstm-20261122-74f34df5"
    entry = bibtex(run.completed_manifest())
    assert f"@misc{{{name},\n  title = {{char\\_lstm-20261122-74f34df5, a language model" in entry
    assert "year = {2026}" in entry
