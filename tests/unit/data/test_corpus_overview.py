"""What lists say of a corpus."""

from pathlib import Path

from tests.support import settings_in
from tests.support.cross_language import built_manifest
from trainer.data.corpora import CorpusStore
from trainer.data.corpus_overview import corpus_overview


def test_built_corpus__is_described_by_the_manifest_that_lists_it(tmp_path: Path) -> None:
    corpora = CorpusStore(settings_in(tmp_path))
    folder = tmp_path / "artifacts" / "corpora"
    folder.mkdir(parents=True)
    text = "a\nb\nc\n"
    for name, languages in (("first", ("kk",)), ("second", ("kk", "tr"))):
        (folder / f"{name}_manifest.json").write_text(built_manifest(name, text, *languages).model_dump_json())
        (folder / f"{name}_tr_ipa.txt").write_text(text)
    found = {name: corpus_overview(corpora, f"{name}_tr_ipa") for name in ("first", "second")}
    assert {name: (one.languages, one.is_ipa, one.lines) for name, one in found.items()} == {
        "first": (("tr",), True, 3),  # by its name
        "second": (("tr",), True, 3),
    }
