"""What lists say of a corpus."""

from pathlib import Path

from tests.support import settings_in
from trainer.contracts.base import FileRecord
from trainer.contracts.corpora import BuiltLanguage, CorpusManifest
from trainer.data.corpora import CorpusStore
from trainer.data.corpus_overview import corpus_overview


def manifest_of(name: str, *languages: str) -> CorpusManifest:
    """The manifest of a build that has made a file of 6 bytes for each language."""
    built = {
        language: BuiltLanguage(
            file=FileRecord(path=f"{name}_{language}_ipa.txt", bytes=6, sha256="a" * 64),
            source_sha256=None,
            lines=3,
            characters=3,
            threshold=0,
            documents=1,
            rejected_documents=0,
            rejected_share=0,
            steps=(),
            removed=(),
        )
        for language in languages
    }
    return CorpusManifest(
        source=name,
        dataset=None,
        is_ipa=True,
        min_ipa_share=0,
        min_line_characters=0,
        off=(),
        budget_characters=None,
        languages=built,
        versions={},
    )


def test_built_corpus__is_described_by_the_manifest_that_lists_it(tmp_path: Path) -> None:
    corpora = CorpusStore(settings_in(tmp_path))
    folder = tmp_path / "artifacts" / "corpora"
    folder.mkdir(parents=True)
    for name, languages in (("first", ("kk",)), ("second", ("kk", "tr"))):
        (folder / f"{name}_manifest.json").write_text(manifest_of(name, *languages).model_dump_json())
        (folder / f"{name}_tr_ipa.txt").write_text("a\nb\nc\n")
    found = {name: corpus_overview(corpora, f"{name}_tr_ipa") for name in ("first", "second")}
    assert {name: (one.languages, one.is_ipa, one.lines) for name, one in found.items()} == {
        "first": (("tr",), True, 3),  # by its name
        "second": (("tr",), True, 3),
    }
