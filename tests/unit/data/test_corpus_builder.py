"""Builds of IPA corpora: equal sizes, accounts of every line, and builds that are interrupted."""

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings, strategies
from hypothesis.strategies import SearchStrategy

from tests.support.cleanups import contents
from tests.support.properties import for_all_pairs
from tests.support.refusals import refused
from trainer.contracts.base import changed
from trainer.contracts.corpora import BuildProgress, CorpusManifest
from trainer.contracts.errors import ErrorCode
from trainer.data.corpus_builder import BuildOptions, Reporting, Tools, build_ipa_corpora
from trainer.data.corpus_sources import Source
from trainer.system.files import try_lock

Documents = Mapping[str, list[str]]
AS_IT_IS = Tools(identify=None, load_ipa=None, load_second_ipa=None, versions={})
ALL = BuildOptions(thresholds={"kk": 0.0, "tr": 0.0})


def line(language: str, number: int, length: int = 40) -> str:
    """A line that cleaning does not change."""
    random = Random(f"{language} {number}")
    return "".join(random.choice("bdlmn") for _ in range(length))


DOCUMENTS: Documents = {
    "kk": ["\n".join(line("kk", 3 * n + k) for k in range(3)) for n in range(20)],
    "tr": ["\n".join(line("tr", 2 * n + k, 33) for k in range(2)) for n in range(40)],
}


def source_of(documents: Documents, fails_at: tuple[str, int] | None = None) -> Source:
    """Return documents that can be read from any number on; reading stops with an error before one of them."""

    def read(language: str, skipped: int) -> Iterator[str]:
        for number, document in enumerate(documents[language][skipped:], skipped):
            if (language, number) == fails_at:
                raise ConnectionError
            yield document

    hashes = {language: sha256(repr(texts).encode()).hexdigest() for language, texts in documents.items()}
    return Source("made", None, hashes, read)


def build(
    source: Source,
    folder: Path,
    options: BuildOptions = ALL,
    tools: Tools = AS_IT_IS,
    seen: list[BuildProgress] | None = None,
    every_documents: int = 10,
) -> CorpusManifest:
    report = list[BuildProgress]().append if seen is None else seen.append
    return build_ipa_corpora(source, options, tools, folder, Reporting(report, every_documents))


def test_corpora__have_equal_sizes_within_a_line_and_end_at_a_line(tmp_path: Path) -> None:
    manifest = build(source_of(DOCUMENTS), tmp_path)
    assert manifest.budget_characters == 60 * 41 == 2460, "Kazakh is the smallest: Turkish has 80 lines of 33"
    turkish = "".join(f"{line('tr', n, 33)}\n" for n in range(2460 // 34))
    assert (tmp_path / "made_tr_ipa.txt").read_text() == turkish
    assert (tmp_path / "made_kk_ipa.txt").read_text() == "".join(f"{line('kk', n)}\n" for n in range(60))
    assert (manifest.languages["tr"].lines, manifest.languages["tr"].characters) == (72, 72 * 34)
    assert sorted(contents(tmp_path)) == ["made_kk_ipa.txt", "made_manifest.json", "made_tr_ipa.txt"]


def test_size__is_the_limit_or_all_lines_without_the_cut(tmp_path: Path) -> None:
    limited = build(source_of(DOCUMENTS), tmp_path / "limited", changed(ALL, max_characters=500))
    assert limited.budget_characters == 500
    assert {name: built.characters for name, built in limited.languages.items()} == {"kk": 12 * 41, "tr": 14 * 34}
    assert limited.languages["kk"].documents == 5, "15 lines of 41 characters reach 500"
    uncut = build(source_of(DOCUMENTS), tmp_path / "uncut", changed(ALL, off=("cut",)))
    assert (uncut.off, uncut.budget_characters) == (("cut",), None)
    assert {name: built.characters for name, built in uncut.languages.items()} == {"kk": 60 * 41, "tr": 80 * 34}
    assert [built.removed for built in uncut.languages.values()] == [(), ()]


LINES = strategies.sampled_from(["", " ", "b" * 40, "d" * 31, "short", "b" * 30 + "\u201c" * 9, "ɑ, 1 " * 9])
TEXTS = strategies.lists(strategies.lists(LINES, max_size=5).map("\n".join), max_size=9)
LIMITS: SearchStrategy[int | None] = strategies.none() | strategies.integers(40, 200)


@settings(max_examples=20)  # each waits for the disk
@for_all_pairs(strategies.tuples(TEXTS, TEXTS), LIMITS)
def test_manifest__accounts_for_every_line_and_character(texts: tuple[list[str], list[str]], limit: int | None) -> None:
    documents = {language: ["l" * 35, *of_it] for language, of_it in zip(("kk", "tr"), texts, strict=True)}
    with TemporaryDirectory() as folder:
        manifest = build(source_of(documents), Path(folder), changed(ALL, max_characters=limit))
        written = {name: (Path(folder) / built.file.path).read_bytes() for name, built in manifest.languages.items()}
    sizes = [built.characters for built in manifest.languages.values()]
    assert manifest.budget_characters is not None and max(sizes) <= manifest.budget_characters
    for language, built in manifest.languages.items():
        data = written[language]
        read = documents[language][: built.documents]
        assert (built.file.bytes, built.file.sha256) == (len(data), sha256(data).hexdigest())
        assert (built.lines, built.characters) == (data.count(b"\n"), len(data.decode()))
        first, last = built.steps[0], built.steps[-1]
        assert first.lines_in == sum(text.count("\n") + 1 for text in read)
        assert first.characters_in == sum(len(text) + 1 for text in read)
        assert (last.lines_out, last.characters_out) == (built.lines, built.characters)
        for before, after in pairwise(built.steps):
            assert (before.lines_out, before.characters_out) == (after.lines_in, after.characters_in)
            assert after.lines_out <= after.lines_in


def identify(text: str) -> tuple[str, float]:
    """Read language and probability from the last line: `# kk 0.8`."""
    _, language, probability = text.rsplit("\n", 1)[-1].split()
    return language, float(probability)


def test_document__is_rejected_below_the_threshold_of_its_language(tmp_path: Path) -> None:
    shares = ["kk 0.9", "kk 0.89", "tr 0.95", "kk 1.0"]
    documents = {
        "kk": [f"{line('kk', n)}\n# {share}" for n, share in enumerate(shares)],
        "tr": [f"{line('tr', n)}\n# tr 0.1" for n in range(4)],
    }
    tools = AS_IT_IS._replace(identify=identify)
    manifest = build(source_of(documents), tmp_path, BuildOptions(thresholds={"kk": 0.9, "tr": 0.0}), tools)
    kk, tr = manifest.languages["kk"], manifest.languages["tr"]
    assert (kk.documents, kk.rejected_documents, kk.rejected_share, kk.threshold) == (4, 2, 0.5, 0.9)
    assert (tr.rejected_documents, tr.lines) == (0, 2), "without a threshold all are accepted"
    assert (tmp_path / "made_kk_ipa.txt").read_text() == f"{line('kk', 0)}\n{line('kk', 3)}\n"


def test_text__is_converted_by_line_and_compared_by_word(tmp_path: Path) -> None:
    def load_ipa(language: str) -> Callable[[str], str]:
        return lambda text: text.replace("l", "d" if language == "kk" else "b")

    tools = Tools(None, load_ipa, lambda language: str, {"converter": "1"})
    manifest = build(source_of({"kk": ["n" * 30 + "l"], "tr": ["n" * 30 + "l m"]}), tmp_path, tools=tools)
    assert (tmp_path / "made_kk_ipa.txt").read_text() == "n" * 30 + "d\n"
    assert (manifest.is_ipa, manifest.versions) == (False, {"converter": "1"})
    check = manifest.languages["tr"].ipa_check
    assert check is not None
    assert (check.words, check.differing_words) == (2, 1)
    assert [(each.turkic_translit, each.epitran, each.count) for each in check.differences] == [("b", "l", 1)]


@pytest.mark.parametrize("fails_at", [("kk", 2), ("kk", 10), ("tr", 39)])
def test_interrupted_build__continues_to_the_same_files(fails_at: tuple[str, int], tmp_path: Path) -> None:
    repeated = {language: [*texts, *texts[:7]] for language, texts in DOCUMENTS.items()}
    tools = Tools(None, lambda language: str, lambda language: str.upper, {})
    build(source_of(repeated), tmp_path / "at once", tools=tools)
    with pytest.raises(ConnectionError):
        build(source_of(repeated, fails_at), tmp_path / "twice", tools=tools)
    seen: list[BuildProgress] = []
    build(source_of(repeated), tmp_path / "twice", tools=tools, seen=seen)
    assert contents(tmp_path / "twice") == contents(tmp_path / "at once")
    language, number = fails_at
    firsts = [each.documents for each in seen if each.language == language]
    assert firsts[0] == 10 * (number // 10) + 10, "documents before the last stored state are not read again"
    assert language == "kk" or all(each.language == "tr" for each in seen)


def test_stored_state__of_other_options_or_damaged_is_not_used(tmp_path: Path) -> None:
    tools = AS_IT_IS._replace(identify=lambda text: ("kk", 0.5))
    source = source_of(DOCUMENTS, ("tr", 5))
    with pytest.raises(ConnectionError):
        build(source, tmp_path, BuildOptions(thresholds={"kk": 0.4, "tr": 0.0}), tools)
    with refused(ErrorCode.CORPUS_EMPTY, "Nothing is left of 'kk': its documents were rejected"):
        build(source, tmp_path, BuildOptions(thresholds={"kk": 0.6, "tr": 0.0}), tools)
    with pytest.raises(ConnectionError):
        build(source, tmp_path)
    (tmp_path / ".made_build" / "kk.json").write_text("{}")
    assert build(source_of(DOCUMENTS), tmp_path).languages["kk"].lines == 60


def test_progress__is_reported_every_n_documents_and_at_the_end(tmp_path: Path) -> None:
    seen: list[BuildProgress] = []
    build(source_of(DOCUMENTS), tmp_path, seen=seen, every_documents=8)
    assert [each.documents for each in seen] == [8, 16, 20, 8, 16, 24, 32, 40, 40]
    assert [each.language for each in seen] == ["kk"] * 3 + ["tr"] * 6
    assert (seen[0].rejected_documents, seen[0].lines, seen[0].characters) == (0, 24, 24 * 41)


REJECTED = "its documents were rejected. Check their language, or lower the threshold of kk"
DROPPED = "its lines were dropped. They need at least 30 characters of its own in IPA"


@pytest.mark.parametrize(("text", "sentence"), [(line("kk", 1), REJECTED), ("short", DROPPED)])
def test_nothing_left__is_an_error_with_the_reason(text: str, sentence: str, tmp_path: Path) -> None:
    tools = AS_IT_IS._replace(identify=lambda document: ("kk", 1.0 if document == "short" else 0.1))
    with refused(ErrorCode.CORPUS_EMPTY, f"Nothing is left of 'kk': {sentence}."):
        build(source_of({"kk": [text]}), tmp_path, BuildOptions(thresholds={"kk": 0.5}), tools)


def test_second_build_at_the_same_time__is_refused(tmp_path: Path) -> None:
    (tmp_path / ".made_build").mkdir()
    lock = try_lock(tmp_path / ".made_build" / "lock")
    assert lock is not None
    with lock, refused(ErrorCode.CONFLICT, "Another build of 'made' is running"):
        build(source_of(DOCUMENTS), tmp_path)
