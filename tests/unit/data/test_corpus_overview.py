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


def test_folder_with_a_dot__keeps_the_note_of_version_0_1_0_unless_it_is_of_another_corpus(tmp_path: Path) -> None:
    corpora, texts = CorpusStore(settings_in(tmp_path)), tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("a\nb\n", encoding="utf-8")
    assert corpora.add("poems.v1", texts, language="kk")
    (corpora.stored / "poems.v1.json").rename(corpora.stored / "poems.json")
    assert corpus_overview(corpora, "poems.v1").languages == ("kk",)
    assert corpora.add("poems", texts / "a.txt", language="tr")
    assert corpus_overview(corpora, "poems.v1").languages == ()
