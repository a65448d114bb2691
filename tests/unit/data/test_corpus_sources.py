"""Sources of IPA corpora: folders of local text, and the calls that stream data sets of the hub."""

import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.libraries import stand_ins
from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.data.corpus_sources import Source, find_source, parse_languages

DATASETS = """
calls = []

class Rows(list):
    def skip(self, n):
        return iter(self[n:])

def load_dataset(path, **options):
    calls.append((path, options))
    if options["token"] == "gone":
        raise ConnectionError("no route")
    texts = [] if options["token"] == "no access" else ["a", "b", "c"]
    is_oscar = options["data_files"] is not None
    return Rows({"text": '{"content": "%s", "metadata": {}}' % text if is_oscar else text} for text in texts)
"""


def read(source: str, *languages: str, token: str | None = None) -> list[str]:
    return list(find_source(source, languages, None if token is None else SecretStr(token)).read(languages[0], 0))


@pytest.fixture(name="folder")
def folder_fixture(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "kk.txt").write_text("\ufeffbir\r\neki\n\n\nüş\n", encoding="utf-8")
    (folder / "tr.txt").write_text("".join(f"{n}\n" for n in range(250)) + "last", encoding="utf-8")
    return folder


def test_document__of_a_folder_ends_at_a_blank_line_or_after_100_lines(folder: Path) -> None:
    source = find_source(str(folder), ("kk", "tr"), None)
    assert (source.name, source.dataset, set(source.sha256)) == ("texts", None, {"kk", "tr"})
    assert list(source.read("kk", 0)) == ["bir\neki\n", "", "üş"]
    documents = list(source.read("tr", 0))
    assert [document.count("\n") + 1 for document in documents] == [100, 100, 51]
    assert "\n".join(documents).split("\n") == [*map(str, range(250)), "last"]


def test_documents__that_have_been_read_are_skipped(folder: Path) -> None:
    source = find_source(str(folder), ("kk",), None)
    for skipped in range(4):
        assert list(source.read("kk", skipped)) == ["bir\neki\n", "", "üş"][skipped:]
    (folder / "az.txt").write_text("bir\n\n", encoding="utf-8")
    assert read(str(folder), "az") == ["bir\n"]


def test_folder__without_a_readable_text_per_language_is_refused(folder: Path) -> None:
    (folder / "kk.txt").write_bytes(b"ab\n\xff")
    with refused(ErrorCode.INVALID_INPUT, "'kk.txt' is not UTF-8: byte 3 cannot be decoded."):
        read(str(folder), "kk")
    with refused(ErrorCode.DATA_NOT_FOUND, "'texts' has no uz.txt, az.txt: "):  # without its path
        read(str(folder), "kk", "uz", "az")


def test_unknown_source_and_language__are_refused_with_the_known_ones() -> None:
    known = "one of wikitext-2, oscar, culturax, or a folder of texts, you gave 'wikitext-3'"
    with refused(ErrorCode.INVALID_INPUT, known):
        read("wikitext-3", "kk")
    assert parse_languages("kk, tr,kk") == ("kk", "tr")
    for wrong in ("kk,xx", "", "kk,"):
        with refused(ErrorCode.INVALID_INPUT, "`languages` must be of tr, az, kk, ky, uz, ug, fi, you gave"):
            parse_languages(wrong)


@pytest.mark.parametrize(
    ("name", "path", "config", "files"),
    [
        ("culturax", "uonlp/CulturaX", "kk", None),
        ("oscar", "text", None, "hf://datasets/oscar-corpus/OSCAR-2301/kk_meta/*.jsonl.zst"),
    ],
)
def test_data_set__is_streamed_with_the_token_of_the_settings(
    name: str, path: str, config: str | None, files: str | None, tmp_path: Path
) -> None:
    with stand_ins(tmp_path, {"datasets.py": DATASETS}):
        source: Source = find_source(name, ("kk",), SecretStr("hf_x"))
        found = [list(source.read("kk", skipped)) for skipped in range(4)]
        calls: list[tuple[str, dict[str, object]]] = sys.modules["datasets"].calls
    assert found == [["a", "b", "c"], ["b", "c"], ["c"], []]
    expected = {"name": config, "data_files": files, "split": "train", "streaming": True, "token": "hf_x"}
    assert calls == [(path, expected)] * 4
    assert "hf_x" not in repr(source)


ACCESS = "an account that has accepted the terms of oscar-corpus/OSCAR-2301 on the hub, then run the same command"
MISSING: list[tuple[str, str | None, str]] = [
    ("culturax", "gone", "because the hub cannot be reached: run the same command again where there is a network, or"),
    ("oscar", "no access", f"check that HF_TOKEN belongs to {ACCESS}"),
    ("oscar", None, f"set HF_TOKEN to the token of {ACCESS}"),
]


@pytest.mark.parametrize(("source", "token", "said"), MISSING)
def test_hub_out_of_reach__is_an_error_with_a_remedy(source: str, token: str | None, said: str, tmp_path: Path) -> None:
    library = DATASETS.replace('== "no access"', 'in ("no access", None)')
    with stand_ins(tmp_path, {"datasets.py": library}), refused(ErrorCode.SERVICE_UNAVAILABLE, said):
        read(source, "kk", token=token)


def test_missing_library__is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with refused(ErrorCode.UNSUPPORTED_BACKEND, "`python scripts/setup.py --extra corpora`, or build from texts of"):
        read("oscar", "kk")
