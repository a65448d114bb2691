"""Citation of an exported model: `CITATION.cff` (Citation File Format 1.2.0) and an entry for BibTeX."""

from collections.abc import Iterator

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from trainer.config.yaml import yaml_text
from trainer.contracts.installation import DISTRIBUTION
from trainer.contracts.runs import RunManifest
from trainer.inference.model_files import WEIGHTS_FILE

_Fields = dict[str, object]
_PROGRAM = "Model Trainer"
_BIBTEX = """\
```bibtex
@misc{{{key},
  title = {{{title}}},
  author = {{{{Model Trainer}}}},
  year = {{{year}}}
}}
```
"""


def citation_file(manifest: RunManifest, licence: str | None) -> str:
    """Return `CITATION.cff` of a run; it has the licence if SPDX knows its identifier."""
    hashes = [("the request", manifest.request_hash)]
    hashes += [(f"the run's {record.path}", record.sha256) for record in manifest.files if record.path == WEIGHTS_FILE]
    fields: _Fields = {
        "cff-version": "1.2.0",
        "message": "If you use this model, please cite it as below.",
        "type": "software",
        "title": _title_of(manifest),
        "authors": [{"name": _PROGRAM}],
        "date-released": manifest.timings.finished.date().isoformat(),
        "identifiers": [_identifier(of, sha256) for of, sha256 in hashes],
        "references": [*_references(manifest)],
    }
    if spdx := _spdx_id(licence):
        fields["license"] = spdx
    return "# Name the people who trained this model as its authors.\n" + yaml_text(fields)


def bibtex(manifest: RunManifest) -> str:
    """Return the entry for BibTeX as a block of Markdown."""
    title = _title_of(manifest).replace("_", r"\_")
    return _BIBTEX.format(key=manifest.run_id, title=title, year=manifest.timings.finished.year)


def _title_of(manifest: RunManifest) -> str:
    """Return the title under which a model is cited."""
    effective = manifest.effective
    return f"{manifest.run_id}, a language model ({effective.model_family}, {effective.objective})"


def _references(manifest: RunManifest) -> Iterator[_Fields]:
    """Yield the program with its version and commit, if known, and each corpus, whose authors nobody has recorded."""
    environment = manifest.environment
    known = environment and {"version": environment.libraries.get(DISTRIBUTION), "commit": environment.git_commit}
    program: _Fields = {"type": "software", "title": _PROGRAM, "authors": [{"name": _PROGRAM}]}
    yield program | {name: value for name, value in (known or {}).items() if value is not None}
    source = manifest.effective.provenance and manifest.effective.provenance.source_corpus
    for corpus in {corpus.sha256: corpus for corpus in manifest.effective.corpora}.values():
        text: _Fields = {"type": "data", "title": corpus.name, "authors": [{"name": "unknown"}]}
        text["identifiers"] = [_identifier(corpus.name, corpus.sha256)]
        yield text | ({"notes": source} if source and corpus == manifest.effective.corpus else {})


def _identifier(of: str, sha256: str) -> _Fields:
    return {"type": "other", "value": f"sha256:{sha256}", "description": f"SHA-256 of {of}"}


def _spdx_id(licence: str | None) -> str | None:
    """Return a licence as SPDX spells it; None for one that SPDX does not know."""
    try:
        return None if licence is None else canonicalize_license_expression(licence)
    except InvalidLicenseExpression:
        return None
